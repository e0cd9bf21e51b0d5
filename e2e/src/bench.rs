//! `cargo e2e bench`: what Rouse costs and how fast it is, measured side by side with what it is compared with.
//!
//! Each benchmark is a name and a function that notes figures. Percentiles are taken over all samples; a failure is counted
//! and never dropped.

mod cold;
mod crowd;
mod figures;

pub use figures::Figures;

use std::path::Path;

use anyhow::{Context as _, Result, bail};

use crate::{Cluster, process::command};

/// The benchmarks, in the order that they run in.
const NAMES: [&str; 2] = ["cold", "crowd1000"];

/// Runs the named benchmarks, or all, prints a table, and writes `json` if it is given.
///
/// # Errors
///
/// If a name is none, or a benchmark cannot be carried out. A bad figure is no error.
pub async fn bench(cluster: &Cluster, names: &[String], json: Option<&Path>) -> Result<()> {
    if let Some(unknown) = names.iter().find(|n| !NAMES.contains(&n.as_str())) {
        bail!("there is no benchmark `{unknown}`; there are: {}", NAMES.join(", "));
    }
    raise_file_limit().await;
    let mut figures = Figures::default();
    for name in NAMES.into_iter().filter(|n| names.is_empty() || names.iter().any(|m| m == n)) {
        eprintln!("  … {name}");
        match name {
            "cold" => cold::run(cluster, &mut figures).await,
            "crowd1000" => crowd::run(cluster, &mut figures).await,
            other => bail!("{other} has no code"),
        }
        .with_context(|| format!("benchmark {name}"))?;
    }
    print!("{}", figures.table());
    if let Some(path) = json {
        std::fs::write(path, figures.json()?).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// A thousand calls at once are a thousand connections, and many shells allow 1,024 files at first although more may be had.
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
