//! The one container of a function pod.

use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// What a container speaks on its port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2 without TLS, by prior knowledge (gRPC).
    H2c,
}

/// How to tell that a pod can take requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReadinessSpec {
    /// Path of a GET that answers 2xx or 3xx once the pod can take requests. Without it a TCP connection is proof.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    #[x_kube(validation = Rule::new("self.startsWith('/')").message("spec.readiness.path must begin with /"))]
    pub path: Option<String>,
}

/// Anything that is an object: a partial PodTemplateSpec cannot be described more closely without making its fields
/// required. The operator checks the merged result and reports what does not fit in a condition.
pub(super) fn pod_template_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": true,
        "description": "Labels, annotations and a partial PodSpec (metadata, spec), merged over what Rouse builds.",
    })
}
