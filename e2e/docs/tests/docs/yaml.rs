//! Every YAML example is of its type, without unknown fields. The API server checks bounds and rules in `tests/api_server.rs`.

use rouse_crds::Function;
use rouse_docs::{
    checkout,
    examples::{Kind, examples, lost},
};
use serde_json::Value;

#[test]
fn functions_have_no_unknown_field() {
    let mut count = 0;
    for example in examples(&checkout()).unwrap() {
        if example.kind == Kind::Function {
            count += 1;
            let function: Function =
                serde_json::from_value(example.object.clone()).unwrap_or_else(|e| panic!("{}: {e}", example.at));
            let unknown = lost(&example.object, &serde_json::to_value(function).unwrap());
            assert!(unknown.is_empty(), "{}: no such fields: {unknown:?}", example.at);
        }
    }
    assert!(count > 10, "only {count} Functions were found");
}

#[test]
fn chart_values_exist() {
    let root = checkout();
    let schema = std::fs::read_to_string(root.join("charts/rouse/values.schema.json")).unwrap();
    let schema: Value = serde_json::from_str(&schema).unwrap();
    let mut count = 0;
    for example in examples(&root).unwrap().into_iter().filter(|e| e.kind == Kind::Values) {
        count += 1;
        check(&example.at, &schema, &schema, &example.object);
    }
    assert!(count > 0, "no example of values was found");
}

/// Objects have properties that the schema knows, and words are among those it allows.
fn check(at: &str, root: &Value, schema: &Value, value: &Value) {
    let schema = match schema["$ref"].as_str() {
        Some(reference) => root.pointer(reference.trim_start_matches('#')).unwrap(),
        None => schema,
    };
    if let (Some(fields), Some(known)) = (value.as_object(), schema["properties"].as_object()) {
        for (name, value) in fields {
            let field = known.get(name).unwrap_or_else(|| panic!("{at}: the chart has no value `{name}`"));
            check(&format!("{at} {name}"), root, field, value);
        }
    }
    for item in value.as_array().into_iter().flatten() {
        check(at, root, &schema["items"], item);
    }
    if let Some(allowed) = schema["enum"].as_array() {
        assert!(allowed.contains(value), "{at}: {value} is not among {allowed:?}");
    }
}
