//! Instructions per request in user space.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};

use super::{Figures, Setup};
use crate::{
    bench::{callgrind::Callgrind, daemon::Core},
    process::run,
};

/// Subjects that are counted. Envoy is missing: it takes minutes to start under callgrind.
const COUNTED: [&str; 4] = ["nginx", "haproxy", "before", "activator"];
const CONNECTIONS: usize = 64;
/// Requests of a warm-up and of two runs. Their difference is that of so many requests: both open as many connections.
const WARM_UP: usize = 20 * CONNECTIONS;
const SHORT: usize = 10 * CONNECTIONS;
const LONG: usize = 90 * CONNECTIONS;
/// The reading of the long run.
const LAST: u32 = 3;

/// Counts the instructions of a request for each of these subjects. Leaves their profiles in `target/callgrind`.
pub(super) async fn count(
    setup: &Setup<'_>,
    names: &[&'static str],
    figures: &mut Figures,
) -> Result<BTreeMap<&'static str, f64>> {
    let mut counted = BTreeMap::new();
    for name in names.iter().filter(|name| COUNTED.contains(*name)) {
        let each = of(setup, name).await.with_context(|| format!("{name} under callgrind"))?;
        figures.note(format!("hop.{name}.instructions"), each.round(), "");
        counted.insert(*name, each);
    }
    Ok(counted)
}

async fn of(setup: &Setup<'_>, name: &'static str) -> Result<f64> {
    let callgrind = Callgrind::find(setup.progress).await?;
    let subject = setup.start(name, Some(&callgrind)).await?;
    let pid = subject.daemon.as_ref().context("no process")?.pid;
    callgrind.begin(pid).await?;
    let mut counts = vec![];
    for (reading, requests) in (1..).zip([WARM_UP, SHORT, LONG]) {
        let mut load = Core::Measuring.command(&setup.loopback.load);
        load.args(["counted", "--target", &subject.address.to_string(), "--host", setup.host]);
        load.args(["--connections", &CONNECTIONS.to_string(), "--requests", &requests.to_string()]);
        run(load).await?;
        counts.push(callgrind.read(pid, reading).await?);
    }
    let folder = setup.places.target.join("callgrind");
    std::fs::create_dir_all(&folder)?;
    std::fs::copy(callgrind.profile(LAST), folder.join(format!("{name}.out")))?;
    Ok(per_request(counts[1], counts[2]))
}

/// Returns the instructions of a request from those of the short and of the long run.
fn per_request(short: u64, long: u64) -> f64 {
    long.saturating_sub(short) as f64 / (LONG - SHORT) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_cancel_out() {
        let of = |requests: usize| (64 * 20_000 + requests * 30_000) as u64;
        assert!((per_request(of(SHORT), of(LONG)) - 30_000.0).abs() < 1e-6);
    }
}
