//! `siege`: a quiet tenant beside noisy ones, in an activator with the memory limit of the chart.
//!
//! The noisy tenants park requests, read and send slowly, and hold idle connections: more of each than fits. The quiet
//! tenant sends 200 requests per second on its own connections. Its latency, with and without the noise in turn, and its
//! failures say whether it is protected; the peak of the control group, whether the activator stays within its memory.

mod noise;

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use serde_json::json;
use tokio::time::{Instant, sleep};

use self::noise::Noise;
use super::{
    Figures,
    daemon::Core,
    loopback::{Activator, Loopback, Variant},
    memory_group::MemoryGroup,
    park::crowd::{Crowd, Size},
};
use crate::{http_client::HttpClient, process::run as run_command};

/// Memory limit of the chart.
const MEMORY: u64 = 512 << 20;
/// Highest peak.
const PEAK_MIB: f64 = 480.0;
const RATIO: f64 = 1.10;
/// Parked requests of each of the four namespaces. They share connections, as those of an ingress do.
const PARKED: Size = Size { connections: 50, streams: 100, body: 4 << 10 };
const NAMESPACES: [&str; 4] = ["siege-a", "siege-b", "siege-c", "siege-d"];
/// Functions of each namespace that requests are parked for.
const COLD: usize = 5;
const READERS: usize = 2000;
const UPLOADS: usize = 1000;
/// Idle connections, in two processes.
const IDLE: usize = 20_000;
const QUIET: &str = "siege-quiet";
const RATE: &str = "200";
const CONNECTIONS: &str = "8";
/// Duration of one measurement of the quiet tenant, and their number with and without noise.
const MEASURED: Duration = Duration::from_secs(15);
const ROUNDS: usize = 3;
/// Time in which the noise builds up, and in which it ends.
const SETTLE: Duration = Duration::from_secs(30);
const RECOVER: Duration = Duration::from_secs(15);

#[derive(Debug, Deserialize)]
struct Report {
    responses: u64,
    failures: u64,
    reconnects: u64,
    p50_us: f64,
    p99_us: f64,
    max_us: f64,
    first_failure: Option<String>,
}

