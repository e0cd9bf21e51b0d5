//! Whether a revision is to lose the calls that it has got. Pure.

use rouse_crds::function::AbortOn;

use crate::workloads::outcomes::Figures;

/// Calls that are needed before the share of failed ones says something.
pub const ENOUGH: u64 = 20;

/// So many calls say something already when every one of them failed.
pub const ALL_FAILED: u64 = 5;

/// Calls that are needed before their 99th percentile is more than the slowest one.
pub const ENOUGH_FOR_P99: u64 = 100;

/// So many slow calls say something already among fewer. Were one in a hundred slow, there would be so many among 99 once
/// in three hundred times.
pub const SLOW_FOR_SURE: u64 = 5;

/// What speaks against the revision, by its calls since the step began; nothing while there are too few of them.
pub fn judge(abort_on: &AbortOn, figures: &Figures) -> Option<String> {
    let Figures { answered, failed, latencies: _ } = figures;
    if let Some(limit) = abort_on.error_rate {
        let enough = *answered >= ENOUGH || (*answered >= ALL_FAILED && failed == answered);
        // Both are far below what a float holds exactly.
        let rate = *failed as f64 / (*answered).max(1) as f64;
        if enough && rate > limit.part() {
            let rate = rate * 100.0;
            return Some(format!(
                "{failed} of its {answered} calls failed, {rate:.1}%, and spec.rollout.abortOn.errorRate is {limit}"
            ));
        }
    }
    if let (Some(limit), Some((from, to))) = (abort_on.p99, figures.p99()) {
        let timed = figures.timed();
        // The percentile is known to lie between two times; only one that is too long for certain counts.
        if timed >= ENOUGH_FOR_P99 && from >= limit.get() {
            let (from, to) = (from.as_millis(), to.as_millis());
            return Some(format!(
                "of its {timed} calls the 99th percentile took {from} to {to}ms, and spec.rollout.abortOn.p99 is {limit}"
            ));
        }
        let slow = figures.slower(limit.get());
        if timed < ENOUGH_FOR_P99 && slow >= SLOW_FOR_SURE {
            return Some(format!(
                "{slow} of its {timed} calls took longer than spec.rollout.abortOn.p99, which is {limit}"
            ));
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
    fn by_failures(#[case] answered: u64, #[case] failed: u64, #[case] bad: bool) {
        let figures = Figures { answered, failed, ..Figures::default() };
        let said = judge(&abort_on(Some("5%"), None), &figures);
        assert_eq!(said.is_some(), bad, "{said:?}");
        assert_eq!(judge(&abort_on(None, Some("1s")), &figures), None, "not asked for");
    }

    #[test]
    fn says_the_figures() {
        let figures = Figures { answered: 52, failed: 7, ..Figures::default() };
        let said = judge(&abort_on(Some("5%"), None), &figures).unwrap();
        assert_eq!(said, "7 of its 52 calls failed, 13.5%, and spec.rollout.abortOn.errorRate is 5%");
    }

    #[rstest]
    #[case::fine(500, 200, false)]
    #[case::too_long(1000, 200, true)]
    #[case::a_few_and_all_of_them(1000, 5, true)]
    #[case::too_few(1000, 4, false)]
    #[case::within_the_width_of_a_bucket(805, 200, false)]
    fn by_time(#[case] millis: u64, #[case] calls: u64, #[case] bad: bool) {
        let bucket = latency_bucket(Duration::from_millis(millis));
        let figures = Figures { answered: calls, failed: 0, latencies: [(bucket, calls)].into() };
        let said = judge(&abort_on(Some("5%"), Some("800ms")), &figures);
        assert_eq!(said.is_some(), bad, "{said:?}");
    }

    #[test]
    fn a_few_slow_ones_among_few() {
        let (quick, slow) = (latency_bucket(Duration::from_millis(5)), latency_bucket(Duration::from_secs(2)));
        let told = |quick_ones, slow_ones| {
            let latencies = [(quick, quick_ones), (slow, slow_ones)].into();
            judge(&abort_on(None, Some("800ms")), &Figures { answered: quick_ones + slow_ones, failed: 0, latencies })
        };
        assert_eq!(told(60, 4), None);
        assert_eq!(told(60, 5).unwrap(), "5 of its 65 calls took longer than spec.rollout.abortOn.p99, which is 800ms");
        assert_eq!(told(995, 5), None, "five in a thousand are fewer than one in a hundred");
    }
}
