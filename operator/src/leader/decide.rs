//! What a candidate does about a Lease. Pure.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use tokio::time::Instant;

/// A Lease as this process sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Who has it; nobody if it was released.
    pub holder: Option<String>,
    /// Its `resourceVersion`: another one means that somebody has written it.
    pub version: Option<String>,
    /// Since when it has been so, by the clock of this process.
    pub since: Instant,
}

impl Seen {
    /// What is seen at `now`, after what was seen before.
    pub fn of(lease: Option<&Lease>, before: Option<Self>, now: Instant) -> Option<Self> {
        let lease = lease?;
        let spec = lease.spec.as_ref();
        let holder = spec.and_then(|s| s.holder_identity.clone()).filter(|h| !h.is_empty());
        let version = lease.metadata.resource_version.clone();
        let since = before.filter(|b| b.version == version).map_or(now, |b| b.since);
        Some(Self { holder, version, since })
    }
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// There is no Lease: make it.
    Create,
    /// Nobody has it, or who had it has not renewed it: take it.
    Acquire,
    /// It is ours: renew it.
    Renew,
    /// Somebody has it.
    Wait,
}

/// Decides for the candidate `me` at `now`. A Lease of another counts as expired when it has not changed for `lease`
/// while this process watched, whatever the times in it say.
pub fn decide(seen: Option<&Seen>, me: &str, now: Instant, lease: Duration) -> Action {
    match seen {
        None => Action::Create,
        Some(Seen { holder: None, .. }) => Action::Acquire,
        Some(Seen { holder: Some(holder), .. }) if holder == me => Action::Renew,
        Some(seen) if now.duration_since(seen.since) >= lease => Action::Acquire,
        Some(_) => Action::Wait,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const LEASE: Duration = Duration::from_secs(15);

    fn lease(holder: Option<&str>, version: &str) -> Lease {
        serde_json::from_value(json!({
            "metadata": {"name": "l", "resourceVersion": version},
            // A time far in the past, as of a machine whose clock is wrong: it must not matter.
            "spec": {"holderIdentity": holder, "renewTime": "1990-01-01T00:00:00.000000Z", "leaseDurationSeconds": 1},
        }))
        .unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn takes_what_nobody_has() {
        let now = Instant::now();
        assert_eq!(decide(None, "me", now, LEASE), Action::Create);
        for released in [None, Some("")] {
            let seen = Seen::of(Some(&lease(released, "1")), None, now);
            assert_eq!(decide(seen.as_ref(), "me", now, LEASE), Action::Acquire);
        }
        let seen = Seen::of(Some(&lease(Some("me"), "1")), None, now);
        assert_eq!(decide(seen.as_ref(), "me", now, LEASE), Action::Renew);
    }

    #[tokio::test(start_paused = true)]
    async fn another_has_the_whole_lease_from_the_last_change_that_was_seen() {
        let start = Instant::now();
        let first = Seen::of(Some(&lease(Some("other"), "1")), None, start);
        let later = start + Duration::from_secs(14);
        let still = Seen::of(Some(&lease(Some("other"), "1")), first, later);
        assert_eq!(decide(still.as_ref(), "me", later, LEASE), Action::Wait);
        let renewed = Seen::of(Some(&lease(Some("other"), "2")), still, later);
        let much_later = later + Duration::from_secs(14);
        assert_eq!(decide(renewed.as_ref(), "me", much_later, LEASE), Action::Wait);
        let silent = Seen::of(Some(&lease(Some("other"), "2")), renewed, later + LEASE);
        assert_eq!(decide(silent.as_ref(), "me", later + LEASE, LEASE), Action::Acquire);
    }
}
