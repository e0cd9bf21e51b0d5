//! ConfigMaps and Secrets that the pods of a Function use, and whether they changed since a revision was created. Pure.

use std::collections::BTreeMap;

use rouse_crds::FunctionSpec;
use serde_json::{Value, json};

use crate::cluster::config_versions::{Kind, Reference};

/// Versions of the ConfigMaps and Secrets that a Function uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Config {
    /// `rollout.onConfigChange` is `Ignore`.
    #[default]
    Ignored,
    /// The Function requests it, but this installation does not watch ConfigMaps and Secrets.
    NotWatched,
    /// The versions are watched.
    Watched(Versions),
}

/// For each object: whether it is optional, and its version if it exists.
pub type Versions = BTreeMap<Reference, (bool, Option<String>)>;

/// Versions in the annotation of a revision: `{"ConfigMap/name": "123"}`, `null` for an object that did not exist.
type Recorded = BTreeMap<String, Option<String>>;

/// Result of comparing the recorded versions of a revision with the current ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigChange {
    /// The versions are equal.
    Same,
    /// The versions do not contradict the recorded ones and must be recorded.
    Record(String),
    /// A version changed: a new revision is required.
    Changed,
}

/// Returns every object that containers and volumes reference, and whether all references to it are optional.
pub fn references(spec: &FunctionSpec) -> BTreeMap<Reference, bool> {
    let mut found = BTreeMap::new();
    let own = json!({"env": spec.env, "envFrom": spec.env_from});
    of_container(&own, &mut found);
    if let Some(pod) = spec.pod_template.as_ref().and_then(|template| template.get("spec")) {
        for container in ["containers", "initContainers"].into_iter().flat_map(|list| items(pod, list)) {
            of_container(container, &mut found);
        }
        for volume in items(pod, "volumes") {
            named(volume.get("configMap"), Kind::ConfigMap, "name", &mut found);
            named(volume.get("secret"), Kind::Secret, "secretName", &mut found);
            for source in volume.get("projected").into_iter().flat_map(|projected| items(projected, "sources")) {
                named(source.get("configMap"), Kind::ConfigMap, "name", &mut found);
                named(source.get("secret"), Kind::Secret, "name", &mut found);
            }
        }
    }
    found
}

fn of_container(container: &Value, found: &mut BTreeMap<Reference, bool>) {
    for from in items(container, "env").filter_map(|variable| variable.get("valueFrom")) {
        named(from.get("configMapKeyRef"), Kind::ConfigMap, "name", found);
        named(from.get("secretKeyRef"), Kind::Secret, "name", found);
    }
    for from in items(container, "envFrom") {
        named(from.get("configMapRef"), Kind::ConfigMap, "name", found);
        named(from.get("secretRef"), Kind::Secret, "name", found);
    }
}

fn items<'a>(value: &'a Value, list: &str) -> impl Iterator<Item = &'a Value> {
    value.get(list).and_then(Value::as_array).into_iter().flatten()
}

fn named(source: Option<&Value>, kind: Kind, field: &str, found: &mut BTreeMap<Reference, bool>) {
    let Some(source) = source else { return };
    let Some(name) = source.get(field).and_then(Value::as_str).filter(|name| !name.is_empty()) else { return };
    let optional = source.get("optional").and_then(Value::as_bool).unwrap_or(false);
    let entry = found.entry(Reference { kind, name: name.to_owned() }).or_insert(true);
    *entry &= optional;
}

/// Returns the annotation value for a new revision.
pub fn record(versions: &Versions) -> String {
    let recorded: Recorded = versions.iter().map(|(of, (_, version))| (of.to_string(), version.clone())).collect();
    json!(recorded).to_string()
}

