//! gRPC, with the interoperability client and server of the gRPC project.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rouse_e2e::{
    clients::Clients,
    process::command,
    workspace::{TIMEOUT, until},
};
use serde_json::json;
use tokio::time::timeout;

use crate::{entry_point::EntryPoint, name_server::NameServer, test_env::TestEnv};

/// Test cases of the client that need neither a cloud service nor TLS.
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

/// Makes the client evaluate load reports, which are sent in trailers.
const LOAD_REPORTS: &str = r#"{"loadBalancingConfig":[{"test_backend_metrics_load_balancer":{}}]}"#;

/// Timeout of a case.
const LIMIT: Duration = Duration::from_secs(60);

/// Runs one case against a host. An error contains the output of the client.
async fn case(name: &str, host: &str, entry: &EntryPoint) -> Result<()> {
    let names = NameServer::start(entry.address.ip()).await?;
    // Port 0 makes the client use the host unchanged: a target with its own DNS server.
    let target = format!("dns://{}/{host}:{}", names.address, entry.address.port());
    let mut client = command(Clients::from_environment()?.grpc, ["-server_host", &target, "-server_port", "0"]);
    client.args(["-test_case", name]);
    if name.starts_with("orca") {
        client.args(["-service_config_json", LOAD_REPORTS]);
    }
    let run = client.output();
    let output = timeout(LIMIT, run).await.with_context(|| format!("{name} by {} timed out", entry.name))??;
    let printed = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{name} by {} failed ({}):\n{printed}", entry.name, output.status);
    Ok(())
}

/// A Function that runs the interoperability server.
pub(crate) struct Server;

impl Server {
    const NAME: &str = "grpc";

    pub(crate) async fn apply(env: &TestEnv) -> Result<()> {
        let image = env.cluster.images.get("rouse-suites").context("the cluster has no image of the suites")?;
        let spec = json!({
            "image": image, "command": ["/grpc-server", "-port=8080"], "protocol": "h2c", "scaling": {"idleTimeout": "2s"},
        });
        env.apply(Self::NAME, spec).await?;
        env.condition(Self::NAME, "Ready", "True").await?;
        Ok(())
    }
}

/// Runs every case against [`Server`]. The first one wakes it.
pub(crate) async fn all_cases(env: &TestEnv, entry: &EntryPoint) -> Result<()> {
    let host = env.host(Server::NAME);
    // Until the ingress has the rule for the host, it forwards requests by HTTP/1.1, which gRPC cannot use.
    until(&format!("HTTP/2 to the function by {}", entry.name), TIMEOUT, || async {
        Ok(case("empty_unary", &host, entry).await.ok())
    })
    .await?;
    env.without_pods(Server::NAME).await?;
    for name in CASES {
        case(name, &host, entry).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_interoperability_through_the_ingress_and_directly() -> Result<()> {
    let env = TestEnv::new("grpc").await?;
    Server::apply(&env).await?;
    for entry in &env.entry_points().await? {
        all_cases(&env, entry).await?;
    }
    env.finish().await
}
