//! Benchmark of the autoscaling algorithm: `decide` for ten thousand functions, each with a full window. Prints figures as
//! JSON, for `cargo e2e bench decide`.
#![allow(clippy::disallowed_types, reason = "no runtime is used here whose time could be paused")]

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rouse_autoscaler::{Demand, Observed, Policy, State, decide};
use serde_json::{Value, json};

const FUNCTIONS: usize = 10_000;

/// Interval of demand frames.
const STEP: Duration = Duration::from_millis(250);

/// Warm-up ticks: longer than the stable window.
const WARM: u32 = 300;

/// Number of measured ticks.
const TICKS: u32 = 100;

struct Function {
    state: State,
    demand: Demand,
    observed: Observed,
    /// Approximate concurrency.
    level: u64,
}

fn main() {
    let mut random = ChaCha8Rng::seed_from_u64(1);
    // The target of a concurrency limit of 10.
    let policy = Policy { target: 7.0, ..Policy::default() };
    let function = |level| Function {
        state: State::new(Duration::ZERO),
        demand: Demand::default(),
        observed: Observed::default(),
        level,
    };
    let mut busy: Vec<_> = (0..FUNCTIONS).map(|_| function(random.random_range(1..100))).collect();
    let mut now = Duration::ZERO;
    let mut ticks = Vec::with_capacity(TICKS as usize);
    for tick in 0..WARM + TICKS {
        now += STEP;
        for function in &mut busy {
            load(function, &mut random);
        }
        let begun = Instant::now();
        for function in &mut busy {
            let decision = decide(now, &function.demand, &function.observed, &policy, &mut function.state);
            function.observed = Observed { desired: decision.replicas, ready: decision.replicas };
        }
        if tick >= WARM {
            ticks.push(begun.elapsed());
        }
    }
    black_box(&busy);
    ticks.sort_unstable();

    let mut idle: Vec<_> = (0..FUNCTIONS).map(|_| function(0)).collect();
    let mut asked = 0;
    let mut decisions = Vec::with_capacity(TICKS as usize);
    for tick in 0..TICKS {
        // After the idle timeout, slightly later each time.
        now += Duration::from_secs(60);
        let begun = Instant::now();
        for function in &mut idle {
            let decision = decide(now, &function.demand, &function.observed, &policy, &mut function.state);
            asked += usize::from(tick > 0 && decision.wake_at.is_some());
        }
        decisions.push(begun.elapsed());
    }
    black_box(&idle);
    decisions.sort_unstable();

    let middle = ticks[ticks.len() / 2];
    let figures = [
        figure("decide.busy_us", micros(middle) / FUNCTIONS as f64, "µs"),
        figure("decide.tick10k_ms.p50", micros(middle) / 1e3, "ms"),
        figure("decide.tick10k_ms.max", micros(ticks[ticks.len() - 1]) / 1e3, "ms"),
        figure("decide.idle_us", micros(decisions[decisions.len() / 2]) / FUNCTIONS as f64, "µs"),
        figure("decide.idle_asks", asked as f64, "decisions"),
    ];
    println!("{}", Value::from(figures.to_vec()));
}

/// Advances a function by one frame: its load varies around its level.
fn load(function: &mut Function, random: &mut ChaCha8Rng) {
    let at_once = random.random_range(0..=2 * function.level);
    let demand = &mut function.demand;
    demand.request_us += demand.in_flight * u64::try_from(STEP.as_micros()).unwrap_or(u64::MAX);
    demand.arrivals += at_once;
    demand.in_flight = at_once;
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

fn figure(name: &str, value: f64, unit: &str) -> Value {
    json!({"name": name, "value": value, "unit": unit})
}
