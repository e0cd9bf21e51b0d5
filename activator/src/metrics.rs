//! Prometheus metrics. The counters of a function are looked up once, when its breaker is created; a request only
//! increments them.

mod connections;
mod overload;
mod process;
mod queue;
mod reject_reason;
mod sample;
mod tls;
mod watch;

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, text},
    metrics::{counter::Counter, family::Family, gauge::ConstGauge, histogram::Histogram, info::Info},
    registry::{Registry, Unit},
};
use rouse_crds::demand::RevisionDemand;

pub(crate) use self::connections::OpenConnection;
use self::queue::{QueueMetrics, RejectCounters};
pub use self::{queue::QueueUsage, reject_reason::RejectReason};
use crate::function_id::FunctionKey;

/// Prometheus metrics of this process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    unrouted: Family<UnroutedLabels, Counter>,
    wakes: Family<WakeLabels, Counter>,
    mirrored: Family<MirrorLabels, Counter>,
    queue: QueueMetrics,
    watches: watch::Watches,
    pub(crate) tls: tls::Tls,
    pub(crate) connections: connections::Connections,
    pub(crate) overload: overload::Overload,
    /// How long cold requests waited, in seconds.
    pub cold_starts: Histogram,
    /// Endpoint probes.
    pub probes: Counter,
    /// Requests sent to another pod after a connect failed.
    pub retries: Counter,
    /// Clients that disconnected while their request was queued.
    pub client_disconnects: Counter,
    /// Bounded by the Functions that exist, and deleted ones that have requests.
    functions: Mutex<HashMap<FunctionKey, Weak<FunctionMetrics>>>,
}

