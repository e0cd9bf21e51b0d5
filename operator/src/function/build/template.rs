//! Pod template of a new revision.

use k8s_openapi::api::core::v1::PodTemplateSpec;
use rouse_crds::{
    function::Protocol,
    names::{CONTAINER, CONTAINER_PORT, PORT_ANNOTATION, PRE_STOP_SECONDS, PROTOCOL_ANNOTATION, READINESS_ANNOTATION},
    pod::{PodSpec, ReadinessCheck},
};
use serde_json::{Map, Value, json};

use super::{merge::merge, pod_defaults::PodDefaults, revision_labels, unknown_field::unknown};
use crate::{function::validate::ValidatedFunction, spec::invalid::Invalid};

/// Builds the template of `revision`: the defaults of the platform, the spec of the Function, and its partial template, each merged
/// into the former.
///
/// Unknown fields are rejected, because the API server would drop them silently.
pub fn build(function: &ValidatedFunction<'_>, revision: &str, defaults: &PodDefaults) -> Result<Value, Invalid> {
    let mut template = Map::from_iter([("spec".to_owned(), json!({"terminationGracePeriodSeconds": grace(function)}))]);
    merge(&mut template, &defaults.of_function(function.spec.resources.is_some()));
    if let Value::Object(base) = base(function, revision) {
        merge(&mut template, &base);
    }
    if let Some(overlay) = function.overlay {
        merge(&mut template, overlay);
    }
    let mut template = Value::Object(template);
    declare(function, &mut template)?;
    let typed: PodTemplateSpec = serde_json::from_value(template.clone())
        .map_err(|error| Invalid::new("spec.podTemplate", format!("the merged pod template is invalid: {error}")))?;
    let known = serde_json::to_value(typed).map_err(|error| Invalid::new("spec.podTemplate", error.to_string()))?;
    match unknown(&template, &known, "spec.podTemplate") {
        None => Ok(known),
        Some(field) => Err(Invalid::new(field, "unknown field of a pod template; check its spelling and position")),
    }
}

/// Declares to activators how they reach a pod and find it ready, by the merged template.
///
/// A revision keeps these when the Function changes, and an admission webhook that changes the pod does not affect them.
fn declare(function: &ValidatedFunction<'_>, template: &mut Value) -> Result<(), Invalid> {
    let pod: PodSpec = serde_json::from_value(template["spec"].clone())
        .map_err(|error| Invalid::new("spec.podTemplate", format!("the merged pod template is invalid: {error}")))?;
    let spec = function.spec;
    let check = match (pod.readiness_check(), spec.readiness_path()) {
        // The kubelet cannot make this check of an HTTP/2 server, and connects to it instead. An activator can.
        (ReadinessCheck::Tcp, Some(path)) if spec.protocol() == Protocol::H2c => ReadinessCheck::Http(path.into()),
        (check, _) => check,
    };
    let annotations = &mut template["metadata"]["annotations"];
    annotations[PROTOCOL_ANNOTATION] = json!(spec.protocol());
    annotations[PORT_ANNOTATION] = json!(spec.port().to_string());
    annotations[READINESS_ANNOTATION] = json!(check.to_string());
    Ok(())
}

fn base(function: &ValidatedFunction<'_>, revision: &str) -> Value {
    let spec = function.spec;
    let port = spec.port();
    let mut env = vec![json!({"name": "PORT", "value": port.to_string()})];
    env.extend(spec.env.iter().flatten().map(|variable| json!(variable)));
    let mut container = Map::new();
    let given = [
        ("name", json!(CONTAINER)),
        ("image", json!(spec.image)),
        ("command", json!(spec.command)),
        ("args", json!(spec.args)),
        ("env", json!(env)),
        ("envFrom", json!(spec.env_from)),
        ("resources", json!(spec.resources)),
        ("ports", json!([{"name": CONTAINER_PORT, "containerPort": port, "protocol": "TCP"}])),
        ("readinessProbe", readiness(function)),
        ("lifecycle", json!({"preStop": {"sleep": {"seconds": PRE_STOP_SECONDS}}})),
        // Profile `restricted` of the Pod Security Standards.
        ("securityContext", json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}})),
    ];
    container.extend(given.into_iter().filter(|(_, v)| !v.is_null()).map(|(name, value)| (name.to_owned(), value)));
    json!({
        "metadata": {"labels": revision_labels(function, revision)},
        "spec": {
            "containers": [container],
            // Mounting a token delays a cold start by 0.3 s, because the kubelet checks volumes at that interval.
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        },
    })
}

/// Default of Kubernetes for the seconds between SIGTERM and SIGKILL.
const GRACE_MIN: u64 = 30;

/// Upper bound of the same: a node that is drained waits for it.
const GRACE_MAX: u64 = 600;

/// Seconds between SIGTERM and SIGKILL. A pod that is evicted has the time that a request may take until its response.
fn grace(function: &ValidatedFunction<'_>) -> u64 {
    let response = function.spec.timeouts().response().as_secs();
    response.saturating_add(PRE_STOP_SECONDS.unsigned_abs()).clamp(GRACE_MIN, GRACE_MAX)
}

/// Readiness probe for the kubelet, which the Deployment's status depends on. Activators do not wait for it if they can
/// make the same check.
fn readiness(function: &ValidatedFunction<'_>) -> Value {
    let mut probe = json!({"periodSeconds": 1, "timeoutSeconds": 3, "failureThreshold": 3});
    // The kubelet probes with HTTP/1.1 only, so it can only check whether an HTTP/2 server accepts connections.
    match (function.spec.readiness_path(), function.spec.protocol()) {
        (Some(path), Protocol::Http1) => probe["httpGet"] = json!({"path": path, "port": CONTAINER_PORT}),
        _ => probe["tcpSocket"] = json!({"port": CONTAINER_PORT}),
    }
    probe
}
