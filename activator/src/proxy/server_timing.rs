//! `Server-Timing`: the phases of a cold start.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::admit::ColdStart;

/// On every response whose request waited for a pod to start.
pub(super) const COLD_START: HeaderName = HeaderName::from_static("rouse-cold-start");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// Adds the phases of a cold start to the head of a response, beside those that the function sets itself.
pub(super) fn write(headers: &mut HeaderMap, cold: &ColdStart) {
    let mut text = String::with_capacity(96);
    let phases = [
        ("wake", cold.wake),
        ("schedule", cold.schedule),
        ("start", cold.start),
        ("probe", cold.probe),
        ("queue", cold.queue),
    ];
    for (name, took) in phases {
        let comma = if text.is_empty() { "" } else { ", " };
        text.push_str(&format!("{comma}{name};dur={:.1}", took.as_secs_f64() * 1e3));
    }
    if let Ok(value) = HeaderValue::try_from(text) {
        headers.append(SERVER_TIMING, value);
    }
    headers.insert(COLD_START, HeaderValue::from_static("true"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn phases_in_milliseconds() {
        let ms = |n: u64| Duration::from_micros(n * 100);
        let mut headers = HeaderMap::new();
        headers.insert(SERVER_TIMING, HeaderValue::from_static("db;dur=5"));
        write(
            &mut headers,
            &ColdStart { queue: ms(1555), wake: ms(25), schedule: ms(30), start: ms(1400), probe: ms(100) },
        );
        let all: Vec<_> = headers.get_all(SERVER_TIMING).iter().collect();
        assert_eq!(
            all,
            ["db;dur=5", "wake;dur=2.5, schedule;dur=3.0, start;dur=140.0, probe;dur=10.0, queue;dur=155.5"]
        );
        assert_eq!(headers[COLD_START], "true");
    }
}
