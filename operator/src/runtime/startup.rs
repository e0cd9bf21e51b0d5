//! What has to be there before anything can begin.

use std::time::Duration;

use kube::{Api, Client, api::ListParams};
use rouse_crds::Function;

/// How long the custom resource may take to appear: Helm makes it in the same moment as the operator.
const PATIENCE: Duration = Duration::from_secs(60);

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(2);

/// Waits until the API server knows Functions.
///
/// # Errors
///
/// If it does not within [`PATIENCE`], with what to do about it, or does not let this program read them.
pub async fn wait_for_crd(client: &Client) -> anyhow::Result<()> {
    let api: Api<kube::core::DynamicObject> =
        Api::all_with(client.clone(), &kube::core::ApiResource::erase::<Function>(&()));
    let began = tokio::time::Instant::now();
    loop {
        let problem = match api.list_metadata(&ListParams::default().limit(1)).await {
            Ok(_) => return Ok(()),
            Err(kube::Error::Api(status)) if status.is_not_found() => {
                "the custom resource Function (functions.rouse.dev) is not installed; apply crds/functions.rouse.dev.yaml, or install the chart with crds.enabled=true".to_owned()
            }
            Err(kube::Error::Api(status)) if status.is_forbidden() => {
                format!("this service account may not list Functions; does its ClusterRole come from the chart? {}", status.message)
            }
            Err(error) => format!("the API server cannot be reached: {error}"),
        };
        if began.elapsed() >= PATIENCE {
            anyhow::bail!(problem);
        }
        tracing::warn!(problem, "Waiting for the API server");
        tokio::time::sleep(PAUSE).await;
    }
}
