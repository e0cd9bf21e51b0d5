//! Validation of the chart by Helm and the API server.

use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use rouse_e2e::Places;

use crate::test_env::{RELEASE, TestEnv};

async fn helm(env: &TestEnv, args: &[&str]) -> Result<String> {
    let output = env.cluster.helm(args).output().await.context("cannot run helm")?;
    let printed = String::from_utf8_lossy(&[output.stdout.clone(), output.stderr].concat()).into_owned();
    ensure!(output.status.success(), "helm {} failed:\n{printed}", args.join(" "));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn lint_and_a_strict_dry_run_are_clean() -> Result<()> {
    let env = TestEnv::new("lint").await?;
    let chart = Places::discover()?.repo.join("charts/rouse").display().to_string();
    helm(&env, &["lint", "--strict", &chart]).await?;
    let rendered =
        helm(&env, &["template", "dry", &chart, "--namespace", RELEASE, "--set", "domain=fn.example.org"]).await?;
    let mut apply = env.cluster.kubectl([
        "apply",
        "--dry-run=server",
        "--validate=strict",
        "--server-side",
        "--force-conflicts",
        "--filename",
        "-",
    ]);
    let mut child = apply.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut stdin = child.stdin.take().context("kubectl has no input")?;
    tokio::io::AsyncWriteExt::write_all(&mut stdin, rendered.as_bytes()).await?;
    drop(stdin);
    let output = child.wait_with_output().await?;
    let printed = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the API server refused the chart:\n{printed}");
    ensure!(!printed.to_lowercase().contains("warning"), "the API server warned of the chart:\n{printed}");
    env.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_value_is_rejected_by_name() -> Result<()> {
    let env = TestEnv::new("values").await?;
    let chart = Places::discover()?.repo.join("charts/rouse").display().to_string();
    for (set, expected) in [("ingress.mode=nginx", "mode"), ("domian=x.org", "domian")] {
        let error = helm(&env, &["template", "dry", &chart, "--set", set])
            .await
            .err()
            .with_context(|| format!("{set} was accepted"))?;
        ensure!(format!("{error:#}").contains(expected), "{set}: {error:#}");
    }
    env.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_over_itself_changes_nothing() -> Result<()> {
    let env = TestEnv::exclusive("upgrade").await?;
    let chart = Places::discover()?.repo.join("charts/rouse").display().to_string();
    let generations = async || -> Result<String> {
        let columns = "custom-columns=NAME:.metadata.name,GENERATION:.metadata.generation";
        Ok(env.kubectl(&["get", "deployments", "--namespace", RELEASE, "--output", columns]).await?.1)
    };
    let before = generations().await?;
    helm(&env, &["upgrade", "rouse", &chart, "--namespace", RELEASE, "--reuse-values", "--wait", "--timeout", "2m"])
        .await?;
    ensure!(generations().await? == before, "the upgrade changed a Deployment:\n{before}\n{}", generations().await?);
    env.finish().await
}
