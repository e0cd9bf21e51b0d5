//! Throughput of a revision by number of pods, which shows a bottleneck that more pods do not remove.

use std::time::Duration;

/// Throughput is measured over periods of at least this length, during which requests are queued.
const PERIOD: Duration = Duration::from_secs(2);

/// Minimum number of completed requests in a period.
const ENOUGH: f64 = 20.0;

/// Periods are compared if the number of pods grew by this factor.
const MORE: f64 = 1.25;

/// Minimum fraction of the expected additional throughput.
const GAIN: f64 = 0.25;

/// The same while the count is held: requests that started with fewer pods end sooner, which looks like a gain.
const RELEASE: f64 = 0.75;

/// Multiple of the standard deviation (the square root of the count) that is not random variation.
const CHANCES: f64 = 3.0;

/// How often the time for which the count is held doubles after tries without gain.
const DOUBLINGS: u32 = 4;

/// Factor of pods of a try after the hold.
const TRY: f64 = 1.5;

/// Throughput by number of pods, while requests are queued.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Throughput {
    period: Option<Period>,
    /// Average serving pods and completions per second of an earlier period.
    reference: Option<(f64, f64)>,
    /// Until when the count is held. Afterwards the count may grow by [`TRY`] until that has been measured.
    held_until: Option<Duration>,
    /// Consecutive tries without gain.
    tries: u32,
}

/// The period in progress.
#[derive(Clone, Copy, Debug)]
struct Period {
    started: Duration,
    completions: u64,
    /// Time of the last update, the serving pods since then, and the pod-seconds before.
    updated: Duration,
    serving: u32,
    pod_seconds: f64,
}

impl Throughput {
    /// Records a sample. Returns the upper bound of the count if more pods did not increase throughput; it applies for `hold`.
    pub(crate) fn record(
        &mut self,
        now: Duration,
        completions: u64,
        serving: u32,
        desired: u32,
        hold: Duration,
    ) -> Option<u32> {
        let begin = Period { started: now, completions, updated: now, serving, pod_seconds: 0.0 };
        let period = self.period.get_or_insert(begin);
        period.pod_seconds += f64::from(period.serving) * now.saturating_sub(period.updated).as_secs_f64();
        (period.updated, period.serving) = (now, serving);
        let passed = now.saturating_sub(period.started);
        let ended = completions.saturating_sub(period.completions) as f64;
        if passed >= PERIOD && ended >= ENOUGH {
            let seconds = passed.as_secs_f64();
            let (pods, served) = (period.pod_seconds / seconds, ended / seconds);
            self.period = Some(begin);
            match self.reference {
                Some((before, reference)) if pods >= before * MORE => {
                    let expected = reference * (pods / before - 1.0);
                    let gain = if self.held_until.is_some_and(|until| now < until) { RELEASE } else { GAIN };
                    let no_gain = served - reference < gain * expected;
                    self.tries = if no_gain { self.tries.saturating_add(1) } else { 0 };
                    let doublings = self.tries.saturating_sub(1).min(DOUBLINGS);
                    self.held_until = no_gain.then(|| now.saturating_add(hold * 2u32.pow(doublings)));
                    // Pods without gain at first may have one later, so the reference is the highest throughput.
                    self.reference = Some((pods, if no_gain { reference.max(served) } else { served }));
                }
                Some((before, reference)) if pods >= before => {
                    // Scaled to the number of pods of the reference, since a few pods were added.
                    let same = served * before / pods;
                    let chance = CHANCES * (reference / seconds).sqrt();
                    if same >= reference * MORE && same >= reference + chance {
                        // The bottleneck is gone: the same pods serve more.
                        (self.held_until, self.tries) = (None, 0);
                    }
                    self.reference = Some((before, reference.max(same)));
                }
                _ => self.reference = Some((pods, served)),
            }
        }
        let until = self.held_until?;
        let pods = self.reference.map_or(0.0, |(pods, _)| pods);
        Some(if now < until { desired } else { desired.max((pods * TRY).ceil() as u32) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOLD: Duration = Duration::from_secs(30);

    /// Returns the bounds after periods of (pods, requests per second).
    fn held(periods: &[(u32, u64)]) -> Vec<Option<u32>> {
        let (mut throughput, mut now, mut completions) = (Throughput::default(), Duration::ZERO, 0);
        let mut all = Vec::new();
        for (pods, rate) in periods {
            let mut held = None;
            for _ in 0..8 {
                held = throughput.record(now, completions, *pods, *pods, HOLD);
                now += PERIOD / 8;
                completions += rate / 4;
            }
            all.push(held);
        }
        all.push(throughput.record(now, completions, 0, 9, HOLD));
        all.remove(0);
        all
    }

    #[test]
    fn no_bound_while_more_pods_serve_more() {
        assert_eq!(held(&[(2, 40), (4, 80), (8, 160), (16, 320)]), [None; 4]);
        assert_eq!(held(&[(4, 80), (8, 104), (8, 104)]), [None; 3], "a quarter of the expected gain is enough");
    }

    #[test]
    fn bound_while_more_pods_serve_no_more() {
        assert_eq!(held(&[(4, 80), (8, 80), (8, 80)]), [None, Some(8), Some(9)]);
        assert_eq!(held(&[(4, 80), (8, 60)]), [None, Some(9)]);
        assert_eq!(held(&[(4, 80), (4, 80), (4, 80)]), [None; 3], "no pod was added");
        assert_eq!(held(&[(4, 4), (8, 4), (8, 4)]), [None; 3], "too few completed requests");
    }

    #[test]
    fn pods_added_one_by_one_are_compared_per_pod() {
        let one_by_one: Vec<_> = (18..40).map(|pods| (pods, u64::from(pods) * 20)).collect();
        assert_eq!(held(&one_by_one), vec![None; 22]);
        let in_vain: Vec<_> = (18..40).map(|pods| (pods, 360)).collect();
        assert!(held(&in_vain)[5..].iter().all(Option::is_some));
    }

    #[test]
    fn bound_ends_when_the_same_pods_serve_more() {
        let held = held(&[(4, 80), (8, 80), (8, 80), (8, 84), (8, 160), (8, 160)]);
        assert_eq!(held[..4], [None, Some(8), Some(8), Some(8)]);
        assert_eq!(held[4..], [None; 2]);
    }

    #[test]
    fn half_as_many_more_are_tried_after_the_hold() {
        let mut periods = vec![(4, 80), (8, 80)];
        periods.extend([(8, 80); 15]);
        let held = held(&periods);
        assert_eq!((held[1], held[14], held[16]), (Some(8), Some(8), Some(12)));
        periods.extend([(12, 120); 2]);
        assert_eq!(super::tests::held(&periods)[18], None, "the try has increased throughput");
    }
}
