//! Step 2: validates what the schema of the custom resource cannot express. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource as _, ResourceExt as _};
use rouse_crds::{
    Function, FunctionSpec,
    function::FunctionStatus,
    names::{
        CONTAINER, CONTAINER_PORT, GROUP, POD_DELETION_COST_ANNOTATION, PORT_ANNOTATION, PRE_STOP_SECONDS,
        PROTOCOL_ANNOTATION, READINESS_ANNOTATION,
    },
};
use serde_json::{Map, Value, json};

use crate::{
    cluster::key::FunctionKey,
    spec::{canonical::hash, invalid::Invalid, schedules},
};

/// A valid Function.
#[derive(Debug)]
pub struct ValidatedFunction<'a> {
    /// Namespace and name.
    pub key: FunctionKey,
    /// `uid`.
    pub uid: String,
    /// Owner reference for its children.
    pub owner: OwnerReference,
    /// Spec.
    pub spec: &'a FunctionSpec,
    /// Current status.
    pub status: Option<&'a FunctionStatus>,
    /// Revisions with traffic, a tag or a rollout in the spec or status. They are retained regardless of their age.
    pub in_use: Vec<String>,
    /// Container fields of the spec.
    pub container: Value,
    /// Hash of `container`.
    pub hash: String,
    /// Partial pod template, structurally validated.
    pub overlay: Option<&'a Map<String, Value>>,
}

/// Validates a Function.
pub fn validate(function: &Function) -> Result<ValidatedFunction<'_>, Invalid> {
    let spec = &function.spec;
    let internal = |what: &str| Invalid::new("metadata", format!("the API server sent no {what}"));
    let key = FunctionKey::new(function.namespace().ok_or_else(|| internal("namespace"))?, function.name_any());
    let overlay =
        spec.pod_template.as_ref().map(|overlay| check_pod_template(overlay, Some(spec.port()))).transpose()?;
    schedules::check(spec)?;
    let container = container(spec);
    let status = function.status.iter().flat_map(|s| &s.traffic).map(|t| t.revision.clone());
    let wanted = spec.traffic.iter().flatten().filter_map(|t| t.revision.clone());
    let rollout = function.status.iter().filter_map(|s| s.rollout.as_ref());
    let rollout = rollout.flat_map(|r| [r.from.clone(), r.revision.clone()]);
    Ok(ValidatedFunction {
        uid: function.uid().ok_or_else(|| internal("uid"))?,
        owner: function.controller_owner_ref(&()).ok_or_else(|| internal("uid"))?,
        key,
        spec,
        status: function.status.as_ref(),
        in_use: status.chain(wanted).chain(rollout).collect(),
        hash: hash(&container),
        container,
        overlay,
    })
}

/// Returns the container fields that the user set. Defaults are left out, so a default that changes with a Rouse
/// upgrade creates no new revision.
fn container(spec: &FunctionSpec) -> Value {
    let whole = json!({
        "image": spec.image,
        "command": spec.command,
        "args": spec.args,
        "env": spec.env,
        "envFrom": spec.env_from,
        "resources": spec.resources,
        "port": spec.port,
        "protocol": spec.protocol,
        "readiness": spec.readiness,
        "podTemplate": spec.pod_template,
    });
    match whole {
        Value::Object(fields) => fields.into_iter().filter(|(_, value)| !value.is_null()).collect(),
        other => other,
    }
}

