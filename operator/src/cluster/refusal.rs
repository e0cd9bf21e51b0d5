//! Classes of failed writes, by status code, `reason` and `details.causes` of the response and never by its message. Pure.

use kube::{Error, core::Status};

/// Why a write failed, and so what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The object changed or was deleted since it was read. The watch delivers that, so it is not a failure.
    Outdated,
    /// The namespace is being deleted, and its objects with it.
    Terminating,
    /// The API server does not accept the object: its schema, an admission policy or webhook, a quota, its size, or missing
    /// permissions. A retry succeeds only after somebody has changed something.
    Rejected,
    /// The API server or a webhook is unavailable or overloaded, or did not respond. A retry may succeed.
    Temporary,
}

/// `details.causes[].reason` of a write into a namespace that is being deleted.
const NAMESPACE_TERMINATING: &str = "NamespaceTerminating";

/// Maximum length of a message in a condition or Event, in bytes.
const MESSAGE: usize = 1024;

impl Refusal {
    /// Classifies the error of a write.
    #[must_use]
    pub fn of(error: &Error) -> Self {
        match error {
            Error::Api(status) => Self::of_status(status),
            _ => Self::Temporary,
        }
    }

    fn of_status(status: &Status) -> Self {
        let causes = status.details.iter().flat_map(|details| &details.causes);
        if causes.into_iter().any(|cause| cause.reason == NAMESPACE_TERMINATING) {
            return Self::Terminating;
        }
        match status.code {
            // The reason `AlreadyExists` has the same code; a create reads the existing object then.
            404 | 409 => Self::Outdated,
            // The token of a service account is replaced before it expires.
            401 | 408 | 429 => Self::Temporary,
            400..=499 => Self::Rejected,
            _ => Self::Temporary,
        }
    }
}

/// Returns the sentence of the API server, or of the failed connection, for a condition.
#[must_use]
pub fn sentence(error: &Error) -> String {
    let mut text = match error {
        Error::Api(status) if !status.message.is_empty() => status.message.clone(),
        Error::Api(status) => format!("status {} {}", status.code, status.reason),
        Error::Service(error) => error.to_string(),
        other => other.to_string(),
    };
    if text.len() > MESSAGE {
        let end = (0..=MESSAGE).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    fn status(code: u16, causes: &[&str]) -> Status {
        let causes: Vec<_> = causes.iter().map(|reason| json!({"reason": reason})).collect();
        // The words in the message must not matter.
        let message = "test: denied, exceeded quota, NamespaceTerminating";
        serde_json::from_value(json!({"code": code, "message": message, "details": {"causes": causes}})).unwrap()
    }

    #[rstest]
    #[case::webhook(400, &[], Refusal::Rejected)]
    #[case::expired_token(401, &[], Refusal::Temporary)]
    #[case::policy_or_quota(403, &[], Refusal::Rejected)]
    #[case::namespace(403, &["NamespaceTerminating"], Refusal::Terminating)]
    #[case::deleted(404, &[], Refusal::Outdated)]
    #[case::changed(409, &[], Refusal::Outdated)]
    #[case::too_large(413, &[], Refusal::Rejected)]
    #[case::schema(422, &["FieldValueInvalid"], Refusal::Rejected)]
    #[case::overload(429, &[], Refusal::Temporary)]
    #[case::webhook_unavailable(500, &[], Refusal::Temporary)]
    #[case::unavailable(503, &[], Refusal::Temporary)]
    #[case::timeout(504, &[], Refusal::Temporary)]
    fn responses_are_classified_without_their_message(
        #[case] code: u16,
        #[case] causes: &[&str],
        #[case] expected: Refusal,
    ) {
        assert_eq!(Refusal::of(&Error::Api(status(code, causes).boxed())), expected);
    }

    #[test]
    fn a_request_without_a_response_is_temporary() {
        let error = Error::Service("no response within 10s".into());
        assert_eq!((Refusal::of(&error), sentence(&error).as_str()), (Refusal::Temporary, "no response within 10s"));
    }

    #[test]
    fn sentences_are_truncated_between_characters() {
        let long = Status { code: 500, message: "ä".repeat(2000), ..Status::default() };
        let text = sentence(&Error::Api(long.boxed()));
        assert!(text.len() <= MESSAGE + 3 && text.ends_with("ä…"), "{}", text.len());
        assert_eq!(sentence(&Error::Api(Status { code: 503, ..Status::default() }.boxed())), "status 503 ");
    }
}
