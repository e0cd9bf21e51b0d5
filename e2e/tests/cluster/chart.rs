//! The chart, as Helm and the API server see it.

use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use rouse_e2e::Places;

use crate::scene::{RELEASE, Scene};

async fn helm(scene: &Scene, args: &[&str]) -> Result<String> {
    let output = scene.cluster.helm(args).output().await.context("cannot run helm")?;
    let said = String::from_utf8_lossy(&[output.stdout.clone(), output.stderr].concat()).into_owned();
    ensure!(output.status.success(), "helm {} failed:\n{said}", args.join(" "));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn lint_and_a_strict_dry_run_are_clean() -> Result<()> {
    let scene = Scene::new("lint").await?;
    let chart = Places::discover()?.repo.join("charts/rouse").display().to_string();
    helm(&scene, &["lint", "--strict", &chart]).await?;
    let rendered =
        helm(&scene, &["template", "dry", &chart, "--namespace", RELEASE, "--set", "domain=fn.example.org"]).await?;
    let mut apply = scene.cluster.kubectl([
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
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the API server refused the chart:\n{said}");
    ensure!(!said.to_lowercase().contains("warning"), "the API server warned of the chart:\n{said}");
    scene.done().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_is_not_one_is_named() -> Result<()> {
    let scene = Scene::new("values").await?;
    let chart = Places::discover()?.repo.join("charts/rouse").display().to_string();
    for (set, expected) in [("ingress.mode=nginx", "mode"), ("domian=x.org", "domian")] {
        let error = helm(&scene, &["template", "dry", &chart, "--set", set])
            .await
            .err()
            .with_context(|| format!("{set} was taken"))?;
        ensure!(format!("{error:#}").contains(expected), "{set}: {error:#}");
    }
    scene.done().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_over_itself_changes_nothing() -> Result<()> {
    let scene = Scene::alone("upgrade").await?;
    let chart = Places::discover()?.repo.join("charts/rouse").display().to_string();
    let generations = async || -> Result<String> {
        let columns = "custom-columns=NAME:.metadata.name,GENERATION:.metadata.generation";
        Ok(scene.kubectl(&["get", "deployments", "--namespace", RELEASE, "--output", columns]).await?.1)
    };
    let before = generations().await?;
    helm(&scene, &["upgrade", "rouse", &chart, "--namespace", RELEASE, "--reuse-values", "--wait", "--timeout", "2m"])
        .await?;
    ensure!(generations().await? == before, "the upgrade changed a Deployment:\n{before}\n{}", generations().await?);
    scene.done().await
}
