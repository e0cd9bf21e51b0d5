//! Types and reasons of the conditions of a Function, and the one place where a condition list is changed.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// The Function answers calls: it is [`ROUTABLE`] and its revision is fine. Stays `True` at zero pods.
pub const READY: &str = "Ready";
/// Its hosts belong to it and lead to it.
pub const ROUTABLE: &str = "Routable";
/// Its latest revision has run, or is about to be proven.
pub const REVISION_READY: &str = "RevisionReady";
/// It has pods. `False` with reason [`IDLE`] at zero, and with [`POD_CREATION_FAILED`] as long as pods that are wanted cannot be
/// made.
pub const ACTIVE: &str = "Active";

/// Reason of [`ACTIVE`]`=False`: nobody calls it, so it has no pods.
pub const IDLE: &str = "Idle";
/// Reason of [`ACTIVE`]`=True`: it has pods.
pub const RUNNING: &str = "Running";
/// Reason of [`REVISION_READY`]`=True`: a pod of it has been ready.
pub const PROVEN: &str = "Proven";
/// Reason of [`REVISION_READY`]`=True`: `scaling.initial` is 0, so nothing was started to prove it.
pub const NOT_STARTED: &str = "NotStarted";
/// Reason of [`REVISION_READY`]`=Unknown`: its first pod is on its way.
pub const STARTING: &str = "Starting";
/// Reason of [`REVISION_READY`]`=False`: a pod runs, but nothing listened on the port within `timeouts.coldStart`.
pub const NEVER_LISTENED: &str = "NeverListened";
/// Reason of [`REVISION_READY`]`=False`: a pod has a node, but its containers did not all run within `timeouts.coldStart`.
pub const NEVER_STARTED: &str = "NeverStarted";
/// Reason of [`REVISION_READY`]`=False` and [`ACTIVE`]`=False`: the pods could not be made (quota, admission).
pub const POD_CREATION_FAILED: &str = "PodCreationFailed";
/// Reason of [`READY`]`=False` and [`REVISION_READY`]`=False`: the spec asks for something that cannot be built.
pub const INVALID: &str = "Invalid";
/// Reason of [`REVISION_READY`]`=False`: its roll-out was ended, and the calls went back to the former revision.
pub const ROLLOUT_ABORTED: &str = "RolloutAborted";
/// Reason of [`ROUTABLE`]`=True`.
pub const ROUTED: &str = "Routed";
/// Reason of [`ROUTABLE`]`=False`: another, older Function has claimed the host.
pub const HOST_CONFLICT: &str = "HostConflict";
/// Reason of [`ROUTABLE`]`=False`: the platform's rules give the host to other namespaces.
pub const HOST_NOT_ALLOWED: &str = "HostNotAllowed";
/// Reason of [`ROUTABLE`]`=False`: the IngressClass that the platform names does not exist.
pub const INGRESS_CLASS_MISSING: &str = "IngressClassMissing";
/// Reason of [`ROUTABLE`]`=False`: the Gateway that the platform names does not exist, or does not serve what leads here.
pub const GATEWAY_NOT_READY: &str = "GatewayNotReady";
/// Reason of [`READY`]`=True`.
pub const ALL_GOOD: &str = "Ready";

/// What a condition is to be; the list decides whether that is a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// One of the condition types of this module.
    pub type_: &'static str,
    /// `Some(true)` is `True`, `Some(false)` is `False`, `None` is `Unknown`.
    pub status: Option<bool>,
    /// A word in PascalCase: one of this module's or one of the kubelet's.
    pub reason: String,
    /// A sentence for people.
    pub message: String,
}

impl Wanted {
    /// The status as Kubernetes spells it.
    #[must_use]
    pub fn status(&self) -> &'static str {
        match self.status {
            Some(true) => "True",
            Some(false) => "False",
            None => "Unknown",
        }
    }
}

/// Sets `wanted` in `conditions` and tells whether its status or reason is another than before.
///
/// `lastTransitionTime` moves only when the status flips, so that an unchanged condition is equal to its former self and
/// causes no write.
pub fn set(conditions: &mut Vec<Condition>, wanted: &Wanted, generation: i64, now: &Time) -> bool {
    let status = wanted.status();
    let new = |since: Time| Condition {
        type_: wanted.type_.to_owned(),
        status: status.to_owned(),
        reason: wanted.reason.clone(),
        message: wanted.message.clone(),
        observed_generation: Some(generation),
        last_transition_time: since,
    };
    match conditions.iter_mut().find(|c| c.type_ == wanted.type_) {
        Some(old) => {
            let flipped = old.status != status;
            let changed = flipped || old.reason != wanted.reason;
            let since = if flipped { now.clone() } else { old.last_transition_time.clone() };
            *old = new(since);
            changed
        }
        None => {
            conditions.push(new(now.clone()));
            true
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::jiff::Timestamp;

    fn at(second: i64) -> Time {
        Time(Timestamp::from_second(second).unwrap())
    }

    fn wanted(status: Option<bool>, reason: &str) -> Wanted {
        Wanted { type_: READY, status, reason: reason.into(), message: String::new() }
    }

    #[test]
    fn time_moves_only_when_the_status_flips() {
        let mut list = vec![];
        assert!(set(&mut list, &wanted(None, STARTING), 1, &at(1)));
        assert!(!set(&mut list, &wanted(None, STARTING), 1, &at(2)));
        assert_eq!(list[0].last_transition_time, at(1));
        assert!(set(&mut list, &wanted(None, "ErrImagePull"), 1, &at(3)));
        assert_eq!(list[0].last_transition_time, at(1));
        assert!(set(&mut list, &wanted(Some(true), ALL_GOOD), 2, &at(4)));
        assert_eq!((list[0].last_transition_time.clone(), list[0].observed_generation), (at(4), Some(2)));
        assert_eq!(list.len(), 1);
    }
}
