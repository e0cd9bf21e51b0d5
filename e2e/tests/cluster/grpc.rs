//! gRPC, by gRPC's own interoperability client and server.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rouse_e2e::{
    clients::Clients,
    process::command,
    world::{PATIENCE, until},
};
use serde_json::json;
use tokio::time::timeout;

use crate::{name_server::NameServer, scene::Scene, way::Way};

/// The cases of the client that need no cloud and no TLS.
const CASES: [&str; 16] = [
    "empty_unary",
    "large_unary",
    "client_streaming",
    "server_streaming",
    "ping_pong",
    "empty_stream",
    "timeout_on_sleeping_server",
    "cancel_after_begin",
    "cancel_after_first_response",
    "status_code_and_message",
    "special_status_message",
    "custom_metadata",
    "unimplemented_method",
    "unimplemented_service",
    "orca_per_rpc",
    "orca_oob",
];

/// With this the client looks for reports of load, which come in trailers.
const LOAD_REPORTS: &str = r#"{"loadBalancingConfig":[{"test_backend_metrics_load_balancer":{}}]}"#;

/// No case takes longer, cold or warm.
const LIMIT: Duration = Duration::from_secs(60);

/// One case against a host. What the client said is in the error.
async fn case(name: &str, host: &str, way: &Way) -> Result<()> {
    let names = NameServer::start(way.address.ip()).await?;
    // Port 0 makes the client take the host as it stands: a target with its own name server.
    let target = format!("dns://{}/{host}:{}", names.address, way.address.port());
    let mut client = command(Clients::from_environment()?.grpc, ["-server_host", &target, "-server_port", "0"]);
    client.args(["-test_case", name]);
    if name.starts_with("orca") {
        client.args(["-service_config_json", LOAD_REPORTS]);
    }
    let run = client.output();
    let output = timeout(LIMIT, run).await.with_context(|| format!("{name} by {} does not end", way.name))??;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{name} by {} failed ({}):\n{said}", way.name, output.status);
    Ok(())
}

/// The function of the tests: gRPC's own server.
pub(crate) struct Server;

impl Server {
    const NAME: &str = "grpc";

    pub(crate) async fn apply(scene: &Scene) -> Result<()> {
        let image = scene.cluster.images.get("rouse-suites").context("the cluster has no image of the suites")?;
        let spec = json!({
            "image": image, "command": ["/grpc-server", "-port=8080"], "protocol": "h2c", "scaling": {"idleTimeout": "2s"},
        });
        scene.apply(Self::NAME, spec).await?;
        scene.condition(Self::NAME, "Ready", "True").await?;
        Ok(())
    }
}

/// Every case against [`Server`], the first of which wakes it.
pub(crate) async fn all_cases(scene: &Scene, way: &Way) -> Result<()> {
    let host = scene.host(Server::NAME);
    // The ingress needs a moment for the host's own rule. Until then its calls come by HTTP/1.1, which gRPC cannot use.
    until(&format!("HTTP/2 to the function by {}", way.name), PATIENCE, || async {
        Ok(case("empty_unary", &host, way).await.ok())
    })
    .await?;
    scene.zero(Server::NAME).await?;
    for name in CASES {
        case(name, &host, way).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_interoperability_through_the_ingress_and_directly() -> Result<()> {
    let scene = Scene::new("grpc").await?;
    Server::apply(&scene).await?;
    for way in &scene.ways().await? {
        all_cases(&scene, way).await?;
    }
    scene.done().await
}
