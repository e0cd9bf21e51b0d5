//! Strategic merge of a partial pod template into the built one.
//!
//! Maps merge by key, and `null` deletes a key. Lists whose elements have a merge key (containers, volumes, variables,
//! …) merge by it and append new elements; other lists are replaced. A probe or hook has exactly one handler, so a
//! given handler replaces the built one.

use serde_json::{Map, Value};

/// Returns the merge key of a list, by the name of the list, as in Kubernetes' strategic merge patch.
fn merge_key(list: &str) -> Option<&'static str> {
    Some(match list {
        "containers"
        | "initContainers"
        | "ephemeralContainers"
        | "volumes"
        | "env"
        | "imagePullSecrets"
        | "resourceClaims" => "name",
        "volumeMounts" => "mountPath",
        "volumeDevices" => "devicePath",
        "hostAliases" => "ip",
        "ports" => "containerPort",
        "topologySpreadConstraints" => "topologyKey",
        _ => return None,
    })
}

/// Handlers of probes and hooks. Exactly one may be set.
const HANDLERS: [&str; 5] = ["exec", "httpGet", "tcpSocket", "grpc", "sleep"];

/// Fields with a handler.
const WITH_HANDLER: [&str; 5] = ["readinessProbe", "livenessProbe", "startupProbe", "preStop", "postStart"];

/// Merges `overlay` into `base`.
pub fn merge(base: &mut Map<String, Value>, overlay: &Map<String, Value>) {
    for (name, value) in overlay {
        match (base.get_mut(name), value) {
            (_, Value::Null) => {
                base.remove(name);
            }
            (Some(Value::Object(base)), Value::Object(overlay)) => {
                if WITH_HANDLER.contains(&name.as_str()) && HANDLERS.iter().any(|h| overlay.contains_key(*h)) {
                    base.retain(|name, _| !HANDLERS.contains(&name.as_str()));
                }
                merge(base, overlay);
            }
            (Some(Value::Array(base)), Value::Array(overlay)) if merge_key(name).is_some() => {
                merge_list(base, overlay, merge_key(name).unwrap_or_default());
            }
            _ => {
                base.insert(name.clone(), without_nulls(value));
            }
        }
    }
}

fn merge_list(base: &mut Vec<Value>, overlay: &[Value], key: &str) {
    for element in overlay {
        let same = element.get(key).and_then(|id| base.iter_mut().find(|b| b.get(key) == Some(id)));
        match (same, element) {
            (Some(Value::Object(base)), Value::Object(element)) => merge(base, element),
            _ => base.push(without_nulls(element)),
        }
    }
}

/// Removes `null`s, which have no effect where there is nothing to delete.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            map.iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k.clone(), without_nulls(v))).collect()
        }
        Value::Array(list) => list.iter().map(without_nulls).collect(),
        scalar => scalar.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    #[rstest]
    #[case::maps(json!({"a": {"x": 1}}), json!({"a": {"y": 2}}), json!({"a": {"x": 1, "y": 2}}))]
    #[case::null_deletes(json!({"a": 1, "b": 2}), json!({"a": null, "c": {"d": null}}), json!({"b": 2, "c": {}}))]
    #[case::containers_by_name(
        json!({"containers": [{"name": "function", "image": "i", "env": [{"name": "PORT", "value": "1"}]}]}),
        json!({"containers": [{"name": "side"}, {"name": "function", "env": [{"name": "A", "value": "2"}]}]}),
        json!({"containers": [{"name": "function", "image": "i", "env": [{"name": "PORT", "value": "1"}, {"name": "A", "value": "2"}]}, {"name": "side"}]})
    )]
    #[case::variable_replaced(json!({"env": [{"name": "A", "value": "1"}]}), json!({"env": [{"name": "A", "value": "2"}]}), json!({"env": [{"name": "A", "value": "2"}]}))]
    #[case::other_lists_replaced(json!({"drop": ["ALL"]}), json!({"drop": []}), json!({"drop": []}))]
    #[case::another_probe(
        json!({"readinessProbe": {"tcpSocket": {"port": 1}, "periodSeconds": 1}}),
        json!({"readinessProbe": {"exec": {"command": ["x"]}}}),
        json!({"readinessProbe": {"exec": {"command": ["x"]}, "periodSeconds": 1}})
    )]
    #[case::the_same_probe(
        json!({"readinessProbe": {"tcpSocket": {"port": 1}, "periodSeconds": 1}}),
        json!({"readinessProbe": {"periodSeconds": 5}}),
        json!({"readinessProbe": {"tcpSocket": {"port": 1}, "periodSeconds": 5}})
    )]
    #[case::another_type_replaces(json!({"a": {"x": 1}}), json!({"a": 3}), json!({"a": 3}))]
    fn merges(#[case] mut base: Value, #[case] overlay: Value, #[case] expected: Value) {
        merge(base.as_object_mut().unwrap(), overlay.as_object().unwrap());
        assert_eq!(base, expected);
    }
}