/// Metrics of one function.
#[derive(Debug)]
pub struct FunctionMetrics {
    metrics: Arc<Metrics>,
    key: FunctionKey,
    classes: [OnceLock<Counter>; 6],
    rejected: RejectCounters,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    namespace: String,
    function: String,
    code: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct UnroutedLabels {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WakeLabels {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MirrorLabels {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RevisionLabels {
    namespace: String,
    function: String,
    revision: String,
}

/// A source of demand, read at each scrape.
pub trait DemandSource: fmt::Debug + Send + Sync {
    /// Visits every revision.
    fn visit(&self, visit: &mut dyn FnMut(&RevisionDemand));
}

#[derive(Debug)]
struct DemandCollector(Arc<dyn DemandSource>);

const CLASSES: [&str; 6] = ["other", "1xx", "2xx", "3xx", "4xx", "5xx"];

impl Metrics {
    /// Creates all metrics at zero.
    #[must_use]
    pub fn new(demand: Arc<dyn DemandSource>) -> Arc<Self> {
        let mut whole = Registry::default();
        whole.register_collector(Box::new(process::Process));
        let tls = tls::Tls::register(&mut whole);
        let registry = whole.sub_registry_with_prefix("rouse_activator");
        let requests = Family::<RequestLabels, Counter>::default();
        registry.register("requests", "Responses by function and status class", requests.clone());
        let unrouted = Family::<UnroutedLabels, Counter>::default();
        registry.register(
            "unrouted_requests",
            "Requests that were not routed to a function, by problem type: unknown host, malformed",
            unrouted.clone(),
        );
        let wakes = Family::<WakeLabels, Counter>::default();
        registry.register("wakes", "Scale patches that wake a revision from zero, by result", wakes.clone());
        let mirrored = Family::<MirrorLabels, Counter>::default();
        registry.register(
            "mirrored_requests",
            "Mirrored requests to the tag of spec.mirror, by result",
            mirrored.clone(),
        );
        let bounds = [0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0];
        let cold_starts = Histogram::new(bounds);
        registry.register_with_unit(
            "cold_start",
            "Time that requests waited for a pod to start",
            Unit::Seconds,
            cold_starts.clone(),
        );
        let probes = Counter::default();
        registry.register("probes", "Readiness probes of pods", probes.clone());
        let retries = Counter::default();
        registry.register("retries", "Requests sent to another pod after a connect failed", retries.clone());
        let client_disconnects = Counter::default();
        registry.register(
            "client_disconnects",
            "Clients that disconnected while their request was queued",
            client_disconnects.clone(),
        );
        let connections = connections::Connections::register(registry);
        let queue = QueueMetrics::register(registry);
        let watches = watch::Watches::register(registry);
        let overload = overload::Overload::register(registry);
        let build = [
            ("version", env!("CARGO_PKG_VERSION")),
            ("profile", if cfg!(debug_assertions) { "debug" } else { "release" }),
        ];
        registry.register(
            "build",
            "Version and build profile",
            Info::new(build.map(|(k, v)| (k.to_owned(), v.to_owned())).to_vec()),
        );
        registry.register_collector(Box::new(DemandCollector(demand)));
        Arc::new(Self {
            registry: whole,
            requests,
            unrouted,
            wakes,
            mirrored,
            queue,
            watches,
            tls,
            connections,
            overload,
            cold_starts,
            probes,
            retries,
            client_disconnects,
            functions: Mutex::default(),
        })
    }

    /// Returns the counters of a function, which are removed after their last use. A Function recreated under the same
    /// name continues those of the previous one while that has requests.
    #[must_use]
    pub fn function(self: &Arc<Self>, key: &FunctionKey) -> Arc<FunctionMetrics> {
        let mut functions = self.functions.lock();
        let existing = functions.entry(key.clone()).or_default();
        existing.upgrade().unwrap_or_else(|| {
            let new = Arc::new(FunctionMetrics {
                metrics: self.clone(),
                key: key.clone(),
                classes: <[OnceLock<Counter>; 6]>::default(),
                rejected: RejectCounters::default(),
            });
            *existing = Arc::downgrade(&new);
            new
        })
    }

    /// Counts a request that was not routed to a function. `reason` is one of a few fixed words, never the client's.
    pub fn record_unrouted(&self, reason: &'static str) {
        self.unrouted.get_or_create(&UnroutedLabels { reason }).inc();
    }

    /// Counts a scale patch. `result` is one of a few fixed words.
    pub fn record_wake(&self, result: &'static str) {
        self.wakes.get_or_create(&WakeLabels { result }).inc();
    }

    /// Counts a mirrored request. `result` is one of a few fixed words.
    pub(crate) fn record_mirrored(&self, result: &'static str) {
        self.mirrored.get_or_create(&MirrorLabels { result }).inc();
    }

    /// Sets the source of the gauges of what is queued in the process.
    pub(crate) fn watch_queue(&self, usage: impl Fn() -> QueueUsage + Send + Sync + 'static) {
        self.queue.watch(usage);
    }

    /// Adds the source of the age of a watch. `kind` is one of a few fixed words.
    pub(crate) fn watch_age(&self, kind: &'static str, age: impl Fn() -> Option<Duration> + Send + Sync + 'static) {
        self.watches.add(kind, age);
    }

    /// Counts a wake that was delayed by a rate limit. `scope` is one of a few fixed words.
    pub(crate) fn record_delayed_wake(&self, scope: &'static str) {
        self.queue.throttled(scope);
    }

    /// Counts a panic. `task` is one of a few fixed words.
    pub(crate) fn record_panic(&self, task: &'static str) {
        self.queue.panicked(task);
    }

    /// Returns all metrics as OpenMetrics text.
    ///
    /// # Errors
    ///
    /// If a metric cannot be encoded, which would be a bug.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut out = String::new();
        text::encode(&mut out, &self.registry)?;
        Ok(out)
    }
}

impl FunctionMetrics {
    /// Counts a response.
    pub fn record_response(&self, status: http::StatusCode) {
        let class = usize::from(status.as_u16() / 100);
        let class = if class < CLASSES.len() { class } else { 0 };
        self.classes[class].get_or_init(|| self.metrics.requests.get_or_create_owned(&self.labels(class))).inc();
    }

    /// Counts a request that was rejected before it reached a pod.
    pub(crate) fn record_rejected(&self, reason: RejectReason) {
        self.metrics.queue.rejected(&self.rejected, &self.key, reason);
    }

    fn labels(&self, class: usize) -> RequestLabels {
        RequestLabels {
            namespace: self.key.namespace.to_string(),
            function: self.key.name.to_string(),
            code: CLASSES[class],
        }
    }
}

impl Drop for FunctionMetrics {
    fn drop(&mut self) {
        let mut functions = self.metrics.functions.lock();
        if functions.get(&self.key).is_some_and(|existing| existing.strong_count() > 0) {
            // Another user of the name was created concurrently, and counts by the same labels.
            return;
        }
        functions.remove(&self.key);
        for (class, counter) in self.classes.iter().enumerate() {
            if counter.get().is_some() {
                self.metrics.requests.remove(&self.labels(class));
            }
        }
        self.metrics.queue.forget(&self.rejected, &self.key);
    }
}

impl Collector for DemandCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut rows = vec![];
        self.0.visit(&mut |demand| {
            let labels = RevisionLabels {
                namespace: demand.namespace.clone(),
                function: demand.function.clone(),
                revision: demand.revision.clone(),
            };
            rows.push((labels, demand.in_flight, demand.queued + demand.held));
        });
        for (name, help, pick) in [
            ("in_flight", "Requests in flight in pods", (|row| row.1) as fn(&(RevisionLabels, u64, u64)) -> u64),
            ("queued", "Requests queued for a pod", |row| row.2),
        ] {
            let gauge = ConstGauge::new(0_u64);
            let mut metric = encoder.encode_descriptor(name, help, None, gauge.metric_type())?;
            for row in &rows {
                ConstGauge::new(pick(row)).encode(metric.encode_family(&row.0)?)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demand::Ledger;

    #[tokio::test]
    async fn a_recreated_function_keeps_counting_when_the_previous_one_ends() {
        let metrics = Metrics::new(Ledger::new());
        let previous = metrics.function(&FunctionKey::new("ns", "f"));
        previous.record_response(http::StatusCode::OK);
        let recreated = metrics.function(&FunctionKey::new("ns", "f"));
        recreated.record_response(http::StatusCode::OK);
        drop(previous);
        recreated.record_response(http::StatusCode::OK);
        let line = r#"rouse_activator_requests_total{namespace="ns",function="f",code="2xx"}"#;
        assert!(metrics.encode().unwrap().contains(&format!("{line} 3")));
        drop(recreated);
        assert!(!metrics.encode().unwrap().contains(line));
        assert!(metrics.functions.lock().is_empty());
    }

    #[tokio::test]
    async fn a_function_has_its_own_labels_until_it_is_deleted() {
        let ledger = Ledger::new();
        let metrics = Metrics::new(ledger.clone());
        let account = ledger.account("ns", "f", "f-00001");
        account.queue();
        let function = metrics.function(&FunctionKey::new("ns", "f"));
        function.record_response(http::StatusCode::OK);
        function.record_response(http::StatusCode::IM_A_TEAPOT);
        function.record_rejected(RejectReason::Deleted);
        metrics.record_delayed_wake("namespace");
        metrics.watch_queue(|| QueueUsage { requests: 3, bytes: 5 });
        metrics.watch_age("pods", || Some(Duration::from_secs(7)));
        metrics.watch_age("functions", || None);
        metrics.record_unrouted("unknown-host");
        metrics.record_wake("awake");
        let text = metrics.encode().unwrap();
        for line in [
            r#"rouse_activator_requests_total{namespace="ns",function="f",code="2xx"} 1"#,
            r#"rouse_activator_requests_total{namespace="ns",function="f",code="4xx"} 1"#,
            r#"rouse_activator_unrouted_requests_total{reason="unknown-host"} 1"#,
            r#"rouse_activator_rejected_total{namespace="ns",function="f",reason="deleted"} 1"#,
            r#"rouse_activator_wakes_throttled_total{scope="namespace"} 1"#,
            "rouse_activator_queued_requests 3",
            "rouse_activator_queued_bytes 5",
            r#"rouse_activator_watch_age_seconds{kind="pods"} 7"#,
            r#"rouse_activator_wakes_total{result="awake"} 1"#,
            r#"rouse_activator_queued{namespace="ns",function="f",revision="f-00001"} 1"#,
            r#"rouse_activator_in_flight{namespace="ns",function="f",revision="f-00001"} 0"#,
            "\nprocess_resident_memory_bytes ",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        drop(function);
        let text = metrics.encode().unwrap();
        assert!(!text.contains("activator_requests_total{") && !text.contains("rejected_total{"), "{text}");
    }
}
