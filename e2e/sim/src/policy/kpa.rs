//! The Knative pod autoscaler with its defaults, around the published algorithm in `rouse_autoscaler::kpa::scale`: windows
//! that restart with the first request after a pause, a tick every 2 s, an immediate decision for a request without pods, and
//! the grace period before the last pod is removed.

use std::{collections::VecDeque, time::Duration};

use rouse_autoscaler::kpa::{Averages, Config, State, scale};

use crate::{
    micros::Micros,
    request::Function,
    scaler::{Decision, Scaler, Trigger, View},
};

const SECOND: Micros = 1_000_000;
const TICK: Micros = 2 * SECOND;
/// Target utilization of the container concurrency.
const TARGET: f64 = 0.7;

pub(super) struct Kpa {
    config: Config,
    state: State,
    grace: Micros,
    /// The stable and the panic window.
    windows: (Micros, Micros),
    /// The integral of concurrency at each tick, over the stable window.
    looks: VecDeque<(Micros, u64)>,
    /// Since when zero pods are wanted.
    inactive: Option<Micros>,
}

impl Kpa {
    /// The panic window is the default of a tenth of the stable one.
    pub(super) fn new(function: &Function, grace: Micros, stable: Micros) -> Self {
        let panic = (stable / 10).max(SECOND);
        let config = Config {
            target: f64::from(function.limit) * TARGET,
            stable_window: Duration::from_micros(stable),
            ..Config::default()
        };
        let state = State::new(Duration::ZERO, 0);
        Self { config, state, grace, windows: (stable, panic), looks: VecDeque::new(), inactive: None }
    }

    /// Returns the average concurrency over a window, or over its recorded part.
    fn average(&self, window: Micros) -> f64 {
        let Some((now, total)) = self.looks.back().copied() else { return 0.0 };
        let from = now.saturating_sub(window);
        let Some((at, before)) = self.looks.iter().copied().find(|(at, _)| *at >= from) else { return 0.0 };
        if now == at {
            return 0.0;
        }
        // Rounded as in Knative, so that a sum of fractions does not request one more pod.
        ((total - before) as f64 / (now - at) as f64 * 1e6).round() / 1e6
    }

    fn scale(&mut self, view: &View<'_>, stable: f64, panic: f64) -> Decision {
        let now = Duration::from_micros(view.now);
        let wanted = scale(now, Averages { stable, panic }, view.pods.ready(), &self.config, &mut self.state);
        self.decision(view.now, view.desired, wanted)
    }

    fn decision(&mut self, now: Micros, desired: u32, wanted: u32) -> Decision {
        let pods = if wanted > 0 {
            self.inactive = None;
            wanted
        } else {
            let since = *self.inactive.get_or_insert(now);
            // The last pod is kept for the grace period.
            if now >= since + self.grace { 0 } else { desired.min(1) }
        };
        // A revision at zero is not decided before its next request.
        let decide_at = (pods > 0).then_some((now / TICK + 1) * TICK);
        Decision { pods, decide_at }
    }
}

impl Scaler for Kpa {
    fn trigger(&self) -> Trigger {
        Trigger::Poll
    }

    fn wake(&mut self, view: &View<'_>) -> Decision {
        // The average restarts after a pause of more than a window.
        if self.looks.back().is_some_and(|(at, _)| at + self.windows.0 < view.now) {
            self.looks.clear();
        }
        self.looks.push_back((view.now, view.request_us));
        // The activator reports the present number of queued requests.
        let waiting = view.concurrency() as f64;
        self.scale(view, waiting, waiting)
    }

    fn decide(&mut self, view: &View<'_>) -> Decision {
        self.looks.push_back((view.now, view.request_us));
        while self.looks.len() > 2 && self.looks[1].0 + self.windows.0 <= view.now {
            self.looks.pop_front();
        }
        let (stable, panic) = (self.average(self.windows.0), self.average(self.windows.1));
        self.scale(view, stable, panic)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{request::Arrival, world::run};

    fn function(limit: u32) -> Function {
        Function { index: 0, kind: "test", limit, start: 0.4, expected: 0.0 }
    }

    fn kpa(limit: u32) -> Kpa {
        Kpa::new(&function(limit), 0, 60 * SECOND)
    }

    #[test]
    fn averages_restart_with_the_first_request_after_a_pause() {
        // A concurrency of one for four seconds, after an hour: averaged over four seconds and not over sixty.
        let requests = [Arrival { at: 0, service: 1_000_000 }, Arrival { at: 3_600 * SECOND, service: 10_000_000 }];
        let mut kpa = kpa(1);
        run(&function(1), &requests, 3_605 * SECOND, 1, &mut kpa);
        assert!((kpa.average(60 * SECOND) - 1.0).abs() < 1e-6, "{}", kpa.average(60 * SECOND));
    }

    #[test]
    fn the_last_pod_is_removed_a_window_after_the_last_request() {
        let requests = [Arrival { at: 0, service: 1_000_000 }];
        let last_change = |grace: Micros| {
            let outcome =
                run(&function(10), &requests, 1_000 * SECOND, 1, &mut Kpa::new(&function(10), grace, 60 * SECOND));
            outcome.wanted.last().map(|(at, count)| (*at / SECOND, *count))
        };
        assert_eq!(last_change(0), Some((62, 0)));
        assert_eq!(last_change(30 * SECOND), Some((92, 0)));
    }

    #[test]
    fn a_step_is_detected_by_the_panic_window() {
        let mut requests: Vec<_> = (0..600).map(|i| Arrival { at: i * 200_000, service: 1_000_000 }).collect();
        requests.extend((0..1_200).map(|i| Arrival { at: 120 * SECOND + i * 20_000, service: 1_000_000 }));
        let outcome = run(&function(10), &requests, 144 * SECOND, 1, &mut kpa(10));
        let right = outcome.wanted.iter().find(|(at, count)| *at > 120 * SECOND && *count >= 8);
        let seconds = (right.unwrap().0 - 120 * SECOND) / SECOND;
        assert!((4..=8).contains(&seconds), "{seconds}");
    }
}
