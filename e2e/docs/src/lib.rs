//! Documentation as code: the generated files, and the examples that the pages show.
//!
//! Each generated page has one source: the CRD schema ([`function`]), `values.yaml` and its schema ([`values`]), the metric
//! registries ([`metrics`]), the problem types ([`problems`]) and the command lines ([`flags`]). The CRD itself is written twice:
//! for `kubectl apply -f crds/`, and for the chart, which cannot read outside of its own folder.

pub mod book;
pub mod examples;
pub mod flags;
pub mod function;
pub mod markdown;
pub mod metrics;
pub mod problems;
pub mod values;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

/// A generated file: its path in the checkout and its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Path relative to the root of the checkout.
    pub path: &'static str,
    /// The whole file.
    pub content: String,
}

/// The checkout that this crate was compiled in.
#[must_use]
pub fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Returns every generated file of the checkout `root`.
///
/// # Errors
///
/// If a source cannot be read, or a value, metric or problem type has no description.
pub fn pages(root: &Path) -> Result<Vec<Page>> {
    let crd = rouse_crds::function::crd_yaml().context("the CRD as YAML")?;
    let values = values::Values::read(root)?;
    let readme = fs::read_to_string(root.join(values::CHART_README)).context(values::CHART_README)?;
    Ok(vec![
        Page { path: "crds/functions.rouse.dev.yaml", content: crd.clone() },
        Page { path: "charts/rouse/files/crds/functions.rouse.dev.yaml", content: crd },
        Page { path: "docs/reference/function.md", content: function::page()? },
        Page { path: "docs/reference/values.md", content: values.page() },
        Page { path: values::CHART_README, content: values.insert_into(&readme)? },
        Page { path: "docs/reference/metrics.md", content: metrics::page()? },
        Page { path: "docs/reference/problems.md", content: problems::page()? },
        Page { path: "docs/reference/flags.md", content: flags::page() },
    ])
}

/// Writes every generated file that is not current and returns the paths that were written.
///
/// # Errors
///
/// As of [`pages`], or if a file cannot be written.
pub fn write(root: &Path) -> Result<Vec<&'static str>> {
    let mut written = vec![];
    for page in pages(root)? {
        let path = root.join(page.path);
        if fs::read_to_string(&path).is_ok_and(|old| old == page.content) {
            continue;
        }
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(|| format!("Failed to create {}", folder.display()))?;
        }
        fs::write(&path, page.content).with_context(|| format!("Failed to write {}", path.display()))?;
        written.push(page.path);
    }
    Ok(written)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_run_changes_nothing() {
        let root = tempfile::tempdir().unwrap();
        let chart = root.path().join("charts/rouse");
        fs::create_dir_all(&chart).unwrap();
        for name in ["values.yaml", "values.schema.json", "README.md"] {
            fs::copy(checkout().join("charts/rouse").join(name), chart.join(name)).unwrap();
        }
        let crd = "charts/rouse/files/crds/functions.rouse.dev.yaml";
        assert!(write(root.path()).unwrap().contains(&crd));
        assert_eq!(write(root.path()).unwrap(), Vec::<&str>::new());
        fs::write(root.path().join(crd), "edited").unwrap();
        assert_eq!(write(root.path()).unwrap(), [crd]);
    }
}
