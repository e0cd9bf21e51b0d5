//! Kubernetes Events about Functions.

use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};

/// Event recorder. One for the whole process, because it aggregates repeated Events.
#[derive(Clone)]
#[allow(missing_debug_implementations, reason = "kube's Recorder has none")]
pub struct Events(Recorder);

/// Deadline for one Event.
const DEADLINE: Duration = Duration::from_secs(5);

/// Maximum length of a note that the API server accepts, in bytes.
const NOTE: usize = 1024;

impl Events {
    /// Creates a recorder. The operator's pod `instance` is the reporting instance.
    pub fn new(client: kube::Client, instance: &str) -> Self {
        let reporter = Reporter { controller: "rouse-operator".to_owned(), instance: Some(instance.to_owned()) };
        Self(Recorder::new(client, reporter))
    }

    /// Records an Event of type Normal.
    pub async fn normal(&self, about: &ObjectReference, reason: &str, note: &str) {
        self.publish(EventType::Normal, about, reason, note).await;
    }

    /// Records an Event of type Warning.
    pub async fn warning(&self, about: &ObjectReference, reason: &str, note: &str) {
        self.publish(EventType::Warning, about, reason, note).await;
    }

    async fn publish(&self, type_: EventType, about: &ObjectReference, reason: &str, note: &str) {
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: Some(truncate(note)),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        // Events are best effort: the condition carries the same information.
        let published = tokio::time::timeout(DEADLINE, self.0.publish(&event, about)).await;
        if let Err(error) = published.map_err(|_| "timed out".to_owned()).and_then(|p| p.map_err(|e| e.to_string())) {
            tracing::warn!(name = about.name, namespace = about.namespace, reason, %error, "Failed to record Event");
        }
    }
}

fn truncate(note: &str) -> String {
    let mut end = note.len().min(NOTE);
    while !note.is_char_boundary(end) {
        end -= 1;
    }
    note[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_truncated_between_characters() {
        assert_eq!(truncate("short"), "short");
        let long = "ä".repeat(1000);
        assert_eq!(truncate(&long).len(), 1024);
        assert!(truncate(&format!("x{long}")).len() <= 1024);
    }
}
