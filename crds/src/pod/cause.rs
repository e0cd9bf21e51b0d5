//! Cause of a pod failure: whether it can end without a change to the Function. One table, which activators and the operator
//! use alike.
//!
//! | cause | activator: requests that wait for the pod | operator |
//! |---|---|---|
//! | [`Cause::Revision`] | rejected at once | `RevisionReady=False`; a rollout is aborted |
//! | [`Cause::Node`] | rejected after a grace period, or when the kubelet holds the container back | `Unknown` for `timeouts.coldStart`, then `False` |
//! | [`Cause::Cluster`] | the same | the same, and the condition does not outlast the pod |

use super::{PodFailure, UNSCHEDULABLE};
use crate::conditions::POD_CREATION_FAILED;

/// Cause of a pod failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The revision: no retry succeeds until somebody changes the image, the command or a referenced object.
    Revision,
    /// The node, its container runtime or the network to the registry: the next attempt of the kubelet may succeed.
    Node,
    /// The cluster: insufficient capacity, an exhausted quota, an eviction.
    Cluster,
}

/// A group of reasons. A failure with one of them has `cause`, unless its message contains one of `except`; then it has the
/// other cause.
struct Row {
    reasons: &'static [&'static str],
    cause: Cause,
    except: (&'static [&'static str], Cause),
}

/// The kubelet reports different causes with the same reason. Its message is the only other information.
const TABLE: [Row; 5] = [
    Row {
        reasons: &["ErrImagePull", "ImagePullBackOff", "RegistryUnavailable", "ImageInspectError"],
        cause: Cause::Node,
        except: (
            // Responses of registries, as containerd and CRI-O report them.
            &[
                "not found",
                "manifest unknown",
                "name unknown",
                "does not exist",
                "access denied",
                "unauthorized",
                "authentication required",
                "forbidden",
                "no match for platform",
                "invalid reference",
            ],
            Cause::Revision,
        ),
    },
    Row {
        reasons: &["CreateContainerError", "RunContainerError", "StartError"],
        cause: Cause::Node,
        // The command, as runc and crun report it. `no such file` alone may be a cgroup that was removed meanwhile.
        except: (&["exec: \"", "executable file", "exec format error", "no command specified"], Cause::Revision),
    },
    Row {
        // A missing ConfigMap or Secret, or `runAsNonRoot` with an image that runs as root.
        reasons: &["CreateContainerConfigError"],
        cause: Cause::Revision,
        except: (&["failed to sync", "timed out"], Cause::Node),
    },
    Row { reasons: &["ContainerStatusUnknown"], cause: Cause::Node, except: (&[], Cause::Node) },
    Row {
        reasons: &[
            UNSCHEDULABLE,
            POD_CREATION_FAILED,
            "Evicted",
            "Preempting",
            "NodeShutdown",
            "Terminated",
            "NodeLost",
            "NodeAffinity",
            "UnexpectedAdmissionError",
            "TopologyAffinityError",
            "OutOfcpu",
            "OutOfmemory",
            "OutOfpods",
            "OutOfephemeral-storage",
        ],
        cause: Cause::Cluster,
        except: (&[], Cause::Cluster),
    },
];

impl Cause {
    /// Returns the cause of failures with this reason, as far as the reason determines it.
    #[must_use]
    pub fn of_reason(reason: &str) -> Self {
        row(reason).map_or(Self::Revision, |row| row.cause)
    }
}

impl PodFailure {
    /// Returns the cause. Reasons that are not in the table (`CrashLoopBackOff`, `InvalidImageName`, `OOMKilled`, …) are
    /// caused by the revision.
    #[must_use]
    pub fn cause(&self) -> Cause {
        let Some(Row { cause, except: (words, other), .. }) = row(&self.reason) else { return Cause::Revision };
        let message = self.message.to_lowercase();
        if words.iter().any(|word| message.contains(word)) { *other } else { *cause }
    }

    /// Returns whether the failure may end without a change to the Function.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.cause() != Cause::Revision
    }
}

fn row(reason: &str) -> Option<&'static Row> {
    TABLE.iter().find(|row| row.reasons.contains(&reason))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::no_such_image(
        "ErrImagePull",
        "failed to resolve reference \"docker.io/acme/nope:1\": docker.io/acme/nope:1: not found",
        Cause::Revision
    )]
    #[case::no_access(
        "ErrImagePull",
        "pull access denied, repository does not exist or may require authorization",
        Cause::Revision
    )]
    #[case::no_credentials(
        "ImagePullBackOff",
        "Back-off pulling image \"x\": ErrImagePull: unexpected status: 401 Unauthorized",
        Cause::Revision
    )]
    #[case::network(
        "ErrImagePull",
        "failed to do request: Head \"https://registry/v2/\": dial tcp 10.0.0.1:443: i/o timeout",
        Cause::Node
    )]
    #[case::resolver("ErrImagePull", "dial tcp: lookup registry.example.org: no such host", Cause::Node)]
    #[case::rate_limit("ErrImagePull", "429 Too Many Requests - toomanyrequests", Cause::Node)]
    #[case::registry("RegistryUnavailable", "503 Service Unavailable", Cause::Node)]
    #[case::name("InvalidImageName", "couldn't parse image name", Cause::Revision)]
    #[case::never_pulled("ErrImageNeverPull", "not present with pull policy of Never", Cause::Revision)]
    #[case::frozen_cgroup(
        "RunContainerError",
        "failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: unable to apply cgroup configuration: unable to freeze: no such file or directory",
        Cause::Node
    )]
    #[case::no_such_command(
        "RunContainerError",
        "OCI runtime create failed: runc create failed: unable to start container process: error during container init: exec: \"/nope\": stat /nope: no such file or directory",
        Cause::Revision
    )]
    #[case::no_such_command_of_crun(
        "CreateContainerError",
        "executable file `/nope` not found in $PATH: No such file or directory",
        Cause::Revision
    )]
    #[case::other_architecture("StartError", "exec /hello: exec format error", Cause::Revision)]
    #[case::name_is_taken(
        "CreateContainerError",
        "failed to reserve container name: name is reserved for another",
        Cause::Node
    )]
    #[case::missing_secret("CreateContainerConfigError", "secret \"keys\" not found", Cause::Revision)]
    #[case::cache(
        "CreateContainerConfigError",
        "failed to sync secret cache: timed out waiting for the condition",
        Cause::Node
    )]
    #[case::crash_loop("CrashLoopBackOff", "container function: exited with status 1", Cause::Revision)]
    #[case::memory("OOMKilled", "container function: exited with status 137 (OOMKilled)", Cause::Revision)]
    #[case::capacity("Unschedulable", "0/1 nodes are available", Cause::Cluster)]
    #[case::quota("PodCreationFailed", "exceeded quota", Cause::Cluster)]
    #[case::eviction("Evicted", "The node was low on resource: memory", Cause::Cluster)]
    fn cause_of_a_failure(#[case] reason: &str, #[case] message: &str, #[case] expected: Cause) {
        let failure = PodFailure { reason: reason.into(), message: message.into() };
        assert_eq!(failure.cause(), expected);
        assert_eq!(failure.is_transient(), expected != Cause::Revision);
    }

    #[test]
    fn each_reason_is_in_one_row() {
        let all: Vec<_> = TABLE.iter().flat_map(|row| row.reasons).collect();
        let mut once = all.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!(once.len(), all.len());
    }
}
