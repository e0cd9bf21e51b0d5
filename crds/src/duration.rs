//! Duration in a Function's spec: `30s`, `1m30s`, `500ms`.

use std::{borrow::Cow, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A duration of at most 30 days with millisecond precision, written as numbers with the units `h`, `m`, `s` and `ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duration(std::time::Duration);

/// Longest duration.
pub const LONGEST: std::time::Duration = std::time::Duration::from_secs(30 * 24 * 3600);

/// Error: a text is not a duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a duration such as 30s, 1m30s or 500ms (at most 30 days)")]
pub struct ParseDurationError(String);

impl Duration {
    /// Creates a duration from seconds.
    #[must_use]
    pub const fn from_secs(seconds: u64) -> Self {
        Self(std::time::Duration::from_secs(seconds))
    }

    /// Creates a duration from milliseconds.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(std::time::Duration::from_millis(millis))
    }

    /// Converts to the standard library's type.
    #[must_use]
    pub const fn get(self) -> std::time::Duration {
        self.0
    }
}

impl From<Duration> for std::time::Duration {
    fn from(duration: Duration) -> Self {
        duration.0
    }
}

impl FromStr for Duration {
    type Err = ParseDurationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseDurationError(text.chars().take(40).collect());
        let mut rest = text;
        let mut millis: u64 = 0;
        if rest.is_empty() {
            return Err(error());
        }
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let number: u64 = rest[..digits].parse().map_err(|_| error())?;
            rest = &rest[digits..];
            let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
            let unit: u64 = match &rest[..letters] {
                "ms" => 1,
                "s" => 1_000,
                "m" => 60_000,
                "h" => 3_600_000,
                _ => return Err(error()),
            };
            rest = &rest[letters..];
            millis = number.checked_mul(unit).and_then(|n| millis.checked_add(n)).ok_or_else(error)?;
        }
        let duration = std::time::Duration::from_millis(millis);
        if duration > LONGEST { Err(error()) } else { Ok(Self(duration)) }
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut millis = self.0.as_millis();
        if millis == 0 {
            return f.write_str("0s");
        }
        for (unit, name) in [(3_600_000, "h"), (60_000, "m"), (1_000, "s"), (1, "ms")] {
            if millis >= unit {
                write!(f, "{}{name}", millis / unit)?;
                millis %= unit;
            }
        }
        Ok(())
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Duration {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "maxLength": 20,
            "x-kubernetes-validations": [{
                "rule": "self.matches('^([0-9]{1,9}(ms|s|m|h))+$') && duration(self) <= duration('720h')",
                "message": "must be a duration such as 30s, 1m30s or 500ms, at most 720h",
            }],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("30s", 30_000)]
    #[case("1m30s", 90_000)]
    #[case("500ms", 500)]
    #[case("1h", 3_600_000)]
    #[case("0s", 0)]
    #[case("720h", 2_592_000_000)]
    fn parses_and_formats(#[case] text: &str, #[case] millis: u64) {
        let duration: Duration = text.parse().unwrap();
        assert_eq!(duration, Duration::from_millis(millis));
        assert_eq!(duration.to_string().parse::<Duration>().unwrap(), duration);
    }

    #[rstest]
    #[case("")]
    #[case("10x")]
    #[case("10")]
    #[case("s")]
    #[case("-3s")]
    #[case("1.5s")]
    #[case("721h")]
    #[case("99999999999999999999s")]
    #[case("30 s")]
    #[case("30ß")]
    fn rejects(#[case] text: &str) {
        assert!(text.parse::<Duration>().is_err(), "{text}");
    }
}
