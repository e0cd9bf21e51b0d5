//! `cold`: from a verified zero to an answer through the ingress, and the same without Rouse.
//!
//! The *raw floor* is a bare Deployment of the same image: from the scale patch to the first answer of the pod, asked for
//! directly. Both are taken in turns, so that what else the machine does falls on both alike.

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
    caller::Caller,
    world::{PATIENCE, World, until},
};

const ROUNDS: usize = 20;
const BARE: &str = "bare";

pub(super) async fn run(cluster: &Cluster, figures: &mut Figures) -> Result<()> {
    ensure!(
        cluster.node.is_some(),
        "the raw floor is asked of the pods themselves, and only the local provider gives this machine a route to them"
    );
    let world = World::new(cluster, &format!("bench-cold-{}", std::process::id())).await?;
    world.ready("cold", json!({"scaling": {"initial": 0, "idleTimeout": "1s"}})).await?;
    bare_deployment(&world).await?;
    let (mut floor, mut ingress, mut failures) = (vec![], vec![], 0.0);
    let mut phases: Vec<(String, Vec<Duration>)> = vec![];
    for _ in 0..ROUNDS {
        floor.push(bare(&world).await?);
        world.zero("cold").await?;
        let answer = world.get("cold", "/").await?;
        if answer.status.is_success() && answer.header("rouse-cold-start").is_some() {
            ingress.push(answer.took);
        } else {
            failures += 1.0;
            eprintln!("    {} {}", answer.status, answer.text());
        }
        for (name, millis) in answer.phases() {
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
    world.leave().await
}

/// A Deployment at zero, with a pod as Rouse would make it: no token, no service links, no volume.
async fn bare_deployment(world: &World) -> Result<()> {
    let labels = json!({"app": BARE});
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": BARE},
        "spec": {"replicas": 0, "selector": {"matchLabels": labels}, "template": {
            "metadata": {"labels": labels},
            "spec": {"enableServiceLinks": false, "automountServiceAccountToken": false, "containers": [
                {"name": "function", "image": world.image, "env": [{"name": "PORT", "value": "8080"}], "ports": [{"containerPort": 8080}]}]},
        }},
    });
    world.deployments().patch(BARE, &PatchParams::apply("rouse-e2e"), &Patch::Apply(deployment)).await?;
    Ok(())
}

/// From the scale patch to the first answer.
async fn bare(world: &World) -> Result<Duration> {
    let pods: Api<Pod> = Api::namespaced(world.client.clone(), &world.namespace);
    let mine = ListParams::default().labels(&format!("app={BARE}"));
    let scale = async |replicas: u32| {
        let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
        world.deployments().patch_scale(BARE, &PatchParams::default(), &patch).await.context("scale")
    };
    // Watched and not polled: a client that asks again and again takes time from what it measures.
    let watched = watcher(pods.clone(), watcher::Config::default().labels(&format!("app={BARE}"))).default_backoff();
    let mut seen = std::pin::pin!(watched.applied_objects());
    let begun = Instant::now();
    scale(1).await?;
    let address = async {
        while let Some(pod) = seen.try_next().await? {
            if let Some(ip) = pod.status.and_then(|s| s.pod_ip?.parse::<IpAddr>().ok()) {
                return Ok(SocketAddr::new(ip, 8080));
            }
        }
        bail!("the watch of the bare pod ended")
    };
    let address = timeout(PATIENCE, address).await.context("the bare pod got no address")??;
    loop {
        let caller = Caller::new(address);
        if let Ok(Ok(answer)) = timeout(Duration::from_millis(500), caller.get("bare", "/")).await {
            ensure!(answer.status.is_success(), "the bare pod answered {}", answer.status);
            break;
        }
        ensure!(begun.elapsed() < PATIENCE, "the bare pod did not answer");
        sleep(Duration::from_millis(2)).await;
    }
    let took = begun.elapsed();
    scale(0).await?;
    until("the bare pod to go", PATIENCE, || async { Ok(pods.list(&mine).await?.items.is_empty().then_some(())) })
        .await?;
    Ok(took)
}
