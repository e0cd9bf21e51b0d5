//! The page of the Function's fields, from the schema of the CustomResourceDefinition.

use anyhow::{Context as _, Result};
use kube::CustomResourceExt as _;
use rouse_crds::Function;
use serde_json::{Map, Value};

use crate::markdown::{GENERATED, cell, code, sentence, table};

const INTRODUCTION: &str = "# Function

`apiVersion: rouse.dev/v1alpha1`, `kind: Function`, short name `fn`, category `all`. A minimal Function has an image only:

```yaml
apiVersion: rouse.dev/v1alpha1
kind: Function
metadata: {name: hello}
spec:
  image: ghcr.io/acme/hello:1.0
```

`kubectl explain function.spec` shows the same descriptions. A duration is a string such as `30s`, `1m30s` or `500ms`. The API
server refuses a Function that violates a rule on this page, with a message that names the field and the fix.
";

/// Fields whose types are those of Kubernetes.
const KUBERNETES: [(&str, &str); 4] = [
    ("spec.env", "list of EnvVar"),
    ("spec.envFrom", "list of EnvFromSource"),
    ("spec.resources", "ResourceRequirements"),
    ("status.conditions", "list of Condition"),
];

/// Returns the page.
///
/// # Errors
///
/// If the CustomResourceDefinition has no schema.
pub fn page() -> Result<String> {
    let schema = schema()?;
    let mut out = format!("{GENERATED}\n{INTRODUCTION}");
    rules(&mut out, [&schema]);
    for part in ["spec", "status"] {
        section(&mut out, part, &schema["properties"][part], None);
    }
    Ok(out)
}

/// Returns the path of every field, such as `spec.scaling.min` and `spec.routes[].path`.
///
/// # Errors
///
/// As of [`page`].
pub fn fields() -> Result<Vec<String>> {
    fn walk(found: &mut Vec<String>, path: &str, schema: &Value) {
        for (name, field) in properties(schema).into_iter().flatten() {
            let path = format!("{path}.{name}");
            let (path, inner) = if is_list(field) { (format!("{path}[]"), &field["items"]) } else { (path, field) };
            walk(found, &path, inner);
            found.push(path);
        }
    }
    let schema = schema()?;
    let mut found = vec![];
    for part in ["spec", "status"] {
        walk(&mut found, part, &schema["properties"][part]);
    }
    Ok(found)
}

fn schema() -> Result<Value> {
    let crd = serde_json::to_value(Function::crd())?;
    let schema = crd.pointer("/spec/versions/0/schema/openAPIV3Schema").context("the CRD has no schema")?;
    Ok(schema.clone())
}

/// One object: its description, a table of its fields, its rules and those of the `list` that it is an item of, and then the
/// objects in it.
fn section(out: &mut String, path: &str, schema: &Value, list: Option<&Value>) {
    out.push_str(&format!("\n## {path}\n\n"));
    let about = sentence(text(schema, "description"));
    if !about.is_empty() {
        out.push_str(&format!("{about}\n\n"));
    }
    let Some(fields) = properties(schema) else { return };
    let required: Vec<_> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let rows = fields.iter().map(|(name, field)| {
        let kind = kind(&format!("{path}.{name}"), field);
        let must = if path.starts_with("spec") && required.contains(&name.as_str()) { ", required" } else { "" };
        [code(name), cell(&format!("{kind}{must}")), cell(&sentence(text(field, "description")))]
    });
    table(out, ["field", "type", "description"], rows);
    let nested = |field: &Value| properties(field).is_some() || properties(&field["items"]).is_some();
    let plain = fields.iter().filter(|(_, field)| !nested(field)).map(|(_, field)| field);
    rules(out, list.into_iter().chain([schema]).chain(plain));
    for (name, field) in fields {
        let path = format!("{path}.{name}");
        if KUBERNETES.iter().any(|(known, _)| *known == path) {
            continue;
        }
        if properties(field).is_some() {
            section(out, &path, field, None);
        } else if properties(&field["items"]).is_some() {
            let mut items = field["items"].clone();
            if text(&items, "description").is_empty() {
                items["description"] = field["description"].clone();
            }
            section(out, &format!("{path}[]"), &items, Some(field));
        }
    }
}

