//! Startup check: the custom resource is installed and readable.

use std::time::Duration;

use kube::{Api, Client, api::ListParams};
use rouse_crds::Function;

/// Time in which the custom resource must appear. Helm creates it together with the operator.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Interval of the check.
const INTERVAL: Duration = Duration::from_secs(2);

/// Waits until the API server serves Functions.
///
/// # Errors
///
/// If it does not within [`TIMEOUT`], or forbids to list them. The error says how to fix it.
pub async fn wait_for_crd(client: &Client) -> anyhow::Result<()> {
    let api: Api<kube::core::DynamicObject> =
        Api::all_with(client.clone(), &kube::core::ApiResource::erase::<Function>(&()));
    let began = tokio::time::Instant::now();
    loop {
        let problem = match api.list_metadata(&ListParams::default().limit(1)).await {
            Ok(_) => return Ok(()),
            Err(kube::Error::Api(status)) if status.is_not_found() => {
                "the CustomResourceDefinition functions.rouse.dev is not installed; apply crds/functions.rouse.dev.yaml, or install the chart with crds.enabled=true".to_owned()
            }
            Err(kube::Error::Api(status)) if status.is_forbidden() => {
                format!("the service account may not list Functions; check that the ClusterRole of the chart is installed: {}", status.message)
            }
            Err(error) => format!("failed to reach the API server: {error}"),
        };
        if began.elapsed() >= TIMEOUT {
            anyhow::bail!(problem);
        }
        tracing::warn!(problem, "Waiting for the API server");
        tokio::time::sleep(INTERVAL).await;
    }
}
