//! The scale patch.

use std::{fmt, time::Duration};

use futures::future::BoxFuture;
use http::{Request, header};
use kube::Client;
use rouse_crds::names::ACTIVATOR_FIELD_MANAGER;

/// Timeout of the API server. The patch is conditional, so sending it again does no harm.
const LIMIT: Duration = Duration::from_secs(5);

/// Scales revisions from zero.
pub trait Scaler: fmt::Debug + Send + Sync {
    /// Requests `replicas` pods of the Deployment of this name, if it is at zero.
    fn wake<'a>(&'a self, namespace: &'a str, revision: &'a str, replicas: u32)
    -> BoxFuture<'a, Result<(), WakeError>>;
}

/// Why a revision was not woken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WakeError {
    /// The replica count is not zero: another client was first.
    #[error("its replica count is not zero")]
    Awake,
    /// The Deployment does not exist, or not yet.
    #[error("the Deployment does not exist")]
    Missing,
    /// The patch is not allowed, and a retry soon does not help.
    #[error("{reason}: {message}")]
    Denied {
        /// Reason in CamelCase.
        reason: String,
        /// Message for people.
        message: String,
    },
    /// The API server is overloaded or unreachable, or reported a conflict.
    #[error("{message}")]
    Busy {
        /// The `Retry-After` of the API server, if it sent one.
        after: Option<Duration>,
        /// Message for people.
        message: String,
    },
}

impl WakeError {
    /// Returns the value of the metric label `result`.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Awake => "awake",
            Self::Missing => "missing",
            Self::Denied { .. } => "denied",
            Self::Busy { .. } => "busy",
        }
    }
}

/// Patches the scale subresource by the Kubernetes API.
#[derive(Clone)]
pub struct ApiScaler {
    client: Client,
}

impl fmt::Debug for ApiScaler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiScaler").finish_non_exhaustive()
    }
}

impl ApiScaler {
    /// Creates a scaler that uses this client.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client }
    }
}

impl Scaler for ApiScaler {
    fn wake<'a>(
        &'a self,
        namespace: &'a str,
        revision: &'a str,
        replicas: u32,
    ) -> BoxFuture<'a, Result<(), WakeError>> {
        Box::pin(async move {
            let busy = |message: String| WakeError::Busy { after: None, message };
            let patch = request(namespace, revision, replicas).map_err(|error| busy(error.to_string()))?;
            match tokio::time::timeout(LIMIT, self.client.request_text(patch)).await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(kube::Error::Api(status))) => Err(wake_error(&status)),
                Ok(Err(error)) => Err(busy(error.to_string())),
                Err(_) => Err(busy(format!("no response from the API server within {LIMIT:?}"))),
            }
        })
    }
}

/// Builds the patch. At zero the spec of a Scale object is empty, so the test holds at zero only.
fn request(namespace: &str, revision: &str, replicas: u32) -> Result<Request<Vec<u8>>, http::Error> {
    let body = format!(
        r#"[{{"op":"test","path":"/spec","value":{{}}}},{{"op":"add","path":"/spec/replicas","value":{replicas}}}]"#
    );
    Request::patch(format!(
        "/apis/apps/v1/namespaces/{namespace}/deployments/{revision}/scale?fieldManager={ACTIVATOR_FIELD_MANAGER}"
    ))
    .header(header::CONTENT_TYPE, "application/json-patch+json")
    .body(body.into_bytes())
}

fn wake_error(status: &kube::core::Status) -> WakeError {
    let denied = || WakeError::Denied { reason: "WakeDenied".to_owned(), message: status.message.clone() };
    match status.code {
        404 => WakeError::Missing,
        // A policy may deny with 422 too; its message contains the word.
        422 if status.message.contains("denied") => denied(),
        422 => WakeError::Awake,
        409 | 429 | 500.. => WakeError::Busy {
            after: status
                .details
                .as_ref()
                .map(|d| Duration::from_secs(u64::from(d.retry_after_seconds)))
                .filter(|d| !d.is_zero()),
            message: status.message.clone(),
        },
        _ => denied(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[test]
    fn the_patch_is_valid_only_at_zero() {
        let patch = request("ns", "hello-00001", 3).unwrap();
        assert_eq!(
            patch.uri(),
            "/apis/apps/v1/namespaces/ns/deployments/hello-00001/scale?fieldManager=rouse-activator"
        );
        assert_eq!(patch.headers()[header::CONTENT_TYPE], "application/json-patch+json");
        assert_eq!(
            String::from_utf8(patch.into_body()).unwrap(),
            r#"[{"op":"test","path":"/spec","value":{}},{"op":"add","path":"/spec/replicas","value":3}]"#
        );
    }

    #[rstest]
    #[case(422, "the server rejected our request due to an error in our request", WakeError::Awake)]
    #[case(404, "deployments.apps \"x\" not found", WakeError::Missing)]
    #[case(403, "exceeded quota", WakeError::Denied { reason: "WakeDenied".into(), message: "exceeded quota".into() })]
    #[case(422, "ValidatingAdmissionPolicy 'x' denied request: no", WakeError::Denied { reason: "WakeDenied".into(), message: "ValidatingAdmissionPolicy 'x' denied request: no".into() })]
    #[case(409, "try again", WakeError::Busy { after: None, message: "try again".into() })]
    #[case(503, "down", WakeError::Busy { after: None, message: "down".into() })]
    fn api_server_responses_are_classified(#[case] code: u16, #[case] message: &str, #[case] expected: WakeError) {
        let status = kube::core::Status { code, message: message.to_owned(), ..kube::core::Status::default() };
        assert_eq!(wake_error(&status), expected);
    }
}
