//! The `Function` custom resource.
//!
//! Optional fields are `Option`s and are absent from the stored object when the user does not set them. A method beside each
//! type returns the value or its default (`ScalingSpec::max()`), so each default is defined in one place.

mod container;
mod lenient;
mod nullable;
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

use k8s_openapi::{
    api::core::v1::{EnvFromSource, EnvVar, ResourceRequirements},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{CustomResource, CustomResourceExt, KubeSchema};
use serde::{Deserialize, Serialize};

use container::pod_template_schema;

/// A Function runs a container image as pods that scale with its requests, down to zero.
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
    doc = "A Function runs a container image as pods that scale with its requests, down to zero.",
    printcolumn(name = "URL", type_ = "string", json_path = ".status.url"),
    printcolumn(name = "READY", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "REPLICAS", type_ = "integer", json_path = ".status.replicas.ready"),
    printcolumn(name = "REVISION", type_ = "string", json_path = ".status.latestRevision"),
    printcolumn(name = "REASON", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason", priority = 1),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("!has(self.spec.mirror) || (has(self.spec.traffic) && self.spec.traffic.exists(t, has(t.tag) && t.tag == self.spec.mirror.tag))")
        .message("spec.mirror.tag must be the tag of an entry of spec.traffic"),
    validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$') && self.metadata.name.size() <= 45")
        .message("metadata.name must be a DNS label that starts with a letter (lower-case letters, digits and dashes), at most 45 characters long, because it becomes part of a host name"),
)]
#[serde(rename_all = "camelCase")]
pub struct FunctionSpec {
    /// Container image. A change creates a new revision. Required.
    #[schemars(length(min = 1, max = 1024))]
    pub image: String,
    /// Entry point of the container. Default: the entry point of the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256), inner(length(max = 32768)))]
    pub command: Option<Vec<String>>,
    /// Arguments of the entry point. Default: the arguments of the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256), inner(length(max = 32768)))]
    pub args: Option<Vec<String>>,
    /// Environment variables of the container. `PORT` is reserved: Rouse sets it to `spec.port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    #[x_kube(validation = Rule::new("self.all(e, e.name != 'PORT')").message("PORT is set from spec.port; remove it from env and set spec.port"))]
    pub env: Option<Vec<EnvVar>>,
    /// ConfigMaps and Secrets whose keys become environment variables.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub env_from: Option<Vec<EnvFromSource>>,
    /// Compute resources of the container: requests and limits for CPU, memory and devices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// Port that the container listens on. The container receives it as `PORT`. Default 8080.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
    /// Protocol of the container port: `http1` (HTTP/1.1) or `h2c` (HTTP/2 without TLS, as gRPC needs). Default `http1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// Readiness check of a pod. Default: a pod is ready when its port accepts a TCP connection. A readiness probe in
    /// `podTemplate` has precedence. Activators run TCP, HTTP and gRPC checks on `port` themselves, and wait for the kubelet
    /// with any other probe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readiness: Option<ReadinessSpec>,
    /// Partial PodTemplateSpec (`metadata.labels`, `metadata.annotations`, `spec`) that is merged into the pod template. Maps
    /// merge by key, containers by name; the function's container is named `function`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "pod_template_schema")]
    pub pod_template: Option<serde_json::Value>,
    /// Autoscaling bounds, target and windows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scaling: Option<ScalingSpec>,
    /// Timeouts of requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<TimeoutsSpec>,
    /// Limits on requests that are queued for a pod, for each activator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<QueueSpec>,
    /// Clients that can reach the Function: `Public` (through the ingress and from pods) or `Cluster` (from pods only). Default
    /// `Public`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub visibility: Option<Visibility>,
    /// Additional hosts that are routed to the Function. It always has its default host, `{name}.{namespace}.{domain}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 253)))]
    #[x_kube(validation = Rule::new("self.all(h, h.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\\\\.[a-z]([-a-z0-9]*[a-z0-9])?$'))").message("each host in spec.hosts must be a lower-case DNS name with a dot, such as shop.example.org: no port, no wildcard, no IP address"))]
    pub hosts: Option<Vec<String>>,
    /// Traffic split between revisions, in percent. Default: 100 % to the latest ready revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 20))]
    #[x_kube(
        validation = Rule::new("self.size() == 0 || self.map(t, has(t.percent) ? t.percent : 0).sum() == 100").message("the percents of spec.traffic must add up to 100; change the percents"),
        validation = Rule::new("self.all(t, !has(t.tag) || self.exists_one(u, has(u.tag) && u.tag == t.tag))").message("the tags of spec.traffic must be unique; rename or remove a duplicate"),
    )]
    pub traffic: Option<Vec<TrafficTarget>>,
    /// Rollout of a new revision: traffic steps, rollback and session affinity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutSpec>,
    /// Traffic mirroring: sends copies of requests to a tag of `spec.traffic` and discards their responses. Default: no mirroring.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<Mirror>,
    /// Paths, methods and CORS origins that the Function serves. Default: every path and method of its hosts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new("self.all(r, self.exists_one(o, (has(o.host) ? o.host : '') == (has(r.host) ? r.host : '') && (has(o.path) ? o.path : '/') == (has(r.path) ? r.path : '/')))").message("each pair of host and path in spec.routes must be unique; merge or remove a duplicate"))]
    pub routes: Option<Vec<Route>>,
    /// Number of revisions without traffic that are retained for rollback. Default 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub revision_history_limit: Option<i32>,
}

