//! A network that is far away and loses packets. The test reaches into the pod's network namespace, so it needs a cluster
//! whose pods run on this machine, and root: `cargo e2e test` leaves it out where that is not so, and counts it as skipped.

use std::{path::PathBuf, process::Stdio, time::Duration};

use anyhow::{Context as _, Result};
use http::StatusCode;
use rouse_e2e::world::{PATIENCE, until};
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

use crate::scene::Scene;

const DELAY_MS: u32 = 80;
const LOSS_PERCENT: u32 = 2;

/// What holds up the packets of a network namespace; it ends with this.
struct Slow {
    _relay: Option<Child>,
}

/// A process of the pod. The kubelet writes the pod's uid into the names of its control groups.
fn process_of(uid: &str) -> Option<PathBuf> {
    let forms = [format!("pod{uid}"), format!("pod{}", uid.replace('-', "_"))];
    let processes = std::fs::read_dir("/proc").ok()?.flatten().map(|entry| entry.path());
    processes.into_iter().find(|process| {
        let groups = std::fs::read_to_string(process.join("cgroup")).unwrap_or_default();
        forms.iter().any(|form| groups.contains(form.as_str()))
    })
}

/// Runs something in the network namespace of a process.
fn inside(process: &std::path::Path) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", process.join("ns/net").display())).kill_on_drop(true).stdin(Stdio::null());
    command
}

/// Makes what the pod sends late and lossy: by netem, or where the kernel has none by a relay that does the same.
async fn slow_down(uid: &str) -> Result<Slow> {
    let process = until("a process of the pod", PATIENCE, || std::future::ready(Ok(process_of(uid)))).await?;
    let netem = format!("qdisc add dev eth0 root netem delay {DELAY_MS}ms loss {LOSS_PERCENT}%");
    if inside(&process).arg("tc").args(netem.split(' ')).stderr(Stdio::null()).status().await.is_ok_and(|s| s.success())
    {
        println!("slow by netem");
        return Ok(Slow { _relay: None });
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cluster/network/slow.py");
    let mut relay = inside(&process);
    relay.args(["python3", script, &DELAY_MS.to_string(), &LOSS_PERCENT.to_string()]).stdout(Stdio::piped());
    let mut relay = relay.spawn().context("cannot run the relay")?;
    let mut lines = BufReader::new(relay.stdout.take().context("the relay has no output")?).lines();
    let said = tokio::time::timeout(PATIENCE, lines.next_line()).await.context("the relay does not start")??;
    anyhow::ensure!(said.as_deref() == Some("slow"), "the relay ended: {said:?}");
    println!("slow by the relay: this kernel has no netem");
    Ok(Slow { _relay: Some(relay) })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_behind_a_slow_network_is_woken_and_served() -> Result<()> {
    let scene = Scene::new("slow").await?;
    // The kubelet looks so late that only the activator's own probe can be what admits the pod.
    let late = json!({"spec": {"containers": [{"name": "function", "readinessProbe": {"initialDelaySeconds": 100}}]}});
    let spec = |readiness: serde_json::Value| {
        json!({
            "env": [{"name": "HELLO_START_DELAY_MS", "value": "4000"}], "scaling": {"initial": 0},
            "readiness": readiness, "podTemplate": late,
        })
    };
    for (name, readiness) in [("by-tcp", json!({})), ("by-http", json!({"path": "/ready"}))] {
        scene.ready(name, spec(readiness)).await?;
        let cold = tokio::spawn({
            let world = scene.world.clone();
            async move { world.get(name, "/").await }
        });
        let uid = until("a pod", PATIENCE, || async {
            let pods = scene.pods(name).await?;
            Ok(pods.into_iter().find(|p| p.status.pod_ip.is_some()).and_then(|p| p.metadata.uid))
        });
        let slow = slow_down(&uid.await?).await?;
        let cold = cold.await??;
        assert_eq!(cold.status, StatusCode::OK, "{name}: {}", cold.text());
        assert_eq!(cold.header("rouse-cold-start"), Some("true"));
        println!("{name}: {:?}, {:?}", cold.took, cold.phases());
        assert!(cold.took < Duration::from_secs(60), "{name} after {:?}: not by the probe", cold.took);
        for _ in 0..20 {
            let warm = scene.get(name, "/").await?;
            assert_eq!(warm.status, StatusCode::OK, "{name}: {}", warm.text());
            assert!(warm.took >= Duration::from_millis(DELAY_MS.into()), "the network is not slow: {:?}", warm.took);
        }
        drop(slow);
    }
    scene.done().await
}
