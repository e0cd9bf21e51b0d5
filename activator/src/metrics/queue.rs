//! Metrics of the queue: rejected requests, delayed wakes, usage; and panics.

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

use super::reject_reason::RejectReason;
use crate::function_id::FunctionKey;

/// Metrics of the queue, and panics.
#[derive(Debug)]
pub(super) struct QueueMetrics {
    rejected: Family<RejectLabels, Counter>,
    throttled: Family<ThrottledLabels, Counter>,
    panics: Family<PanicLabels, Counter>,
    usage: Arc<OnceLock<Usage>>,
}

/// Rejected requests of one function by reason; each counter is looked up at its first use.
#[derive(Debug, Default)]
pub(super) struct RejectCounters([OnceLock<Counter>; RejectReason::ALL.len()]);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RejectLabels {
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

/// What is queued in the whole process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueUsage {
    /// Requests.
    pub requests: u64,
    /// Bytes that they hold in memory.
    pub bytes: u64,
}

/// Returns what is queued in the whole process.
struct Usage(Box<dyn Fn() -> QueueUsage + Send + Sync>);

/// Gauges of what is queued, read at each scrape. Its source is set once.
#[derive(Debug)]
struct UsageCollector(Arc<OnceLock<Usage>>);

impl QueueMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let rejected = Family::<RejectLabels, Counter>::default();
        registry.register(
            "rejected",
            "Requests rejected before they reached a pod, by function and reason: a cap, a rate limit, pods that fail to start",
            rejected.clone(),
        );
        let throttled = Family::<ThrottledLabels, Counter>::default();
        registry.register("wakes_throttled", "Wakes delayed by a rate limit, by scope", throttled.clone());
        let panics = Family::<PanicLabels, Counter>::default();
        registry.register("panics", "Panics, by task; each is a bug", panics.clone());
        let usage = Arc::new(OnceLock::new());
        registry.register_collector(Box::new(UsageCollector(usage.clone())));
        Self { rejected, throttled, panics, usage }
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

    pub(super) fn rejected(&self, counters: &RejectCounters, key: &FunctionKey, reason: RejectReason) {
        let labels = || labels(key, reason.label());
        counters.0[reason as usize].get_or_init(|| self.rejected.get_or_create_owned(&labels())).inc();
    }

    /// Removes the counters of a function.
    pub(super) fn forget(&self, counters: &RejectCounters, key: &FunctionKey) {
        for (counter, reason) in counters.0.iter().zip(RejectReason::ALL) {
            if counter.get().is_some() {
                self.rejected.remove(&labels(key, reason.label()));
            }
        }
    }
}

fn labels(key: &FunctionKey, reason: &'static str) -> RejectLabels {
    RejectLabels { namespace: key.namespace.to_string(), function: key.name.to_string(), reason }
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
            ("queued_requests", "Queued requests over all functions", used.requests),
            ("queued_bytes", "Bytes held by queued requests over all functions", used.bytes),
        ] {
            let gauge = ConstGauge::new(value);
            let metric_type = gauge.metric_type();
            gauge.encode(encoder.encode_descriptor(name, help, None, metric_type)?)?;
        }
        Ok(())
    }
}
