//! Watches memory and connection slots, and acts when they are short.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use super::connections::Connections;
use crate::{
    metrics::Metrics,
    overload::{Decision, Overload, Stage, decide},
    resources::Memory,
};

/// What pressure is read from, and what it acts on.
#[derive(Debug)]
pub struct Pressure<Q> {
    /// The memory limit and usage.
    pub memory: Memory,
    /// The stage that others read.
    pub overload: Arc<Overload>,
    /// Connections to close.
    pub connections: Arc<Connections>,
    /// Opens and closes the queues.
    pub set_queues_closed: Q,
    /// Metrics.
    pub metrics: Arc<Metrics>,
}

/// Interval of the checks without pressure, and with it.
const CALM: Duration = Duration::from_millis(250);
const TENSE: Duration = Duration::from_millis(50);
/// Usage from which on checks are frequent, in percent of the limit.
const TENSE_PERCENT: u64 = 50;
/// Idle time of a connection while slots or memory are short.
const SHORT_IDLE: Duration = Duration::from_secs(10);
/// Shortest idle time of a connection that is closed to free memory.
const SHRINK_IDLE: Duration = Duration::from_secs(1);
/// Interval at which idle connections are closed to free memory, and which part of them at a time: freed memory shows
/// with a delay.
const SHRINK_EVERY: Duration = Duration::from_millis(250);
const SHRINK_PARTS: usize = 10;
const SHRINK_AT_LEAST: usize = 32;

impl<Q: Fn(bool)> Pressure<Q> {
    /// Checks memory and slots until it is dropped.
    pub async fn run(&self) {
        let mut decision = Decision { stage: Stage::Normal, needed: Instant::now() };
        let mut shrunk: Option<Instant> = None;
        self.metrics.overload.memory_limit.set(i64::try_from(self.memory.limit).unwrap_or(i64::MAX));
        loop {
            let now = Instant::now();
            self.connections.tick(now);
            let used = self.memory.used().unwrap_or(0);
            let next = decide(now, used, self.memory.limit, decision);
            self.apply(decision.stage, next.stage, used);
            decision = next;
            let may_shrink = shrunk.is_none_or(|last| now.saturating_duration_since(last) >= SHRINK_EVERY);
            if decision.stage >= Stage::Shrink && may_shrink {
                shrunk = Some(now);
                self.close_idle(now, SHRINK_IDLE, "memory", |idle| (idle / SHRINK_PARTS).max(SHRINK_AT_LEAST));
            }
            if decision.stage >= Stage::Trim {
                self.close_idle(now, SHORT_IDLE, "memory", |idle| idle);
            } else if self.connections.is_crowded() {
                self.close_idle(now, SHORT_IDLE, "slots", |idle| idle);
            }
            let tense = used.saturating_mul(100) > self.memory.limit.saturating_mul(TENSE_PERCENT);
            sleep(if tense { TENSE } else { CALM }).await;
        }
    }

    fn apply(&self, before: Stage, stage: Stage, used: u64) {
        self.metrics.overload.memory_used.set(i64::try_from(used).unwrap_or(i64::MAX));
        self.metrics.overload.stage.set(stage as i64);
        if before == stage {
            return;
        }
        self.overload.set(stage);
        (self.set_queues_closed)(stage >= Stage::Reject);
        let (limit, connections) = (self.memory.limit, self.connections.number());
        let [from, to] = [before, stage].map(Stage::name);
        if stage > before {
            tracing::warn!(from, to, used, limit, connections, "Memory pressure increased");
        } else {
            tracing::info!(from, to, used, limit, connections, "Memory pressure decreased");
        }
    }

    fn close_idle(&self, now: Instant, least: Duration, reason: &'static str, most: impl FnOnce(usize) -> usize) {
        let count = self.connections.close_idle(now, least, most);
        if count > 0 {
            self.metrics.overload.record_closed(reason, count);
            if self.connections.may_log(if reason == "memory" { "closed-memory" } else { "closed-slots" }) {
                tracing::warn!(count, reason, "Closed idle connections early");
            }
        }
    }
}
