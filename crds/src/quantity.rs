//! Number of bytes in a Function's spec: `16Mi`, `1Gi`, `65536`.

use std::{borrow::Cow, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A number of bytes up to 64 GiB, written plain or with the suffix `Ki`, `Mi` or `Gi`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(u64);

const LARGEST: u64 = 64 << 30;

/// Error: a text is not a number of bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a number of bytes such as 65536, 512Ki or 16Mi (at most 64Gi)")]
pub struct ParseBytesError(String);

impl Bytes {
    /// Creates a number of bytes from mebibytes.
    #[must_use]
    pub const fn from_mebibytes(mebibytes: u64) -> Self {
        Self(mebibytes << 20)
    }

    /// Returns the number of bytes.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl FromStr for Bytes {
    type Err = ParseBytesError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseBytesError(text.chars().take(40).collect());
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = text[..digits].parse().map_err(|_| error())?;
        let shift = match &text[digits..] {
            "" => 0,
            "Ki" => 10,
            "Mi" => 20,
            "Gi" => 30,
            _ => return Err(error()),
        };
        number.checked_mul(1 << shift).filter(|n| *n <= LARGEST).map(Self).ok_or_else(error)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (shift, suffix) in [(30, "Gi"), (20, "Mi"), (10, "Ki")] {
            if self.0 > 0 && self.0.is_multiple_of(1 << shift) {
                return write!(f, "{}{suffix}", self.0 >> shift);
            }
        }
        write!(f, "{}", self.0)
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Bytes {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Bytes".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "maxLength": 16,
            "x-kubernetes-validations": [{
                "rule": "self.matches('^[0-9]{1,11}(Ki|Mi|Gi)?$') && quantity(self).compareTo(quantity('64Gi')) <= 0",
                "message": "must be a number of bytes such as 65536, 512Ki or 16Mi, at most 64Gi",
            }],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("16Mi", 16 << 20)]
    #[case("1Gi", 1 << 30)]
    #[case("65537", 65537)]
    #[case("0", 0)]
    fn parses_and_formats(#[case] text: &str, #[case] bytes: u64) {
        let parsed: Bytes = text.parse().unwrap();
        assert_eq!(parsed.get(), bytes);
        assert_eq!(parsed.to_string(), text);
    }

    #[rstest]
    #[case("")]
    #[case("16MB")]
    #[case("-1")]
    #[case("65Gi")]
    #[case("1.5Mi")]
    fn rejects(#[case] text: &str) {
        assert!(text.parse::<Bytes>().is_err(), "{text}");
    }
}
