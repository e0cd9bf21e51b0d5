//! The Knative pod autoscaler as it is published, with its defaults. The algorithm is the product's baseline,
//! `rouse_autoscaler::kpa::scale`. Around it is what Knative puts there: windows that begin anew with the first call after
//! a pause, a look every 2 s, one at once when a revision without pods is called, and the grace before the last pod goes.

use std::{collections::VecDeque, time::Duration};

use rouse_autoscaler::kpa::{Averages, Config, State, scale};

use crate::{
    Micros,
    scaler::{Hears, Order, Scaler, View},
    trace::Function,
};

const SECOND: Micros = 1_000_000;
const TICK: Micros = 2 * SECOND;
/// Wanted in a pod, of the container's concurrency.
const TARGET: f64 = 0.7;

pub(super) struct Kpa {
    config: Config,
    state: State,
    grace: Micros,
    /// The stable and the panic window.
    windows: (Micros, Micros),
    /// The integral of concurrency at each look, over the stable window.
    looks: VecDeque<(Micros, u64)>,
    /// Since when nothing was wanted.
    inactive: Option<Micros>,
}

impl Kpa {
    /// The panic window is the default of a tenth of the stable one.
    pub(super) fn new(function: &Function, grace: Micros, stable: Micros) -> Self {
        let panic = (stable / 10).max(SECOND);
        let config = Config {
            target: f64::from(function.limit) * TARGET,
            stable_window: Duration::from_micros(stable),
            panic_window: Duration::from_micros(panic),
            ..Config::default()
        };
        let state = State::new(Duration::ZERO, 0);
        Self { config, state, grace, windows: (stable, panic), looks: VecDeque::new(), inactive: None }
    }

    /// Average concurrency over a window, or over what there is of it.
    fn average(&self, window: Micros) -> f64 {
        let Some((now, total)) = self.looks.back().copied() else { return 0.0 };
        let from = now.saturating_sub(window);
        let Some((at, before)) = self.looks.iter().copied().find(|(at, _)| *at >= from) else { return 0.0 };
        if now == at {
            return 0.0;
        }
        // Rounded as there, so that a sum of fractions does not ask for one more.
        ((total - before) as f64 / (now - at) as f64 * 1e6).round() / 1e6
    }

    fn scale(&mut self, view: &View<'_>, stable: f64, panic: f64) -> Order {
        let now = Duration::from_micros(view.now);
        let wanted = scale(now, Averages { stable, panic }, view.pods.ready(), &self.config, &mut self.state);
        self.order(view.now, view.desired, wanted)
    }

    fn order(&mut self, now: Micros, desired: u32, wanted: u32) -> Order {
        let pods = if wanted > 0 {
            self.inactive = None;
            wanted
        } else {
            let since = *self.inactive.get_or_insert(now);
            // Until the grace is over the last one stays.
            if now >= since + self.grace { 0 } else { desired.min(1) }
        };
        // A revision at zero is not looked at until it is called.
        let again = (pods > 0).then_some((now / TICK + 1) * TICK);
        Order { pods, again }
    }
}

impl Scaler for Kpa {
    fn hears(&self) -> Hears {
        Hears::Nothing
    }

    fn wake(&mut self, view: &View<'_>) -> Order {
        // What was more than a window ago is forgotten, and the average begins anew.
        if self.looks.back().is_some_and(|(at, _)| at + self.windows.0 < view.now) {
            self.looks.clear();
        }
        self.looks.push_back((view.now, view.request_us));
        // The activator says how many wait at this moment.
        let waiting = view.concurrency() as f64;
        self.scale(view, waiting, waiting)
    }

    fn decide(&mut self, view: &View<'_>) -> Order {
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
    use crate::{trace::Call, world::run};

    fn function(limit: u32) -> Function {
        Function { index: 0, kind: "test", limit, start: 0.4, expected: 0.0 }
    }

    fn kpa(limit: u32) -> Kpa {
        Kpa::new(&function(limit), 0, 60 * SECOND)
    }

    #[test]
    fn averages_begin_with_the_first_call_after_a_pause() {
        // One call at once for four seconds, an hour after another: over four seconds and not over sixty.
        let calls = [Call { at: 0, service: 1_000_000 }, Call { at: 3_600 * SECOND, service: 10_000_000 }];
        let mut kpa = kpa(1);
        run(&function(1), &calls, 3_605 * SECOND, 1, &mut kpa);
        assert!((kpa.average(60 * SECOND) - 1.0).abs() < 1e-6, "{}", kpa.average(60 * SECOND));
    }

    #[test]
    fn the_last_pod_goes_a_window_after_the_last_call() {
        let calls = [Call { at: 0, service: 1_000_000 }];
        let gone = |grace: Micros| {
            let outcome =
                run(&function(10), &calls, 1_000 * SECOND, 1, &mut Kpa::new(&function(10), grace, 60 * SECOND));
            outcome.wanted.last().map(|(at, count)| (*at / SECOND, *count))
        };
        assert_eq!(gone(0), Some((62, 0)));
        assert_eq!(gone(30 * SECOND), Some((92, 0)));
    }

    #[test]
    fn a_step_is_seen_by_the_panic_window() {
        let mut calls: Vec<_> = (0..600).map(|i| Call { at: i * 200_000, service: 1_000_000 }).collect();
        calls.extend((0..1_200).map(|i| Call { at: 120 * SECOND + i * 20_000, service: 1_000_000 }));
        let outcome = run(&function(10), &calls, 144 * SECOND, 1, &mut kpa(10));
        let right = outcome.wanted.iter().find(|(at, count)| *at > 120 * SECOND && *count >= 8);
        let seconds = (right.unwrap().0 - 120 * SECOND) / SECOND;
        assert!((4..=8).contains(&seconds), "{seconds}");
    }
}
