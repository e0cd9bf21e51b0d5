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
        422 if is_failed_test(status) => WakeError::Awake,
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

/// Whether a 422 says that the test of the patch failed. Policies, webhooks and validation refuse with 422 too: policies and
/// validation name the object and the causes, and webhooks give no reason or name the object.
fn is_failed_test(status: &kube::core::Status) -> bool {
    let about_object = |details: &kube::core::response::StatusDetails| {
        !(details.causes.is_empty() && details.name.is_empty() && details.kind.is_empty())
    };
    status.reason == "Invalid" && !status.details.as_ref().is_some_and(about_object)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

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

    /// A Status as an API server sends it.
    fn status(code: u16, reason: &str, message: &str, details: &Value) -> kube::core::Status {
        let status =
            json!({"code": code, "reason": reason, "message": message, "details": details, "status": "Failure"});
        serde_json::from_value(status).unwrap()
    }

    #[rstest]
    // apiserver/pkg/endpoints/handlers/patch.go: NewGenericServerResponse of a failed test.
    #[case::test(422, "Invalid", "the server rejected our request due to an error in our request", json!({}), true)]
    #[case::of_a_function_called_denied(422, "Invalid", "the server rejected our request (patch denied)", json!({}), true)]
    #[case::without_details(422, "Invalid", "the server rejected our request", Value::Null, true)]
    // apiserver/pkg/admission/plugin/policy/validating/dispatcher.go
    #[case::policy(422, "Invalid", "deployments.apps \"x\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no", json!({"name": "x", "group": "apps", "kind": "deployments", "causes": [{"message": "no"}]}), false)]
    #[case::policy_without_the_word(422, "Invalid", "nein", json!({"name": "x", "kind": "deployments", "causes": [{"message": "nein"}]}), false)]
    #[case::webhook(422, "", "admission webhook \"w\" refused the request: no", Value::Null, false)]
    #[case::validation(422, "Invalid", "Scale.autoscaling \"x\" is invalid: spec.replicas: too many", json!({"name": "x", "kind": "Scale", "causes": [{"reason": "FieldValueInvalid", "field": "spec.replicas", "message": "too many"}]}), false)]
    #[case::quota(403, "Forbidden", "exceeded quota", json!({"name": "x", "kind": "deployments"}), false)]
    fn a_patch_that_does_not_apply_is_told_from_one_that_is_denied(
        #[case] code: u16,
        #[case] reason: &str,
        #[case] message: &str,
        #[case] details: Value,
        #[case] awake: bool,
    ) {
        let denied = || WakeError::Denied { reason: "WakeDenied".into(), message: message.into() };
        let expected = if awake { WakeError::Awake } else { denied() };
        assert_eq!(wake_error(&status(code, reason, message, &details)), expected);
    }

    #[rstest]
    #[case(404, "deployments.apps \"x\" not found", WakeError::Missing)]
    #[case(409, "try again", WakeError::Busy { after: None, message: "try again".into() })]
    #[case(503, "down", WakeError::Busy { after: None, message: "down".into() })]
    fn other_responses_are_classified_by_their_code(
        #[case] code: u16,
        #[case] message: &str,
        #[case] expected: WakeError,
    ) {
        assert_eq!(wake_error(&status(code, "", message, &Value::Null)), expected);
    }
}
