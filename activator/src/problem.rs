//! Error responses of the activator: `application/problem+json` (RFC 9457) with a stable type.

//! A gRPC request gets the same problem as a gRPC status ([`grpc`]).

mod grpc;

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use rouse_crds::pod::PodFailure;
use serde::Serialize;

use crate::{
    admit::{CapReached, Measure, Rejection, Scope},
    function_id::FunctionId,
};

pub use grpc::{ROUSE_PROBLEM, Status};

/// Prefix of every `type`.
pub const TYPES: &str = "https://rouse.dev/problems/";

/// An error response of the activator.
#[derive(Debug)]
pub struct Problem {
    kind: Kind,
    detail: String,
    /// What the kubelet, the scheduler or the API server says. Not for everybody: it names registries, Secrets, quotas and
    /// nodes.
    cause: Option<Box<str>>,
    retry_after: Option<Duration>,
    allow: Option<HeaderValue>,
    reason: Option<Box<str>>,
}

/// Format of an error response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `application/problem+json`.
    Json,
    /// A gRPC status.
    Grpc,
}

/// Kind of problem. Clients may rely on these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The request is malformed.
    BadRequest,
    /// The request head is too large.
    HeaderTooLarge,
    /// The request line is too long.
    UriTooLong,
    /// The request head was not complete in time, or the body arrived below its minimum rate.
    RequestTimeout,
    /// No function has this host.
    UnknownHost,
    /// A function has this host, but none has this path of it.
    UnknownPath,
    /// Different normalisations of the path match different routes.
    AmbiguousPath,
    /// The route allows other methods only.
    MethodNotAllowed,
    /// The function was deleted while the request was queued.
    FunctionDeleted,
    /// A cap on queued requests or bytes was reached.
    QueueFull,
    /// The function has no pod, and its wake is rate limited.
    WakeThrottled,
    /// The function's pods fail to start.
    FunctionFailing,
    /// No pod was ready within the timeout.
    ColdStartTimeout,
    /// The pod did not send the head of its response within the timeout.
    ResponseTimeout,
    /// The deadline of the client (`grpc-timeout`) passed before there was a response.
    DeadlineExceeded,
    /// No pod could be connected to.
    PodUnreachable,
    /// The pod closed the connection without a response, or sent an invalid one.
    BadResponse,
    /// The activator is shutting down.
    ShuttingDown,
    /// The connection was refused: the activator is short of memory or file descriptors, or the client has too many
    /// connections.
    Overloaded,
    /// Not supported: tunnels to other hosts (CONNECT), and TRACE that ends at the activator.
    NotSupported,
    /// The request has an expectation other than `100-continue`.
    ExpectationFailed,
    /// The request has passed the activator too often.
    LoopDetected,
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
    pub const ALL: [Self; 22] = [
        Self::BadRequest,
        Self::AmbiguousPath,
        Self::UnknownHost,
        Self::UnknownPath,
        Self::FunctionDeleted,
        Self::MethodNotAllowed,
        Self::RequestTimeout,
        Self::UriTooLong,
        Self::ExpectationFailed,
        Self::QueueFull,
        Self::WakeThrottled,
        Self::HeaderTooLarge,
        Self::NotSupported,
        Self::PodUnreachable,
        Self::BadResponse,
        Self::FunctionFailing,
        Self::ShuttingDown,
        Self::Overloaded,
        Self::ColdStartTimeout,
        Self::ResponseTimeout,
        Self::DeadlineExceeded,
        Self::LoopDetected,
    ];

    /// Returns the last part of the `type`, which is also the metric label.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::BadRequest => "bad-request",
            Self::HeaderTooLarge => "header-too-large",
            Self::UriTooLong => "uri-too-long",
            Self::RequestTimeout => "request-timeout",
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
            Self::DeadlineExceeded => "deadline-exceeded",
            Self::PodUnreachable => "pod-unreachable",
            Self::BadResponse => "bad-response",
            Self::ShuttingDown => "shutting-down",
            Self::Overloaded => "overloaded",
            Self::NotSupported => "not-supported",
            Self::ExpectationFailed => "expectation-failed",
            Self::LoopDetected => "loop-detected",
        }
    }

    /// Returns the status code of the response.
    #[must_use]
    pub fn status(self) -> StatusCode {
        match self {
            Self::BadRequest | Self::AmbiguousPath => StatusCode::BAD_REQUEST,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::HeaderTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::UriTooLong => StatusCode::URI_TOO_LONG,
            Self::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::UnknownHost | Self::UnknownPath | Self::FunctionDeleted => StatusCode::NOT_FOUND,
            Self::QueueFull | Self::WakeThrottled => StatusCode::TOO_MANY_REQUESTS,
            Self::FunctionFailing | Self::ShuttingDown | Self::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
            Self::ColdStartTimeout | Self::ResponseTimeout | Self::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
            Self::PodUnreachable | Self::BadResponse => StatusCode::BAD_GATEWAY,
            Self::NotSupported => StatusCode::NOT_IMPLEMENTED,
            Self::ExpectationFailed => StatusCode::EXPECTATION_FAILED,
            Self::LoopDetected => StatusCode::LOOP_DETECTED,
        }
    }

    /// Whether the connection is closed after the response: the end of the request is not certain, or it has not been
    /// read.
    #[must_use]
    pub fn closes(self) -> bool {
        matches!(
            self,
            Self::BadRequest | Self::HeaderTooLarge | Self::UriTooLong | Self::RequestTimeout | Self::Overloaded
        )
    }

    /// Returns the `title` of the response.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::BadRequest => "The request is malformed",
            Self::HeaderTooLarge => "The request header is too large",
            Self::UriTooLong => "The request line is too long",
            Self::RequestTimeout => "The request timed out",
            Self::UnknownHost => "Unknown host",
            Self::UnknownPath => "Unknown path",
            Self::AmbiguousPath => "The path is ambiguous",
            Self::MethodNotAllowed => "Method not allowed",
            Self::FunctionDeleted => "The function was deleted",
            Self::QueueFull => "The request queue is full",
            Self::WakeThrottled => "The wake rate limit was reached",
            Self::FunctionFailing => "The function failed to start",
            Self::ColdStartTimeout => "Cold start timed out",
            Self::ResponseTimeout => "The response timed out",
            Self::DeadlineExceeded => "The deadline of the client passed",
            Self::PodUnreachable => "Failed to connect to the function",
            Self::BadResponse => "Invalid response from the function",
            Self::ShuttingDown => "The activator is shutting down",
            Self::Overloaded => "The activator is overloaded",
            Self::NotSupported => "Not supported",
            Self::ExpectationFailed => "The expectation is not supported",
            Self::LoopDetected => "The request loops",
        }
    }
}

