//! A pod behind a network with latency and packet loss. The test enters the network namespace of the pod, so it needs root
//! and a cluster whose pods run on this machine. Otherwise `cargo e2e test` skips it.

use std::{path::PathBuf, process::Stdio, time::Duration};

use anyhow::{Context as _, Result};
use http::StatusCode;
use rouse_e2e::workspace::{TIMEOUT, until};
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

use crate::test_env::TestEnv;

const DELAY_MS: u32 = 80;
const LOSS_PERCENT: u32 = 2;

/// Latency and packet loss in a network namespace, until it is dropped.
struct SlowNetwork {
    _relay: Option<Child>,
}

/// Returns a process of the pod, by the pod's uid in the name of its control group.
fn process_of(uid: &str) -> Option<PathBuf> {
    let forms = [format!("pod{uid}"), format!("pod{}", uid.replace('-', "_"))];
    let processes = std::fs::read_dir("/proc").ok()?.flatten().map(|entry| entry.path());
    processes.into_iter().find(|process| {
        let groups = std::fs::read_to_string(process.join("cgroup")).unwrap_or_default();
        forms.iter().any(|form| groups.contains(form.as_str()))
    })
}

/// Returns a command that runs in the network namespace of a process.
fn inside(process: &std::path::Path) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", process.join("ns/net").display())).kill_on_drop(true).stdin(Stdio::null());
    command
}

/// Adds latency and loss to the packets that the pod sends: by netem, or by a relay if the kernel has no netem.
async fn slow_down(uid: &str) -> Result<SlowNetwork> {
    let process = until("a process of the pod", TIMEOUT, || std::future::ready(Ok(process_of(uid)))).await?;
    let netem = format!("qdisc add dev eth0 root netem delay {DELAY_MS}ms loss {LOSS_PERCENT}%");
    if inside(&process).arg("tc").args(netem.split(' ')).stderr(Stdio::null()).status().await.is_ok_and(|s| s.success())
    {
        println!("slow by netem");
        return Ok(SlowNetwork { _relay: None });
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cluster/network/slow.py");
    let mut relay = inside(&process);
    relay.args(["python3", script, &DELAY_MS.to_string(), &LOSS_PERCENT.to_string()]).stdout(Stdio::piped());
    let mut relay = relay.spawn().context("cannot run the relay")?;
    let mut lines = BufReader::new(relay.stdout.take().context("the relay has no output")?).lines();
    let printed = tokio::time::timeout(TIMEOUT, lines.next_line()).await.context("the relay did not start")??;
    anyhow::ensure!(printed.as_deref() == Some("slow"), "the relay ended: {printed:?}");
    println!("slow by the relay: this kernel has no netem");
    Ok(SlowNetwork { _relay: Some(relay) })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_behind_a_slow_network_is_woken_and_served() -> Result<()> {
    let env = TestEnv::new("slow").await?;
    // The readiness probe of the kubelet is late, so only the activator's probe can detect the pod in time.
    let late = json!({"spec": {"containers": [{"name": "function", "readinessProbe": {"initialDelaySeconds": 100}}]}});
    let spec = |readiness: serde_json::Value| {
        json!({
            "env": [{"name": "HELLO_START_DELAY_MS", "value": "4000"}], "scaling": {"initial": 0},
            "readiness": readiness, "podTemplate": late,
        })
    };
    for (name, readiness) in [("by-tcp", json!({})), ("by-http", json!({"path": "/ready"}))] {
        env.ready(name, spec(readiness)).await?;
        let cold = tokio::spawn({
            let workspace = env.workspace.clone();
            async move { workspace.get(name, "/").await }
        });
        let uid = until("a pod", TIMEOUT, || async {
            let pods = env.pods(name).await?;
            Ok(pods.into_iter().find(|p| p.status.pod_ip.is_some()).and_then(|p| p.metadata.uid))
        });
        let slow = slow_down(&uid.await?).await?;
        let cold = cold.await??;
        assert_eq!(cold.status, StatusCode::OK, "{name}: {}", cold.text());
        assert_eq!(cold.header("rouse-cold-start"), Some("true"));
        println!("{name}: {:?}, {:?}", cold.took, cold.phases());
        assert!(cold.took < Duration::from_secs(60), "{name} after {:?}: not detected by the probe", cold.took);
        for _ in 0..20 {
            let warm = env.get(name, "/").await?;
            assert_eq!(warm.status, StatusCode::OK, "{name}: {}", warm.text());
            assert!(warm.took >= Duration::from_millis(DELAY_MS.into()), "the network is not slow: {:?}", warm.took);
        }
        drop(slow);
    }
    env.finish().await
}
