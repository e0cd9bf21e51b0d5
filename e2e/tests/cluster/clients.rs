//! Third-party clients, each with a cold and with warm requests, through the ingress and directly. Their scripts are in
//! `e2e/clients/` and check that the first request had a cold start.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use futures::future::try_join_all;
use rouse_e2e::{Places, clients::Clients, process::command};
use serde_json::json;
use tokio::{process::Command, time::timeout};

use crate::{entry_point::EntryPoint, test_env::TestEnv};

/// Timeout of a client.
const LIMIT: Duration = Duration::from_secs(120);

/// Runs a client. An error contains its output.
async fn run(mut client: Command, entry: &EntryPoint) -> Result<String> {
    let line = format!("{:?} by {}", client.as_std(), entry.name);
    let output = timeout(LIMIT, client.output()).await.with_context(|| format!("{line} timed out"))??;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{line} failed ({}):\n{out}\n{err}", output.status);
    // curl prints headers on stderr.
    Ok(format!("{err}{out}"))
}

/// Creates two Functions at zero for each entry point: hello, and a WebSocket echo server.
async fn functions(env: &TestEnv, entry_points: &[EntryPoint]) -> Result<()> {
    let image = env.cluster.images.get("rouse-suites").context("the cluster has no image of the suites")?;
    try_join_all(entry_points.iter().map(|entry| async {
        let hello = format!("hello-{}", entry.name);
        env.ready(&hello, json!({"scaling": {"initial": 0}})).await?;
        let spec = json!({"image": image, "command": ["/websocket-server", "-addr=:8080"], "scaling": {"initial": 0}});
        env.ready(&format!("websocket-{}", entry.name), spec).await
    }))
    .await?;
    Ok(())
}

/// Returns a command for a script in `e2e/clients/`, with its environment.
fn script(env: &TestEnv, entry: &EntryPoint, interpreter: &Path, name: &str) -> Result<Command> {
    let clients = Places::discover()?.repo.join("e2e/clients");
    let mut client = command(interpreter, [clients.join(name)]);
    client
        .env("ROUSE_HTTP", entry.url("http", &env.host(&format!("hello-{}", entry.name))))
        .env("ROUSE_WEBSOCKET", entry.url("ws", &env.host(&format!("websocket-{}", entry.name))))
        .env("ROUSE_ADDRESS", entry.address.ip().to_string())
        .env("PYTHONDONTWRITEBYTECODE", "1");
    Ok(client)
}

async fn python(scene_name: &str, name: &str) -> Result<()> {
    let env = TestEnv::new(scene_name).await?;
    let entry_points = env.entry_points().await?;
    functions(&env, &entry_points).await?;
    for entry in &entry_points {
        let printed = run(script(&env, entry, &Clients::from_environment()?.python, name)?, entry).await?;
        ensure!(printed.contains(" passed"), "{name} did not pass:\n{printed}");
    }
    env.finish().await
}

async fn node(scene_name: &str, name: &str) -> Result<()> {
    let env = TestEnv::new(scene_name).await?;
    let entry_points = env.entry_points().await?;
    functions(&env, &entry_points).await?;
    for entry in &entry_points {
        let printed = run(script(&env, entry, Path::new("node"), name)?, entry).await?;
        ensure!(printed.contains(" passed"), "{name} did not pass:\n{printed}");
    }
    env.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn client_python_requests() -> Result<()> {
    python("requests", "requests_client.py").await
}

#[tokio::test(flavor = "multi_thread")]
async fn client_python_aiohttp() -> Result<()> {
    python("aiohttp", "aiohttp_client.py").await
}

#[tokio::test(flavor = "multi_thread")]
async fn client_node_fetch() -> Result<()> {
    node("fetch", "fetch.mjs").await
}

#[tokio::test(flavor = "multi_thread")]
async fn client_node_ws() -> Result<()> {
    node("ws", "ws.mjs").await
}

/// Returns a curl command for a Function at an entry point.
fn curl(env: &TestEnv, entry: &EntryPoint, function: &str, path: &str, args: &[&str]) -> Command {
    let mut curl = command("curl", ["--silent", "--show-error", "--max-time", "60"]);
    curl.args(["--connect-to", &format!("::{}", entry.address)]).args(args);
    curl.arg(format!("http://{}{path}", env.host(function)));
    curl
}

#[tokio::test(flavor = "multi_thread")]
async fn client_curl() -> Result<()> {
    let env = TestEnv::new("curl").await?;
    let entry_points = env.entry_points().await?;
    let payload = tempfile::NamedTempFile::new()?;
    std::fs::write(payload.path(), vec![b'x'; 300_000])?;
    let file = payload.path().to_str().context("a path that is no text")?;
    let versions = [("10", "--http1.0"), ("11", "--http1.1"), ("2", "--http2-prior-knowledge")];
    let named = |version: &str, entry: &EntryPoint| format!("curl{version}-{}", entry.name);
    let all = versions.iter().flat_map(|(version, _)| entry_points.iter().map(|entry| named(version, entry)));
    let applied = all.map(|name| {
        let env = &env;
        async move { env.ready(&name, json!({"scaling": {"initial": 0}})).await }
    });
    try_join_all(applied).await?;
    for entry in &entry_points {
        for (version, flag) in versions {
            let function = named(version, entry);
            let request = async |path: &str, args: &[&str]| {
                run(curl(&env, entry, &function, path, &[&[flag], args].concat()), entry).await
            };
            let cold = request("/", &["--include", "--fail"]).await?;
            let is_cold = |printed: &str| printed.to_lowercase().contains("rouse-cold-start: true");
            ensure!(is_cold(&cold) && cold.contains("Hello from"), "{flag}: not a cold response:\n{cold}");
            let warm = request("/", &["--include", "--fail"]).await?;
            ensure!(!is_cold(&warm) && warm.contains("Hello from"), "{flag}: not a warm response:\n{warm}");

            let received =
                request("/size?bytes=3000000", &["--output", "/dev/null", "--write-out", "%{size_download}"]).await?;
            ensure!(received == "3000000", "{flag}: received {received} of 3000000 bytes");
            let received = request("/upload", &["--upload-file", file]).await?;
            ensure!(received.contains("300000"), "{flag}: the function got {received}");
            let events = request("/sse?events=3&interval_ms=50", &["--no-buffer"]).await?;
            ensure!(events.matches("data: event").count() == 3, "{flag}: {events}");
            let head = request("/size?bytes=7", &["--head", "--fail"]).await?;
            ensure!(head.to_lowercase().contains("content-length: 7"), "{flag}: {head}");
        }
        let function = named("11", entry);
        // curl sends the body after the 100: without it, curl would wait longer than its timeout.
        let expect =
            ["--upload-file", file, "--header", "Expect: 100-continue", "--expect100-timeout", "100", "--verbose"];
        let printed = run(curl(&env, entry, &function, "/upload", &expect), entry).await?;
        ensure!(printed.contains("HTTP/1.1 100 Continue") && printed.contains("\"bytes\":300000"), "{printed}");
        // Without a known length, so with chunked encoding.
        let mut piped = curl(&env, entry, &function, "/upload", &["--upload-file", "-"]);
        let received = run(
            {
                piped.stdin(std::fs::File::open(file)?);
                piped
            },
            entry,
        )
        .await?;
        ensure!(received.contains("300000"), "the function got {received}");
    }
    env.finish().await
}