/// Compares the recorded versions of a revision with the current ones.
///
/// A deleted object is no change: some tools delete and recreate objects, and no pod starts without a required one. A
/// created object is a change only if it is optional. Otherwise no pod can have started without it.
pub fn compare(recorded: Option<&str>, versions: &Versions) -> ConfigChange {
    // An annotation that cannot be parsed was not written by Rouse and is overwritten.
    let before: Recorded = recorded.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let mut now = Recorded::new();
    for (reference, (optional, version)) in versions {
        let name = reference.to_string();
        let kept = match (before.get(&name), version) {
            (Some(Some(before)), Some(version)) if before != version => return ConfigChange::Changed,
            (Some(None), Some(_)) if *optional => return ConfigChange::Changed,
            (Some(before), None) => before.clone(),
            (_, version) => version.clone(),
        };
        now.insert(name, kept);
    }
    let unchanged = recorded.is_some() && now == before;
    if unchanged { ConfigChange::Same } else { ConfigChange::Record(json!(now).to_string()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[test]
    fn finds_every_reference() {
        let spec: FunctionSpec = serde_json::from_value(json!({
            "image": "i",
            "env": [
                {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "env-map", "key": "k"}}},
                {"name": "B", "valueFrom": {"secretKeyRef": {"name": "env-secret", "key": "k", "optional": true}}},
                {"name": "C", "value": "x"},
            ],
            "envFrom": [{"configMapRef": {"name": "from-map"}}, {"secretRef": {"name": "env-secret"}}],
            "podTemplate": {"spec": {
                "volumes": [
                    {"name": "a", "configMap": {"name": "volume-map", "optional": true}},
                    {"name": "b", "secret": {"secretName": "volume-secret"}},
                    {"name": "c", "projected": {"sources": [{"configMap": {"name": "projected-map"}}, {"secret": {"name": "projected-secret"}}]}},
                    {"name": "d", "emptyDir": {}},
                ],
                "containers": [{"name": "side", "envFrom": [{"configMapRef": {"name": "side-map"}}]}],
                "initContainers": [{"name": "init", "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "init-secret", "key": "k"}}}]}],
            }},
        }))
        .unwrap();
        let found: Vec<_> = references(&spec).into_iter().map(|(of, optional)| (of.to_string(), optional)).collect();
        let found: Vec<_> = found.iter().map(|(of, optional)| (of.as_str(), *optional)).collect();
        assert_eq!(
            found,
            [
                ("ConfigMap/env-map", false),
                ("ConfigMap/from-map", false),
                ("ConfigMap/projected-map", false),
                ("ConfigMap/side-map", false),
                ("ConfigMap/volume-map", true),
                ("Secret/env-secret", false),
                ("Secret/init-secret", false),
                ("Secret/projected-secret", false),
                ("Secret/volume-secret", false),
            ]
        );
    }

    fn versions(optional: bool, version: Option<&str>) -> Versions {
        let reference = Reference { kind: Kind::ConfigMap, name: "a".into() };
        Versions::from([(reference, (optional, version.map(str::to_owned)))])
    }

    #[rstest]
    #[case::enabled(None, false, Some("1"), Some(r#"{"ConfigMap/a":"1"}"#))]
    #[case::unchanged(Some(r#"{"ConfigMap/a":"1"}"#), false, Some("1"), None)]
    #[case::deleted(Some(r#"{"ConfigMap/a":"1"}"#), false, None, None)]
    #[case::created_late(Some(r#"{"ConfigMap/a":null}"#), false, Some("1"), Some(r#"{"ConfigMap/a":"1"}"#))]
    #[case::still_missing(Some(r#"{"ConfigMap/a":null}"#), false, None, None)]
    #[case::foreign_annotation(Some("x"), false, Some("1"), Some(r#"{"ConfigMap/a":"1"}"#))]
    fn requires_no_new_revision(
        #[case] recorded: Option<&str>,
        #[case] optional: bool,
        #[case] version: Option<&str>,
        #[case] record: Option<&str>,
    ) {
        let expected = record.map_or(ConfigChange::Same, |text| ConfigChange::Record(text.to_owned()));
        assert_eq!(compare(recorded, &versions(optional, version)), expected);
    }

    #[rstest]
    #[case::another_version(r#"{"ConfigMap/a":"1"}"#, false, "2")]
    #[case::recreated(r#"{"ConfigMap/a":"1"}"#, true, "9")]
    #[case::optional_object_created(r#"{"ConfigMap/a":null}"#, true, "1")]
    fn requires_a_new_revision(#[case] recorded: &str, #[case] optional: bool, #[case] version: &str) {
        let versions = versions(optional, Some(version));
        assert_eq!(compare(Some(recorded), &versions), ConfigChange::Changed);
        assert_eq!(compare(Some(&record(&versions)), &versions), ConfigChange::Same);
    }
}