impl Format {
    /// Returns the format that the client of a request reads.
    pub(crate) fn of(request: &HeaderMap) -> Self {
        if grpc::is_grpc(request) { Self::Grpc } else { Self::Json }
    }
}

impl Problem {
    /// Creates a problem with a detail sentence.
    #[must_use]
    pub fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into(), cause: None, retry_after: None, allow: None, reason: None }
    }

    /// Sets `Retry-After`.
    #[must_use]
    pub fn retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }

    /// Sets `Allow`.
    #[must_use]
    pub fn allow(mut self, methods: HeaderValue) -> Self {
        self.allow = Some(methods);
        self
    }

    /// Adds the reason and message that Kubernetes reports, if there are any. Clients get the reason; the message is part of
    /// the response by [`Problem::with_cause`] only.
    #[must_use]
    pub fn because(mut self, failure: Option<PodFailure>) -> Self {
        if let Some(PodFailure { reason, message }) = failure {
            self.cause = Some(message.into_boxed_str()).filter(|message| !message.is_empty());
            self.reason = Some(reason.into_boxed_str());
        }
        self
    }

    /// Adds the message that Kubernetes reports to the detail, for clients inside the cluster.
    #[must_use]
    pub fn with_cause(mut self) -> Self {
        if let Some(cause) = self.cause.take() {
            self.detail = format!("{}: {cause}", self.detail);
        }
        self
    }

    /// Returns the kind of problem.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Returns the response to the request of this id.
    #[must_use]
    pub fn response(&self, format: Format, function: Option<&FunctionId>, request_id: &str) -> Response<Bytes> {
        let mut response = match format {
            Format::Json => self.document(function, request_id),
            Format::Grpc => self.grpc_response(request_id),
        };
        let headers = response.headers_mut();
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

    fn document(&self, function: Option<&FunctionId>, request_id: &str) -> Response<Bytes> {
        let status = self.kind.status();
        let document = Document {
            r#type: format!("{TYPES}{}", self.kind.name()),
            title: self.kind.title(),
            status: status.as_u16(),
            detail: &self.detail,
            instance: request_id,
            namespace: function.map(|f| &*f.key.namespace),
            function: function.map(|f| &*f.key.name),
            reason: self.reason.as_deref(),
        };
        // Strings and a number: they always serialize.
        let text = serde_json::to_vec(&document).unwrap_or_default();
        let mut response = Response::new(Bytes::from(text));
        *response.status_mut() = status;
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        response
    }
}