/// The messages of the CEL rules of `schemas` and of what is in their lists.
fn rules<'a>(out: &mut String, schemas: impl IntoIterator<Item = &'a Value>) {
    let mut messages = vec![];
    for schema in schemas {
        for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
            let message = text(rule, "message");
            // The rules of durations, sizes and percentages say what the type's name says already.
            if !message.is_empty() && !message.starts_with("must be a ") && !messages.contains(&message) {
                messages.push(message);
            }
        }
    }
    if !messages.is_empty() {
        out.push_str("\nRules:\n\n");
        for message in messages {
            out.push_str(&format!("- {}\n", sentence(message)));
        }
    }
}

/// The type of a field in words, with its bounds.
fn kind(path: &str, field: &Value) -> String {
    if let Some((_, name)) = KUBERNETES.iter().find(|(known, _)| *known == path) {
        return (*name).to_owned();
    }
    if let Some(values) = field["enum"].as_array() {
        let values: Vec<_> = values.iter().filter_map(Value::as_str).map(|v| format!("`{v}`")).collect();
        return values.join(" or ");
    }
    match text(field, "type") {
        "array" => {
            let of = match text(&field["items"], "type") {
                "object" => "list of objects".to_owned(),
                other => format!("list of {other}s"),
            };
            format!("{of}{}", bounds(field, "minItems", "maxItems", ""))
        }
        "string" => match named(field) {
            Some(name) => name.to_owned(),
            None => format!("string{}", bounds(field, "minLength", "maxLength", " characters")),
        },
        kind @ ("integer" | "number") => format!("{kind}{}", bounds(field, "minimum", "maximum", "")),
        other => other.to_owned(),
    }
}

/// What kind of string it is, by its rules or by its pattern.
fn named(field: &Value) -> Option<&'static str> {
    let rules = field["x-kubernetes-validations"].as_array();
    let has_rule = |part: &str| rules.into_iter().flatten().any(|rule| text(rule, "rule").contains(part));
    if has_rule("duration(self)") {
        Some("duration")
    } else if has_rule("quantity(self)") {
        Some("size in bytes, such as 16Mi")
    } else if text(field, "pattern").ends_with("%$") {
        Some("percentage")
    } else if text(field, "format") == "date-time" {
        Some("time")
    } else {
        None
    }
}

fn bounds(field: &Value, least: &str, most: &str, unit: &str) -> String {
    // `1.0` in the schema is 1 in an integer's.
    let number = |name: &str| field[name].as_f64().map(|n| n.to_string());
    match (number(least), number(most)) {
        (Some(least), Some(most)) => format!(", {least} to {most}{unit}"),
        (None, Some(most)) => format!(", at most {most}{unit}"),
        (Some(least), None) => format!(", at least {least}{unit}"),
        (None, None) => String::new(),
    }
}

fn is_list(field: &Value) -> bool {
    text(field, "type") == "array" && properties(&field["items"]).is_some()
}

fn properties(schema: &Value) -> Option<&Map<String, Value>> {
    schema["properties"].as_object()
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_has_its_type_its_bounds_and_its_rules() {
        let page = page().unwrap();
        let section = page.split("\n## spec.scaling\n").nth(1).unwrap().split("\n## ").next().unwrap();
        assert!(section.contains("| `max` | integer, 1 to 10000 |"), "{section}");
        assert!(section.contains("| `idleTimeout` | duration |"), "{section}");
        assert!(section.contains("| `metric` | `concurrency` or `rps` |"), "{section}");
        assert!(
            section.contains("- spec.scaling.target must not be more than spec.scaling.concurrencyLimit."),
            "{section}"
        );
        assert!(section.contains("- spec.scaling.idleTimeout must be at least 1s."), "{section}");
        assert!(page.contains("| `image` | string, 1 to 1024 characters, required |"), "{page}");
    }

    #[test]
    fn fields_have_paths() {
        let fields = fields().unwrap();
        for path in ["spec.scaling.schedules[].cron", "spec.mirror", "status.traffic[].url", "spec.rollout.abortOn.p99"]
        {
            assert!(fields.iter().any(|f| f == path), "{path} is not in {fields:?}");
        }
    }
}
