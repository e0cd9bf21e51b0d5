//! `cargo e2e generate`: the files that are made from code.

use std::{path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};

/// Compiles `rouse-docs` and runs it: it writes the generated files of the checkout `root`. A program of its own, since it is
/// linked with the operator and the activator, which no other verb needs compiled.
///
/// # Errors
///
/// If it cannot be compiled, or a file cannot be written.
pub fn generate(root: &Path) -> Result<()> {
    let mut cargo = Command::new("cargo");
    cargo.args(["run", "--quiet", "--package", "rouse-docs", "--manifest-path"]).arg(root.join("Cargo.toml"));
    // `cargo e2e` runs in cargo's environment; the inner cargo must see nothing of it.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST") {
            cargo.env_remove(name.as_ref());
        }
    }
    let status = cargo.status().context("cannot run cargo")?;
    ensure!(status.success(), "the files were not generated ({status})");
    Ok(())
}
