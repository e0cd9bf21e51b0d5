//! `wake`: time from a request for a Function at zero to the scale patch, and from a listening pod to the request in it.
//!
//! Both are measured outside of the activator: the time of the patch is taken from the API server's audit log, and the
//! function reports how long it had been listening when the request arrived. All clocks are those of this machine. The
//! activator's `Server-Timing` is reported too. Requests are sent to the activator directly, without the ingress.

use std::{
    net::SocketAddr,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::MicroTime};
use kube::{Api, api::ListParams};
use rouse_crds::names;
use serde::Deserialize;
use serde_json::json;

use super::Figures;
use crate::{
    Cluster,
    http_client::{HttpClient, Response},
    install,
    provider::local::SCALE_LOG,
    workspace::{TIMEOUT, Workspace, until},
};

const FUNCTIONS: usize = 20;
const ROUNDS: usize = 5;
/// Long enough that no Function scales to zero while others are woken, which would affect the measurement.
const IDLE: &str = "20s";
/// Name of the activator's port for requests from the ingress.
const PORT: u16 = 8080;

/// One wake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wake {
    /// From the request to the arrival of the patch at the API server.
    patch: Duration,
    /// From the arrival of the request to the response to the patch, as reported by the activator.
    acknowledged: Duration,
    /// From the time when the pod listens to the arrival of the request in it.
    forward: Duration,
}

pub(super) async fn run(cluster: &Cluster, figures: &mut Figures) -> Result<()> {
    ensure!(
        cluster.node.is_some(),
        "the benchmark needs a route to the activator and the API server's audit log, which only the local provider has"
    );
    let log = cluster.folder.join(SCALE_LOG);
    let workspace = Workspace::new(cluster, &format!("bench-wake-{}", std::process::id())).await?;
    let functions: Vec<String> = (0..FUNCTIONS).map(|n| format!("wake-{n}")).collect();
    for name in &functions {
        workspace.apply(name, json!({"scaling": {"initial": 0, "idleTimeout": IDLE}})).await?;
    }
    for name in &functions {
        workspace.condition(name, "Ready", "True").await?;
    }
    let http_client = HttpClient::new(activator(&workspace).await?);
    known(&workspace, &http_client, &functions).await?;
    let (mut wakes, mut failures) = (vec![], 0);
    for round in 1..=ROUNDS {
        for name in &functions {
            workspace.without_pods(name).await?;
        }
        for name in &functions {
            let called = SystemTime::now();
            let response = http_client.get(&workspace.host(name), "/").await?;
            match wake(&response, called, &log, &workspace.namespace, name).await {
                Ok(wake) => wakes.push(wake),
                Err(error) => {
                    failures += 1;
                    eprintln!("    {name}: {} {}: {error:#}", response.status, response.text().trim());
                }
            }
        }
        eprintln!("    round {round} of {ROUNDS} done");
    }
    let mut note = |name: &str, of: fn(&Wake) -> Duration| {
        let samples: Vec<_> = wakes.iter().map(of).collect();
        figures.percentiles(name, &samples, &[50, 99, 100]);
    };
    note("wake.patch_ms", |w| w.patch);
    note("wake.acknowledged_ms", |w| w.acknowledged);
    note("wake.forward_ms", |w| w.forward);
    figures.limit("wake.patch_ms.p99", 5.0);
    figures.limit("wake.forward_ms.p50", 15.0);
    figures.bar("wake.failures", f64::from(failures), "requests", 0.0);
    workspace.delete_namespace().await
}

/// Returns the address of the activator's port for requests from the ingress.
async fn activator(workspace: &Workspace) -> Result<SocketAddr> {
    let pods: Api<Pod> = Api::namespaced(workspace.client.clone(), install::NAMESPACE);
    let selector = ListParams::default().labels("app.kubernetes.io/component=activator");
    let pods = pods.list(&selector).await?.items;
    let running = pods.iter().find(|pod| pod.metadata.deletion_timestamp.is_none());
    let ip = running.and_then(|pod| pod.status.as_ref()?.pod_ip.as_ref()).context("no activator is running")?;
    Ok(SocketAddr::new(ip.parse()?, PORT))
}

/// Sends requests to all Functions until each has responded, so that the activator knows them.
async fn known(workspace: &Workspace, http_client: &HttpClient, functions: &[String]) -> Result<()> {
    for name in functions {
        until(&format!("a response of {name}"), TIMEOUT, || async {
            Ok(http_client.get(&workspace.host(name), "/").await?.status.is_success().then_some(()))
        })
        .await?;
    }
    Ok(())
}

/// Combines the response and the audit log into a wake.
async fn wake(response: &Response, called: SystemTime, log: &Path, namespace: &str, name: &str) -> Result<Wake> {
    ensure!(response.status.is_success(), "no response of the function");
    ensure!(response.header("hello-request") == Some("1"), "not the first request of a pod");
    let listening =
        response.header("hello-listening-us").context("the function did not report how long it had been listening")?;
    let phase = response.phases().into_iter().find(|(name, _)| name == "wake").context("no Server-Timing")?;
    let called = micros(called)?;
    let revision = names::revision_name(name, 1);
    // The API server writes the line after the response to the patch.
    let patched = until("the patch in the API server's log", Duration::from_secs(10), || async {
        let text = std::fs::read_to_string(log).with_context(|| {
            format!("no {}: the cluster is of an earlier version, take it down first", log.display())
        })?;
        Ok(received(&text, namespace, &revision, called))
    })
    .await?;
    Ok(Wake {
        patch: Duration::from_micros(u64::try_from(patched - called)?),
        acknowledged: Duration::from_secs_f64(phase.1 / 1000.0),
        forward: Duration::from_micros(listening.parse()?),
    })
}

fn micros(time: SystemTime) -> Result<i64> {
    Ok(i64::try_from(time.duration_since(UNIX_EPOCH)?.as_micros())?)
}

/// A line of the audit log.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    request_received_timestamp: MicroTime,
    object_ref: ObjectRef,
}

#[derive(Debug, Deserialize)]
struct ObjectRef {
    namespace: String,
    name: String,
}

/// Returns the arrival time of the first scale patch of the revision since `after`; both in microseconds of Unix time.
fn received(log: &str, namespace: &str, revision: &str, after: i64) -> Option<i64> {
    let events = log.lines().filter_map(|line| serde_json::from_str::<Event>(line).ok());
    let ours = events.filter(|e| e.object_ref.namespace == namespace && e.object_ref.name == revision);
    ours.map(|e| e.request_received_timestamp.0.as_microsecond()).filter(|at| *at >= after).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_patch_since_the_call_is_found() {
        let line = |namespace: &str, second: u32| {
            json!({
                "kind": "Event", "verb": "patch", "stageTimestamp": "2026-01-01T00:00:59.000000Z",
                "requestReceivedTimestamp": format!("2026-01-01T00:00:{second:02}.000250Z"),
                "objectRef": {"resource": "deployments", "subresource": "scale", "namespace": namespace, "name": "f-00001"},
            })
            .to_string()
        };
        let log = [line("ns", 9), line("ns", 5), line("other", 4), line("ns", 1), "{\"cut".to_owned()].join("\n");
        let start = 1_767_225_600_000_000;
        assert_eq!(received(&log, "ns", "f-00001", start + 2_000_000), Some(start + 5_000_250));
        assert_eq!(received(&log, "ns", "f-00001", start + 9_000_251), None);
        assert_eq!(received(&log, "ns", "g-00001", start), None);
    }
}
