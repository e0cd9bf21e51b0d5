//! The published Knative pod autoscaler, as a baseline to measure against. The operator does not run it.
//!
//! [`scale`] is the algorithm as its documentation and its own tests have it: two averages and the ready pods in, a count
//! out. [`decide`] puts around it what Knative puts around it: a tick of two seconds, the poke by which a first request is
//! answered between two ticks, the bounds, and the time for which a revision that was just activated is kept. What it has
//! beside the count, the *excess burst capacity*, only says whether requests go through an activator; here all do.

use std::{collections::VecDeque, time::Duration};

use crate::{
    Decision, Demand, Metric, Observed, Policy, Reason, Seen,
    history::{Average, History},
};

/// The keys of the ConfigMap `config-autoscaler`, with its defaults, and what a revision may set beside them.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Never fewer pods.
    pub min: u32,
    /// Never more pods.
    pub max: u32,
    /// What `target` counts.
    pub metric: Metric,
    /// Wanted per pod, more than 0: of the hard limit, or of the default of 100, the `target-percentage` of 70.
    pub target: f64,
    /// The most by which ready pods are multiplied in one tick, more than 1.
    pub max_scale_up_rate: f64,
    /// The most by which ready pods are divided in one tick, more than 1.
    pub max_scale_down_rate: f64,
    /// A rise is a panic when so many times the ready pods are wanted.
    pub panic_threshold: f64,
    /// The time over which demand is averaged to size a steady load, and for which a panic lasts.
    pub stable_window: Duration,
    /// The time over which demand is averaged to see a panic. Whole seconds.
    pub panic_window: Duration,
    /// How long a lower count has to be wanted.
    pub scale_down_delay: Duration,
    /// The least that is wanted if anything is.
    pub activation_scale: u32,
    /// Whether the revision carries traffic. One that does not may fall at any rate.
    pub reachable: bool,
    /// The time between two decisions.
    pub tick: Duration,
    /// How long the last pod is kept after zero was wanted.
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
    /// The defaults for what a Function asks for. The panic window is the published tenth of the stable one, to the closest
    /// second; an idle time-out has no counterpart, and neither have schedules.
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

/// What is observed at one tick: averages of what the target counts, over the two windows.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Averages {
    /// Over the stable window.
    pub stable: f64,
    /// Over the panic window.
    pub panic: f64,
}

/// What is remembered between two ticks.
#[derive(Clone, Debug)]
pub struct State {
    /// Since when there is a panic.
    panic: Option<Duration>,
    /// The most that was wanted in it.
    most: u32,
    /// By number of the tick, falling counts of the last `scale_down_delay`.
    delayed: VecDeque<(u128, u32)>,
    history: History,
    /// When the next tick is due, and what the last one said.
    due: Duration,
    last: u32,
    /// When the revision last left zero, or this memory began.
    active: Duration,
    /// Since when zero is wanted.
    zero: Option<Duration>,
}

impl State {
    /// As after a start with so many ready pods: more than one are kept by a panic, since nothing is known yet.
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

    /// Whether there is a panic.
    #[must_use]
    pub fn panics(&self) -> bool {
        self.panic.is_some()
    }
}

/// One tick of the algorithm, before bounds.
pub fn scale(now: Duration, seen: Averages, ready: u32, config: &Config, state: &mut State) -> u32 {
    let pods = f64::from(ready.max(1));
    // Rounded so that a cautious rate still lets one pod more or less.
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
    /// The most of the last `scale_down_delay`, counted in ticks.
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

/// What Knative would want at `now`. May be called at any time: between two ticks it repeats itself, except that a request
/// which finds no pod is answered at once.
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
        // An activator says `1` at once when a first request comes, and that is one of the seconds of a window.
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

/// The last pod stays for a stable window after its revision was activated, and for the retention.
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
