//! The deadline of a gRPC request: the `grpc-timeout` header.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::Instant;

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// The grammar allows eight digits.
const MAX_DIGITS: usize = 8;
const MAX_VALUE: u128 = 99_999_999;

/// Returns the timeout of a request. A value that the grammar does not allow is no timeout, and more than one is none:
/// the pod reads it, and decides.
pub(super) fn parse(headers: &HeaderMap) -> Option<Duration> {
    let mut values = headers.get_all(GRPC_TIMEOUT).iter();
    let (value, None) = (values.next()?, values.next()) else { return None };
    let (unit, digits) = value.as_bytes().split_last()?;
    if digits.is_empty() || digits.len() > MAX_DIGITS || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = digits.iter().fold(0, |value, digit| value * 10 + u64::from(digit - b'0'));
    if value == 0 {
        return None;
    }
    Some(match unit {
        b'H' => Duration::from_secs(value * 3600),
        b'M' => Duration::from_secs(value * 60),
        b'S' => Duration::from_secs(value),
        b'm' => Duration::from_millis(value),
        b'u' => Duration::from_micros(value),
        b'n' => Duration::from_nanos(value),
        _ => return None,
    })
}

/// Writes what remains until the deadline, for a request that was queued: the pod must not work for longer than the client
/// waits.
pub(super) fn write(headers: &mut HeaderMap, deadline: Instant, now: Instant) {
    headers.insert(GRPC_TIMEOUT, encode(deadline.saturating_duration_since(now)));
}

/// Encodes a timeout in the smallest unit that holds it, rounded up: zero is not allowed.
fn encode(timeout: Duration) -> HeaderValue {
    let nanos = timeout.as_nanos().max(1);
    let units = [(1, 'n'), (1_000, 'u'), (1_000_000, 'm'), (1_000_000_000, 'S'), (60_000_000_000, 'M')];
    let fits = units.into_iter().map(|(unit, letter)| (nanos.div_ceil(unit), letter)).find(|(n, _)| *n <= MAX_VALUE);
    let (value, letter) = fits.unwrap_or_else(|| (nanos.div_ceil(3_600_000_000_000).min(MAX_VALUE), 'H'));
    // Digits and a letter.
    HeaderValue::try_from(format!("{value}{letter}")).unwrap_or(HeaderValue::from_static("1n"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn of(values: &[&str]) -> Option<Duration> {
        parse(&values.iter().map(|value| (GRPC_TIMEOUT, value.parse().unwrap())).collect())
    }

    #[rstest]
    #[case("1H", Duration::from_secs(3600))]
    #[case("2M", Duration::from_secs(120))]
    #[case("5S", Duration::from_secs(5))]
    #[case("100m", Duration::from_millis(100))]
    #[case("7u", Duration::from_micros(7))]
    #[case("00000001n", Duration::from_nanos(1))]
    #[case("99999999H", Duration::from_secs(99_999_999 * 3600))]
    fn units(#[case] value: &str, #[case] timeout: Duration) {
        assert_eq!(of(&[value]), Some(timeout));
    }

    #[rstest]
    #[case::no_unit("5")]
    #[case::no_digits("S")]
    #[case::empty("")]
    #[case::nine_digits("000000001S")]
    #[case::unknown_unit("5s")]
    #[case::sign("-5S")]
    #[case::plus("+5S")]
    #[case::fraction("1.5S")]
    #[case::space("5 S")]
    #[case::zero("0S")]
    fn malformed_values_are_no_timeout(#[case] value: &str) {
        assert_eq!(of(&[value]), None);
    }

    #[test]
    fn none_and_several_are_no_timeout() {
        assert_eq!((of(&[]), of(&["1S", "2S"])), (None, None));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(nanos in 0_u64..) {
            let timeout = Duration::from_nanos(nanos);
            let headers = HeaderMap::from_iter([(GRPC_TIMEOUT, encode(timeout))]);
            let read = parse(&headers).unwrap();
            prop_assert!(read >= timeout, "never shorter");
            // One unit of the eight digits.
            prop_assert!(read - timeout <= timeout / 1000 + Duration::from_nanos(1));
        }
    }
}
