//! Condition types and reasons of a Function, and the update of a condition list.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// Type: the Function serves requests. `True` if [`ROUTABLE`] and [`REVISION_READY`] are `True`, also at zero pods.
pub const READY: &str = "Ready";
/// Type: all hosts of the Function are routed to the activators.
pub const ROUTABLE: &str = "Routable";
/// Type: the latest revision is verified ready, or needs no verification.
pub const REVISION_READY: &str = "RevisionReady";
/// Type: the Function has pods. `False` with reason [`IDLE`] at zero, and with [`POD_CREATION_FAILED`] while requested
/// pods cannot be created. Activators read it.
pub const ACTIVE: &str = "Active";
/// Type: the Function has the pods that its load needs. `False` while pods cannot be created, scheduled or started, also
/// beside pods that are ready, and while `scaling.max` limits their number. Not part of [`READY`].
pub const SCALED: &str = "Scaled";
/// Type: all objects of the Function are as its spec asks. `False` or `Unknown` while a write of the operator is refused
/// or is undone by another client. Not part of [`READY`].
pub const SYNCED: &str = "Synced";

/// Reason of [`ACTIVE`]`=False`: scaled to zero.
pub const IDLE: &str = "Idle";
/// Reason of [`ACTIVE`]`=True`: the Function has pods.
pub const RUNNING: &str = "Running";
/// Reason of [`REVISION_READY`]`=True`: a pod of the revision became ready.
pub const VERIFIED_READY: &str = "VerifiedReady";
/// Reason of [`REVISION_READY`]`=True`: `scaling.initial` is 0, so no pod was started for verification.
pub const NOT_STARTED: &str = "NotStarted";
/// Reason of [`REVISION_READY`]`=Unknown`: the first pod is starting.
pub const STARTING: &str = "Starting";
/// Reason of [`REVISION_READY`]`=False`: a container is running, but was not ready within `timeouts.coldStart`.
pub const READINESS_TIMEOUT: &str = "ReadinessTimeout";
/// Reason of [`REVISION_READY`]`=False`: a pod is scheduled, but its containers did not start within
/// `timeouts.coldStart`.
pub const START_TIMEOUT: &str = "ContainerStartTimeout";
/// Reason of [`REVISION_READY`]`=False` and [`ACTIVE`]`=False`: the API server rejected the pods (quota, admission).
pub const POD_CREATION_FAILED: &str = "PodCreationFailed";
/// Reason of [`READY`]`=False` and [`REVISION_READY`]`=False`: the spec is invalid, or the API server rejected its
/// objects.
pub const INVALID: &str = "Invalid";
/// Reason of [`REVISION_READY`]`=False`, [`ROUTABLE`]`=False` and [`SYNCED`]`=False`: an object with a name that the Function
/// needs exists and has another owner.
pub const NAME_CONFLICT: &str = "NameConflict";
/// Reason of [`REVISION_READY`]`=False`: the rollout was aborted and all traffic returned to the previous revision.
pub const ROLLOUT_ABORTED: &str = "RolloutAborted";
/// Reason of [`ROUTABLE`]`=True`.
pub const ROUTED: &str = "Routed";
/// Reason of [`ROUTABLE`]`=False`: an older Function owns the host.
pub const HOST_CONFLICT: &str = "HostConflict";
/// Reason of [`ROUTABLE`]`=False`: the chart value `hosts.allowed` reserves the host for other namespaces.
pub const HOST_NOT_ALLOWED: &str = "HostNotAllowed";
/// Reason of [`ROUTABLE`]`=False`: the IngressClass of the chart value `ingress.className` does not exist.
pub const INGRESS_CLASS_MISSING: &str = "IngressClassMissing";
/// Reason of [`ROUTABLE`]`=False`: the configured Gateway does not exist, or did not accept Rouse's HTTPRoutes.
pub const GATEWAY_NOT_READY: &str = "GatewayNotReady";
/// Reason of [`ROUTABLE`]`=False`: the API server rejected the object of the ingress that has the hosts of the Function.
pub const INGRESS_REJECTED: &str = "IngressRejected";
/// Reason of [`SCALED`]`=True`.
pub const AS_REQUIRED: &str = "AsRequired";
/// Reason of [`SCALED`]`=False`: the load needs more pods than `scaling.max`.
pub const MAX_REACHED: &str = "MaxReached";
/// Reason of [`SYNCED`]`=True`.
pub const UP_TO_DATE: &str = "UpToDate";
/// Reason of [`SYNCED`]`=False`: the API server rejected a write, by its schema, an admission policy or webhook, or a quota.
/// The reason of [`READY`] is [`INVALID`] if the latest revision or the Service depends on the write.
pub const REJECTED: &str = "Rejected";
/// Reason of [`SYNCED`]`=False`: another client changes an object of the Function again after each repair.
pub const DRIFTING: &str = "Drifting";
/// Reason of [`SYNCED`]`=Unknown`, and of the condition that depends on the write: the API server or a webhook is
/// unavailable, overloaded or without a response. The write is retried.
pub const WRITE_FAILED: &str = "WriteFailed";
/// Reason of [`READY`]`=True`.
pub const ALL_GOOD: &str = "Ready";

/// A condition as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// One of the condition types of this module.
    pub type_: &'static str,
    /// `Some(true)` is `True`, `Some(false)` is `False`, `None` is `Unknown`.
    pub status: Option<bool>,
    /// Reason in CamelCase: a constant of this module, or a reason of the kubelet.
    pub reason: String,
    /// What is wrong and how to fix it, for people.
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

/// Sets `wanted` in `conditions`. Returns whether its status or reason changed.
///
/// `lastTransitionTime` changes only with the status, so an unchanged condition compares equal and causes no write.
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
    fn transition_time_changes_only_with_the_status() {
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
