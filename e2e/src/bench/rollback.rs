//! `rollback`: time until an older revision in `spec.traffic` receives all requests.
//!
//! The path is that of a cluster: the operator observes the change and writes `status.traffic`, and the activator observes
//! that and forwards requests to the other revision. Both run the programs of their images. Measured from the watch event of
//! the change, in a watch of the benchmark, until the first response of a pod of the revision.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use futures::{StreamExt as _, TryStreamExt as _};
use kube::{
    Api, ResourceExt as _,
    api::{WatchEvent, WatchParams},
};
use rouse_crds::{Function, names::revision_name};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use super::{Figures, loopback::Loopback};
use crate::{http_client::HttpClient, process::wait_for};

const NAME: &str = "rolled";
/// Number of changes, alternating between two revisions.
const CHANGES: usize = 400;
/// Other, idle Functions.
const OTHERS: usize = 500;
/// Concurrent writes while they are created.
const WRITERS: usize = 16;
/// Longest time from the watch event, in milliseconds.
const MAX_MS: f64 = 50.0;
/// Timeout of a change.
const LIMIT: Duration = Duration::from_secs(20);
/// Interval of requests: the resolution of the measurement.
const REQUEST_INTERVAL: Duration = Duration::from_millis(1);
/// Timeout of the setup.
const TIMEOUT: Duration = Duration::from_secs(120);

pub(super) async fn run(loopback: &Loopback, figures: &mut Figures) -> Result<()> {
    let others = (0..OTHERS)
        .map(|n| async move { loopback.bare_function(&format!("idle-{n}"), json!({"scaling": {"initial": 0}})).await });
    futures::stream::iter(others).buffer_unordered(WRITERS).try_collect::<()>().await?;
    let mut operator = loopback.operator().await?;
    let mut activator = loopback.activator(&[]).await?;
    let functions = loopback.functions();
    let revisions = [revision_name(NAME, 1), revision_name(NAME, 2)];
    let mut pods = JoinSet::new();
    loopback.bare_function(NAME, json!({"scaling": {"min": 1}})).await?;
    for (number, revision) in (1..).zip(&revisions) {
        if number > 1 {
            loopback.change(NAME, json!({"spec": {"image": format!("example.com/function:{number}")}})).await?;
        }
        wait_for(&format!("creation of {revision}"), TIMEOUT, async || {
            operator.check_alive()?;
            loopback.has_deployment(revision).await
        })
        .await?;
        loopback.pod_of(NAME, number, pod(revision, &mut pods).await?).await?;
        loopback.one_pod_ready(revision).await?;
        wait_for(&format!("all traffic at {revision}"), TIMEOUT, async || {
            let traffic = functions.get(NAME).await?.status.unwrap_or_default().traffic;
            Ok(traffic.len() == 1 && traffic[0].revision == *revision)
        })
        .await?;
    }

    let (http_client, host) = (HttpClient::new(activator.public), loopback.host(NAME));
    let (after_event, after_write, mut failures) = (&mut vec![], &mut vec![], 0);
    let (sender, mut events) = watch::channel((0, Instant::now()));
    let watching = follow(functions.clone(), sender);
    let changes = async {
        for change in 0..CHANGES {
            let revision = &revisions[change % 2];
            let traffic = json!([{"revision": revision, "percent": 100}]);
            let generation = loopback.change(NAME, json!({"spec": {"traffic": traffic}})).await?;
            let written = Instant::now();
            let Some(effective) = until_responds(&http_client, &host, revision).await? else {
                failures += 1;
                continue;
            };
            let seen = timeout(LIMIT, events.wait_for(|(seen, _)| *seen >= generation)).await.context("no event")??.1;
            // Zero if the event arrived after the first response.
            after_event.push(effective.saturating_duration_since(seen));
            after_write.push(effective.saturating_duration_since(written));
            operator.check_alive()?;
            activator.daemon.check_alive()?;
        }
        anyhow::Ok(())
    };
    tokio::select! {
        done = changes => done?,
        ended = watching => ended.context("the watch of the benchmark")?,
    }
    ensure!(after_event.len() + failures as usize == CHANGES, "{} changes were measured", after_event.len());
    figures.percentiles("rollback.after_event_ms", after_event, &[50, 99, 100]);
    figures.limit("rollback.after_event_ms.p99", MAX_MS);
    figures.percentiles("rollback.after_answer_ms", after_write, &[50, 99, 100]);
    figures.bar("rollback.failures", f64::from(failures), "changes", 0.0);
    drop((activator, operator));
    loopback.clear().await
}

/// Sends the generation of the Function and the time of its watch event. Returns only with an error.
async fn follow(functions: Api<Function>, events: watch::Sender<(i64, Instant)>) -> Result<()> {
    let params = WatchParams::default().fields(&format!("metadata.name={NAME}"));
    let version = functions.get(NAME).await?.resource_version().unwrap_or_default();
    let mut stream = functions.watch(&params, &version).await?.boxed();
    while let Some(event) = stream.try_next().await? {
        if let WatchEvent::Modified(function) = event {
            let (generation, now) = (function.metadata.generation.unwrap_or_default(), Instant::now());
            // The first event of a generation is the change of the spec; later ones are status updates.
            events.send_if_modified(|last| {
                let newer = generation > last.0;
                if newer {
                    *last = (generation, now);
                }
                newer
            });
        }
    }
    anyhow::bail!("the watch ended")
}

/// Returns the time of the first response of a pod of this revision; `None` after [`LIMIT`].
async fn until_responds(http_client: &HttpClient, host: &str, revision: &str) -> Result<Option<Instant>> {
    let started = Instant::now();
    while started.elapsed() < LIMIT {
        let response = http_client.get(host, "/").await.context("the activator")?;
        ensure!(response.status.is_success(), "{} {}", response.status, response.text());
        if response.text() == revision {
            return Ok(Some(Instant::now()));
        }
        // Pauses, since a closed loop would take CPU from the operator and the activator.
        sleep(REQUEST_INTERVAL).await;
    }
    Ok(None)
}

/// Starts a server on loopback that responds to every request with `text`, until `pods` is dropped.
async fn pod(text: &str, pods: &mut JoinSet<()>) -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let response = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len());
    pods.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((connection, _)) = listener.accept().await {
            connections.spawn(serve(connection, response.clone()));
        }
    });
    Ok(address)
}

/// Responds to each request; requests must have no body. Returns an error when the client disconnects.
async fn serve(mut connection: TcpStream, response: String) -> std::io::Result<()> {
    let (mut heads, mut buffer) = (vec![], [0; 4096]);
    loop {
        let read = connection.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        heads.extend_from_slice(&buffer[..read]);
        while let Some(end) = heads.windows(4).position(|four| four == b"\r\n\r\n") {
            heads.drain(..end + 4);
            connection.write_all(response.as_bytes()).await?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_pod_responds_to_each_request_with_its_revision() {
        let mut pods = JoinSet::new();
        let http_client = HttpClient::new(pod("rolled-00001", &mut pods).await.unwrap());
        for _ in 0..3 {
            assert_eq!(http_client.get("any", "/").await.unwrap().text(), "rolled-00001");
        }
        let found = until_responds(&http_client, "any", "rolled-00001").await.unwrap();
        assert!(found.is_some());
    }
}
