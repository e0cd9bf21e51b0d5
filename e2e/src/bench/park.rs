//! `park`: memory of the activator per parked request, and enforcement of its caps.
//!
//! The Functions stay at zero: the API server accepts the scale patch, and no kubelet is running. At the end pods are
//! created, to verify that no parked request was lost.

pub(super) mod crowd;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use self::crowd::{Crowd, Size};
use super::{
    Figures, Wanted,
    daemon::Memory,
    loopback::{Loopback, Variant},
    memory_group::MemoryGroup,
};

/// Numbers of requests.
const COUNTS: [usize; 2] = [10_000, 50_000];
const BODY: usize = 16 << 10;
/// Functions that receive the requests.
const FUNCTIONS: usize = 50;
/// Requests per connection if there cannot be a connection for each.
const STREAMS: usize = 100;
/// Highest memory per parked request, in KiB.
const MAX_KIB: f64 = 20.0;
/// Memory limit of the chart, and the highest memory with the default limits, which leaves a reserve.
const CHART_MEMORY: u64 = 512 << 20;
const MAX_CAPPED_MIB: f64 = 480.0;
/// Namespaces of the requests that meet the default limits: one alone gets half of them.
const NAMESPACES: [&str; 4] = ["park-a", "park-b", "park-c", "park-d"];

pub(super) async fn run(loopback: &Loopback, wanted: &Wanted, figures: &mut Figures) -> Result<()> {
    let before = wanted
        .before
        .as_deref()
        .map(|program| ("park.before", Variant { program: Some(program), ..Variant::default() }));
    let variants: Vec<_> = before.into_iter().chain([("park", Variant::default())]).collect();
    println!(
        "\n  {:<34} {:>8} {:>14} {:>12} {:>12} {:>9}",
        "", "parked", "KiB each (RSS)", "anonymous", "after, MiB", "lost"
    );
    for (kind, body) in [("get", 0), ("post16k", BODY)] {
        for count in COUNTS {
            let size = size(count, body, Loopback::file_limit()?);
            for (prefix, variant) in &variants {
                // The plain name is the figure with 10,000 requests.
                let name =
                    if count == COUNTS[0] { format!("{prefix}.{kind}") } else { format!("{prefix}.{kind}.{count}") };
                run_held(loopback, *variant, &name, size, figures).await.with_context(|| name.clone())?;
            }
        }
    }
    run_capped(loopback, figures).await.context("caps")
}

/// Returns a size with one connection per request if the limit of open files allows it, else with many per connection.
fn size(count: usize, body: usize, file_limit: usize) -> Size {
    // 2,000 for watches, pods and listeners.
    let streams = if count + 2000 <= file_limit { 1 } else { STREAMS };
    Size { connections: count / streams, streams, body }
}

/// Parks requests with raised caps, measures the memory, and lets the requests finish.
async fn run_held(
    loopback: &Loopback,
    variant: Variant<'_>,
    name: &str,
    size: Size,
    figures: &mut Figures,
) -> Result<()> {
    let spec = json!({
        "queue": {"maxRequests": 1_000_000, "maxBytes": "64Gi"}, "timeouts": {"coldStart": "30m"},
        "scaling": {"concurrencyLimit": 20},
    });
    let names = functions(loopback, &spec).await?;
    let raised = [
        ("--max-queued-bytes", "64Gi"),
        ("--max-queued-bytes-per-namespace", "64Gi"),
        ("--max-queued-requests", "1000000"),
        ("--max-queued-requests-per-namespace", "1000000"),
        ("--max-connections", "200000"),
    ];
    let flags = loopback.flags(variant, &raised).await?;
    let mut activator = loopback.variant(variant, &flags.iter().map(String::as_str).collect::<Vec<_>>()).await?;
    let before = activator.daemon.memory()?;
    let hosts: Vec<_> = names.iter().map(|n| loopback.host(n)).collect();
    let mut crowd = Crowd::start(&loopback.load, activator.public, &hosts, size)?;
    let state = crowd.settled(size.requests()).await?;
    activator.daemon.check_alive()?;
    ensure!(state.waiting == size.requests(), "not every request is parked: {state:?}");
    let memory = activator.daemon.memory()?;
    let count = size.requests() as f64;
    let each = |of: fn(&Memory) -> u64| of(&memory).saturating_sub(of(&before)) as f64 / count;
    let (rss, anonymous) = (each(|m| m.rss), each(|m| m.anonymous));

    let (_origin, origin) = loopback.origin().await?;
    for name in &names {
        loopback.pod(name, origin).await?;
    }
    let state = crowd.ended(size.requests()).await?;
    let after = activator.daemon.memory()?.rss as f64 / 1024.0;
    let lost = size.requests() - state.ok;
    figures.bar(format!("{name}_kib"), rss, "KiB", MAX_KIB);
    figures.detail(format!("{name}_anonymous_kib"), anonymous, "KiB");
    figures.detail(format!("{name}_pss_kib"), each(|m| m.pss), "KiB");
    figures.detail(format!("{name}_after_mib"), after, "MiB");
    figures.bar(format!("{name}_lost"), lost as f64, "requests", 0.0);
    if lost > 0 {
        eprintln!("    {name}: {state:?}");
    }
    println!(
        "  {:<34} {:>8} {rss:>14.1} {anonymous:>12.1} {after:>12.1} {lost:>9}",
        format!("{name} ({})", size.how()),
        size.requests(),
    );
    drop((crowd, activator));
    loopback.clear().await
}

