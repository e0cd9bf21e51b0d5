//! Tells users of transitions, as Events of their Functions.

use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};

/// One recorder for the whole process: it folds repetitions together.
#[derive(Clone)]
#[allow(missing_debug_implementations, reason = "kube's Recorder has none")]
pub struct Events(Recorder);

/// How long the API server may take for one. Whoever tells has other work to do.
const DEADLINE: Duration = Duration::from_secs(5);

/// The longest note that the API server takes, in bytes.
const NOTE: usize = 1024;

impl Events {
    /// Events that are reported by the operator's pod `instance`.
    pub fn new(client: kube::Client, instance: &str) -> Self {
        let reporter = Reporter { controller: "rouse-operator".to_owned(), instance: Some(instance.to_owned()) };
        Self(Recorder::new(client, reporter))
    }

    /// Something that is as it should be.
    pub async fn normal(&self, about: &ObjectReference, reason: &str, note: &str) {
        self.publish(EventType::Normal, about, reason, note).await;
    }

    /// Something that the user should see to.
    pub async fn warning(&self, about: &ObjectReference, reason: &str, note: &str) {
        self.publish(EventType::Warning, about, reason, note).await;
    }

    async fn publish(&self, type_: EventType, about: &ObjectReference, reason: &str, note: &str) {
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: Some(cut(note)),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        // An Event is a courtesy: the condition says the same and is what holds.
        let published = tokio::time::timeout(DEADLINE, self.0.publish(&event, about)).await;
        if let Err(error) =
            published.map_err(|_| "no answer in time".to_owned()).and_then(|p| p.map_err(|e| e.to_string()))
        {
            tracing::warn!(name = about.name, namespace = about.namespace, reason, %error, "An Event could not be published");
        }
    }
}

fn cut(note: &str) -> String {
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
    fn notes_are_cut_between_characters() {
        assert_eq!(cut("short"), "short");
        let long = "ä".repeat(1000);
        assert_eq!(cut(&long).len(), 1024);
        assert!(cut(&format!("x{long}")).len() <= 1024);
    }
}
