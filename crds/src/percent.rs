//! Percentage in a Function's spec: `5%`, `0.5%`.

use std::{borrow::Cow, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A percentage between 0 % and 100 % with a precision of 0.01 %.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Percent {
    /// Hundredths of a percent, at most 10,000.
    hundredths: u16,
}

/// Error: a text is not a percentage.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a percentage such as 5% or 0.5% (at most 100%, two digits after the point)")]
pub struct ParsePercentError(String);

/// Pattern in the schema.
const PATTERN: &str = r"^(100(\.0{1,2})?|[0-9]{1,2}(\.[0-9]{1,2})?)%$";

impl Percent {
    /// Converts to a fraction: 1.0 is 100 %.
    #[must_use]
    pub fn as_fraction(self) -> f64 {
        f64::from(self.hundredths) / 10_000.0
    }
}

impl FromStr for Percent {
    type Err = ParsePercentError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParsePercentError(text.chars().take(40).collect());
        let number = text.strip_suffix('%').ok_or_else(error)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |text: &str, most: usize| {
            ((1..=most).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.to_owned())
        };
        let whole: u16 = digits(whole, 3).and_then(|w| w.parse().ok()).ok_or_else(error)?;
        let mut fraction = digits(fraction, 2).ok_or_else(error)?;
        if fraction.len() == 1 {
            fraction.push('0');
        }
        let hundredths = whole * 100 + fraction.parse::<u16>().map_err(|_| error())?;
        if hundredths > 10_000 {
            return Err(error());
        }
        Ok(Self { hundredths })
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.hundredths / 100, self.hundredths % 100) {
            (whole, 0) => write!(f, "{whole}%"),
            (whole, tenths) if tenths % 10 == 0 => write!(f, "{whole}.{}%", tenths / 10),
            (whole, hundredths) => write!(f, "{whole}.{hundredths:02}%"),
        }
    }
}

impl Serialize for Percent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text: Cow<'de, str> = Deserialize::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Percent {
    fn schema_name() -> Cow<'static, str> {
        "Percent".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "maxLength": 7, "pattern": PATTERN})
    }

    fn inline_schema() -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("5%", 0.05, "5%")]
    #[case("0.5%", 0.005, "0.5%")]
    #[case("0.05%", 0.0005, "0.05%")]
    #[case("12.50%", 0.125, "12.5%")]
    #[case("100%", 1.0, "100%")]
    #[case("100.00%", 1.0, "100%")]
    fn parses_and_formats(#[case] text: &str, #[case] fraction: f64, #[case] shown: &str) {
        let percent: Percent = text.parse().unwrap();
        assert!((percent.as_fraction() - fraction).abs() < 1e-12);
        assert_eq!(percent.to_string(), shown);
    }

    #[rstest]
    #[case("5")]
    #[case("%")]
    #[case("-5%")]
    #[case("100.01%")]
    #[case("101%")]
    #[case("1.%")]
    #[case("1.234%")]
    #[case(".5%")]
    #[case("+5%")]
    #[case("5 %")]
    fn rejects(#[case] text: &str) {
        assert!(text.parse::<Percent>().is_err());
    }
}
