//! When more pods are no help.
//!
//! - Pods that were asked for and are late are late because of the cluster: there is no room, an image is slow, a node is
//!   starved. More of them would be late as well, and take from those that serve.
//! - If more pods have not served more requests although requests wait, the bottleneck is elsewhere: a node that all of them
//!   share, a database. More of them would only make each slower, which looks like more load.

use std::time::Duration;

use crate::{Demand, Observed, Policy, Reason, State, decide::loads::Loads};

/// Throughput is measured over periods of this length, in all of which requests wait.
const PERIOD: Duration = Duration::from_secs(2);

/// So many requests have to have ended in one.
const ENOUGH: f64 = 20.0;

/// So many times the pods are more pods.
const MORE: f64 = 1.25;

/// Of the throughput that the added pods should bring, so much has to be there.
const GAIN: f64 = 0.25;

/// The same for a count that is held: requests that began when there were fewer pods end sooner, which looks like a gain.
const RELEASE: f64 = 0.75;

/// What chance alone does to the number of requests that end is the root of it; so many times that is no chance.
const CHANCES: f64 = 3.0;

/// For how long no more is asked for after that, at least, and how often that doubles if trying again brings nothing.
const HOLD: Duration = Duration::from_secs(30);
const DOUBLINGS: u32 = 4;

/// So many times the pods are tried then.
const TRY: f64 = 1.5;

/// Throughput by pods, while requests wait.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Throughput {
    period: Option<Period>,
    /// Pods that served on average in an earlier period, and requests that ended per second.
    reference: Option<(f64, f64)>,
    /// Until when the count is held. After that it may grow by [`TRY`] until that has been measured.
    held: Option<Duration>,
    /// Tries in a row that have brought nothing.
    tries: u32,
}

/// A period that is under way.
#[derive(Clone, Copy, Debug)]
struct Period {
    begun: Duration,
    completions: u64,
    /// Up to when pods are summed, how many serve since then, and the sum in pod-seconds.
    seen: Duration,
    serving: u32,
    pod_seconds: f64,
}

impl Throughput {
    /// Takes in what is seen `now`. Yields the most pods that may be asked for of `desired`, if more have brought nothing.
    fn note(&mut self, now: Duration, completions: u64, serving: u32, desired: u32, hold: Duration) -> Option<u32> {
        let begin = Period { begun: now, completions, seen: now, serving, pod_seconds: 0.0 };
        let period = self.period.get_or_insert(begin);
        period.pod_seconds += f64::from(period.serving) * now.saturating_sub(period.seen).as_secs_f64();
        (period.seen, period.serving) = (now, serving);
        let passed = now.saturating_sub(period.begun);
        let ended = completions.saturating_sub(period.completions) as f64;
        if passed >= PERIOD && ended >= ENOUGH {
            let seconds = passed.as_secs_f64();
            let (pods, served) = (period.pod_seconds / seconds, ended / seconds);
            self.period = Some(begin);
            match self.reference {
                Some((before, reference)) if pods >= before * MORE => {
                    let expected = reference * (pods / before - 1.0);
                    let gain = if self.held.is_some_and(|until| now < until) { RELEASE } else { GAIN };
                    let nothing = served - reference < gain * expected;
                    self.tries = if nothing { self.tries.saturating_add(1) } else { 0 };
                    let doublings = self.tries.saturating_sub(1).min(DOUBLINGS);
                    self.held = nothing.then(|| now.saturating_add(hold * 2u32.pow(doublings)));
                    // Pods that bring nothing at first may bring something later; what counts is the most that was served.
                    self.reference = Some((pods, if nothing { reference.max(served) } else { served }));
                }
                Some((before, reference)) if pods >= before => {
                    // What a few more pods serve is theirs as well: compared is what as many as before serve of it.
                    let same = served * before / pods;
                    let chance = CHANCES * (reference / seconds).sqrt();
                    if same >= reference * MORE && same >= reference + chance {
                        // What limited them does so no longer: they serve more, and none was added.
                        (self.held, self.tries) = (None, 0);
                    }
                    self.reference = Some((before, reference.max(same)));
                }
                _ => self.reference = Some((pods, served)),
            }
        }
        let until = self.held?;
        let pods = self.reference.map_or(0.0, |(pods, _)| pods);
        Some(if now < until { desired } else { desired.max((pods * TRY).ceil() as u32) })
    }
}

