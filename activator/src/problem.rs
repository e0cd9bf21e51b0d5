//! Answers that Rouse gives itself: `application/problem+json` (RFC 9457), with a stable type.

use std::time::Duration;

use http::{HeaderValue, Response, StatusCode, header};
use rouse_crds::pod::PodFailure;
use serde::Serialize;

use crate::{
    admit::{Full, FunctionId, Measure, Refusal, Scope},
    proxy::Body,
};

/// What every `type` begins with.
pub const TYPES: &str = "https://rouse.dev/problems/";

/// An answer that Rouse gives itself.
#[derive(Debug)]
pub struct Problem {
    kind: Kind,
    detail: String,
    retry_after: Option<Duration>,
    allow: Option<HeaderValue>,
    reason: Option<String>,
}

/// What is wrong. Clients may rely on these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The request is not one that HTTP allows.
    BadRequest,
    /// The request's head is larger than is taken.
    HeadTooLarge,
    /// The request's line is longer than is taken.
    TargetTooLong,
    /// The request's head did not come in time.
    HeadTimeout,
    /// No function answers to this host here.
    UnknownHost,
    /// A function answers to this host, and none to this path of it.
    UnknownPath,
    /// The path can be read in several ways that do not lead to the same function.
    AmbiguousPath,
    /// The route lets other methods in.
    MethodNotAllowed,
    /// The function was deleted while the request waited.
    FunctionDeleted,
    /// As many requests wait for the function as may.
    QueueFull,
    /// The function has no pod and is woken too often.
    WakeThrottled,
    /// The function's pods do not start.
    FunctionFailing,
    /// No pod was ready in time.
    ColdStartTimeout,
    /// The pod took too long to begin its answer.
    ResponseTimeout,
    /// No pod could be connected to.
    PodUnreachable,
    /// The pod ended the connection without an answer, or answered with something that is not HTTP.
    BadAnswer,
    /// This activator is going.
    ShuttingDown,
    /// Tunnels to other hosts are not what this is for.
    NotSupported,
}

#[derive(Serialize)]
struct Document<'a> {
    r#type: String,
    title: &'static str,
    status: u16,
    detail: &'a str,
    instance: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    function: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

impl Kind {
    /// Every kind, in the order of the reference page.
    pub const ALL: [Self; 18] = [
        Self::BadRequest,
        Self::AmbiguousPath,
        Self::UnknownHost,
        Self::UnknownPath,
        Self::FunctionDeleted,
        Self::MethodNotAllowed,
        Self::HeadTimeout,
        Self::TargetTooLong,
        Self::QueueFull,
        Self::WakeThrottled,
        Self::HeadTooLarge,
        Self::NotSupported,
        Self::PodUnreachable,
        Self::BadAnswer,
        Self::FunctionFailing,
        Self::ShuttingDown,
        Self::ColdStartTimeout,
        Self::ResponseTimeout,
    ];

    /// The last part of the `type`; also the word in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::BadRequest => "bad-request",
            Self::HeadTooLarge => "head-too-large",
            Self::TargetTooLong => "target-too-long",
            Self::HeadTimeout => "head-timeout",
            Self::UnknownHost => "unknown-host",
            Self::UnknownPath => "unknown-path",
            Self::AmbiguousPath => "ambiguous-path",
            Self::MethodNotAllowed => "method-not-allowed",
            Self::FunctionDeleted => "function-deleted",
            Self::QueueFull => "queue-full",
            Self::WakeThrottled => "wake-throttled",
            Self::FunctionFailing => "function-failing",
            Self::ColdStartTimeout => "cold-start-timeout",
            Self::ResponseTimeout => "response-timeout",
            Self::PodUnreachable => "pod-unreachable",
            Self::BadAnswer => "bad-answer",
            Self::ShuttingDown => "shutting-down",
            Self::NotSupported => "not-supported",
        }
    }

    /// The status code of the response.
    #[must_use]
    pub fn status(self) -> StatusCode {
        match self {
            Self::BadRequest | Self::AmbiguousPath => StatusCode::BAD_REQUEST,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::HeadTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::UnknownHost | Self::UnknownPath | Self::FunctionDeleted => StatusCode::NOT_FOUND,
            Self::QueueFull | Self::WakeThrottled => StatusCode::TOO_MANY_REQUESTS,
            Self::FunctionFailing | Self::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
            Self::ColdStartTimeout | Self::ResponseTimeout => StatusCode::GATEWAY_TIMEOUT,
            Self::PodUnreachable | Self::BadAnswer => StatusCode::BAD_GATEWAY,
            Self::NotSupported => StatusCode::NOT_IMPLEMENTED,
        }
    }

    /// Whether the connection ends with this answer: where a message ends is not certain, or it has not been read.
    #[must_use]
    pub fn closes(self) -> bool {
        matches!(self, Self::BadRequest | Self::HeadTooLarge | Self::TargetTooLong | Self::HeadTimeout)
    }

    /// The `title` of the response.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::BadRequest => "The request is malformed",
            Self::HeadTooLarge => "The head of the request is too large",
            Self::TargetTooLong => "The request line is too long",
            Self::HeadTimeout => "The request did not come in time",
            Self::UnknownHost => "No function answers to this host",
            Self::UnknownPath => "No function answers to this path",
            Self::AmbiguousPath => "The path is ambiguous",
            Self::MethodNotAllowed => "The method is not allowed here",
            Self::FunctionDeleted => "The function was deleted",
            Self::QueueFull => "Too many requests wait",
            Self::WakeThrottled => "The function is woken too often",
            Self::FunctionFailing => "The function does not start",
            Self::ColdStartTimeout => "The function did not start in time",
            Self::ResponseTimeout => "The function did not answer in time",
            Self::PodUnreachable => "The function cannot be connected to",
            Self::BadAnswer => "The function ended the connection without an answer",
            Self::ShuttingDown => "The activator is shutting down",
            Self::NotSupported => "This is not supported",
        }
    }
}

