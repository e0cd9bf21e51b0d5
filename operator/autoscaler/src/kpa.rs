//! The Knative pod autoscaler as published, as a baseline for measurements. The operator does not run it.
//!
//! [`scale`] computes one tick according to the documentation and the tests of Knative: a count from two averages and the
//! ready pods. The ticks, the averages, the bounds and the grace period are left to the simulator. The *excess burst
//! capacity* is not implemented: it only decides whether requests pass the activator, and in Rouse all do.

use std::{collections::VecDeque, time::Duration};

/// The keys of the ConfigMap `config-autoscaler` with their defaults, and the settings of a revision.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
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
    /// Time for which a lower count must persist.
    pub scale_down_delay: Duration,
    /// Minimum count other than zero.
    pub activation_scale: u32,
    /// Whether the revision receives traffic. The scale-down rate of a revision without traffic is not limited.
    pub reachable: bool,
    /// Interval of decisions.
    pub tick: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            target: 70.0,
            max_scale_up_rate: 1000.0,
            max_scale_down_rate: 2.0,
            panic_threshold: 2.0,
            stable_window: Duration::from_secs(60),
            scale_down_delay: Duration::ZERO,
            activation_scale: 1,
            reachable: true,
            tick: Duration::from_secs(2),
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
}

impl State {
    /// Creates the state after a start with `ready` pods. More than one pod starts in panic mode, which keeps them.
    #[must_use]
    pub fn new(now: Duration, ready: u32) -> Self {
        Self { panic: (ready > 1).then_some(now), most: ready, delayed: VecDeque::new() }
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

#[cfg(test)]
mod tests;
