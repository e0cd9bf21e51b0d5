//! Defaults of the platform for the pods of Functions.

use std::str::FromStr;

use k8s_openapi::api::core::v1::PodTemplateSpec;
use rouse_crds::names::CONTAINER;
use serde_json::{Map, Value};

use super::unknown_field::unknown;
use crate::function::validate::check_pod_template;

/// Partial PodTemplateSpec that is merged below the fields of every Function. A Function overrides each of its fields.
///
/// A change applies to new revisions only, like a change of a built-in default.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodDefaults(Map<String, Value>);

impl PodDefaults {
    /// Returns the defaults for a Function. Default resources of the container do not mix with those of a Function: a default
    /// request may exceed its limit.
    pub(super) fn of_function(&self, has_resources: bool) -> Map<String, Value> {
        let mut defaults = self.0.clone();
        let containers =
            defaults.get_mut("spec").and_then(|spec| spec.get_mut("containers")).and_then(Value::as_array_mut);
        for container in
            containers.into_iter().flatten().filter(|c| has_resources && c.get("name").is_some_and(|n| n == CONTAINER))
        {
            container.as_object_mut().and_then(|container| container.remove("resources"));
        }
        defaults
    }
}

impl FromStr for PodDefaults {
    type Err = String;

    /// Parses a JSON object; an empty text is no defaults.
    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let value: Value = serde_json::from_str(text).map_err(|error| format!("not a JSON object: {error}"))?;
        let map = check_pod_template(&value, None).map_err(|invalid| invalid.to_string())?.clone();
        let typed: PodTemplateSpec = serde_json::from_value(value.clone()).map_err(|error| error.to_string())?;
        let known = serde_json::to_value(typed).map_err(|error| error.to_string())?;
        match unknown(&value, &known, "podDefaults") {
            None => Ok(Self(map)),
            Some(field) => Err(format!("{field} is not a field of a pod template")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    #[rstest]
    #[case::empty("", None)]
    #[case::node_selector(r#"{"spec": {"nodeSelector": {"pool": "functions"}}}"#, None)]
    #[case::resources(
        r#"{"spec": {"containers": [{"name": "function", "resources": {"requests": {"cpu": "10m"}}}]}}"#,
        None
    )]
    #[case::no_json("spec: {}", Some("JSON"))]
    #[case::misspelled(r#"{"spec": {"nodeSelektor": {}}}"#, Some("podDefaults.spec.nodeSelektor"))]
    #[case::reserved(r#"{"metadata": {"labels": {"rouse.dev/function": "x"}}}"#, Some("reserved"))]
    #[case::image(r#"{"spec": {"containers": [{"name": "function", "image": "i"}]}}"#, Some("image"))]
    #[case::wrong_type(r#"{"spec": {"priorityClassName": 3}}"#, Some("string"))]
    fn defaults_are_checked_at_startup(#[case] text: &str, #[case] error: Option<&str>) {
        match (text.parse::<PodDefaults>(), error) {
            (Ok(_), None) => {}
            (Err(message), Some(part)) => assert!(message.contains(part), "{message}"),
            (other, _) => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn resources_of_a_function_replace_the_defaults() {
        let text = json!({"spec": {"containers": [
            {"name": "function", "resources": {"requests": {"cpu": "10m"}}},
            {"name": "agent", "resources": {"requests": {"cpu": "1m"}}},
        ]}});
        let defaults: PodDefaults = text.to_string().parse().unwrap();
        assert_eq!(Value::Object(defaults.of_function(false)), text);
        let without = Value::Object(defaults.of_function(true));
        assert_eq!(without["spec"]["containers"][0], json!({"name": "function"}));
        assert_eq!(without["spec"]["containers"][1], text["spec"]["containers"][1]);
    }
}
