//! Startup check: the custom resource is installed and readable.

use std::time::Duration;

use kube::{Api, Client, api::ListParams};
use rouse_crds::Function;
use tokio::time::Instant;

/// Time in which the custom resource must appear, from the first response of the API server. Helm creates it together with the
/// operator.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Interval of the check.
const INTERVAL: Duration = Duration::from_secs(2);

/// Waits until the API server serves Functions.
///
/// # Errors
///
/// If it responds and does not serve them within [`TIMEOUT`], or forbids to list them. The error says how to fix it. An API
/// server that cannot be reached is waited for: a restart would only add the backoff of the kubelet to its downtime.
pub async fn wait_for_crd(client: &Client) -> anyhow::Result<()> {
    let api: Api<kube::core::DynamicObject> =
        Api::all_with(client.clone(), &kube::core::ApiResource::erase::<Function>(&()));
    let mut responded: Option<Instant> = None;
    loop {
        let (problem, responds) = match api.list_metadata(&ListParams::default().limit(1)).await {
            Ok(_) => return Ok(()),
            Err(kube::Error::Api(status)) if status.is_not_found() => {
                ("the CustomResourceDefinition functions.rouse.dev is not installed; apply crds/functions.rouse.dev.yaml, or install the chart with crds.enabled=true".to_owned(), true)
            }
            Err(kube::Error::Api(status)) if status.is_forbidden() => {
                (format!("the service account may not list Functions; check that the ClusterRole of the chart is installed: {}", status.message), true)
            }
            Err(error) => (format!("failed to reach the API server: {error}"), false),
        };
        responded = responds.then(|| responded.unwrap_or_else(Instant::now));
        if responded.is_some_and(|since| since.elapsed() >= TIMEOUT) {
            anyhow::bail!(problem);
        }
        tracing::warn!(problem, "Waiting for the API server");
        tokio::time::sleep(INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use http::{Request, Response};
    use kube::client::Body;

    use super::*;

    /// A client of an API server that responds with `first` for a number of requests, and then with `then`.
    fn client(requests: usize, first: u16, then: u16) -> Client {
        let count = Arc::new(AtomicUsize::new(0));
        let service = tower::service_fn(move |_: Request<Body>| {
            let code = if count.fetch_add(1, Ordering::SeqCst) < requests { first } else { then };
            let reason = if code == 404 { "NotFound" } else { "ServiceUnavailable" };
            let body = match code {
                200 => r#"{"apiVersion":"meta.k8s.io/v1","kind":"PartialObjectMetadataList","metadata":{},"items":[]}"#
                    .to_owned(),
                _ => format!(
                    r#"{{"kind":"Status","apiVersion":"v1","metadata":{{}},"status":"Failure","code":{code},"message":"m","reason":"{reason}"}}"#
                ),
            };
            async move {
                Ok::<_, kube::Error>(Response::builder().status(code).body(Body::from(body.into_bytes())).unwrap())
            }
        });
        Client::new(service, "default")
    }

    #[tokio::test(start_paused = true)]
    async fn waits_for_the_api_server_without_a_limit() {
        let began = Instant::now();
        wait_for_crd(&client(300, 503, 200)).await.unwrap();
        assert!(began.elapsed() > 5 * TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_missing_definition_is_an_error_in_the_end() {
        let error = wait_for_crd(&client(300, 503, 404)).await.unwrap_err();
        assert!(error.to_string().contains("crds.enabled=true"), "{error}");
    }
}
