//! `cargo e2e bench`: performance of Rouse, side by side with other proxies and with a bare Deployment.
//!
//! Each benchmark has a name, requirements, and a function that records figures. Percentiles are taken over all samples;
//! failures are counted and never dropped.

mod busy;
mod callgrind;
mod cold;
mod crowd;
mod daemon;
mod decide;
mod deployment_watch;
mod figures;
mod hop;
mod loopback;
mod memory_group;
mod park;
mod rollback;
mod route;
mod siege;
mod steady;
mod step;
mod upload;
mod wake;

pub use figures::Figures;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::{
    Cluster, Places,
    process::command,
    progress::Progress,
    up::{Options, up},
};
use loopback::Loopback;

/// Requirements of a benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Needs {
    /// Only a CPU.
    Nothing,
    /// A Kubernetes cluster with Rouse.
    Cluster,
    /// Rouse's programs and an API server, on loopback.
    Loopback,
}

/// The benchmarks in their order of execution. Those with a cluster are last, since a running cluster affects the others.
const BENCHMARKS: [(&str, Needs); 13] = [
    ("decide", Needs::Nothing),
    ("hop", Needs::Loopback),
    ("park", Needs::Loopback),
    ("siege", Needs::Loopback),
    ("upload", Needs::Loopback),
    ("route", Needs::Loopback),
    ("rollback", Needs::Loopback),
    ("cold", Needs::Cluster),
    ("wake", Needs::Cluster),
    ("crowd1000", Needs::Cluster),
    ("step", Needs::Cluster),
    ("steady", Needs::Cluster),
    ("steady-stress", Needs::Cluster),
];

/// Selection of benchmarks.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Names of benchmarks; empty for all.
    pub names: Vec<String>,
    /// Number of rounds of `hop`.
    pub rounds: u32,
    /// Subjects that `hop` compares; empty for all.
    pub only: Vec<String>,
    /// Another build of the activator, which `hop` and `park` measure beside the present one.
    pub before: Option<PathBuf>,
}

/// Runs the benchmarks, prints a table, and writes the figures to `json` if it is given. Starts only what they require.
///
/// # Errors
///
/// If a name is unknown, or a benchmark fails. A missed bar is not an error.
pub async fn bench(
    places: &Places,
    options: &Options,
    wanted: &Wanted,
    json: Option<&Path>,
    progress: &Progress,
) -> Result<()> {
    let chosen = choose(&wanted.names)?;
    raise_file_limit().await;
    let mut figures = Figures::default();
    let (mut cluster, mut loopback): (Option<Cluster>, Option<Loopback>) = (None, None);
    for (name, needs) in chosen {
        match needs {
            Needs::Cluster => {
                // The programs on loopback would affect the cluster.
                loopback = None;
                if cluster.is_none() {
                    cluster = Some(up(places, options, progress).await?);
                }
            }
            Needs::Loopback if loopback.is_none() => loopback = Some(Loopback::start(places, progress).await?),
            Needs::Loopback | Needs::Nothing => {}
        }
        eprintln!("  … {name}");
        match (name, &cluster, &loopback) {
            ("decide", ..) => decide::run(places, &mut figures).await,
            ("hop", _, Some(loopback)) => hop::run(places, loopback, wanted, &mut figures, progress).await,
            ("park", _, Some(loopback)) => park::run(loopback, wanted, &mut figures).await,
            ("siege", _, Some(loopback)) => siege::run(loopback, &mut figures).await,
            ("upload", _, Some(loopback)) => upload::run(loopback, &mut figures).await,
            ("route", _, Some(loopback)) => route::run(loopback, &mut figures).await,
            ("rollback", _, Some(loopback)) => rollback::run(loopback, &mut figures).await,
            ("cold", Some(cluster), _) => cold::run(cluster, &mut figures).await,
            ("wake", Some(cluster), _) => wake::run(cluster, &mut figures).await,
            ("crowd1000", Some(cluster), _) => crowd::run(cluster, &mut figures).await,
            ("step", Some(cluster), _) => step::run(cluster, &mut figures).await,
            ("steady", Some(cluster), _) => steady::run(cluster, &mut figures).await,
            ("steady-stress", Some(cluster), _) => steady::stress(cluster, &mut figures).await,
            (other, ..) => bail!("{other} is not implemented"),
        }
        .with_context(|| format!("benchmark {name}"))?;
    }
    print!("{}", figures.table());
    if let Some(path) = json {
        std::fs::write(path, figures.json()?).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// Returns the named benchmarks, or all, in their order of execution.
fn choose(names: &[String]) -> Result<Vec<(&'static str, Needs)>> {
    let known = BENCHMARKS.map(|(name, _)| name);
    if let Some(unknown) = names.iter().find(|n| !known.contains(&n.as_str())) {
        bail!("unknown benchmark `{unknown}`; available: {}", known.join(", "));
    }
    Ok(BENCHMARKS.into_iter().filter(|(name, _)| names.is_empty() || names.iter().any(|n| n == name)).collect())
}

/// Raises the limit of open files: a thousand concurrent requests need a thousand connections, and the soft limit of many
/// shells is 1,024. Failing to do so is not an error, since a limit that is too low shows as failures.
async fn raise_file_limit() {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find(|l| l.starts_with("Max open files")).unwrap_or_default();
    let Some(hard) = line.split_whitespace().nth(4) else { return };
    let pid = std::process::id().to_string();
    if !crate::process::succeeds(command("prlimit", ["--pid", &pid, &format!("--nofile={hard}:{hard}")])).await {
        eprintln!("    Failed to raise the limit of open files to {hard}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_names_select_all_and_the_order_is_fixed() {
        let names = |chosen: Vec<(&'static str, Needs)>| chosen.into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        assert_eq!(choose(&[]).unwrap().len(), BENCHMARKS.len());
        let chosen = choose(&["crowd1000".to_owned(), "hop".to_owned()]).unwrap();
        assert_eq!(names(chosen), ["hop", "crowd1000"]);
        assert!(choose(&["hops".to_owned()]).unwrap_err().to_string().contains("crowd1000"));
    }
}
