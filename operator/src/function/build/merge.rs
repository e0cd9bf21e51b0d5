//! A small strategic merge of a partial pod template over a built one.
//!
//! Maps are merged by key, and `null` takes a key away. Lists whose elements have a key of their own (containers, volumes,
//! variables, …) are merged by it, new elements at the end; every other list is replaced. Of the several ways in which a
//! probe or a hook can act only one may stand, so a way that is given replaces the one that was built.

use serde_json::{Map, Value};

/// The key of the elements of a list, by the list's name, as Kubernetes' own strategic merge has it.
fn key_of(list: &str) -> Option<&'static str> {
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

/// The ways in which a probe or a hook can act, of which one may stand.
const HANDLERS: [&str; 5] = ["exec", "httpGet", "tcpSocket", "grpc", "sleep"];

/// Fields that hold a handler.
const HANDLED: [&str; 5] = ["readinessProbe", "livenessProbe", "startupProbe", "preStop", "postStart"];

/// Merges `overlay` over `base`.
pub fn merge(base: &mut Map<String, Value>, overlay: &Map<String, Value>) {
    for (name, value) in overlay {
        match (base.get_mut(name), value) {
            (_, Value::Null) => {
                base.remove(name);
            }
            (Some(Value::Object(base)), Value::Object(overlay)) => {
                if HANDLED.contains(&name.as_str()) && HANDLERS.iter().any(|h| overlay.contains_key(*h)) {
                    base.retain(|name, _| !HANDLERS.contains(&name.as_str()));
                }
                merge(base, overlay);
            }
            (Some(Value::Array(base)), Value::Array(overlay)) if key_of(name).is_some() => {
                merge_list(base, overlay, key_of(name).unwrap_or_default());
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

/// A `null` takes away what was built; where nothing was built it says nothing.
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
    #[case::null_takes_away(json!({"a": 1, "b": 2}), json!({"a": null, "c": {"d": null}}), json!({"b": 2, "c": {}}))]
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
