//! The clients that people use, each from zero and then warm, through the ingress and directly. What they do is in
//! `e2e/clients/`; it checks by itself that the first call was a cold one.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use futures::future::try_join_all;
use rouse_e2e::{Places, clients::Clients, process::command};
use serde_json::json;
use tokio::{process::Command, time::timeout};

use crate::{scene::Scene, way::Way};

/// No client takes longer.
const LIMIT: Duration = Duration::from_secs(120);

/// Runs a client to its end. What it said is in the error.
async fn run(mut client: Command, way: &Way) -> Result<String> {
    let line = format!("{:?} by {}", client.as_std(), way.name);
    let output = timeout(LIMIT, client.output()).await.with_context(|| format!("{line} does not end"))??;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{line} failed ({}):\n{out}\n{err}", output.status);
    // curl tells on stderr what it sends and gets.
    Ok(format!("{err}{out}"))
}

/// Functions at zero for a client and each way: hello, and one that echoes WebSocket messages.
async fn functions(scene: &Scene, ways: &[Way]) -> Result<()> {
    let image = scene.cluster.images.get("rouse-suites").context("the cluster has no image of the suites")?;
    try_join_all(ways.iter().map(|way| async {
        let hello = format!("hello-{}", way.name);
        scene.ready(&hello, json!({"scaling": {"initial": 0}})).await?;
        let spec = json!({"image": image, "command": ["/websocket-server", "-addr=:8080"], "scaling": {"initial": 0}});
        scene.ready(&format!("websocket-{}", way.name), spec).await
    }))
    .await?;
    Ok(())
}

/// A script of `e2e/clients/`, with all that it is told.
fn script(scene: &Scene, way: &Way, interpreter: &Path, name: &str) -> Result<Command> {
    let clients = Places::discover()?.repo.join("e2e/clients");
    let mut client = command(interpreter, [clients.join(name)]);
    client
        .env("ROUSE_HTTP", way.url("http", &scene.host(&format!("hello-{}", way.name))))
        .env("ROUSE_WEBSOCKET", way.url("ws", &scene.host(&format!("websocket-{}", way.name))))
        .env("ROUSE_ADDRESS", way.address.ip().to_string())
        .env("PYTHONDONTWRITEBYTECODE", "1");
    Ok(client)
}

async fn python(scene_name: &str, name: &str) -> Result<()> {
    let scene = Scene::new(scene_name).await?;
    let ways = scene.ways().await?;
    functions(&scene, &ways).await?;
    for way in &ways {
        let said = run(script(&scene, way, &Clients::from_environment()?.python, name)?, way).await?;
        ensure!(said.contains("is content"), "{name} did not come to its end:\n{said}");
    }
    scene.done().await
}

async fn node(scene_name: &str, name: &str) -> Result<()> {
    let scene = Scene::new(scene_name).await?;
    let ways = scene.ways().await?;
    functions(&scene, &ways).await?;
    for way in &ways {
        let said = run(script(&scene, way, Path::new("node"), name)?, way).await?;
        ensure!(said.contains("is content"), "{name} did not come to its end:\n{said}");
    }
    scene.done().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_with_python_requests() -> Result<()> {
    python("requests", "requests_client.py").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_with_python_aiohttp() -> Result<()> {
    python("aiohttp", "aiohttp_client.py").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_with_node_fetch() -> Result<()> {
    node("fetch", "fetch.mjs").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_with_node_ws() -> Result<()> {
    node("ws", "ws.mjs").await
}

/// curl to a function, with the address of its name.
fn curl(scene: &Scene, way: &Way, function: &str, path: &str, args: &[&str]) -> Command {
    let mut curl = command("curl", ["--silent", "--show-error", "--max-time", "60"]);
    curl.args(["--connect-to", &format!("::{}", way.address)]).args(args);
    curl.arg(format!("http://{}{path}", scene.host(function)));
    curl
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_with_curl() -> Result<()> {
    let scene = Scene::new("curl").await?;
    let ways = scene.ways().await?;
    let payload = tempfile::NamedTempFile::new()?;
    std::fs::write(payload.path(), vec![b'x'; 300_000])?;
    let file = payload.path().to_str().context("a path that is no text")?;
    let versions = [("10", "--http1.0"), ("11", "--http1.1"), ("2", "--http2-prior-knowledge")];
    let named = |version: &str, way: &Way| format!("curl{version}-{}", way.name);
    let all = versions.iter().flat_map(|(version, _)| ways.iter().map(|way| named(version, way)));
    let applied = all.map(|name| {
        let scene = &scene;
        async move { scene.ready(&name, json!({"scaling": {"initial": 0}})).await }
    });
    try_join_all(applied).await?;
    for way in &ways {
        for (version, flag) in versions {
            let function = named(version, way);
            let call = async |path: &str, args: &[&str]| {
                run(curl(&scene, way, &function, path, &[&[flag], args].concat()), way).await
            };
            let cold = call("/", &["--include", "--fail"]).await?;
            let is_cold = |said: &str| said.to_lowercase().contains("rouse-cold-start: true");
            ensure!(is_cold(&cold) && cold.contains("Hello from"), "{flag}: not a cold answer:\n{cold}");
            let warm = call("/", &["--include", "--fail"]).await?;
            ensure!(!is_cold(&warm) && warm.contains("Hello from"), "{flag}: not a warm answer:\n{warm}");

            let got =
                call("/size?bytes=3000000", &["--output", "/dev/null", "--write-out", "%{size_download}"]).await?;
            ensure!(got == "3000000", "{flag}: {got} bytes came of 3000000");
            let got = call("/upload", &["--upload-file", file]).await?;
            ensure!(got.contains("300000"), "{flag}: the function got {got}");
            let events = call("/sse?events=3&interval_ms=50", &["--no-buffer"]).await?;
            ensure!(events.matches("data: event").count() == 3, "{flag}: {events}");
            let head = call("/size?bytes=7", &["--head", "--fail"]).await?;
            ensure!(head.to_lowercase().contains("content-length: 7"), "{flag}: {head}");
        }
        let function = named("11", way);
        // The body is sent when the 100 has come: curl would wait for it longer than it may take in all.
        let expect =
            ["--upload-file", file, "--header", "Expect: 100-continue", "--expect100-timeout", "100", "--verbose"];
        let said = run(curl(&scene, way, &function, "/upload", &expect), way).await?;
        ensure!(said.contains("HTTP/1.1 100 Continue") && said.contains("\"bytes\":300000"), "{said}");
        // Of unknown length, so in chunks.
        let mut piped = curl(&scene, way, &function, "/upload", &["--upload-file", "-"]);
        let got = run(
            {
                piped.stdin(std::fs::File::open(file)?);
                piped
            },
            way,
        )
        .await?;
        ensure!(got.contains("300000"), "the function got {got}");
    }
    scene.done().await
}
