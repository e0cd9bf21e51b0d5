//! The Knative pod autoscaler as published, as a baseline for measurements. The operator does not run it.
//!
//! [`scale`] is the algorithm according to its documentation and tests: it computes a count from two averages and the ready
//! pods. [`decide`] adds the rest of the Knative autoscaler: the tick of two seconds, the immediate decision for a first
//! request, the bounds, and the time for which a newly activated revision is kept. The *excess burst capacity* is not
//! implemented: it only decides whether requests pass the activator, and in Rouse all do.

use std::{collections::VecDeque, time::Duration};

use crate::{
    Decision, Demand, Metric, Observed, Policy, Reason, Seen,
    history::{Average, History},
};

/// The keys of the ConfigMap `config-autoscaler` with their defaults, and the settings of a revision.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Minimum number of pods.
    pub min: u32,
    /// Maximum number of pods.
    pub max: u32,
    /// Unit of `target`.
    pub metric: Metric,
    /// Target per pod, more than 0: the `target-percentage` of 70 % of the hard limit, or of the default of 100.
    pub target: f64,
    /// Maximum factor by which the ready pods grow in one tick, more than 1.
    pub max_scale_up_rate: f64,
    /// Maximum divisor of the ready pods in one tick, more than 1.
    pub max_scale_down_rate: f64,
    /// Multiple of the ready pods from which a rise starts panic mode.
    pub panic_threshold: f64,
    /// Window of the average that sizes a steady load, and the duration of panic mode.
    pub stable_window: Duration,
    /// Window of the average that starts panic mode. Whole seconds.
    pub panic_window: Duration,
    /// Time for which a lower count must persist.
    pub scale_down_delay: Duration,
    /// Minimum count other than zero.
    pub activation_scale: u32,
    /// Whether the revision receives traffic. The scale-down rate of a revision without traffic is not limited.
    pub reachable: bool,
    /// Interval of decisions.
    pub tick: Duration,
    /// Time for which the last pod is kept after zero was wanted.
    pub pod_retention: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            min: 0,
            max: u32::MAX,
            metric: Metric::Concurrency,
            target: 70.0,
            max_scale_up_rate: 1000.0,
            max_scale_down_rate: 2.0,
            panic_threshold: 2.0,
            stable_window: Duration::from_secs(60),
            panic_window: Duration::from_secs(6),
            scale_down_delay: Duration::ZERO,
            activation_scale: 1,
            reachable: true,
            tick: Duration::from_secs(2),
            pod_retention: Duration::ZERO,
        }
    }
}

impl Config {
    /// Creates the config for the policy of a Function. The panic window is a tenth of the stable window, as published,
    /// rounded to a second. The idle timeout and schedules have no counterpart.
    #[must_use]
    pub fn of(policy: &Policy) -> Self {
        let panic = (policy.stable_window.as_secs_f64() / 10.0).round().max(1.0);
        Self {
            min: policy.min,
            max: policy.max,
            metric: policy.metric,
            target: policy.target,
            stable_window: policy.stable_window,
            panic_window: Duration::from_secs_f64(panic),
            scale_down_delay: policy.scale_down_delay,
            ..Self::default()
        }
    }
}

/// Averages at one tick, in the unit of the target.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Averages {
    /// Over the stable window.
    pub stable: f64,
    /// Over the panic window.
    pub panic: f64,
}

/// State of a revision between two ticks.
#[derive(Clone, Debug)]
pub struct State {
    /// When demand last exceeded the panic threshold; `None` outside of panic mode.
    panic: Option<Duration>,
    /// Maximum count in panic mode.
    most: u32,
    /// Tick numbers with decreasing counts of the last `scale_down_delay`.
    delayed: VecDeque<(u128, u32)>,
    history: History,
    /// When the next tick is due, and the count of the last one.
    due: Duration,
    last: u32,
    /// When the revision was last scaled from zero, or when observation started.
    active: Duration,
    /// Since when zero is wanted.
    zero: Option<Duration>,
}

impl State {
    /// Creates the state after a start with `ready` pods. More than one pod starts in panic mode, which keeps them.
    #[must_use]
    pub fn new(now: Duration, ready: u32) -> Self {
        Self {
            panic: (ready > 1).then_some(now),
            most: ready,
            delayed: VecDeque::new(),
            history: History::default(),
            due: now,
            last: ready,
            active: now,
            zero: None,
        }
    }

