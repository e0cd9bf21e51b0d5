use super::*;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{JSONSchemaProps, JSONSchemaPropsOrArray};
use serde_json::{Value, json};

#[test]
fn the_generated_definition_is_current() {
    let stored = include_str!("../../functions.rouse.dev.yaml");
    assert!(stored == crd_yaml().unwrap(), "crds/functions.rouse.dev.yaml is not current: run `cargo e2e generate`");
}

#[test]
fn a_minimal_function_has_defaults() {
    let function: Function = serde_saphyr::from_str(
        "apiVersion: rouse.dev/v1alpha1
kind: Function
metadata: {name: hello}
spec:
  image: ghcr.io/acme/hello:1.0
",
    )
    .unwrap();
    let spec = &function.spec;
    assert_eq!((spec.port(), spec.protocol(), spec.visibility()), (8080, Protocol::Http1, Visibility::Public));
    assert_eq!((spec.scaling().min(), spec.scaling().max(), spec.scaling().initial()), (0, 100, 1));
    assert_eq!(spec.timeouts().cold_start().as_secs(), 60);
    assert_eq!((spec.queue().max_requests(), spec.queue().max_bytes()), (1000, 16 << 20));
    // Defaults are not stored.
    assert_eq!(serde_json::to_string(spec).unwrap(), r#"{"image":"ghcr.io/acme/hello:1.0"}"#);
}

#[test]
fn every_example_parses() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let mut found = 0;
    let mut folders = vec![folder];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "yaml") {
                let text = std::fs::read_to_string(&path).unwrap();
                for document in text.split("\n---\n").filter(|d| d.contains("kind: Function")) {
                    serde_saphyr::from_str::<Function>(document).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
                    found += 1;
                }
            }
        }
    }
    assert!(found > 0, "no example was found");
}

/// A value with every optional field set to null, and with every object that has fields.
fn nulls(schema: &JSONSchemaProps, path: &str) -> Value {
    let required = schema.required.clone().unwrap_or_default();
    if let Some(properties) = &schema.properties {
        let fields = properties.iter().map(|(name, field)| {
            let path = format!("{path}.{name}");
            let optional = !required.contains(name);
            if optional {
                assert_eq!(field.nullable, Some(true), "{path}");
                assert_eq!(field.enum_, None, "{path}: the API server rejects null for an enum");
            }
            let leaf = field.properties.is_none() && field.items.is_none();
            (name.clone(), if optional && leaf { Value::Null } else { nulls(field, &path) })
        });
        return fields.collect();
    }
    match (&schema.items, schema.type_.as_deref()) {
        (Some(JSONSchemaPropsOrArray::Schema(items)), _) => json!([nulls(items, path)]),
        (_, Some("string")) if path.ends_with(".duration") => json!("10s"),
        (_, Some("string")) => json!("10"),
        (_, Some("integer")) => json!(1),
        (_, Some("boolean")) => json!(true),
        _ => json!({}),
    }
}

#[test]
fn every_optional_field_of_the_spec_accepts_null() {
    let crd = serde_json::to_value(crd()).unwrap();
    let spec = crd.pointer("/spec/versions/0/schema/openAPIV3Schema/properties/spec").unwrap();
    let schema: JSONSchemaProps = serde_json::from_value(spec.clone()).unwrap();
    let spec = nulls(&schema, "spec");
    serde_json::from_value::<FunctionSpec>(spec.clone()).unwrap_or_else(|error| panic!("{error}: {spec:#}"));
    let optional = schema.properties.iter().flatten().filter(|(name, _)| *name != "image");
    let mut spec: Value = optional.map(|(name, _)| (name.clone(), Value::Null)).collect();
    spec["image"] = json!("i");
    let spec: FunctionSpec = serde_json::from_value(spec).unwrap();
    assert_eq!(spec, FunctionSpec { image: "i".into(), ..FunctionSpec::default() });
}

#[test]
fn a_status_of_another_version_is_read_as_far_as_possible() {
    let function: Function = serde_json::from_value(json!({
        "apiVersion": "rouse.dev/v1alpha1", "kind": "Function", "metadata": {"name": "f"}, "spec": {"image": "i"},
        "status": {
            "latestRevision": "f-00002", "observedGeneration": "many", "replicas": {"desired": "some"}, "news": 1,
            "rollout": {"revision": "f-00002", "from": "f-00001", "percent": 10, "phase": "Paused"},
            "traffic": [{"revision": "f-00001", "percent": 100}],
        },
    }))
    .unwrap();
    let status = function.status.unwrap();
    assert_eq!((status.latest_revision.as_deref(), status.traffic[0].percent), (Some("f-00002"), 100));
    assert_eq!((status.observed_generation, status.replicas, status.rollout), (None, None, None));
}
