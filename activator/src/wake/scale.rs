//! The scale patch.

use std::{fmt, time::Duration};

use futures::future::BoxFuture;
use http::{Request, header};
use kube::Client;
use rouse_crds::names::ACTIVATOR_FIELD_MANAGER;

/// How long the API server may take to answer. The patch is conditional, so sending it again does no harm.
const LIMIT: Duration = Duration::from_secs(5);

/// Sets a revision's count from zero.
pub trait Scaler: fmt::Debug + Send + Sync {
    /// Asks for `replicas` pods of the Deployment of this name, if it has none.
    fn wake<'a>(&'a self, namespace: &'a str, revision: &'a str, replicas: u32)
    -> BoxFuture<'a, Result<(), WakeError>>;
}

/// Why a revision was not woken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WakeError {
    /// Its count is not zero: somebody was there first.
    #[error("its count is not zero")]
    Awake,
    /// There is no such Deployment, or not yet.
    #[error("there is no such Deployment")]
    Missing,
    /// It is not allowed, and asking again soon does not help.
    #[error("{reason}: {message}")]
    Denied {
        /// A word in PascalCase.
        reason: String,
        /// A sentence.
        message: String,
    },
    /// The API server is busy, cannot be reached, or had a conflict.
    #[error("{message}")]
    Busy {
        /// When it wants to be asked again, if it said so.
        after: Option<Duration>,
        /// A sentence.
        message: String,
    },
}

impl WakeError {
    /// A word for metrics.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Awake => "awake",
            Self::Missing => "missing",
            Self::Denied { .. } => "denied",
            Self::Busy { .. } => "busy",
        }
    }
}

/// Patches the scale by the Kubernetes API.
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
    /// By this client.
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
                Ok(Err(kube::Error::Api(status))) => Err(refused(&status)),
                Ok(Err(error)) => Err(busy(error.to_string())),
                Err(_) => Err(busy(format!("no answer of the API server within {LIMIT:?}"))),
            }
        })
    }
}

/// At zero the spec of a Scale object is empty, so the test holds at zero and at nothing else.
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

fn refused(status: &kube::core::Status) -> WakeError {
    let denied = || WakeError::Denied { reason: "WakeDenied".to_owned(), message: status.message.clone() };
    match status.code {
        404 => WakeError::Missing,
        // A policy may deny with 422 too, and says that it did.
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
    fn answers_mean(#[case] code: u16, #[case] message: &str, #[case] expected: WakeError) {
        let status = kube::core::Status { code, message: message.to_owned(), ..kube::core::Status::default() };
        assert_eq!(refused(&status), expected);
    }
}
