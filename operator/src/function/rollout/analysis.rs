//! Analysis of a rollout step: whether the new revision violates `rollout.abortOn`. Pure.

use rouse_crds::function::AbortOn;

use crate::workloads::outcomes::RequestStats;

/// Minimum number of requests for an error rate.
pub const MIN_REQUESTS: u64 = 20;

/// Minimum number of requests if all of them failed.
pub const MIN_REQUESTS_ALL_FAILED: u64 = 5;

/// Minimum number of requests for a 99th percentile that is more than the slowest request.
pub const MIN_REQUESTS_P99: u64 = 100;

/// Number of slow requests that is significant among fewer than [`MIN_REQUESTS_P99`]. If 1 % of all requests were slow,
/// 99 requests would contain as many with a probability of 1 in 300.
pub const MIN_SLOW_REQUESTS: u64 = 5;

/// Returns why the revision violates `abort_on`, from its requests since the start of the step; `None` if it does not,
/// or with too few requests.
pub fn find_violation(abort_on: &AbortOn, stats: &RequestStats) -> Option<String> {
    let RequestStats { completed, failed, latencies: _ } = stats;
    if let Some(limit) = abort_on.error_rate {
        let enough = *completed >= MIN_REQUESTS || (*completed >= MIN_REQUESTS_ALL_FAILED && failed == completed);
        // Both counts are far below the limit of exact floats.
        let rate = *failed as f64 / (*completed).max(1) as f64;
        if enough && rate > limit.as_fraction() {
            let rate = rate * 100.0;
            return Some(format!(
                "{failed} of {completed} requests failed ({rate:.1}%), more than spec.rollout.abortOn.errorRate ({limit})"
            ));
        }
    }
    if let (Some(limit), Some((from, to))) = (abort_on.p99, stats.p99()) {
        let timed = stats.timed();
        // The percentile lies between the bounds of its bucket. It counts only if the lower bound exceeds the limit.
        if timed >= MIN_REQUESTS_P99 && from >= limit.get() {
            let (from, to) = (from.as_millis(), to.as_millis());
            return Some(format!(
                "the 99th percentile of {timed} requests is between {from}ms and {to}ms, more than spec.rollout.abortOn.p99 ({limit})"
            ));
        }
        let slow = stats.slower(limit.get());
        if timed < MIN_REQUESTS_P99 && slow >= MIN_SLOW_REQUESTS {
            return Some(format!("{slow} of {timed} requests took longer than spec.rollout.abortOn.p99 ({limit})"));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use std::time::Duration;

    use rouse_crds::demand::latency_bucket;

    fn abort_on(error_rate: Option<&str>, p99: Option<&str>) -> AbortOn {
        AbortOn { error_rate: error_rate.map(|r| r.parse().unwrap()), p99: p99.map(|t| t.parse().unwrap()) }
    }

    #[rstest]
    #[case::fine(100, 5, false)]
    #[case::too_many(100, 6, true)]
    #[case::too_few_calls(19, 18, false)]
    #[case::just_enough(20, 2, true)]
    #[case::every_one_of_a_few(5, 5, true)]
    #[case::every_one_of_too_few(4, 4, false)]
    #[case::none(0, 0, false)]
    fn error_rate(#[case] completed: u64, #[case] failed: u64, #[case] bad: bool) {
        let stats = RequestStats { completed, failed, ..RequestStats::default() };
        let violation = find_violation(&abort_on(Some("5%"), None), &stats);
        assert_eq!(violation.is_some(), bad, "{violation:?}");
        assert_eq!(find_violation(&abort_on(None, Some("1s")), &stats), None, "not asked for");
    }

    #[test]
    fn reports_the_numbers() {
        let stats = RequestStats { completed: 52, failed: 7, ..RequestStats::default() };
        let violation = find_violation(&abort_on(Some("5%"), None), &stats).unwrap();
        assert_eq!(violation, "7 of 52 requests failed (13.5%), more than spec.rollout.abortOn.errorRate (5%)");
    }

    #[rstest]
    #[case::fine(500, 200, false)]
    #[case::too_long(1000, 200, true)]
    #[case::a_few_and_all_of_them(1000, 5, true)]
    #[case::too_few(1000, 4, false)]
    #[case::within_the_width_of_a_bucket(805, 200, false)]
    fn p99(#[case] millis: u64, #[case] calls: u64, #[case] bad: bool) {
        let bucket = latency_bucket(Duration::from_millis(millis));
        let stats = RequestStats { completed: calls, failed: 0, latencies: [(bucket, calls)].into() };
        let violation = find_violation(&abort_on(Some("5%"), Some("800ms")), &stats);
        assert_eq!(violation.is_some(), bad, "{violation:?}");
    }

    #[test]
    fn few_requests_with_several_slow_ones() {
        let (quick, slow) = (latency_bucket(Duration::from_millis(5)), latency_bucket(Duration::from_secs(2)));
        let violation = |quick_ones, slow_ones| {
            let latencies = [(quick, quick_ones), (slow, slow_ones)].into();
            find_violation(
                &abort_on(None, Some("800ms")),
                &RequestStats { completed: quick_ones + slow_ones, failed: 0, latencies },
            )
        };
        assert_eq!(violation(60, 4), None);
        assert_eq!(violation(60, 5).unwrap(), "5 of 65 requests took longer than spec.rollout.abortOn.p99 (800ms)");
        assert_eq!(violation(995, 5), None, "5 in 1000 are less than 1 %");
    }
}
