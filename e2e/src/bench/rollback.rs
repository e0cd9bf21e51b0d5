//! `rollback`: how long it takes until an older revision that is named in `spec.traffic` has all requests.
//!
//! The whole way is the one of a cluster: the operator sees the change and writes the shares, the activator sees the shares
//! and sends requests elsewhere. Both run as they do in their images. The clock starts with the API server's own watch event of
//! the change, as a third watch beside theirs gets it, and ends with the first response of a pod of the revision.

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
/// There and back again, each a change of its own.
const CHANGES: usize = 400;
/// Idle Functions beside it.
const OTHERS: usize = 500;
/// Writes at once while they are made.
const WRITERS: usize = 16;
/// What a change may take from its watch event on, in milliseconds.
const BAR: f64 = 50.0;
/// A change that takes longer is a failure.
const LIMIT: Duration = Duration::from_secs(20);
/// From one request to the next: as exact as what is measured.
const BETWEEN: Duration = Duration::from_millis(1);
/// A generous limit for what comes before.
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
        wait_for(&format!("the operator to make {revision}"), TIMEOUT, async || {
            operator.alive()?;
            loopback.has_deployment(revision).await
        })
        .await?;
        loopback.pod_of(NAME, number, pod(revision, &mut pods).await?).await?;
        loopback.one_pod_ready(revision).await?;
        wait_for(&format!("{revision} to have all requests"), TIMEOUT, async || {
            let traffic = functions.get(NAME).await?.status.unwrap_or_default().traffic;
            Ok(traffic.len() == 1 && traffic[0].revision == *revision)
        })
        .await?;
    }

    let (http_client, host) = (HttpClient::new(activator.public), loopback.host(NAME));
    let (of_event, of_write, mut failures) = (&mut vec![], &mut vec![], 0);
    let (sender, mut events) = watch::channel((0, Instant::now()));
    let watching = follow(functions.clone(), sender);
    let changes = async {
        for change in 0..CHANGES {
            let revision = &revisions[change % 2];
            let traffic = json!([{"revision": revision, "percent": 100}]);
            let generation = loopback.change(NAME, json!({"spec": {"traffic": traffic}})).await?;
            let written = Instant::now();
            let Some(effective) = answered_by(&http_client, &host, revision).await? else {
                failures += 1;
                continue;
            };
            let seen = timeout(LIMIT, events.wait_for(|(seen, _)| *seen >= generation)).await.context("no event")??.1;
            // An event that came after the effect has held up nothing.
            of_event.push(effective.saturating_duration_since(seen));
            of_write.push(effective.saturating_duration_since(written));
            operator.alive()?;
            activator.daemon.alive()?;
        }
        anyhow::Ok(())
    };
    tokio::select! {
        done = changes => done?,
        ended = watching => ended.context("the watch of the benchmark")?,
    }
    ensure!(of_event.len() + failures as usize == CHANGES, "{} changes were measured", of_event.len());
    figures.percentiles("rollback.after_event_ms", of_event, &[50, 99, 100]);
    figures.limit("rollback.after_event_ms.p99", BAR);
    figures.percentiles("rollback.after_answer_ms", of_write, &[50, 99, 100]);
    figures.bar("rollback.failures", f64::from(failures), "changes", 0.0);
    drop((activator, operator));
    loopback.clear().await
}

/// Tells the generation of the Function and when the API server's watch said so. Ends only with an error.
async fn follow(functions: Api<Function>, events: watch::Sender<(i64, Instant)>) -> Result<()> {
    let params = WatchParams::default().fields(&format!("metadata.name={NAME}"));
    let version = functions.get(NAME).await?.resource_version().unwrap_or_default();
    let mut stream = functions.watch(&params, &version).await?.boxed();
    while let Some(event) = stream.try_next().await? {
        if let WatchEvent::Modified(function) = event {
            let (generation, now) = (function.metadata.generation.unwrap_or_default(), Instant::now());
            // The first event of a generation is that of the spec; what follows are statuses.
            events.send_if_modified(|last| {
                let newer = generation > last.0;
                if newer {
                    *last = (generation, now);
                }
                newer
            });
        }
    }
    anyhow::bail!("the watch has ended")
}

/// When a pod of this revision was the first to response; nothing if none does within [`LIMIT`].
async fn answered_by(http_client: &HttpClient, host: &str, revision: &str) -> Result<Option<Instant>> {
    let started = Instant::now();
    while started.elapsed() < LIMIT {
        let response = http_client.get(host, "/").await.context("the activator")?;
        ensure!(response.status.is_success(), "{} {}", response.status, response.text());
        if response.text() == revision {
            return Ok(Some(Instant::now()));
        }
        // Not in a closed loop, which would take the processor from those that are waited for.
        sleep(BETWEEN).await;
    }
    Ok(None)
}

/// A server on loopback that responses everything with `text`, for as long as `pods` lives.
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

/// Answers each request head; none of those that come here has a body. An error is the client's end.
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
    async fn a_pod_answers_each_request_with_its_revision() {
        let mut pods = JoinSet::new();
        let http_client = HttpClient::new(pod("rolled-00001", &mut pods).await.unwrap());
        for _ in 0..3 {
            assert_eq!(http_client.get("any", "/").await.unwrap().text(), "rolled-00001");
        }
        let found = answered_by(&http_client, "any", "rolled-00001").await.unwrap();
        assert!(found.is_some());
    }
}
