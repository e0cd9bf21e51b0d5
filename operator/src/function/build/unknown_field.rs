//! Unknown fields of a pod template, which the API server would drop.

use serde_json::Value;

/// Returns the path of the first field of `wanted` that is not in `known`.
pub(super) fn unknown(wanted: &Value, known: &Value, path: &str) -> Option<String> {
    match (wanted, known) {
        (Value::Object(wanted), Value::Object(known)) => {
            wanted.iter().filter(|(_, v)| !v.is_null()).find_map(|(name, value)| {
                let path = format!("{path}.{name}");
                match known.get(name) {
                    Some(known) => unknown(value, known, &path),
                    None => Some(path),
                }
            })
        }
        (Value::Array(wanted), Value::Array(known)) => {
            wanted.iter().zip(known).enumerate().find_map(|(i, (w, k))| unknown(w, k, &format!("{path}[{i}]")))
        }
        _ => None,
    }
}
