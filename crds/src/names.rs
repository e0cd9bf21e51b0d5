//! Names of labels, annotations and fixed parts that the operator writes and the activator reads.

/// API group of the custom resource; the prefix of every label and annotation.
pub const GROUP: &str = "rouse.dev";

/// Label on every child object and pod: the name of the Function it belongs to.
pub const FUNCTION_LABEL: &str = "rouse.dev/function";

/// Label on a revision's Deployment and pods: the name of the revision, `<function>-<00001>`.
pub const REVISION_LABEL: &str = "rouse.dev/revision";

/// Label on a revision's Deployment and pods: the `uid` of the Function. A Function that was deleted and made again
/// under the same name has another one, so that pods of the former are never taken for pods of the latter.
pub const FUNCTION_UID_LABEL: &str = "rouse.dev/function-uid";

/// Label on a ControllerRevision: hash of what the user wrote about the container.
pub const CONTAINER_HASH_LABEL: &str = "rouse.dev/container-hash";

/// Annotation on a ControllerRevision, for people: the image of the container.
pub const IMAGE_ANNOTATION: &str = "rouse.dev/image";

/// Annotation on a ControllerRevision: the versions of the ConfigMaps and Secrets that its container takes something from,
/// a JSON object. Kept while the Function says `rollout.onConfigChange: NewRevision`.
pub const CONFIG_ANNOTATION: &str = "rouse.dev/config";

/// Standard label that says who manages an object, and its value here.
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";
/// Value of [`MANAGED_BY_LABEL`] on everything the operator makes.
pub const MANAGED_BY: &str = "rouse";

/// Annotation by which Kubernetes chooses which pod of a ReplicaSet goes first. A negative value marks a pod that is
/// to be removed: it gets no new request.
pub const POD_DELETION_COST_ANNOTATION: &str = "controller.kubernetes.io/pod-deletion-cost";

/// Annotation on a function pod: what its container speaks, `http1` or `h2c`. A revision keeps it when the Function moves
/// to another protocol. Where it is missing, the Function's present protocol holds.
pub const PROTOCOL_ANNOTATION: &str = "rouse.dev/protocol";

/// Name of the one container of a function pod.
pub const CONTAINER: &str = "function";

/// Name of the container port of a function pod.
pub const CONTAINER_PORT: &str = "function";

/// Seconds between a pod's deletion and SIGTERM to its container (`preStop` sleep). Activators learn of the deletion from
/// their watch, so they may still send requests to the pod in this time.
pub const PRE_STOP_SECONDS: i64 = 2;

/// Field manager of the operator's server-side apply.
pub const OPERATOR_FIELD_MANAGER: &str = "rouse-operator";

/// Field manager of the autoscaler's part of a Function's status.
pub const AUTOSCALER_FIELD_MANAGER: &str = "rouse-autoscaler";

/// Field manager of the activator's scale patch.
pub const ACTIVATOR_FIELD_MANAGER: &str = "rouse-activator";

/// Longest name of a Function, in bytes. A revision adds six, a traffic tag (at most eleven and a dash) goes in front,
/// and the result has to be one DNS label of 63.
pub const MAX_FUNCTION_NAME: usize = 45;

/// Name of revision number `number` (from 1) of a function.
#[must_use]
pub fn revision_name(function: &str, number: i64) -> String {
    format!("{function}-{number:05}")
}

/// Label selector for everything of one function, as the API server takes it.
#[must_use]
pub fn function_selector(function: &str) -> String {
    format!("{FUNCTION_LABEL}={function}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revision_names_sort_by_number() {
        assert_eq!(revision_name("hello", 1), "hello-00001");
        assert!(revision_name("hello", 9) < revision_name("hello", 10));
    }

    #[test]
    fn the_longest_tagged_host_label_is_one_dns_label() {
        assert!(MAX_FUNCTION_NAME + "-00001".len() <= 63);
        assert!("abcdefghijk".len() + "-".len() + MAX_FUNCTION_NAME + "-00001".len() <= 63);
    }
}
