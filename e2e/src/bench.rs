//! `cargo e2e bench`: what Rouse costs and how fast it is, measured side by side with what it is compared with.
//!
//! Each benchmark is a name, what it needs, and a function that notes figures. Percentiles are taken over all samples; a
//! failure is counted and never dropped.

mod busy;
mod cold;
mod crowd;
mod daemon;
mod decide;
mod figures;
mod hop;
mod loopback;
mod park;
mod rollback;
mod route;
mod steady;
mod step;
mod wake;
mod watched;

pub use figures::Figures;

use std::path::Path;

use anyhow::{Context as _, Result, bail};

use crate::{
    Cluster, Places,
    process::command,
    progress::Progress,
    up::{Options, up},
};
use loopback::Loopback;

/// What a benchmark is run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Needs {
    /// A processor.
    Nothing,
    /// A whole Kubernetes with Rouse on it.
    Cluster,
    /// Rouse's own programs and an API server, on loopback.
    Loopback,
}

/// The benchmarks, in the order that they run in: a cluster takes time from what else is measured, so it comes last.
const BENCHMARKS: [(&str, Needs); 11] = [
    ("decide", Needs::Nothing),
    ("hop", Needs::Loopback),
    ("park", Needs::Loopback),
    ("route", Needs::Loopback),
    ("rollback", Needs::Loopback),
    ("cold", Needs::Cluster),
    ("wake", Needs::Cluster),
    ("crowd1000", Needs::Cluster),
    ("step", Needs::Cluster),
    ("steady", Needs::Cluster),
    ("steady-stress", Needs::Cluster),
];

/// What is to be measured.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Names of benchmarks; all if there is none.
    pub names: Vec<String>,
    /// How often `hop` measures each of those that it compares.
    pub rounds: u32,
    /// Those that `hop` compares; all if there is none.
    pub only: Vec<String>,
}

/// Runs the benchmarks, prints a table, and writes `json` if it is given. Brings up only what they need.
///
/// # Errors
///
/// If a name is none, or a benchmark cannot be carried out. A bad figure is no error.
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
                // What is on loopback would take time from the cluster.
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
            ("park", _, Some(loopback)) => park::run(loopback, &mut figures).await,
            ("route", _, Some(loopback)) => route::run(loopback, &mut figures).await,
            ("rollback", _, Some(loopback)) => rollback::run(loopback, &mut figures).await,
            ("cold", Some(cluster), _) => cold::run(cluster, &mut figures).await,
            ("wake", Some(cluster), _) => wake::run(cluster, &mut figures).await,
            ("crowd1000", Some(cluster), _) => crowd::run(cluster, &mut figures).await,
            ("step", Some(cluster), _) => step::run(cluster, &mut figures).await,
            ("steady", Some(cluster), _) => steady::run(cluster, &mut figures).await,
            ("steady-stress", Some(cluster), _) => steady::stress(cluster, &mut figures).await,
            (other, ..) => bail!("{other} has no code"),
        }
        .with_context(|| format!("benchmark {name}"))?;
    }
    print!("{}", figures.table());
    if let Some(path) = json {
        std::fs::write(path, figures.json()?).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// The named benchmarks in the order that they run in, or all.
fn choose(names: &[String]) -> Result<Vec<(&'static str, Needs)>> {
    let known = BENCHMARKS.map(|(name, _)| name);
    if let Some(unknown) = names.iter().find(|n| !known.contains(&n.as_str())) {
        bail!("there is no benchmark `{unknown}`; there are: {}", known.join(", "));
    }
    Ok(BENCHMARKS.into_iter().filter(|(name, _)| names.is_empty() || names.iter().any(|n| n == name)).collect())
}

/// A thousand requests at once are a thousand connections, and many shells allow 1,024 files at first although more may be had.
/// Not getting them is no reason not to measure; too few would show as failures.
async fn raise_file_limit() {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find(|l| l.starts_with("Max open files")).unwrap_or_default();
    let Some(hard) = line.split_whitespace().nth(4) else { return };
    let pid = std::process::id().to_string();
    if !crate::process::succeeds(command("prlimit", ["--pid", &pid, &format!("--nofile={hard}:{hard}")])).await {
        eprintln!("    could not raise the limit of open files to {hard}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_named_is_all_and_the_order_is_ours() {
        let names = |chosen: Vec<(&'static str, Needs)>| chosen.into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        assert_eq!(choose(&[]).unwrap().len(), BENCHMARKS.len());
        let chosen = choose(&["crowd1000".to_owned(), "hop".to_owned()]).unwrap();
        assert_eq!(names(chosen), ["hop", "crowd1000"]);
        assert!(choose(&["hops".to_owned()]).unwrap_err().to_string().contains("crowd1000"));
    }
}
