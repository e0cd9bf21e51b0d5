//! `route`: time until a change of a Function's hosts or paths is effective, with ten thousand Functions.
//!
//! Measured from the API server's response to the write until the activator's first response by the new host or path. No
//! Function has a pod: each allows one method only, and a request with another method is rejected by the route, without a
//! wake. So the rejection shows that the route exists.

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
/// Concurrent writes while the Functions are created.
const WRITERS: usize = 32;
/// A host that all Functions share, each with a path.
const SHARED: &str = "shared.example.org";
/// Longest time of a change, in milliseconds.
const MAX_MS: f64 = 50.0;
/// Distance between two changed Functions: a prime, so that none is changed twice.
const STRIDE: usize = 7919;
/// Timeout of a change.
const LIMIT: Duration = Duration::from_secs(20);

pub(super) async fn run(loopback: &Loopback, figures: &mut Figures) -> Result<()> {
    let empty = loopback.activator(&[]).await?.daemon.memory()?;
    let created = (0..FUNCTIONS).map(|n| async move { loopback.bare_function(&name(n), spec(n, 0)).await });
    futures::stream::iter(created).buffer_unordered(WRITERS).try_collect::<()>().await?;
    let started = Instant::now();
    let mut activator = loopback.activator(&[]).await?;
    figures.note("route.start_s", started.elapsed().as_secs_f64(), "s");
    let full = activator.daemon.memory()?;
    let http_client = HttpClient::new(activator.public);
    for n in [0, FUNCTIONS - 1] {
        ensure!(is_routed(&http_client, &host(n, 0), "/").await?, "{} is not routed", host(n, 0));
    }
    let (mut hosts, mut paths, mut failures) = (vec![], vec![], 0);
    for change in 1..=CHANGES {
        let n = change * STRIDE % FUNCTIONS;
        loopback.change(&name(n), json!({"spec": {"hosts": [host(n, change)]}})).await?;
        let written = Instant::now();
        note(until_routed(&http_client, &host(n, change), "/", written).await?, &mut hosts, &mut failures);
        // The old host is removed by the same change.
        ensure!(!is_routed(&http_client, &host(n, 0), "/").await?, "{} is still routed", host(n, 0));

        loopback.change(&name(n), json!({"spec": {"routes": routes(n, change)}})).await?;
        let written = Instant::now();
        note(until_routed(&http_client, SHARED, &path(n, change), written).await?, &mut paths, &mut failures);
        activator.daemon.check_alive()?;
    }
    figures.percentiles("route.change_ms", &hosts, &[50, 99, 100]);
    figures.limit("route.change_ms.p99", MAX_MS);
    figures.percentiles("route.shared_change_ms", &paths, &[50, 99, 100]);
    figures.limit("route.shared_change_ms.p99", MAX_MS);
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

/// Returns the time from the write until a host and a path are routed; `None` after [`LIMIT`].
async fn until_routed(http_client: &HttpClient, host: &str, path: &str, written: Instant) -> Result<Option<Duration>> {
    while written.elapsed() < LIMIT {
        if is_routed(http_client, host, path).await? {
            return Ok(Some(written.elapsed()));
        }
    }
    Ok(None)
}

/// Returns whether a host and a path are routed to a Function.
async fn is_routed(http_client: &HttpClient, host: &str, path: &str) -> Result<bool> {
    let response = http_client.send(Method::DELETE, host, path, Bytes::new()).await.context("the activator")?;
    match response.status {
        StatusCode::METHOD_NOT_ALLOWED => Ok(true),
        StatusCode::NOT_FOUND => Ok(false),
        other => anyhow::bail!("{host}{path} responded with {other}: {}", response.text()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_function_is_changed_twice() {
        let changed: std::collections::BTreeSet<_> = (1..=CHANGES).map(|change| change * STRIDE % FUNCTIONS).collect();
        assert_eq!(changed.len(), CHANGES);
    }

    #[test]
    fn the_spec_is_valid() {
        let mut spec = spec(7, 3);
        spec["image"] = json!("x");
        let spec: rouse_crds::FunctionSpec = serde_json::from_value(spec).unwrap();
        assert_eq!(spec.routes.unwrap()[1].path(), "/f7/v3");
    }
}
