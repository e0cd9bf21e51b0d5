//! Counts of what waits, what is turned away, and what was held up.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric},
    metrics::{counter::Counter, family::Family, gauge::ConstGauge},
    registry::Registry,
};

use super::Rejection;

/// Counts of what waits, what is turned away, and what was held up.
#[derive(Debug)]
pub(super) struct Waiting {
    turned_away: Family<TurnedAwayLabels, Counter>,
    throttled: Family<ThrottledLabels, Counter>,
    panics: Family<PanicLabels, Counter>,
    usage: Arc<OnceLock<Usage>>,
}

/// Requests of one function that were turned away, by the reason; each is looked up at its first use.
#[derive(Debug, Default)]
pub(super) struct TurnedAway([OnceLock<Counter>; Rejection::ALL.len()]);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TurnedAwayLabels {
    namespace: String,
    function: String,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ThrottledLabels {
    scope: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PanicLabels {
    task: &'static str,
}

/// What waits in the whole process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueUsage {
    /// Requests.
    pub requests: u64,
    /// Bytes that they hold in memory.
    pub bytes: u64,
}

/// Says what waits in the whole process.
struct Usage(Box<dyn Fn() -> QueueUsage + Send + Sync>);

/// What all waiting requests hold, read when it is asked for. Set once.
#[derive(Debug)]
struct UsageCollector(Arc<OnceLock<Usage>>);

impl Waiting {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let turned_away = Family::<TurnedAwayLabels, Counter>::default();
        registry.register(
            "turned_away",
            "Requests that no pod was given, by function and reason: a cap, a throttle, pods that do not start",
            turned_away.clone(),
        );
        let throttled = Family::<ThrottledLabels, Counter>::default();
        registry.register("wakes_throttled", "Wakes that had to wait for their turn", throttled.clone());
        let panics = Family::<PanicLabels, Counter>::default();
        registry.register("panics", "Defects of this program that ended a piece of work", panics.clone());
        let usage = Arc::new(OnceLock::new());
        registry.register_collector(Box::new(UsageCollector(usage.clone())));
        Self { turned_away, throttled, panics, usage }
    }

    pub(super) fn watch(&self, usage: impl Fn() -> QueueUsage + Send + Sync + 'static) {
        self.usage.get_or_init(|| Usage(Box::new(usage)));
    }

    pub(super) fn throttled(&self, scope: &'static str) {
        self.throttled.get_or_create(&ThrottledLabels { scope }).inc();
    }

    pub(super) fn panicked(&self, task: &'static str) {
        self.panics.get_or_create(&PanicLabels { task }).inc();
    }

    pub(super) fn turned_away(&self, counters: &TurnedAway, namespace: &str, function: &str, reason: Rejection) {
        let labels = || labels(namespace, function, reason.label());
        counters.0[reason as usize].get_or_init(|| self.turned_away.get_or_create_owned(&labels())).inc();
    }

    /// Takes the counters of a function away.
    pub(super) fn forget(&self, counters: &TurnedAway, namespace: &str, function: &str) {
        for (counter, reason) in counters.0.iter().zip(Rejection::ALL) {
            if counter.get().is_some() {
                self.turned_away.remove(&labels(namespace, function, reason.label()));
            }
        }
    }
}

fn labels(namespace: &str, function: &str, reason: &'static str) -> TurnedAwayLabels {
    TurnedAwayLabels { namespace: namespace.to_owned(), function: function.to_owned(), reason }
}

impl fmt::Debug for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Usage").finish_non_exhaustive()
    }
}

impl Collector for UsageCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Some(used) = self.0.get().map(|usage| usage.0()) else { return Ok(()) };
        for (name, help, value) in [
            ("waiting_requests", "Requests that wait, over all functions", used.requests),
            ("waiting_bytes", "Bytes that waiting requests hold, over all functions", used.bytes),
        ] {
            let gauge = ConstGauge::new(value);
            let metric_type = gauge.metric_type();
            gauge.encode(encoder.encode_descriptor(name, help, None, metric_type)?)?;
        }
        Ok(())
    }
}