impl Problem {
    /// A problem, explained in a sentence.
    #[must_use]
    pub fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into(), retry_after: None, allow: None, reason: None }
    }

    /// When another try makes sense.
    #[must_use]
    pub fn retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }

    /// Methods that are let in instead.
    #[must_use]
    pub fn allow(mut self, methods: HeaderValue) -> Self {
        self.allow = Some(methods);
        self
    }

    /// The word and the sentence of Kubernetes that explain it, if there are any.
    #[must_use]
    pub fn because(mut self, failure: Option<PodFailure>) -> Self {
        if let Some(PodFailure { reason, message }) = failure {
            self.detail = format!("{}: {}", self.detail, if message.is_empty() { &reason } else { &message });
            self.reason = Some(reason);
        }
        self
    }

    /// What is wrong.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The answer to the request of this id.
    #[must_use]
    pub fn response(&self, function: Option<&FunctionId>, request_id: &str) -> Response<Body> {
        let status = self.kind.status();
        let document = Document {
            r#type: format!("{TYPES}{}", self.kind.name()),
            title: self.kind.title(),
            status: status.as_u16(),
            detail: &self.detail,
            instance: request_id,
            namespace: function.map(|f| &*f.namespace),
            function: function.map(|f| &*f.name),
            reason: self.reason.as_deref(),
        };
        // Strings and a number: there is nothing in it that JSON cannot say.
        let text = serde_json::to_vec(&document).unwrap_or_default();
        let mut response = Response::new(Body::full(text.into()));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(delay) = self.retry_after {
            // Whole seconds, rounded up: zero would mean at once.
            let seconds = delay.as_secs() + u64::from(delay.subsec_nanos() > 0);
            headers.insert(header::RETRY_AFTER, seconds.max(1).into());
        }
        if let Some(methods) = &self.allow {
            headers.insert(header::ALLOW, methods.clone());
        }
        response
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Deleted => Self::new(Kind::FunctionDeleted, "the function was deleted before it answered"),
            Refusal::QueueFull(full) => {
                let (reason, detail) = cap(full);
                let mut problem = Self::new(Kind::QueueFull, detail).retry_after(Duration::from_secs(1));
                problem.reason = Some(reason.to_owned());
                problem
            }
            Refusal::Throttled { scope, retry_after } => {
                let (reason, detail) = match scope {
                    Scope::Function => ("FunctionWakes", "the function was woken too often of late"),
                    _ => ("NamespaceWakes", "the functions of this namespace were woken too often of late"),
                };
                let mut problem = Self::new(Kind::WakeThrottled, detail).retry_after(retry_after);
                problem.reason = Some(reason.to_owned());
                problem
            }
            Refusal::Failing { failure, retry_after } => {
                let PodFailure { reason, message } = failure;
                let detail = if message.is_empty() { reason.clone() } else { message };
                let mut problem = Self::new(Kind::FunctionFailing, detail).retry_after(retry_after);
                problem.reason = Some(reason);
                problem
            }
        }
    }
}

/// A cap in a word and in a sentence.
fn cap(full: Full) -> (&'static str, &'static str) {
    match (full.scope, full.measure) {
        (Scope::Function, Measure::Requests) => {
            ("FunctionRequests", "as many requests wait for the function as spec.queue.maxRequests allows")
        }
        (Scope::Function, Measure::Bytes) => (
            "FunctionBytes",
            "the requests that wait for the function hold as many bytes as spec.queue.maxBytes allows",
        ),
        (Scope::Namespace, Measure::Requests) => {
            ("NamespaceRequests", "as many requests wait for the functions of this namespace as the activator allows")
        }
        (Scope::Namespace, Measure::Bytes) => (
            "NamespaceBytes",
            "the requests that wait for the functions of this namespace hold as many bytes as the activator allows",
        ),
        (Scope::Process, Measure::Requests) => {
            ("ProcessRequests", "as many requests wait as the activator allows in all")
        }
        (Scope::Process, Measure::Bytes) => {
            ("ProcessBytes", "the requests that wait hold as many bytes as the activator allows in all")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    #[tokio::test]
    async fn it_says_what_where_and_when() {
        let failure =
            PodFailure { reason: "ErrImagePull".into(), message: "container function: \"x\" not found".into() };
        let problem = Problem::from(Refusal::Failing { failure, retry_after: Duration::from_millis(1200) });
        let id = FunctionId { namespace: "ns".into(), name: "hello".into(), uid: "u".into() };
        let response = problem.response(Some(&id), "abc");
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()["retry-after"], "2");
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        let body: serde_json::Value =
            serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap();
        assert_eq!(
            body,
            serde_json::json!({
                "type": "https://rouse.dev/problems/function-failing", "title": "The function does not start", "status": 503,
                "detail": "container function: \"x\" not found", "instance": "abc", "namespace": "ns", "function": "hello",
                "reason": "ErrImagePull",
            })
        );
    }
}