pub(super) async fn run(loopback: &Loopback, figures: &mut Figures) -> Result<()> {
    let group = MemoryGroup::create("rouse-siege", MEMORY)?;
    let (_quiet_origin, quiet_origin) = loopback.origin().await?;
    let (_noise_origin, noise_origin) = loopback.noise_origin().await?;
    let spec = json!({"queue": {"maxRequests": 1_000_000, "maxBytes": "1Gi"}, "timeouts": {"coldStart": "30m"}});
    let mut cold = vec![];
    for namespace in NAMESPACES {
        let tenant = loopback.tenant(namespace).await?;
        for n in 0..COLD {
            let name = format!("cold-{n}");
            tenant.function(&name, spec.clone()).await?;
            cold.push(tenant.host(&name));
        }
    }
    let noisy = loopback.tenant(NAMESPACES[0]).await?;
    noisy.function("noisy", json!({})).await?;
    noisy.pod("noisy", noise_origin).await?;
    let tenant = loopback.tenant(QUIET).await?;
    tenant.function("quiet", json!({})).await?;
    tenant.pod("quiet", quiet_origin).await?;
    let mut activator = loopback.variant(Variant { group: Some(group.folder()), ..Variant::default() }, &[]).await?;
    let (quiet, noisy) = (tenant.host("quiet"), noisy.host("noisy"));
    first_response(activator.public, &quiet).await?;
    first_response(activator.public, &noisy).await?;

    let (mut alone, mut besieged) = (vec![], vec![]);
    println!(
        "\n  {:<10} {:>10} {:>10} {:>10} {:>10} {:>10} {:>9}",
        "", "responses", "p50 µs", "p99 µs", "max µs", "failures", "MiB"
    );
    for _ in 0..ROUNDS {
        alone.push(measure(loopback, &activator, &quiet, "alone", &group).await?);
        let mut noise = start_noise(loopback, activator.public, &noisy)?;
        let mut parked = Crowd::start(&loopback.load, activator.public, &cold, four(PARKED))?;
        sleep(SETTLE).await;
        besieged.push(measure(loopback, &activator, &quiet, "besieged", &group).await?);
        let state = parked.state().await?;
        eprintln!(
            "    parked: {} wait, {} got 429, {} something else, {} closed",
            state.waiting, state.too_many, state.others, state.broken
        );
        for one in &mut noise {
            let state = one.state().await?;
            eprintln!(
                "    {}: {} open, {} opened, {} closed, {} not connected, {} refused",
                one.role, state.open, state.opened, state.closed, state.unconnected, state.refused
            );
        }
        eprintln!("    memory: {}", group.parts());
        activator.daemon.check_alive().context("the activator")?;
        drop((noise, parked));
        sleep(RECOVER).await;
    }
    ensure!(group.kills() == 0, "the kernel killed the activator");
    let p99 = |reports: &[Report]| median(reports.iter().map(|report| report.p99_us).collect());
    let all = || alone.iter().chain(&besieged);
    if let Some(why) = all().find_map(|report| report.first_failure.as_ref()) {
        eprintln!("    the first failure: {why}");
    }
    figures.note("siege.alone_p99_us", p99(&alone), "µs");
    figures.note("siege.quiet_p99_us", p99(&besieged), "µs");
    figures.bar("siege.quiet_p99_ratio", p99(&besieged) / p99(&alone), "×", RATIO);
    figures.bar("siege.quiet_failures", all().map(|report| report.failures).sum::<u64>() as f64, "requests", 0.0);
    figures.note("siege.quiet_reconnects", all().map(|report| report.reconnects).sum::<u64>() as f64, "connections");
    figures.bar("siege.peak_mib", group.peak() as f64 / f64::from(1 << 20), "MiB", PEAK_MIB);
    drop(activator);
    for namespace in NAMESPACES.into_iter().chain([QUIET]) {
        loopback.tenant(namespace).await?.clear().await?;
    }
    Ok(())
}

/// Returns the parked requests of all namespaces.
fn four(size: Size) -> Size {
    Size { connections: size.connections * NAMESPACES.len(), ..size }
}

fn start_noise(loopback: &Loopback, target: SocketAddr, host: &str) -> Result<Vec<Noise>> {
    let roles = [("reader", READERS, 100), ("upload", UPLOADS, 110), ("idle", IDLE / 2, 120), ("idle", IDLE / 2, 130)];
    roles.into_iter().map(|role| Noise::start(&loopback.load, role, target, host)).collect()
}

/// Waits for the first response of a function: the activator has seen its pod then.
async fn first_response(target: SocketAddr, host: &str) -> Result<()> {
    let response = HttpClient::new(target).get(host, "/").await?;
    ensure!(response.status.is_success(), "{host}: {}", response.text());
    Ok(())
}

/// Measures the quiet tenant.
async fn measure(
    loopback: &Loopback,
    activator: &Activator,
    host: &str,
    label: &str,
    group: &MemoryGroup,
) -> Result<Report> {
    let mut generator = Core::Measuring.command(&loopback.load);
    generator.args(["open", "--rate", RATE, "--connections", CONNECTIONS, "--host", host]);
    generator.args(["--target", &activator.public.to_string()]);
    generator.args(["--measured", &MEASURED.as_millis().to_string()]);
    let started = Instant::now();
    let report: Report = serde_json::from_str(&run_command(generator).await?).context("the load generator's report")?;
    println!(
        "  {label:<10} {:>10} {:>10.0} {:>10.0} {:>10.0} {:>10} {:>9.0}",
        report.responses,
        report.p50_us,
        report.p99_us,
        report.max_us,
        report.failures,
        group.current() as f64 / f64::from(1 << 20),
    );
    ensure!(started.elapsed() >= MEASURED, "the measurement ended early");
    Ok(report)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