/// Checks the structure of a partial pod template, and that it sets no field that Rouse sets. `port` is the port of the function,
/// if it is known.
pub(super) fn check_pod_template(overlay: &Value, port: Option<i32>) -> Result<&Map<String, Value>, Invalid> {
    const ROOT: &str = "spec.podTemplate";
    let map = object(overlay, ROOT)?;
    only(map, ROOT, &["metadata", "spec"])?;
    if let Some(metadata) = map.get("metadata") {
        let path = format!("{ROOT}.metadata");
        let metadata = object(metadata, &path)?;
        only(metadata, &path, &["labels", "annotations"])?;
        for name in keys(metadata.get("labels"), &format!("{path}.labels"))? {
            if name.starts_with(&format!("{GROUP}/")) {
                let message = format!("label {name} is reserved for Rouse; remove it");
                return Err(Invalid::new(format!("{path}.labels"), message));
            }
        }
        for name in keys(metadata.get("annotations"), &format!("{path}.annotations"))? {
            if RESERVED_ANNOTATIONS.contains(&name) {
                let message = format!("annotation {name} is reserved for Rouse; remove it");
                return Err(Invalid::new(format!("{path}.annotations"), message));
            }
        }
    }
    if let Some(spec) = map.get("spec") {
        let path = format!("{ROOT}.spec");
        let spec = object(spec, &path)?;
        if spec.get("hostNetwork").is_some_and(|host| host == true) {
            let message = "must not be true: activators send requests to addresses of the pod network only; remove it";
            return Err(Invalid::new(format!("{path}.hostNetwork"), message));
        }
        if spec.get("restartPolicy").is_some_and(|p| p != "Always") {
            return Err(Invalid::new(format!("{path}.restartPolicy"), "must be Always; remove it"));
        }
        if spec.get("terminationGracePeriodSeconds").and_then(Value::as_i64).is_some_and(|s| s <= PRE_STOP_SECONDS) {
            let message = format!(
                "must be at least {}, because a pod still receives requests for {PRE_STOP_SECONDS}s after its deletion",
                PRE_STOP_SECONDS + 1
            );
            return Err(Invalid::new(format!("{path}.terminationGracePeriodSeconds"), message));
        }
        let path = format!("{path}.containers");
        for container in list(spec.get("containers"), &path)? {
            check_container(container, &path, port)?;
        }
    }
    Ok(map)
}

/// Annotations that `podTemplate` must not set: the operator selects victims of a scale-down by one, and tells activators
/// by the others how to reach the pod.
const RESERVED_ANNOTATIONS: [&str; 4] =
    [POD_DELETION_COST_ANNOTATION, PROTOCOL_ANNOTATION, PORT_ANNOTATION, READINESS_ANNOTATION];

/// Fields that `podTemplate` must not set, and the field of the spec to use instead.
const SPEC_FIELDS: [(&str, &str); 3] = [("image", "spec.image"), ("command", "spec.command"), ("args", "spec.args")];

fn check_container(container: &Value, path: &str, port: Option<i32>) -> Result<(), Invalid> {
    let container = object(container, path)?;
    let Some(name) = container.get("name").and_then(Value::as_str) else {
        return Err(Invalid::new(
            path,
            format!("each container needs a name; the function's container is named `{CONTAINER}`"),
        ));
    };
    if name != CONTAINER {
        return Ok(());
    }
    let path = format!("{path}[{CONTAINER}]");
    for (field, instead) in SPEC_FIELDS {
        if container.contains_key(field) {
            return Err(Invalid::new(format!("{path}.{field}"), format!("set {instead} instead")));
        }
    }
    for declared in list(container.get("ports"), &format!("{path}.ports"))? {
        let name = declared.get("name").and_then(Value::as_str);
        let number = declared.get("containerPort").and_then(Value::as_i64);
        if name == Some(CONTAINER_PORT) || port.is_some_and(|port| number == Some(port.into())) {
            let message = format!(
                "the port of the function, named `{CONTAINER_PORT}`, is declared by Rouse; set spec.port instead"
            );
            return Err(Invalid::new(format!("{path}.ports"), message));
        }
    }
    let port =
        list(container.get("env"), &format!("{path}.env"))?.iter().any(|e| e.get("name").is_some_and(|n| n == "PORT"));
    if port {
        return Err(Invalid::new(format!("{path}.env"), "PORT is set from spec.port; remove it and set spec.port"));
    }
    Ok(())
}

fn object<'a>(value: &'a Value, path: &str) -> Result<&'a Map<String, Value>, Invalid> {
    value.as_object().ok_or_else(|| Invalid::new(path, "must be an object"))
}

fn list<'a>(value: Option<&'a Value>, path: &str) -> Result<&'a [Value], Invalid> {
    match value {
        None | Some(Value::Null) => Ok(&[]),
        Some(Value::Array(list)) => Ok(list),
        Some(_) => Err(Invalid::new(path, "must be a list")),
    }
}

fn keys<'a>(value: Option<&'a Value>, path: &str) -> Result<impl Iterator<Item = &'a str>, Invalid> {
    let map = value.filter(|v| !v.is_null()).map(|v| object(v, path)).transpose()?;
    Ok(map.into_iter().flat_map(|m| m.keys().map(String::as_str)))
}

fn only(map: &Map<String, Value>, path: &str, allowed: &[&str]) -> Result<(), Invalid> {
    match map.keys().find(|name| !allowed.contains(&name.as_str())) {
        None => Ok(()),
        Some(name) => {
            let message = format!("unknown field; {path} may contain {}", allowed.join(" and "));
            Err(Invalid::new(format!("{path}.{name}"), message))
        }
    }
}

#[cfg(test)]
mod tests;
