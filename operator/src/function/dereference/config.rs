//! ConfigMaps and Secrets that a container takes something from, and whether they are others than when its revision was
//! made. Pure.

use std::collections::BTreeMap;

use rouse_crds::FunctionSpec;
use serde_json::{Value, json};

use crate::cluster::config_versions::{Kind, Reference};

/// What is known of the objects that a Function takes something from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Config {
    /// The Function does not ask (`rollout.onConfigChange`).
    #[default]
    Ignored,
    /// It asks, and this installation does not follow them.
    NotWatched,
    /// It asks.
    Watched(Versions),
}

/// Each object, with whether the container does without it, and its version if it is there.
pub type Versions = BTreeMap<Reference, (bool, Option<String>)>;

/// Versions that a revision was made with, as its annotation says: `{"ConfigMap/name": "123"}`, `null` for one that was not
/// there.
type Recorded = BTreeMap<String, Option<String>>;

/// How a revision stands to the versions of now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was made with them.
    Same,
    /// They are to be recorded with it, for nothing that contradicts them is.
    Record(String),
    /// Something has changed: there has to be another revision.
    Changed,
}

/// Every object that the container, its neighbours and their volumes name, and whether all of them do without it.
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

/// What is recorded with a new revision.
pub fn record(versions: &Versions) -> String {
    let recorded: Recorded = versions.iter().map(|(of, (_, version))| (of.to_string(), version.clone())).collect();
    json!(recorded).to_string()
}

/// Compares what was recorded with a revision with what is now.
///
/// One that is gone says nothing new: it is deleted and made again by some tools, and no pod starts without it. One that
/// was not there and is now makes a revision only if the container does without it: else no pod can have started.
pub fn compare(recorded: Option<&str>, versions: &Versions) -> Verdict {
    // What cannot be read was not written by Rouse, and is written anew.
    let before: Recorded = recorded.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let mut now = Recorded::new();
    for (reference, (optional, version)) in versions {
        let name = reference.to_string();
        let kept = match (before.get(&name), version) {
            (Some(Some(before)), Some(version)) if before != version => return Verdict::Changed,
            (Some(None), Some(_)) if *optional => return Verdict::Changed,
            (Some(before), None) => before.clone(),
            (_, version) => version.clone(),
        };
        now.insert(name, kept);
    }
    let unchanged = recorded.is_some() && now == before;
    if unchanged { Verdict::Same } else { Verdict::Record(json!(now).to_string()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[test]
    fn every_place_that_names_one() {
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
    #[case::switched_on(None, false, Some("1"), Some(r#"{"ConfigMap/a":"1"}"#))]
    #[case::the_same(Some(r#"{"ConfigMap/a":"1"}"#), false, Some("1"), None)]
    #[case::gone_for_now(Some(r#"{"ConfigMap/a":"1"}"#), false, None, None)]
    #[case::came_late(Some(r#"{"ConfigMap/a":null}"#), false, Some("1"), Some(r#"{"ConfigMap/a":"1"}"#))]
    #[case::still_missing(Some(r#"{"ConfigMap/a":null}"#), false, None, None)]
    #[case::not_ours(Some("x"), false, Some("1"), Some(r#"{"ConfigMap/a":"1"}"#))]
    fn no_new_revision(
        #[case] recorded: Option<&str>,
        #[case] optional: bool,
        #[case] version: Option<&str>,
        #[case] record: Option<&str>,
    ) {
        let expected = record.map_or(Verdict::Same, |text| Verdict::Record(text.to_owned()));
        assert_eq!(compare(recorded, &versions(optional, version)), expected);
    }

    #[rstest]
    #[case::another_version(r#"{"ConfigMap/a":"1"}"#, false, "2")]
    #[case::made_again(r#"{"ConfigMap/a":"1"}"#, true, "9")]
    #[case::one_that_it_did_without(r#"{"ConfigMap/a":null}"#, true, "1")]
    fn a_new_revision(#[case] recorded: &str, #[case] optional: bool, #[case] version: &str) {
        let versions = versions(optional, Some(version));
        assert_eq!(compare(Some(recorded), &versions), Verdict::Changed);
        assert_eq!(compare(Some(&record(&versions)), &versions), Verdict::Same);
    }
}
