//! How long a pod keeps an idle HTTP/1.1 connection open.

use std::time::Duration;

use http::{HeaderMap, HeaderName};

/// The `Keep-Alive` header: `timeout=5, max=100`.
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// How long an idle connection is kept whose pod announces no timeout. Servers close theirs after five seconds (Node,
/// uvicorn) or later; a request on a connection that is being closed would be lost.
pub(super) const UNANNOUNCED: Duration = Duration::from_secs(4);

/// The same for a pod that announces a long timeout or none at all: a burst leaves many connections.
const LONGEST: Duration = Duration::from_secs(60);

/// Returns how long a connection may be idle after the response with these headers: four fifths of what the pod
/// announces, since its clock started earlier. Zero means that it is not used again.
pub(super) fn idle_limit(headers: &HeaderMap) -> Duration {
    let mut limit = UNANNOUNCED;
    let parameters = headers.get_all(KEEP_ALIVE).into_iter().filter_map(|value| value.to_str().ok());
    for parameter in parameters.flat_map(|value| value.split([',', ';'])) {
        let Some((name, value)) = parameter.split_once('=') else { continue };
        let Ok(value) = value.trim().trim_matches('"').parse::<u32>() else { continue };
        match name.trim() {
            name if name.eq_ignore_ascii_case("timeout") => {
                limit = (Duration::from_secs(value.into()) * 4 / 5).min(LONGEST);
            }
            // No further request is allowed on the connection.
            name if name.eq_ignore_ascii_case("max") && value == 0 => return Duration::ZERO,
            _ => {}
        }
    }
    limit
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use rstest::rstest;

    #[rstest]
    #[case(&[], 4000)]
    #[case(&["timeout=5"], 4000)]
    #[case(&["timeout=2"], 1600)]
    #[case(&["Timeout = 1, max=100"], 800)]
    #[case(&["max=100", "timeout=75"], 60_000)]
    #[case(&["max=7;timeout=\"10\""], 8000)]
    #[case(&["timeout=4294967295"], 60_000)]
    #[case(&["timeout=0"], 0)]
    #[case(&["timeout=60, max=0"], 0)]
    #[case(&["timeout=x, 5, =, timeout"], 4000)]
    #[case(&["\u{e9}"], 4000)]
    fn the_pod_announces_its_timeout(#[case] values: &[&str], #[case] milliseconds: u64) {
        let values = values.iter().map(|value| (KEEP_ALIVE, HeaderValue::from_bytes(value.as_bytes()).unwrap()));
        assert_eq!(idle_limit(&values.collect()), Duration::from_millis(milliseconds));
    }
}