    /// Returns whether the revision is in panic mode.
    #[must_use]
    pub fn panics(&self) -> bool {
        self.panic.is_some()
    }
}

/// Computes one tick of the algorithm, without the bounds.
pub fn scale(now: Duration, seen: Averages, ready: u32, config: &Config, state: &mut State) -> u32 {
    let pods = f64::from(ready.max(1));
    // Rounded so that a low rate still permits a change of one pod.
    let most = (config.max_scale_up_rate * pods).ceil();
    let least = if config.reachable { (pods / config.max_scale_down_rate).floor() } else { 0.0 };
    let (stable, panic) = ((seen.stable / config.target).ceil(), (seen.panic / config.target).ceil());
    let limited = |wanted: f64| {
        let count = wanted.max(least).min(most) as u32;
        if wanted > 0.0 { count.max(config.activation_scale) } else { count }
    };

    if panic / pods >= config.panic_threshold {
        state.panic = Some(now);
    } else if state.panic.is_some_and(|since| since.saturating_add(config.stable_window) < now) {
        (state.panic, state.most) = (None, 0);
    }
    let mut count = limited(stable);
    if state.panic.is_some() {
        state.most = state.most.max(count).max(limited(panic));
        count = state.most;
    }
    if config.scale_down_delay.is_zero() { count } else { state.delay(now, count, config) }
}

impl State {
    /// Returns the maximum of the last `scale_down_delay`, counted in ticks.
    fn delay(&mut self, now: Duration, count: u32, config: &Config) -> u32 {
        let tick = config.tick.as_nanos().max(1);
        let number = now.as_nanos() / tick;
        let span = config.scale_down_delay.as_nanos().div_ceil(tick);
        while self.delayed.back().is_some_and(|(_, c)| *c <= count) {
            self.delayed.pop_back();
        }
        self.delayed.push_back((number, count));
        while self.delayed.front().is_some_and(|(then, _)| number.saturating_sub(*then) >= span) {
            self.delayed.pop_front();
        }
        self.delayed.front().map_or(count, |(_, c)| *c)
    }
}

/// Decides the count of the Knative autoscaler at `now`. May be invoked at any time: between two ticks the count does not
/// change, except for a request that finds no pod.
pub fn decide(now: Duration, demand: &Demand, observed: &Observed, config: &Config, state: &mut State) -> Decision {
    state.history.record(now, demand, config.stable_window, config.panic_window);
    let of = |average: Average| match config.metric {
        Metric::Concurrency => average.concurrency,
        Metric::Rps => average.rps,
    };
    let mut averages = Averages {
        stable: of(state.history.average(config.stable_window)),
        panic: of(state.history.average(config.panic_window)),
    };
    let poked = state.last == 0 && demand.concurrency() > 0;
    if poked {
        // The activator reports a concurrency of 1 immediately for a first request, for one second of the window.
        let a_second_of = |window: Duration| 1.0 / window.as_secs_f64().max(1.0);
        averages.stable = averages.stable.max(a_second_of(config.stable_window));
        averages.panic = averages.panic.max(a_second_of(config.panic_window));
        state.active = now;
    }
    if poked || now >= state.due {
        let wanted = scale(now, averages, observed.ready, config, state);
        state.last = kept(now, wanted, config, state).max(config.min).min(config.max);
        state.due = now.saturating_add(config.tick);
    }
    Decision {
        replicas: state.last,
        reason: if state.panics() { Reason::Panic } else { Reason::Load },
        wake_at: (state.last > 0 || demand.concurrency() > 0).then_some(state.due),
        seen: Seen {
            concurrency: demand.concurrency(),
            stable: averages.stable,
            panic: averages.panic,
            target: config.target,
            ..Seen::default()
        },
    }
}

/// Keeps the last pod for a stable window after the activation of its revision, and for the retention.
fn kept(now: Duration, wanted: u32, config: &Config, state: &mut State) -> u32 {
    if wanted > 0 || state.last == 0 {
        state.zero = None;
        return wanted;
    }
    let since = *state.zero.get_or_insert(now);
    let young = now.saturating_sub(state.active) < config.stable_window;
    if young || now.saturating_sub(since) < config.pod_retention { 1 } else { 0 }
}

#[cfg(test)]
mod tests;