impl FunctionSpec {
    /// Port that the container listens on.
    #[must_use]
    pub fn port(&self) -> i32 {
        self.port.unwrap_or(8080)
    }

    /// Protocol of the container port.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.protocol.unwrap_or_default()
    }

    /// Clients that can reach the Function.
    #[must_use]
    pub fn visibility(&self) -> Visibility {
        self.visibility.unwrap_or_default()
    }

    /// Autoscaling settings; every default if `scaling` is not set.
    #[must_use]
    pub fn scaling(&self) -> ScalingSpec {
        self.scaling.clone().unwrap_or_default()
    }

    /// Timeouts; every default if `timeouts` is not set.
    #[must_use]
    pub fn timeouts(&self) -> TimeoutsSpec {
        self.timeouts.clone().unwrap_or_default()
    }

    /// Queue limits; every default if `queue` is not set.
    #[must_use]
    pub fn queue(&self) -> QueueSpec {
        self.queue.clone().unwrap_or_default()
    }

    /// Rollout settings; every default if `rollout` is not set.
    #[must_use]
    pub fn rollout(&self) -> RolloutSpec {
        self.rollout.clone().unwrap_or_default()
    }

    /// Number of revisions without traffic that are retained.
    #[must_use]
    pub fn revision_history_limit(&self) -> usize {
        self.revision_history_limit.map_or(10, |n| usize::try_from(n).unwrap_or(0))
    }

    /// Path of the HTTP readiness check; `None` if readiness is a TCP connection.
    #[must_use]
    pub fn readiness_path(&self) -> Option<&str> {
        self.readiness.as_ref().and_then(|r| r.path.as_deref())
    }
}

/// The CustomResourceDefinition. Every optional field of the spec accepts null.
#[must_use]
pub fn crd() -> CustomResourceDefinition {
    let mut crd = Function::crd();
    nullable::accept_null(&mut crd);
    crd
}

/// The CustomResourceDefinition as a YAML document.
///
/// # Errors
///
/// If the definition cannot be written as YAML, which would be a bug.
pub fn crd_yaml() -> Result<String, serde_saphyr::ser::Error> {
    let yaml = serde_saphyr::to_string(&crd())?;
    Ok(format!("# Generated by `cargo e2e generate` from crds/src. Do not edit.\n{yaml}"))
}

#[cfg(test)]
mod tests;
