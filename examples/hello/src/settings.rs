//! Settings from environment variables.

use std::{str::FromStr, time::Duration};

/// Settings from environment variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) port: u16,
    pub(crate) pod: String,
    pub(crate) greeting: String,
    pub(crate) start_delay: Duration,
    pub(crate) ready_delay: Duration,
    pub(crate) exit_at_start: Option<u8>,
    pub(crate) never_listen: bool,
    /// Default status of responses.
    pub(crate) status: Option<u16>,
    /// Default delay of responses.
    pub(crate) sleep: Duration,
}

impl Settings {
    /// Reads the settings through `get`, which returns the value of a variable. The error names the variable.
    pub(crate) fn read(get: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        Ok(Self {
            port: number(&get, "PORT")?.unwrap_or(8080),
            pod: get("POD_NAME").or_else(|| get("HOSTNAME")).unwrap_or_else(|| "unknown".to_owned()),
            greeting: get("HELLO_GREETING").unwrap_or_else(|| "Hello".to_owned()),
            start_delay: Duration::from_millis(number(&get, "HELLO_START_DELAY_MS")?.unwrap_or(0)),
            ready_delay: Duration::from_millis(number(&get, "HELLO_READY_DELAY_MS")?.unwrap_or(0)),
            exit_at_start: number(&get, "HELLO_EXIT_AT_START")?,
            status: number(&get, "HELLO_STATUS")?,
            sleep: Duration::from_millis(number(&get, "HELLO_SLEEP_MS")?.unwrap_or(0)),
            never_listen: match get("HELLO_NEVER_LISTEN").as_deref() {
                None | Some("" | "0" | "false") => false,
                Some("1" | "true") => true,
                Some(other) => return Err(format!("HELLO_NEVER_LISTEN is {other:?} and must be 1 or 0")),
            },
        })
    }
}

fn number<N: FromStr>(get: impl Fn(&str) -> Option<String>, name: &str) -> Result<Option<N>, String>
where
    N::Err: std::fmt::Display,
{
    match get(name).filter(|value| !value.is_empty()) {
        None => Ok(None),
        Some(value) => value.parse().map(Some).map_err(|error| format!("{name} is {value:?}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Settings, String> {
        Settings::read(|name| pairs.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned()))
    }

    #[test]
    fn defaults() {
        let settings = read(&[]).unwrap();
        assert_eq!(settings.port, 8080);
        assert_eq!(settings.pod, "unknown");
        assert_eq!(settings.greeting, "Hello");
        assert_eq!(settings.start_delay, Duration::ZERO);
        assert_eq!(settings.exit_at_start, None);
        assert!(!settings.never_listen);
        assert_eq!((settings.status, settings.sleep), (None, Duration::ZERO));
    }

    #[test]
    fn every_variable_is_read() {
        let settings = read(&[
            ("PORT", "9000"),
            ("POD_NAME", "hello-1"),
            ("HOSTNAME", "other"),
            ("HELLO_GREETING", "Hi"),
            ("HELLO_START_DELAY_MS", "250"),
            ("HELLO_READY_DELAY_MS", "500"),
            ("HELLO_EXIT_AT_START", "3"),
            ("HELLO_NEVER_LISTEN", "1"),
            ("HELLO_STATUS", "503"),
            ("HELLO_SLEEP_MS", "40"),
        ])
        .unwrap();
        let expected = Settings {
            port: 9000,
            pod: "hello-1".to_owned(),
            greeting: "Hi".to_owned(),
            start_delay: Duration::from_millis(250),
            ready_delay: Duration::from_millis(500),
            exit_at_start: Some(3),
            never_listen: true,
            status: Some(503),
            sleep: Duration::from_millis(40),
        };
        assert_eq!(settings, expected);
    }

    #[test]
    fn invalid_values_are_rejected_by_name() {
        assert!(read(&[("PORT", "http")]).unwrap_err().starts_with("PORT is \"http\""));
        assert!(read(&[("HELLO_EXIT_AT_START", "300")]).unwrap_err().starts_with("HELLO_EXIT_AT_START"));
        assert!(read(&[("HELLO_NEVER_LISTEN", "perhaps")]).unwrap_err().starts_with("HELLO_NEVER_LISTEN"));
    }
}
