//! Names and constants that the operator writes and the activator reads: labels, annotations, field managers, the
//! container.

/// API group of the custom resource, and prefix of every label and annotation.
pub const GROUP: &str = "rouse.dev";

/// Label on every child object and pod: name of the Function.
pub const FUNCTION_LABEL: &str = "rouse.dev/function";

/// Label on a revision's Deployment and pods: name of the revision, `<function>-<00001>`.
pub const REVISION_LABEL: &str = "rouse.dev/revision";

/// Label on a revision's Deployment and pods: `uid` of the Function. It distinguishes the pods of a deleted Function
/// from those of a recreated one with the same name.
pub const FUNCTION_UID_LABEL: &str = "rouse.dev/function-uid";

/// Label on a ControllerRevision: hash of the container fields of the spec.
pub const CONTAINER_HASH_LABEL: &str = "rouse.dev/container-hash";

/// Annotation on a ControllerRevision: container image, for display.
pub const IMAGE_ANNOTATION: &str = "rouse.dev/image";

/// Annotation on a ControllerRevision: versions of the ConfigMaps and Secrets that its pods use, as a JSON object.
/// Maintained while `rollout.onConfigChange` is `NewRevision`.
pub const CONFIG_ANNOTATION: &str = "rouse.dev/config";

/// Standard label for the tool that manages an object.
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";
/// Value of [`MANAGED_BY_LABEL`] on every object that the operator creates.
pub const MANAGED_BY: &str = "rouse";

/// Annotation by which Kubernetes chooses the pods of a ReplicaSet to delete first. A negative value marks a victim of
/// a scale-down: activators send it no new requests.
pub const POD_DELETION_COST_ANNOTATION: &str = "controller.kubernetes.io/pod-deletion-cost";

/// Annotation on a function pod: protocol of its container, `http1` or `h2c`. A revision keeps its protocol when that
/// of the Function changes. Without the annotation, the Function's current protocol applies.
pub const PROTOCOL_ANNOTATION: &str = "rouse.dev/protocol";

/// Annotation on a function pod: port of the function. Without the annotation, the port of the container with the name
/// [`CONTAINER_PORT`] applies.
pub const PORT_ANNOTATION: &str = "rouse.dev/port";

/// Annotation on a function pod: how an activator may find the pod ready before the kubelet reports it, as a
/// [`ReadinessCheck`](crate::pod::ReadinessCheck). The operator derives it from the pod template. An admission webhook,
/// such as that of a service mesh, may rewrite the probes of the pod. Without the annotation, the probes of the pod apply.
pub const READINESS_ANNOTATION: &str = "rouse.dev/readiness";

/// Label by which the Deployment controller distinguishes the pods of its ReplicaSets. The name of a ReplicaSet ends
/// in its value.
pub const POD_TEMPLATE_HASH_LABEL: &str = "pod-template-hash";

/// Name of the function's container in a pod.
pub const CONTAINER: &str = "function";

/// Name of the function's port in a pod.
pub const CONTAINER_PORT: &str = "function";

/// Seconds between a pod's deletion and SIGTERM to its container (`preStop` sleep). Activators learn of the deletion
/// from their watch, so they may still send requests to the pod in this time.
pub const PRE_STOP_SECONDS: i64 = 2;

/// Field manager of the operator's server-side apply.
pub const OPERATOR_FIELD_MANAGER: &str = "rouse-operator";

/// Field manager of the status fields that the autoscaler writes.
pub const AUTOSCALER_FIELD_MANAGER: &str = "rouse-autoscaler";

/// Field manager of the activator's scale patch.
pub const ACTIVATOR_FIELD_MANAGER: &str = "rouse-activator";

/// Maximum length of a Function's name, in bytes. A revision appends 6 bytes and a tag prepends up to 12, and the
/// result must be one DNS label of 63 bytes.
pub const MAX_FUNCTION_NAME: usize = 45;

/// Returns the name of revision `number` (from 1) of a Function.
#[must_use]
pub fn revision_name(function: &str, number: i64) -> String {
    format!("{function}-{number:05}")
}

/// Returns the number of a revision by its name. Numbers order revisions: names do so only up to 99999.
#[must_use]
pub fn revision_number(revision: &str) -> Option<i64> {
    revision.rsplit_once('-')?.1.parse().ok()
}

/// Returns the label selector for all objects of one Function.
#[must_use]
pub fn function_selector(function: &str) -> String {
    format!("{FUNCTION_LABEL}={function}")
}

/// Audience of the token with which the operator reads the demand stream of an activator. The API server rejects such a token
/// as a credential for itself.
pub const DEMAND_AUDIENCE: &str = "rouse-activator";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revisions_are_ordered_by_number() {
        assert_eq!(revision_name("hello", 1), "hello-00001");
        for (older, newer) in [(9, 10), (99_999, 100_000)] {
            let [older, newer] = [older, newer].map(|number| revision_number(&revision_name("hello", number)));
            assert!(older.is_some() && older < newer);
        }
        assert_eq!(
            (revision_number("a-b-00007"), revision_number("hello"), revision_number("a-x")),
            (Some(7), None, None)
        );
    }

    #[test]
    fn the_longest_tagged_host_label_is_one_dns_label() {
        assert!(MAX_FUNCTION_NAME + "-00001".len() <= 63);
        assert!("abcdefghijk".len() + "-".len() + MAX_FUNCTION_NAME + "-00001".len() <= 63);
    }
}
