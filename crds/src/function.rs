//! The `Function`: what a user writes.
//!
//! Fields that may be left out are `Option`s and stay out of the stored object; the number that then holds is given by a
//! method beside the type (`ScalingSpec::max()`), so that a default can be found in one place and a stored Function says
//! only what its author said.

mod container;
mod rollout;
mod routes;
mod scaling;
mod status;
mod traffic;

pub use container::{Protocol, ReadinessSpec};
pub use rollout::{AbortOn, Affinity, Mirror, OnConfigChange, RolloutSpec};
pub use routes::{Cors, Route};
pub use scaling::{Metric, Prewarm, QueueSpec, ScalingSpec, Schedule, TimeoutsSpec};
pub use status::{Address, FunctionStatus, ReplicaStatus, RevisionStatus, RolloutPhase, RolloutStatus, TrafficStatus};
pub use traffic::{TrafficTarget, Visibility};

use k8s_openapi::api::core::v1::{EnvFromSource, EnvVar, ResourceRequirements};
use kube::{CustomResource, CustomResourceExt, KubeSchema};
use serde::{Deserialize, Serialize};

use container::pod_template_schema;

/// Runs an image as pods that come when it is called and go when it is not.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "rouse.dev",
    version = "v1alpha1",
    kind = "Function",
    plural = "functions",
    shortname = "fn",
    category = "all",
    namespaced,
    status = "FunctionStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "Runs an image as pods that come when it is called and go when it is not.",
    printcolumn(name = "URL", type_ = "string", json_path = ".status.url"),
    printcolumn(name = "READY", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "REPLICAS", type_ = "integer", json_path = ".status.replicas.ready"),
    printcolumn(name = "REVISION", type_ = "string", json_path = ".status.latestRevision"),
    printcolumn(name = "REASON", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason", priority = 1),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("!has(self.spec.mirror) || (has(self.spec.traffic) && self.spec.traffic.exists(t, has(t.tag) && t.tag == self.spec.mirror.tag))")
        .message("spec.mirror.tag must be a tag of spec.traffic"),
    validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$') && self.metadata.name.size() <= 45")
        .message("metadata.name must be a DNS label that starts with a letter (lower-case letters, digits and dashes), at most 45 long: it becomes part of a host name"),
)]
#[serde(rename_all = "camelCase")]
pub struct FunctionSpec {
    /// The container image.
    #[schemars(length(min = 1, max = 1024))]
    pub image: String,
    /// Replaces the image's entry point.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256), inner(length(max = 32768)))]
    pub command: Option<Vec<String>>,
    /// Replaces the image's arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256), inner(length(max = 32768)))]
    pub args: Option<Vec<String>>,
    /// Environment of the container. `PORT` is set by Rouse.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    #[x_kube(validation = Rule::new("self.all(e, e.name != 'PORT')").message("PORT is set from spec.port; remove it from env and set spec.port"))]
    pub env: Option<Vec<EnvVar>>,
    /// ConfigMaps and Secrets whose every key becomes a variable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub env_from: Option<Vec<EnvFromSource>>,
    /// CPU and memory, as of any container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// The port that the container listens on, given to it as `PORT` too. Default 8080.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
    /// What the container speaks on its port. Default `http1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// How to tell that a pod can take requests. Default: its port takes a TCP connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readiness: Option<ReadinessSpec>,
    /// Labels, annotations and a partial PodSpec, merged over what Rouse builds: maps by key, containers by name (the
    /// function's own is `function`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "pod_template_schema")]
    pub pod_template: Option<serde_json::Value>,
    /// How many pods, and when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scaling: Option<ScalingSpec>,
    /// How long things may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<TimeoutsSpec>,
    /// What may wait for a pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<QueueSpec>,
    /// Who can call it. Default `Public`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub visibility: Option<Visibility>,
    /// Hosts that lead here beside `{name}.{namespace}.{domain}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 253)))]
    #[x_kube(validation = Rule::new("self.all(h, h.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\\\\.[a-z]([-a-z0-9]*[a-z0-9])?$'))").message("each host must be a lower-case DNS name with a dot and without port or wildcard, no IP address, such as shop.example.org"))]
    pub hosts: Option<Vec<String>>,
    /// Which revisions get which share of the calls. Default: all to the latest that has proven itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 20))]
    #[x_kube(
        validation = Rule::new("self.size() == 0 || self.map(t, has(t.percent) ? t.percent : 0).sum() == 100").message("the percents of spec.traffic must add up to 100"),
        validation = Rule::new("self.all(t, !has(t.tag) || self.exists_one(u, has(u.tag) && u.tag == t.tag))").message("each tag of spec.traffic may stand once"),
    )]
    pub traffic: Option<Vec<TrafficTarget>>,
    /// How a new revision takes over the calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutSpec>,
    /// Copies of calls that go to a tag of `spec.traffic` as well; what is answered to them is thrown away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<Mirror>,
    /// Paths, methods and origins. Default: every path and method of its hosts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new("self.all(r, self.exists_one(o, (has(o.host) ? o.host : '') == (has(r.host) ? r.host : '') && (has(o.path) ? o.path : '/') == (has(r.path) ? r.path : '/')))").message("each host and path of spec.routes may stand once"))]
    pub routes: Option<Vec<Route>>,
    /// How many revisions are kept that get no calls. Default 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub revision_history_limit: Option<i32>,
}

impl FunctionSpec {
    /// The port that the container listens on.
    #[must_use]
    pub fn port(&self) -> i32 {
        self.port.unwrap_or(8080)
    }

    /// What the container speaks.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.protocol.unwrap_or_default()
    }

    /// Who can call it.
    #[must_use]
    pub fn visibility(&self) -> Visibility {
        self.visibility.unwrap_or_default()
    }

    /// How many pods, and when; with nothing said, every default.
    #[must_use]
    pub fn scaling(&self) -> ScalingSpec {
        self.scaling.clone().unwrap_or_default()
    }

    /// How long things may take; with nothing said, every default.
    #[must_use]
    pub fn timeouts(&self) -> TimeoutsSpec {
        self.timeouts.clone().unwrap_or_default()
    }

    /// What may wait; with nothing said, every default.
    #[must_use]
    pub fn queue(&self) -> QueueSpec {
        self.queue.clone().unwrap_or_default()
    }

    /// How a new revision takes over the calls; with nothing said, every default.
    #[must_use]
    pub fn rollout(&self) -> RolloutSpec {
        self.rollout.clone().unwrap_or_default()
    }

    /// How many revisions are kept that get no calls.
    #[must_use]
    pub fn revision_history_limit(&self) -> usize {
        self.revision_history_limit.map_or(10, |n| usize::try_from(n).unwrap_or(0))
    }

    /// Path of the HTTP readiness check, if it is one.
    #[must_use]
    pub fn readiness_path(&self) -> Option<&str> {
        self.readiness.as_ref().and_then(|r| r.path.as_deref())
    }
}

/// The CustomResourceDefinition as a YAML document.
///
/// # Errors
///
/// If the definition cannot be written as YAML, which would be a defect here.
pub fn crd_yaml() -> Result<String, serde_saphyr::ser::Error> {
    let yaml = serde_saphyr::to_string(&Function::crd())?;
    Ok(format!("# Made by `cargo e2e generate` from crds/src. Do not edit.\n{yaml}"))
}

#[cfg(test)]
mod tests;
