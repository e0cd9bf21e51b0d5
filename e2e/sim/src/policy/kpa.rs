//! The Knative pod autoscaler as it is published (`autoscaler.go` and the comments of `config-autoscaler`), with its
//! defaults: 70 % of the container's concurrency, a stable window of 60 s, a panic window of a tenth of it at 200 %, a look
//! every 2 s, at most a thousandfold up and by half down, and a look at once when a revision without pods is called.

use std::collections::VecDeque;

use crate::{
    Micros,
    scaler::{Hears, Order, Scaler, View},
    trace::Function,
};

const SECOND: Micros = 1_000_000;
const TICK: Micros = 2 * SECOND;
const STABLE: Micros = 60 * SECOND;
const PANIC: Micros = 6 * SECOND;
const TARGET: f64 = 0.7;
const PANIC_THRESHOLD: f64 = 2.0;
const MAX_SCALE_UP: f64 = 1_000.0;
const MAX_SCALE_DOWN: f64 = 2.0;

pub(super) struct Kpa {
    target: f64,
    grace: Micros,
    /// The integral of concurrency at each look, over the stable window.
    looks: VecDeque<(Micros, u64)>,
    /// When it was last over the panic threshold, while it panics, and the most that was wanted since.
    panic: Option<(Micros, u32)>,
    /// Since when nothing was wanted.
    inactive: Option<Micros>,
}

impl Kpa {
    pub(super) fn new(function: &Function, grace: Micros) -> Self {
        let target = f64::from(function.limit) * TARGET;
        Self { target, grace, looks: VecDeque::new(), panic: None, inactive: None }
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

    fn scale(&mut self, now: Micros, ready: u32, stable: f64, panic: f64) -> u32 {
        let ready = f64::from(ready.max(1));
        let most = (MAX_SCALE_UP * ready).ceil();
        let least = (ready / MAX_SCALE_DOWN).floor();
        let (stable, panic) = ((stable / self.target).ceil(), (panic / self.target).ceil());
        let bounded = |wanted: f64| wanted.max(least).min(most) as u32;
        let mut wanted = bounded(stable);
        if panic / ready >= PANIC_THRESHOLD {
            self.panic = Some((now, self.panic.map_or(0, |(_, most)| most)));
        } else if self.panic.is_some_and(|(last, _)| last + STABLE < now) {
            self.panic = None;
        }
        if let Some((_, most)) = &mut self.panic {
            *most = (*most).max(wanted).max(bounded(panic));
            wanted = *most;
        }
        wanted
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
        if self.looks.back().is_some_and(|(at, _)| at + STABLE < view.now) {
            self.looks.clear();
        }
        self.looks.push_back((view.now, view.request_us));
        // The activator says how many wait at this moment.
        let waiting = view.concurrency() as f64;
        let wanted = self.scale(view.now, view.pods.ready(), waiting, waiting);
        self.order(view.now, view.desired, wanted)
    }

    fn decide(&mut self, view: &View<'_>) -> Order {
        self.looks.push_back((view.now, view.request_us));
        while self.looks.len() > 2 && self.looks[1].0 + STABLE <= view.now {
            self.looks.pop_front();
        }
        let (stable, panic) = (self.average(STABLE), self.average(PANIC));
        let wanted = self.scale(view.now, view.pods.ready(), stable, panic);
        self.order(view.now, view.desired, wanted)
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
        Kpa::new(&function(limit), 0)
    }

    #[test]
    fn a_load_is_divided_by_the_target() {
        // Of a hundred at once, seventy are wanted in a pod.
        assert_eq!(kpa(100).scale(0, 1, 70.0, 70.0), 1);
        assert_eq!(kpa(100).scale(0, 1, 70.1, 70.1), 2);
        // Down by no more than half at a time.
        assert_eq!(kpa(100).scale(0, 10, 70.0, 70.0), 5);
        assert_eq!(kpa(100).scale(0, 1, 0.0, 0.0), 0);
        // Up by no more than a thousandfold.
        assert_eq!(kpa(1).scale(0, 1, 5_000.0, 0.0), 1_000);
    }

    #[test]
    fn in_panic_pods_are_only_added() {
        let mut kpa = kpa(10);
        assert_eq!(kpa.scale(0, 2, 14.0, 28.0), 4);
        assert_eq!(kpa.scale(2 * SECOND, 4, 14.0, 70.0), 10);
        assert_eq!(kpa.scale(4 * SECOND, 10, 14.0, 7.0), 10);
        assert_eq!(kpa.scale(62 * SECOND, 10, 14.0, 7.0), 10);
        assert_eq!(kpa.scale(64 * SECOND, 10, 14.0, 7.0), 5);
    }

    #[test]
    fn the_last_pod_goes_a_window_after_the_last_call() {
        let calls = [Call { at: 0, service: 1_000_000 }];
        let gone = |grace: Micros| {
            let outcome = run(&function(10), &calls, 1_000 * SECOND, 1, &mut Kpa::new(&function(10), grace));
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
