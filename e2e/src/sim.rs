//! The simulator of the autoscaler, which is a program of its own: it counts for minutes unless it is compiled for speed.

use std::{ffi::OsString, process::Stdio};

use anyhow::{Context as _, Result, ensure};
use tokio::process::Command;

use crate::Places;

/// Compiles the simulator and runs it, with its output and its errors as they are.
///
/// # Errors
///
/// If it cannot be compiled, or what it ends with.
pub async fn sim(places: &Places, arguments: Vec<OsString>) -> Result<()> {
    let mut cargo = cargo_run(places, "rouse-sim");
    cargo.arg("--").args(arguments);
    let status = cargo.status().await.context("Cannot run cargo")?;
    ensure!(status.success(), "The simulation failed ({status})");
    Ok(())
}

/// Compiles a program of the simulator's package for speed and runs it, where who asks for it is: paths that are said are his.
pub(crate) fn cargo_run(places: &Places, program: &str) -> Command {
    let mut cargo = Command::new("cargo");
    cargo.args(["run", "--release", "--quiet", "--package", "rouse-sim", "--bin", program, "--manifest-path"]);
    cargo.arg(places.repo.join("Cargo.toml")).stdin(Stdio::null()).kill_on_drop(true);
    // `cargo e2e` runs in cargo's environment; of that the inner one must see nothing.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST") {
            cargo.env_remove(name.as_ref());
        }
    }
    cargo
}
