//! Drift detection: whether a live object still contains every field that was applied.
//!
//! The API server adds defaults, so a live object contains more fields than the applied one.

use serde_json::Value;

/// Returns the path of the first field of `wanted` that `live` does not contain.
///
/// Maps in `live` may contain more keys. Lists must have the same length. An empty wanted value may be absent, because
/// the API server omits empty fields. Quantities are compared as numbers, because it writes `1000m` as `1`.
pub fn missing(wanted: &Value, live: &Value) -> Option<String> {
    walk(wanted, Some(live), "", false)
}

fn walk(wanted: &Value, live: Option<&Value>, path: &str, quantity: bool) -> Option<String> {
    let here = || Some(if path.is_empty() { "." } else { path }.to_owned());
    match (wanted, live) {
        (wanted, None | Some(Value::Null)) => {
            if is_empty(wanted) {
                None
            } else {
                here()
            }
        }
        (Value::Object(wanted), Some(Value::Object(live))) => wanted.iter().find_map(|(name, value)| {
            let quantity = quantity || matches!(name.as_str(), "limits" | "requests" | "sizeLimit" | "divisor");
            walk(value, live.get(name), &format!("{path}.{name}"), quantity)
        }),
        (Value::Array(wanted), Some(Value::Array(live))) => {
            if wanted.len() != live.len() {
                return here();
            }
            let mut pairs = wanted.iter().zip(live).enumerate();
            pairs.find_map(|(index, (w, l))| walk(w, Some(l), &format!("{path}[{index}]"), quantity))
        }
        (wanted, Some(live)) => {
            let same = wanted == live || (quantity && same_quantity(wanted, live));
            if same { None } else { here() }
        }
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.values().all(is_empty),
    }
}

fn same_quantity(a: &Value, b: &Value) -> bool {
    match (quantity(a), quantity(b)) {
        (Some(a), Some(b)) => (a - b).abs() <= 1e-9 * a.abs().max(b.abs()),
        _ => false,
    }
}

fn quantity(value: &Value) -> Option<f64> {
    let text = match value {
        Value::String(text) => text.as_str(),
        Value::Number(number) => return number.as_f64(),
        _ => return None,
    };
    let suffixes = [
        ("Ki", 1024f64),
        ("Mi", 1024f64.powi(2)),
        ("Gi", 1024f64.powi(3)),
        ("Ti", 1024f64.powi(4)),
        ("Pi", 1024f64.powi(5)),
        ("Ei", 1024f64.powi(6)),
        ("n", 1e-9),
        ("u", 1e-6),
        ("m", 1e-3),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("P", 1e15),
        ("E", 1e18),
    ];
    let (number, factor) =
        suffixes.iter().find_map(|(s, f)| text.strip_suffix(s).map(|number| (number, *f))).unwrap_or((text, 1.0));
    number.parse::<f64>().ok().map(|n| n * factor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    #[rstest]
    #[case::added_defaults(json!({"a": {"b": 1}}), json!({"a": {"b": 1, "c": 2}, "d": 3}), None)]
    #[case::changed(json!({"a": {"b": 1}}), json!({"a": {"b": 2}}), Some(".a.b"))]
    #[case::removed(json!({"a": {"b": 1}}), json!({"a": {}}), Some(".a.b"))]
    #[case::list_grew(json!({"l": [{"n": 1}]}), json!({"l": [{"n": 1, "x": 0}, {"n": 2}]}), Some(".l"))]
    #[case::in_a_list(json!({"l": [{"n": 1}]}), json!({"l": [{"n": 2}]}), Some(".l[0].n"))]
    #[case::empty_is_omitted(json!({"e": [], "s": "", "z": 0, "f": false, "o": {"x": {}}}), json!({}), None)]
    #[case::quantity(json!({"limits": {"cpu": "1000m", "memory": "1Gi"}}), json!({"limits": {"cpu": "1", "memory": "1024Mi"}}), None)]
    #[case::other_quantity(json!({"limits": {"cpu": "1000m"}}), json!({"limits": {"cpu": "2"}}), Some(".limits.cpu"))]
    #[case::text_is_not_a_quantity(json!({"value": "1000m"}), json!({"value": "1"}), Some(".value"))]
    fn finds_drift(#[case] wanted: Value, #[case] live: Value, #[case] expected: Option<&str>) {
        assert_eq!(missing(&wanted, &live).as_deref(), expected);
    }
}
