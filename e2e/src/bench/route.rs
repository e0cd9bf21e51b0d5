//! `route`: how long it takes until a change of a Function's hosts or paths is in force, among ten thousand Functions.
//!
//! The clock runs from the API server's response to the write to the activator's first response by the new host or path. No
//! function has a pod: each lets in one method only, and a request with another one is refused by the route itself, at once and
//! without a wake, so the refusal tells that the route is there.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Figures, loopback::Loopback};
use crate::http_client::HttpClient;

const FUNCTIONS: usize = 10_000;
const CHANGES: usize = 500;
/// Writes at once while the Functions are made.
const WRITERS: usize = 32;
/// A host that all share, each by a path.
const SHARED: &str = "shared.example.org";
/// What a change may take, in milliseconds.
const BAR: f64 = 50.0;
/// From one changed Function to the next: a prime, so that they lie far apart and none comes twice.
const STRIDE: usize = 7919;
/// A change that takes longer is a failure.
const LIMIT: Duration = Duration::from_secs(20);

pub(super) async fn run(loopback: &Loopback, figures: &mut Figures) -> Result<()> {
    let empty = loopback.activator(&[]).await?.daemon.memory()?;
    let made = (0..FUNCTIONS).map(|n| async move { loopback.bare_function(&name(n), spec(n, 0)).await });
    futures::stream::iter(made).buffer_unordered(WRITERS).try_collect::<()>().await?;
    let started = Instant::now();
    let mut activator = loopback.activator(&[]).await?;
    figures.note("route.start_s", started.elapsed().as_secs_f64(), "s");
    let full = activator.daemon.memory()?;
    let http_client = HttpClient::new(activator.public);
    for n in [0, FUNCTIONS - 1] {
        ensure!(leads(&http_client, &host(n, 0), "/").await?, "{} is not led anywhere", host(n, 0));
    }
    let (mut hosts, mut paths, mut failures) = (vec![], vec![], 0);
    for change in 1..=CHANGES {
        let n = change * STRIDE % FUNCTIONS;
        loopback.change(&name(n), json!({"spec": {"hosts": [host(n, change)]}})).await?;
        let written = Instant::now();
        note(in_force(&http_client, &host(n, change), "/", written).await?, &mut hosts, &mut failures);
        // What was given up is gone with the same change.
        ensure!(!leads(&http_client, &host(n, 0), "/").await?, "{} is still led to a function", host(n, 0));

        loopback.change(&name(n), json!({"spec": {"routes": routes(n, change)}})).await?;
        let written = Instant::now();
        note(in_force(&http_client, SHARED, &path(n, change), written).await?, &mut paths, &mut failures);
        activator.daemon.alive()?;
    }
    figures.percentiles("route.change_ms", &hosts, &[50, 99, 100]);
    figures.limit("route.change_ms.p99", BAR);
    figures.percentiles("route.shared_change_ms", &paths, &[50, 99, 100]);
    figures.limit("route.shared_change_ms.p99", BAR);
    figures.bar("route.failures", f64::from(failures), "changes", 0.0);
    let mib = |kib: u64| kib as f64 / 1024.0;
    figures.note("route.activator_mib", mib(full.rss), "MiB");
    let grown = full.anonymous.saturating_sub(empty.anonymous);
    figures.note("route.kib_per_function", grown as f64 / FUNCTIONS as f64, "KiB");
    drop(activator);
    loopback.clear().await
}

fn name(n: usize) -> String {
    format!("route-{n}")
}

fn host(n: usize, version: usize) -> String {
    format!("v{version}-{n}.example.org")
}

fn path(n: usize, version: usize) -> String {
    format!("/f{n}/v{version}")
}

fn spec(n: usize, version: usize) -> Value {
    json!({"hosts": [host(n, version)], "routes": routes(n, version), "scaling": {"initial": 0}})
}

fn routes(n: usize, version: usize) -> Value {
    json!([{"methods": ["GET"]}, {"host": SHARED, "path": path(n, version), "methods": ["GET"]}])
}

fn note(took: Option<Duration>, samples: &mut Vec<Duration>, failures: &mut u32) {
    match took {
        Some(took) => samples.push(took),
        None => *failures += 1,
    }
}

/// How long after the write a host and a path lead somewhere; nothing if they do not within [`LIMIT`].
async fn in_force(http_client: &HttpClient, host: &str, path: &str, written: Instant) -> Result<Option<Duration>> {
    while written.elapsed() < LIMIT {
        if leads(http_client, host, path).await? {
            return Ok(Some(written.elapsed()));
        }
    }
    Ok(None)
}

/// Whether a host and a path lead to a function.
async fn leads(http_client: &HttpClient, host: &str, path: &str) -> Result<bool> {
    let response = http_client.send(Method::DELETE, host, path, Bytes::new()).await.context("the activator")?;
    match response.status {
        StatusCode::METHOD_NOT_ALLOWED => Ok(true),
        StatusCode::NOT_FOUND => Ok(false),
        other => anyhow::bail!("{host}{path} is answered with {other}: {}", response.text()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_is_of_another_function() {
        let changed: std::collections::BTreeSet<_> = (1..=CHANGES).map(|change| change * STRIDE % FUNCTIONS).collect();
        assert_eq!(changed.len(), CHANGES);
    }

    #[test]
    fn what_is_written_is_a_function_that_can_be_read() {
        let mut spec = spec(7, 3);
        spec["image"] = json!("x");
        let spec: rouse_crds::FunctionSpec = serde_json::from_value(spec).unwrap();
        assert_eq!(spec.routes.unwrap()[1].path(), "/f7/v3");
    }
}