/// The most that may be asked for, and why.
pub(super) fn bound(
    demand: &Demand,
    observed: &Observed,
    policy: &Policy,
    state: &mut State,
    loads: &Loads,
) -> Option<(u32, Reason)> {
    let at = state.clock;
    let most = if demand.queued == 0 || loads.serving == 0 {
        state.throughput = Throughput::default();
        None
    } else {
        let hold = policy.stable_window.max(HOLD);
        state.throughput.note(at, demand.completions, loads.serving, observed.desired, hold)
    };
    // The first pods may serve before they are called ready.
    let first = observed.ready == 0 && loads.serving > 0;
    if state.starts.late(at) && !first {
        // One pod may be stuck by itself while others could start, so if others serve, another one is tried by and by.
        let more = u32::from(loads.serving > 0 && state.starts.all_late(at));
        return Some((observed.desired.saturating_add(more), Reason::WaitingForCapacity));
    }
    most.map(|most| (most, Reason::Bottleneck))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bound after periods with so many pods and so many requests a second.
    fn held(periods: &[(u32, u64)]) -> Vec<Option<u32>> {
        let (mut throughput, mut now, mut completions) = (Throughput::default(), Duration::ZERO, 0);
        let mut all = Vec::new();
        for (pods, rate) in periods {
            let mut held = None;
            for _ in 0..8 {
                held = throughput.note(now, completions, *pods, *pods, HOLD);
                now += PERIOD / 8;
                completions += rate / 4;
            }
            all.push(held);
        }
        all.push(throughput.note(now, completions, 0, 9, HOLD));
        all.remove(0);
        all
    }

    #[test]
    fn pods_that_serve_more_are_more() {
        assert_eq!(held(&[(2, 40), (4, 80), (8, 160), (16, 320)]), [None; 4]);
        assert_eq!(held(&[(4, 80), (8, 104), (8, 104)]), [None; 3], "a quarter of what they should bring is something");
    }

    #[test]
    fn pods_that_serve_no_more_are_not() {
        assert_eq!(held(&[(4, 80), (8, 80), (8, 80)]), [None, Some(8), Some(9)]);
        assert_eq!(held(&[(4, 80), (8, 60)]), [None, Some(9)]);
        assert_eq!(held(&[(4, 80), (4, 80), (4, 80)]), [None; 3], "no pod was added");
        assert_eq!(held(&[(4, 4), (8, 4), (8, 4)]), [None; 3], "too little has ended to say so");
    }

    #[test]
    fn pods_that_are_added_one_by_one_are_compared_with_what_as_many_served() {
        let one_by_one: Vec<_> = (18..40).map(|pods| (pods, u64::from(pods) * 20)).collect();
        assert_eq!(held(&one_by_one), vec![None; 22]);
        let in_vain: Vec<_> = (18..40).map(|pods| (pods, 360)).collect();
        assert!(held(&in_vain)[5..].iter().all(Option::is_some));
    }

    #[test]
    fn more_is_asked_for_at_once_when_the_same_pods_serve_more() {
        let held = held(&[(4, 80), (8, 80), (8, 80), (8, 84), (8, 160), (8, 160)]);
        assert_eq!(held[..4], [None, Some(8), Some(8), Some(8)]);
        assert_eq!(held[4..], [None; 2]);
    }

    #[test]
    fn half_as_many_more_are_tried_after_a_while() {
        let mut periods = vec![(4, 80), (8, 80)];
        periods.extend([(8, 80); 15]);
        let held = held(&periods);
        assert_eq!((held[1], held[14], held[16]), (Some(8), Some(8), Some(12)));
        periods.extend([(12, 120); 2]);
        assert_eq!(super::tests::held(&periods)[18], None, "now they bring something");
    }
}
