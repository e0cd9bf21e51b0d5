//! Container settings of a function pod.

use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// Protocol of the container port: `http1` (HTTP/1.1) or `h2c` (HTTP/2 without TLS, as gRPC needs). Default `http1`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2 without TLS, by prior knowledge (gRPC).
    H2c,
}

/// Readiness check of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReadinessSpec {
    /// Path of an HTTP GET that returns 2xx or 3xx when the pod is ready. Default: no HTTP check, a TCP connection is enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    #[x_kube(validation = Rule::new("self.startsWith('/')").message("spec.readiness.path must start with /, such as /healthz"))]
    pub path: Option<String>,
}

/// Schema of `podTemplate`: any object. A stricter schema of a partial PodTemplateSpec would make its fields required. The
/// operator validates the merged template and reports errors in the condition `RevisionReady`.
pub(super) fn pod_template_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": true,
        "description": "Partial PodTemplateSpec (metadata.labels, metadata.annotations, spec) that is merged into the pod template. Maps merge by key, containers by name; the function's container is named `function`.",
    })
}
