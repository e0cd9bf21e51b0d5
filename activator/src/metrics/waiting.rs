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

use crate::admit::{Budget, Refusal, Scope};

/// Counts of what waits, what is turned away, and what was held up.
#[derive(Debug)]
pub(super) struct Waiting {
    turned_away: Family<TurnedAwayLabels, Counter>,
    throttled: Family<ThrottledLabels, Counter>,
    panics: Family<PanicLabels, Counter>,
    /// Set once, when there is one.
    budget: Arc<OnceLock<Arc<Budget>>>,
}

/// Requests of one function that were turned away, by the reason; each is looked up at its first use.
#[derive(Debug, Default)]
pub(super) struct TurnedAway([OnceLock<Counter>; Refusal::WORDS.len()]);

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

/// What all waiting requests hold, read when it is asked for.
#[derive(Debug)]
struct BudgetCollector(Arc<OnceLock<Arc<Budget>>>);

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
        let budget = Arc::new(OnceLock::new());
        registry.register_collector(Box::new(BudgetCollector(budget.clone())));
        Self { turned_away, throttled, panics, budget }
    }

    pub(super) fn watch(&self, budget: &Arc<Budget>) {
        self.budget.get_or_init(|| budget.clone());
    }

    pub(super) fn throttled(&self, scope: Scope) {
        let scope = match scope {
            Scope::Function => "function",
            Scope::Namespace => "namespace",
            Scope::Process => "process",
        };
        self.throttled.get_or_create(&ThrottledLabels { scope }).inc();
    }

    pub(super) fn panicked(&self, task: &'static str) {
        self.panics.get_or_create(&PanicLabels { task }).inc();
    }

    pub(super) fn turned_away(&self, counters: &TurnedAway, namespace: &str, function: &str, refusal: &Refusal) {
        let labels = || labels(namespace, function, refusal.word());
        counters.0[refusal.index()].get_or_init(|| self.turned_away.get_or_create_owned(&labels())).inc();
    }

    /// Takes the counters of a function away.
    pub(super) fn forget(&self, counters: &TurnedAway, namespace: &str, function: &str) {
        for (counter, reason) in counters.0.iter().zip(Refusal::WORDS) {
            if counter.get().is_some() {
                self.turned_away.remove(&labels(namespace, function, reason));
            }
        }
    }
}

fn labels(namespace: &str, function: &str, reason: &'static str) -> TurnedAwayLabels {
    TurnedAwayLabels { namespace: namespace.to_owned(), function: function.to_owned(), reason }
}

impl Collector for BudgetCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Some(used) = self.0.get().map(|budget| budget.used()) else { return Ok(()) };
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
