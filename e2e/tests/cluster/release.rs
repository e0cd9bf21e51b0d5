//! Temporary upgrade of the release with other values.

use anyhow::{Context as _, Result, ensure};
use rouse_e2e::Places;
use serde_json::Value;

use crate::test_env::{RELEASE, TestEnv};

/// An upgrade with other values, until [`Upgrade::undo`]. Requires an exclusive [`TestEnv`].
#[must_use = "the release keeps the values until they are undone"]
pub(crate) struct Upgrade {
    former: Value,
}

impl Upgrade {
    /// Merges `values` over those that the release was installed with, and waits until both workloads have rolled out.
    pub(crate) async fn with(env: &TestEnv, values: Value) -> Result<Self> {
        // The values of the installation, not of the release, which a failed test may have changed.
        let former = rouse_e2e::install::values(&env.cluster)?;
        let mut merged = former.clone();
        merge(&mut merged, values);
        upgrade(env, &merged).await?;
        Ok(Self { former })
    }

    /// Restores the former values.
    pub(crate) async fn undo(self, env: &TestEnv) -> Result<()> {
        upgrade(env, &self.former).await
    }
}

async fn upgrade(env: &TestEnv, values: &Value) -> Result<()> {
    let chart = Places::discover()?.repo.join("charts/rouse").display().to_string();
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), serde_json::to_vec(values)?)?;
    let path = file.path().to_str().context("the path is not UTF-8")?;
    let args = ["upgrade", "rouse", &chart, "--namespace", RELEASE, "--wait", "--timeout", "3m", "--values", path];
    let output = env.cluster.helm(args).output().await.context("cannot run helm")?;
    let printed = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "helm upgrade failed:\n{printed}");
    // After the rollout, the old pods may still be running: the old operator as leader, and the old activator with requests.
    for component in ["operator", "activator"] {
        let selector = format!("app.kubernetes.io/component={component}");
        rouse_e2e::workspace::until(&format!("one pod of the {component}"), rouse_e2e::workspace::TIMEOUT, || async {
            let args = ["get", "pods", "--namespace", RELEASE, "--selector", &selector, "--output", "name"];
            let (_, printed) = env.kubectl(&args).await?;
            Ok((printed.lines().count() == 1).then_some(()))
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