/// Sends POSTs to four namespaces with the default limits, in a control group with the memory limit of the chart: requests
/// beyond the limits must be rejected immediately with `Retry-After`.
async fn run_capped(loopback: &Loopback, figures: &mut Figures) -> Result<()> {
    let group = MemoryGroup::create("rouse-park", CHART_MEMORY)?;
    let spec = json!({"timeouts": {"coldStart": "30m"}});
    let mut hosts = vec![];
    for namespace in NAMESPACES {
        let tenant = loopback.tenant(namespace).await?;
        for n in 0..FUNCTIONS / NAMESPACES.len() {
            tenant.function(&format!("park-{n}"), spec.clone()).await?;
            hosts.push(tenant.host(&format!("park-{n}")));
        }
    }
    let mut activator = loopback.variant(Variant { group: Some(group.folder()), ..Variant::default() }, &[]).await?;
    let size = size(COUNTS[1], BODY, Loopback::file_limit()?);
    let mut crowd = Crowd::start(&loopback.load, activator.public, &hosts, size)?;
    let state = crowd.settled(size.requests()).await?;
    activator.daemon.check_alive()?;
    let peak = group.peak() as f64 / f64::from(1 << 20);
    let misbehaved = state.too_many_without_retry_after + state.others + state.broken;
    println!(
        "\n  {} POSTs of 16 KiB to {} namespaces with the default limits ({}): {} wait, {} got 429 with Retry-After, \
         {misbehaved} something else; {peak:.0} MiB at most, sockets included, of {} MiB",
        size.requests(),
        NAMESPACES.len(),
        size.how(),
        state.waiting,
        state.too_many - state.too_many_without_retry_after,
        CHART_MEMORY >> 20,
    );
    if misbehaved > 0 {
        eprintln!("    {state:?}");
    }
    ensure!(state.too_many > 0, "no cap was reached: {state:?}");
    figures.note("park.rejected", state.too_many as f64, "requests");
    figures.note("park.capped_waiting", state.waiting as f64, "requests");
    figures.bar("park.misbehaved", misbehaved as f64, "requests", 0.0);
    figures.bar("park.capped_mib", peak, "MiB", MAX_CAPPED_MIB);
    drop((crowd, activator));
    for namespace in NAMESPACES {
        loopback.tenant(namespace).await?.clear().await?;
    }
    Ok(())
}

async fn functions(loopback: &Loopback, spec: &Value) -> Result<Vec<String>> {
    let names: Vec<String> = (0..FUNCTIONS).map(|n| format!("park-{n}")).collect();
    for name in &names {
        loopback.function(name, spec.clone()).await?;
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_shared_only_if_the_file_limit_is_too_low() {
        let own = size(10_000, 0, 20_000);
        assert_eq!((own.connections, own.streams), (10_000, 1));
        let shared = size(50_000, 5, 20_000);
        assert_eq!((shared.connections, shared.streams, shared.requests(), shared.body), (500, 100, 50_000, 5));
        assert_eq!(size(50_000, 0, 1 << 20).streams, 1);
    }
}
