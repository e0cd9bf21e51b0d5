//! `cold`: time of a cold start from a verified zero through the ingress, and of a bare Deployment without Rouse.
//!
//! The *raw floor* is a bare Deployment of the same image: from the scale patch to the first response of the pod, requested
//! directly. Both alternate, so that other load of the machine affects both alike.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use futures::TryStreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{ListParams, Patch, PatchParams},
    runtime::{WatchStreamExt as _, watcher},
};
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

use super::Figures;
use crate::{
    Cluster,
    http_client::HttpClient,
    workspace::{TIMEOUT, Workspace, until},
};

const ROUNDS: usize = 20;
const BARE: &str = "bare";

pub(super) async fn run(cluster: &Cluster, figures: &mut Figures) -> Result<()> {
    ensure!(cluster.node.is_some(), "the raw floor needs a route to the pods, which only the local provider has");
    let workspace = Workspace::new(cluster, &format!("bench-cold-{}", std::process::id())).await?;
    workspace.ready("cold", json!({"scaling": {"initial": 0, "idleTimeout": "1s"}})).await?;
    bare_deployment(&workspace).await?;
    let (mut floor, mut ingress, mut failures) = (vec![], vec![], 0.0);
    let mut phases: Vec<(String, Vec<Duration>)> = vec![];
    for _ in 0..ROUNDS {
        floor.push(bare(&workspace).await?);
        workspace.without_pods("cold").await?;
        let response = workspace.get("cold", "/").await?;
        if response.status.is_success() && response.header("rouse-cold-start").is_some() {
            ingress.push(response.took);
        } else {
            failures += 1.0;
            eprintln!("    {} {}", response.status, response.text());
        }
        for (name, millis) in response.phases() {
            let duration = Duration::from_secs_f64(millis / 1000.0);
            match phases.iter_mut().find(|(n, _)| *n == name) {
                Some((_, all)) => all.push(duration),
                None => phases.push((name, vec![duration])),
            }
        }
    }
    figures.percentiles("cold.floor_ms", &floor, &[50, 95]);
    figures.percentiles("cold.ingress_ms", &ingress, &[50, 95, 100]);
    for (name, samples) in &phases {
        figures.percentiles(&format!("cold.phase_ms.{name}"), samples, &[50]);
    }
    figures.note("cold.failures", failures, "requests");
    workspace.delete_namespace().await
}

/// Creates a Deployment at zero with a pod as Rouse creates it: no token, no service links, no volume.
async fn bare_deployment(workspace: &Workspace) -> Result<()> {
    let labels = json!({"app": BARE});
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": BARE},
        "spec": {"replicas": 0, "selector": {"matchLabels": labels}, "template": {
            "metadata": {"labels": labels},
            "spec": {"enableServiceLinks": false, "automountServiceAccountToken": false, "containers": [
                {"name": "function", "image": workspace.image, "env": [{"name": "PORT", "value": "8080"}], "ports": [{"containerPort": 8080}]}]},
        }},
    });
    workspace.deployments().patch(BARE, &PatchParams::apply("rouse-e2e"), &Patch::Apply(deployment)).await?;
    Ok(())
}

/// Measures the time from the scale patch to the first response.
async fn bare(workspace: &Workspace) -> Result<Duration> {
    let pods: Api<Pod> = Api::namespaced(workspace.client.clone(), &workspace.namespace);
    let mine = ListParams::default().labels(&format!("app={BARE}"));
    let scale = async |replicas: u32| {
        let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
        workspace.deployments().patch_scale(BARE, &PatchParams::default(), &patch).await.context("scale")
    };
    // A watch, since polling would affect the measurement.
    let watched = watcher(pods.clone(), watcher::Config::default().labels(&format!("app={BARE}"))).default_backoff();
    let mut seen = std::pin::pin!(watched.applied_objects());
    let started = Instant::now();
    scale(1).await?;
    let address = async {
        while let Some(pod) = seen.try_next().await? {
            if let Some(ip) = pod.status.and_then(|s| s.pod_ip?.parse::<IpAddr>().ok()) {
                return Ok(SocketAddr::new(ip, 8080));
            }
        }
        bail!("the watch of the bare pod ended")
    };
    let address = timeout(TIMEOUT, address).await.context("the bare pod got no address")??;
    loop {
        let http_client = HttpClient::new(address);
        if let Ok(Ok(response)) = timeout(Duration::from_millis(500), http_client.get("bare", "/")).await {
            ensure!(response.status.is_success(), "the bare pod responded with {}", response.status);
            break;
        }
        ensure!(started.elapsed() < TIMEOUT, "the bare pod did not respond");
        sleep(Duration::from_millis(2)).await;
    }
    let took = started.elapsed();
    scale(0).await?;
    until("deletion of the bare pod", TIMEOUT, || async { Ok(pods.list(&mine).await?.items.is_empty().then_some(())) })
        .await?;
    Ok(took)
}
