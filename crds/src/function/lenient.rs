//! Status fields of another version: a part of the status that does not parse is absent, and the Function stays readable.
//!
//! Activators and operators of two versions run side by side during an upgrade, and after a downgrade the status has words that
//! the older version does not know. Without its Function, an activator would respond to its hosts with 404.

use serde::{Deserialize, Deserializer, de::DeserializeOwned};

/// Deserializes a value, or its default if it does not parse.
pub(super) fn lenient<'de, D: Deserializer<'de>, T: DeserializeOwned + Default>(from: D) -> Result<T, D::Error> {
    Ok(serde_json::from_value(serde_json::Value::deserialize(from)?).unwrap_or_default())
}
