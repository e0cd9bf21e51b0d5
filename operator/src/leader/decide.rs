//! Decision of a candidate about the Lease. Pure.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use tokio::time::Instant;

/// A Lease as this process observed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Holder; `None` if the Lease was released.
    pub holder: Option<String>,
    /// `resourceVersion`, which changes with each write.
    pub version: Option<String>,
    /// Time of the last observed change, by the clock of this process.
    pub since: Instant,
}

impl Seen {
    /// Creates the observation at `now` from the previous one.
    pub fn of(lease: Option<&Lease>, before: Option<Self>, now: Instant) -> Option<Self> {
        let lease = lease?;
        let spec = lease.spec.as_ref();
        let holder = spec.and_then(|s| s.holder_identity.clone()).filter(|h| !h.is_empty());
        let version = lease.metadata.resource_version.clone();
        let since = before.filter(|b| b.version == version).map_or(now, |b| b.since);
        Some(Self { holder, version, since })
    }
}

/// Action of a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Create the missing Lease.
    Create,
    /// Acquire the released or expired Lease.
    Acquire,
    /// Renew the own Lease.
    Renew,
    /// Wait: another replica holds the Lease.
    Wait,
}

/// Decides for the candidate `me` at `now`. The Lease of another replica is expired if this process observed no change
/// for `lease`, regardless of the times in the Lease.
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
            // A time far in the past, as of a machine with a wrong clock, must not matter.
            "spec": {"holderIdentity": holder, "renewTime": "1990-01-01T00:00:00.000000Z", "leaseDurationSeconds": 1},
        }))
        .unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn acquires_a_free_lease() {
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
    async fn a_foreign_lease_expires_after_its_last_observed_change() {
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