impl From<Rejection> for Problem {
    fn from(rejection: Rejection) -> Self {
        match rejection {
            Rejection::Deleted => {
                Self::new(Kind::FunctionDeleted, "the function was deleted while the request was queued")
            }
            Rejection::QueueFull(full) => {
                let (reason, detail) = cap(full);
                let mut problem = Self::new(Kind::QueueFull, detail).retry_after(Duration::from_secs(1));
                problem.reason = Some(reason.into());
                problem
            }
            Rejection::Throttled { scope, retry_after } => {
                let (reason, detail) = match scope {
                    Scope::Function => ("FunctionWakes", "the rate limit for waking this function was reached"),
                    Scope::Namespace => {
                        ("NamespaceWakes", "the rate limit for waking functions of this namespace was reached")
                    }
                    Scope::Process => ("ProcessWakes", "the rate limit for waking functions was reached"),
                };
                let mut problem = Self::new(Kind::WakeThrottled, detail).retry_after(retry_after);
                problem.reason = Some(reason.into());
                problem
            }
            Rejection::Failing { failure, retry_after } => {
                Self::new(Kind::FunctionFailing, "the pods of the function fail to start or cannot be created")
                    .because(Some(failure))
                    .retry_after(retry_after)
            }
        }
    }
}

/// Returns reason and detail of a cap.
fn cap(full: CapReached) -> (&'static str, &'static str) {
    match (full.scope, full.measure) {
        (Scope::Function, Measure::Requests) => {
            ("FunctionRequests", "the function has as many queued requests as spec.queue.maxRequests allows")
        }
        (Scope::Function, Measure::Bytes) => {
            ("FunctionBytes", "the queued requests of the function hold as many bytes as spec.queue.maxBytes allows")
        }
        (Scope::Namespace, Measure::Requests) => (
            "NamespaceRequests",
            "the functions of this namespace have as many queued requests as the activator allows",
        ),
        (Scope::Namespace, Measure::Bytes) => {
            ("NamespaceBytes", "the queued requests of this namespace hold as many bytes as the activator allows")
        }
        (Scope::Process, Measure::Requests) => {
            ("ProcessRequests", "the activator has as many queued requests as it allows in total")
        }
        (Scope::Process, Measure::Bytes) => {
            ("ProcessBytes", "the queued requests of the activator hold as many bytes as it allows in total")
        }
        (_, Measure::Memory) => ("ProcessMemory", "the activator has too little memory left to queue requests"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::function_id::FunctionKey;

    #[test]
    fn a_problem_has_type_detail_function_and_retry_after() {
        let failure =
            PodFailure { reason: "ErrImagePull".into(), message: "container function: \"x\" not found".into() };
        let problem = Problem::from(Rejection::Failing { failure, retry_after: Duration::from_millis(1200) });
        let id = FunctionId { key: FunctionKey::new("ns", "hello"), uid: "u".into() };
        let response = problem.with_cause().response(Format::Json, Some(&id), "abc");
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()["retry-after"], "2");
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        let body: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
        assert_eq!(
            body,
            serde_json::json!({
                "type": "https://rouse.dev/problems/function-failing", "title": "The function failed to start", "status": 503,
                "detail": "the pods of the function fail to start or cannot be created: container function: \"x\" not found", "instance": "abc", "namespace": "ns", "function": "hello",
                "reason": "ErrImagePull",
            })
        );
    }

    #[test]
    fn a_grpc_response_has_status_message_type_and_both_retry_headers() {
        let retry_after = Duration::from_millis(1200);
        let problem = Problem::new(Kind::WakeThrottled, "100 %").retry_after(retry_after);
        let response = problem.response(Format::Grpc, None, "abc");
        assert_eq!((response.status(), response.body().len()), (StatusCode::OK, 0));
        for (name, value) in [
            ("content-type", "application/grpc"),
            ("grpc-status", "8"),
            ("grpc-message", "100 %25"),
            ("grpc-retry-pushback-ms", "1200"),
            ("retry-after", "2"),
            ("rouse-problem", "wake-throttled"),
            ("x-request-id", "abc"),
        ] {
            assert_eq!(response.headers()[name], value, "{name}");
        }
    }
}
