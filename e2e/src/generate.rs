//! `cargo e2e generate`: the files that are made from code. Each is written only when it differs, so that a second run
//! changes nothing.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use rouse_crds::function::crd_yaml;

/// Where the CustomResourceDefinition goes: for `kubectl apply -f crds/`, and for the chart, which cannot read outside of
/// its own folder.
const CRD_FILES: [&str; 2] = ["crds/functions.rouse.dev.yaml", "charts/rouse/files/crds/functions.rouse.dev.yaml"];

/// Writes every generated file below `root` (the checkout) that is not current, and returns their names.
///
/// # Errors
///
/// If a file cannot be read or written.
pub fn generate(root: &Path) -> Result<Vec<String>> {
    let crd = crd_yaml().context("the Function definition as YAML")?;
    let mut written = vec![];
    for name in CRD_FILES {
        let path = root.join(name);
        if fs::read_to_string(&path).is_ok_and(|old| old == crd) {
            continue;
        }
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        fs::write(&path, &crd).with_context(|| format!("cannot write {}", path.display()))?;
        written.push(name.to_owned());
    }
    Ok(written)
}

/// Writes the generated reference pages of the documentation below `root`. A program of its own, since it is linked with the
/// operator and the activator, which no other verb needs compiled.
///
/// # Errors
///
/// If it cannot be compiled, or a page cannot be written.
pub fn reference_pages(root: &Path) -> Result<()> {
    let mut cargo = Command::new("cargo");
    cargo.args(["run", "--quiet", "--package", "rouse-docs", "--manifest-path"]).arg(root.join("Cargo.toml"));
    // `cargo e2e` runs in cargo's environment; of that the inner one must see nothing.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST") {
            cargo.env_remove(name.as_ref());
        }
    }
    let status = cargo.status().context("cannot run cargo")?;
    ensure!(status.success(), "the reference pages were not generated ({status})");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_run_changes_nothing() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(generate(root.path()).unwrap(), CRD_FILES);
        assert!(generate(root.path()).unwrap().is_empty());
        fs::write(root.path().join(CRD_FILES[1]), "edited").unwrap();
        assert_eq!(generate(root.path()).unwrap(), [CRD_FILES[1]]);
    }
}
