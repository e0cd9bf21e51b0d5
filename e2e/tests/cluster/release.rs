//! The release with other values for a while.

use anyhow::{Context as _, Result, ensure};
use rouse_e2e::Places;
use serde_json::Value;

use crate::scene::{RELEASE, Scene};

/// The release has other values until [`Upgrade::undo`]. A test that makes one holds its scene alone.
#[must_use = "the release keeps the values until they are undone"]
pub(crate) struct Upgrade {
    former: Value,
}

impl Upgrade {
    /// Merges `values` over those that the release was installed with, and waits until both workloads have rolled out.
    pub(crate) async fn with(scene: &Scene, values: Value) -> Result<Self> {
        // Those of the installation and not of the release: a test that failed may have left others there.
        let former = rouse_e2e::install::values(&scene.cluster)?;
        let mut merged = former.clone();
        merge(&mut merged, values);
        upgrade(scene, &merged).await?;
        Ok(Self { former })
    }

    /// Puts the former values back.
    pub(crate) async fn undo(self, scene: &Scene) -> Result<()> {
        upgrade(scene, &self.former).await
    }
}

async fn upgrade(scene: &Scene, values: &Value) -> Result<()> {
    let chart = Places::discover()?.repo.join("charts/rouse").display().to_string();
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), serde_json::to_vec(values)?)?;
    let path = file.path().to_str().context("a path that is no text")?;
    let args = ["upgrade", "rouse", &chart, "--namespace", RELEASE, "--wait", "--timeout", "3m", "--values", path];
    let output = scene.cluster.helm(args).output().await.context("cannot run helm")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "helm upgrade failed:\n{said}");
    // A Deployment is rolled out when the new pods are there; the old operator may still lead, and the old activator serve.
    for component in ["operator", "activator"] {
        let selector = format!("app.kubernetes.io/component={component}");
        rouse_e2e::world::until(&format!("one pod of the {component}"), rouse_e2e::world::PATIENCE, || async {
            let args = ["get", "pods", "--namespace", RELEASE, "--selector", &selector, "--output", "name"];
            let (_, said) = scene.kubectl(&args).await?;
            Ok((said.lines().count() == 1).then_some(()))
        })
        .await?;
    }
    Ok(())
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (name, value) in from {
                merge(into.entry(name).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}
