//! Query parameters: numbers and durations, without percent-decoding.

use std::{str::FromStr, time::Duration};

/// The query of a URI.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Query<'a>(&'a str);

impl<'a> Query<'a> {
    pub(crate) fn new(query: Option<&'a str>) -> Self {
        Self(query.unwrap_or_default())
    }

    /// Returns the first value of `name`.
    pub(crate) fn get(self, name: &str) -> Option<&'a str> {
        self.0.split('&').find_map(|pair| pair.split_once('=').filter(|(n, _)| *n == name).map(|(_, v)| v))
    }

    /// Parses the number `name`, or returns `default`. The error is a message for the client.
    pub(crate) fn number<N: FromStr>(self, name: &str, default: N) -> Result<N, String> {
        match self.get(name) {
            None => Ok(default),
            Some(value) => value.parse().map_err(|_| format!("{name}={value} is not a number that fits")),
        }
    }

    /// Parses `sleep=2s`, `sleep=150ms` or `sleep_ms=150`. The error is a message for the client.
    pub(crate) fn sleep(self) -> Result<Duration, String> {
        match self.get("sleep") {
            None => self.number("sleep_ms", 0).map(Duration::from_millis),
            Some(value) => {
                duration(value).ok_or_else(|| format!("sleep={value} is not a duration such as 2s or 150ms"))
            }
        }
    }
}

fn duration(text: &str) -> Option<Duration> {
    if let Some(number) = text.strip_suffix("ms") {
        return number.parse().ok().map(Duration::from_millis);
    }
    text.strip_suffix('s')?.parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleeps() {
        let sleep = |query| Query::new(Some(query)).sleep();
        assert_eq!(sleep("sleep=2s"), Ok(Duration::from_secs(2)));
        assert_eq!(sleep("a=b&sleep=150ms"), Ok(Duration::from_millis(150)));
        assert_eq!(sleep("sleep_ms=7"), Ok(Duration::from_millis(7)));
        assert_eq!(sleep("asleep=1s"), Ok(Duration::ZERO));
        assert_eq!(Query::new(None).sleep(), Ok(Duration::ZERO));
        assert!(sleep("sleep=2").is_err());
        assert!(sleep("sleep=-2s").is_err());
        assert!(sleep("sleep=s").is_err());
    }

    #[test]
    fn numbers() {
        let query = Query::new(Some("bytes=10&bytes=20&code=300&empty="));
        assert_eq!(query.number("bytes", 1u64), Ok(10));
        assert_eq!(query.number("none", 1u64), Ok(1));
        assert!(query.number("code", 0u8).is_err());
        assert!(query.number("empty", 0u8).is_err());
    }
}
