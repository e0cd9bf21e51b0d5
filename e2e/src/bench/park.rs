//! `park`: what a request that waits costs the activator of memory, and that its caps hold when too many come.
//!
//! The functions are at zero and stay there: the API server takes the scale patch, and there is no kubelet. At the end of a
//! crowd pods come up after all, so that each request is seen to have been kept.

mod crowd;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use self::crowd::{Crowd, Size};
use super::{Figures, daemon::Memory, loopback::Loopback};

/// Requests in a crowd.
const COUNTS: [usize; 2] = [10_000, 50_000];
const BODY: usize = 16 << 10;
/// Functions that a crowd is spread over.
const FUNCTIONS: usize = 50;
/// Requests in one connection where there cannot be one connection for each.
const STREAMS: usize = 100;
/// What a parked request may cost, in KiB.
const BAR: f64 = 20.0;
/// The chart's cap for one namespace; all that wait here are in one.
const NAMESPACE_CAP_MIB: f64 = 128.0;

pub(super) async fn run(loopback: &Loopback, figures: &mut Figures) -> Result<()> {
    println!(
        "\n  {:<34} {:>8} {:>14} {:>12} {:>12} {:>9}",
        "", "parked", "KiB each (RSS)", "anonymous", "after, MiB", "lost"
    );
    for (kind, body) in [("get", 0), ("post16k", BODY)] {
        for count in COUNTS {
            let size = size(count, body, Loopback::file_limit()?);
            // 50,000 are the figure's second sample; the plain name is the one with a connection each.
            let name = if count == COUNTS[0] { format!("park.{kind}") } else { format!("park.{kind}.{count}") };
            held(loopback, &name, size, figures).await.with_context(|| name.clone())?;
        }
    }
    capped(loopback, figures).await.context("caps")
}

/// A connection for each request if this machine allows so many open files, else many in one connection.
fn size(count: usize, body: usize, file_limit: usize) -> Size {
    // Beside the crowd there are the watches, the pods and the listeners.
    let streams = if count + 2000 <= file_limit { 1 } else { STREAMS };
    Size { connections: count / streams, streams, body }
}

/// Parks a crowd that all caps are raised for, weighs it, and lets it go.
async fn held(loopback: &Loopback, name: &str, size: Size, figures: &mut Figures) -> Result<()> {
    let spec = json!({
        "queue": {"maxRequests": 1_000_000, "maxBytes": "64Gi"}, "timeouts": {"coldStart": "30m"},
        "scaling": {"concurrencyLimit": 20},
    });
    let names = functions(loopback, &spec).await?;
    let raised = loopback.flags(&[
        ("--max-queued-bytes", "64Gi"),
        ("--max-queued-bytes-per-namespace", "64Gi"),
        ("--max-queued-requests", "1000000"),
        ("--max-queued-requests-per-namespace", "1000000"),
        ("--max-connections", "200000"),
    ]);
    let mut activator = loopback.activator(&raised.await?.iter().map(String::as_str).collect::<Vec<_>>()).await?;
    let before = activator.daemon.memory()?;
    let hosts: Vec<_> = names.iter().map(|n| loopback.host(n)).collect();
    let mut crowd = Crowd::start(&loopback.load, activator.public, &hosts, size)?;
    let state = crowd.settled(size.requests()).await?;
    activator.daemon.alive()?;
    ensure!(state.waiting == size.requests(), "not all of the crowd wait: {state:?}");
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
    figures.bar(format!("{name}_kib"), rss, "KiB", BAR);
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

/// The same crowd of POSTs with the caps as they come: what is over them is turned away at once and told when to come again.
async fn capped(loopback: &Loopback, figures: &mut Figures) -> Result<()> {
    let names = functions(loopback, &json!({"timeouts": {"coldStart": "30m"}})).await?;
    let mut activator = loopback.activator(&[]).await?;
    let before = activator.daemon.memory()?.rss as f64 / 1024.0;
    let size = size(COUNTS[1], BODY, Loopback::file_limit()?);
    let hosts: Vec<_> = names.iter().map(|n| loopback.host(n)).collect();
    let mut crowd = Crowd::start(&loopback.load, activator.public, &hosts, size)?;
    let state = crowd.settled(size.requests()).await?;
    activator.daemon.alive()?;
    let rss = activator.daemon.memory()?.rss as f64 / 1024.0;
    // What is counted against the cap is what a request's own bytes are; around them there is the connection.
    let bound = before + NAMESPACE_CAP_MIB + state.waiting as f64 * BAR / 1024.0;
    let misbehaved = state.too_many_without_retry_after + state.others + state.broken;
    println!(
        "\n  {} POSTs of 16 KiB with the default caps ({}): {} wait, {} got 429 with Retry-After, {misbehaved} something \
         else; {rss:.0} MiB resident of at most {bound:.0}",
        size.requests(),
        size.how(),
        state.waiting,
        state.too_many - state.too_many_without_retry_after,
    );
    if misbehaved > 0 {
        eprintln!("    {state:?}");
    }
    ensure!(state.too_many > 0, "no cap was reached, so nothing is known of them: {state:?}");
    figures.note("park.rejected", state.too_many as f64, "requests");
    figures.bar("park.misbehaved", misbehaved as f64, "requests", 0.0);
    figures.bar("park.capped_mib", rss, "MiB", bound.round());
    drop((crowd, activator));
    loopback.clear().await
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
    fn connections_are_shared_only_where_there_cannot_be_enough() {
        let own = size(10_000, 0, 20_000);
        assert_eq!((own.connections, own.streams), (10_000, 1));
        let shared = size(50_000, 5, 20_000);
        assert_eq!((shared.connections, shared.streams, shared.requests(), shared.body), (500, 100, 50_000, 5));
        assert_eq!(size(50_000, 0, 1 << 20).streams, 1);
    }
}
