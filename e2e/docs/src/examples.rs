//! The YAML examples of the pages: whole objects, parts of a Function, and values of the chart.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde_json::{Map, Value, json};

use crate::{book, function};

/// One YAML document of a page.
#[derive(Clone, Debug)]
pub struct Example {
    /// Where it stands, as `path:line`.
    pub at: String,
    /// What it is.
    pub kind: Kind,
    /// The object. A part of a Function is completed to a whole one.
    pub object: Value,
}

/// What an example is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A Function, or a part of one.
    Function,
    /// Another object of Kubernetes.
    Other,
    /// Values of the chart: a block with the info string `yaml values`.
    Values,
}

/// Reads the YAML blocks of every page and README.
///
/// # Errors
///
/// If a block is no YAML, or neither an object, nor a part of a Function's spec, nor marked as values of the chart.
pub fn examples(root: &Path) -> Result<Vec<Example>> {
    let mut found = vec![];
    for document in book::documents(root)? {
        for block in document.blocks() {
            let mut words = block.info.split_whitespace();
            if words.next() != Some("yaml") {
                continue;
            }
            let values = words.next() == Some("values");
            let at = format!("{}:{}", document.path.display(), block.line);
            for text in block.text.split("\n---\n") {
                let object: Value = serde_saphyr::from_str(text).with_context(|| at.clone())?;
                let (kind, object) =
                    if values { (Kind::Values, object) } else { complete(object).context(at.clone())? };
                found.push(Example { at: at.clone(), kind, object });
            }
        }
    }
    Ok(found)
}

/// Completes a part of a Function: `spec:` and what stands in it, or some fields of a spec.
fn complete(object: Value) -> Result<(Kind, Value)> {
    let Value::Object(mut fields) = object else { bail!("no YAML object") };
    if let Some(kind) = fields.get("kind") {
        let kind = if kind == "Function" { Kind::Function } else { Kind::Other };
        return Ok((kind, fields.into()));
    }
    let mut spec = match fields.remove("spec") {
        Some(Value::Object(spec)) if fields.is_empty() => spec,
        None => fields,
        _ => bail!("`spec` has neighbours; show the whole object, with its kind"),
    };
    let known = function::fields()?;
    for name in spec.keys() {
        let names = [format!("spec.{name}"), format!("spec.{name}[]")];
        if !known.iter().any(|field| names.contains(field)) {
            bail!("`{name}` is no field of a Function's spec; values of the chart need the info string `yaml values`");
        }
    }
    spec.entry("image").or_insert_with(|| "ghcr.io/acme/hello:1.0".into());
    let function = json!({
        "apiVersion": "rouse.dev/v1alpha1", "kind": "Function", "metadata": {"name": "hello"}, "spec": spec,
    });
    Ok((Kind::Function, function))
}

/// Paths of what is in `given` and not in `kept`: fields that a type does not know, if `kept` is `given` read and written.
#[must_use]
pub fn lost(given: &Value, kept: &Value) -> Vec<String> {
    fn walk(lost: &mut Vec<String>, path: &str, given: &Value, kept: &Value) {
        match (given, kept) {
            (Value::Object(given), kept) => {
                let none = Map::new();
                let kept = kept.as_object().unwrap_or(&none);
                for (name, value) in given.iter().filter(|(_, value)| !value.is_null()) {
                    let path = format!("{path}.{name}");
                    match kept.get(name) {
                        Some(kept) => walk(lost, &path, value, kept),
                        None => lost.push(path),
                    }
                }
            }
            (Value::Array(given), Value::Array(kept)) if given.len() == kept.len() => {
                for (at, (given, kept)) in given.iter().zip(kept).enumerate() {
                    walk(lost, &format!("{path}[{at}]"), given, kept);
                }
            }
            (Value::Array(_), _) => lost.push(path.to_owned()),
            _ => {}
        }
    }
    let mut found = vec![];
    walk(&mut found, "", given, kept);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_function_is_completed() {
        let (kind, object) = complete(json!({"spec": {"scaling": {"min": 1}}})).unwrap();
        assert_eq!((kind, &object["spec"]["scaling"]["min"]), (Kind::Function, &json!(1)));
        assert_eq!(object["metadata"]["name"], "hello");
        assert_eq!(complete(json!({"scaling": {"min": 1}})).unwrap().1, object);
        assert!(complete(json!({"ingress": {}})).unwrap_err().to_string().contains("`ingress` is no field"));
        assert_eq!(complete(json!({"kind": "Ingress"})).unwrap().0, Kind::Other);
    }

    #[test]
    fn what_a_type_does_not_know_is_found() {
        let given = json!({"a": {"b": 1, "x": 2, "n": null}, "l": [{"c": 1}, {"y": 1}]});
        let kept = json!({"a": {"b": 1}, "l": [{"c": 1}, {}]});
        assert_eq!(lost(&given, &kept), [".a.x", ".l[1].y"]);
    }
}
