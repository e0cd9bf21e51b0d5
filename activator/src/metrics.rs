//! Counts for operators. A function's counters are looked up once, when its gate is made; a request only adds to them.

mod process;
mod sample;
mod tls;

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, OnceLock, Weak},
};

use parking_lot::Mutex;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, text},
    metrics::{counter::Counter, family::Family, gauge::ConstGauge, histogram::Histogram, info::Info},
    registry::{Registry, Unit},
};

use self::waiting::{TurnedAway, Waiting};
use crate::{
    admit::{Budget, Refusal, Scope},
    demand::Ledger,
    wake::WakeError,
};

mod waiting;

/// Namespace and name of a Function.
type Name = (Box<str>, Box<str>);

/// Counts for operators.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    refused: Family<RefusedLabels, Counter>,
    wakes: Family<WakeLabels, Counter>,
    mirrored: Family<MirrorLabels, Counter>,
    waiting: Waiting,
    pub(crate) tls: tls::Tls,
    /// How long cold requests waited, in seconds.
    pub cold_starts: Histogram,
    /// Tries to find out whether a pod takes requests.
    pub probes: Counter,
    /// Requests sent again because the first pod could not be connected to.
    pub retries: Counter,
    /// Clients that left while they waited for a pod.
    pub departures: Counter,
    /// Bounded by the Functions that there are, and those that are gone and have requests.
    functions: Mutex<HashMap<Name, Weak<FunctionMetrics>>>,
}

/// The counters of one function.
#[derive(Debug)]
pub struct FunctionMetrics {
    metrics: Arc<Metrics>,
    namespace: Box<str>,
    function: Box<str>,
    classes: [OnceLock<Counter>; 6],
    turned_away: TurnedAway,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    namespace: String,
    function: String,
    code: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusedLabels {
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

#[derive(Debug)]
struct DemandCollector(Arc<Ledger>);

const CLASSES: [&str; 6] = ["other", "1xx", "2xx", "3xx", "4xx", "5xx"];

impl Metrics {
    /// All metrics at zero.
    #[must_use]
    pub fn new(ledger: Arc<Ledger>) -> Arc<Self> {
        let mut whole = Registry::default();
        whole.register_collector(Box::new(process::Process));
        let tls = tls::Tls::register(&mut whole);
        let registry = whole.sub_registry_with_prefix("rouse_activator");
        let requests = Family::<RequestLabels, Counter>::default();
        registry.register("requests", "Answers given, by function and class of status", requests.clone());
        let refused = Family::<RefusedLabels, Counter>::default();
        registry.register("refused", "Requests answered without a function: unknown host, malformed", refused.clone());
        let wakes = Family::<WakeLabels, Counter>::default();
        registry.register("wakes", "Scale patches sent, by result", wakes.clone());
        let mirrored = Family::<MirrorLabels, Counter>::default();
        registry.register(
            "mirrored",
            "Copies of requests for the tag of spec.mirror, by what became of them",
            mirrored.clone(),
        );
        let bounds = [0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0];
        let cold_starts = Histogram::new(bounds);
        registry.register_with_unit(
            "cold_start",
            "How long requests waited for a pod that had to start",
            Unit::Seconds,
            cold_starts.clone(),
        );
        let probes = Counter::default();
        registry.register("probes", "Tries to find out whether a pod takes requests", probes.clone());
        let retries = Counter::default();
        registry.register(
            "retries",
            "Requests sent to another pod because nothing of them had reached the first",
            retries.clone(),
        );
        let departures = Counter::default();
        registry.register("departures", "Clients that left while they waited for a pod", departures.clone());
        let waiting = Waiting::register(registry);
        let build = [
            ("version", env!("CARGO_PKG_VERSION")),
            ("profile", if cfg!(debug_assertions) { "debug" } else { "release" }),
        ];
        registry.register(
            "build",
            "What this is",
            Info::new(build.map(|(k, v)| (k.to_owned(), v.to_owned())).to_vec()),
        );
        registry.register_collector(Box::new(DemandCollector(ledger)));
        Arc::new(Self {
            registry: whole,
            requests,
            refused,
            wakes,
            mirrored,
            waiting,
            tls,
            cold_starts,
            probes,
            retries,
            departures,
            functions: Mutex::default(),
        })
    }

    /// The counters of a function; they go when nobody has them any more. One that is made anew under its name goes on with
    /// those of the former while that has requests.
    #[must_use]
    pub fn function(self: &Arc<Self>, namespace: &str, function: &str) -> Arc<FunctionMetrics> {
        let mut functions = self.functions.lock();
        let known = functions.entry((namespace.into(), function.into())).or_default();
        known.upgrade().unwrap_or_else(|| {
            let new = Arc::new(FunctionMetrics {
                metrics: self.clone(),
                namespace: namespace.into(),
                function: function.into(),
                classes: <[OnceLock<Counter>; 6]>::default(),
                turned_away: TurnedAway::default(),
            });
            *known = Arc::downgrade(&new);
            new
        })
    }

    /// Counts a request that no function was found for. `reason` is one of a few fixed words, never the client's.
    pub fn refused(&self, reason: &'static str) {
        self.refused.get_or_create(&RefusedLabels { reason }).inc();
    }

    /// Counts a scale patch.
    pub fn woken(&self, result: &Result<(), WakeError>) {
        let result = match result {
            Ok(()) => "woken",
            Err(WakeError::Awake) => "awake",
            Err(WakeError::Missing) => "missing",
            Err(WakeError::Denied { .. }) => "denied",
            Err(WakeError::Busy { .. }) => "busy",
        };
        self.wakes.get_or_create(&WakeLabels { result }).inc();
    }

    /// Counts a copy of a request. `result` is one of a few fixed words.
    pub(crate) fn mirrored(&self, result: &'static str) {
        self.mirrored.get_or_create(&MirrorLabels { result }).inc();
    }

    /// Tells what waits under this budget from now on.
    pub(crate) fn watch(&self, budget: &Arc<Budget>) {
        self.waiting.watch(budget);
    }

    /// Counts a wake that has to wait for its turn.
    pub(crate) fn throttled(&self, scope: Scope) {
        self.waiting.throttled(scope);
    }

    /// Counts a defect. `task` is one of a few fixed words.
    pub(crate) fn panicked(&self, task: &'static str) {
        self.waiting.panicked(task);
    }

    /// Everything, as OpenMetrics text.
    ///
    /// # Errors
    ///
    /// If a metric cannot be written, which would be a defect here.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut out = String::new();
        text::encode(&mut out, &self.registry)?;
        Ok(out)
    }
}

impl FunctionMetrics {
    /// Counts an answer.
    pub fn answered(&self, status: http::StatusCode) {
        let class = usize::from(status.as_u16() / 100);
        let class = if class < CLASSES.len() { class } else { 0 };
        self.classes[class].get_or_init(|| self.metrics.requests.get_or_create_owned(&self.labels(class))).inc();
    }

    /// Counts a request that no pod was given.
    pub(crate) fn turned_away(&self, refusal: &Refusal) {
        self.metrics.waiting.turned_away(&self.turned_away, &self.namespace, &self.function, refusal);
    }

    fn labels(&self, class: usize) -> RequestLabels {
        RequestLabels {
            namespace: self.namespace.to_string(),
            function: self.function.to_string(),
            code: CLASSES[class],
        }
    }
}

impl Drop for FunctionMetrics {
    fn drop(&mut self) {
        let mut functions = self.metrics.functions.lock();
        let key = (self.namespace.clone(), self.function.clone());
        if functions.get(&key).is_some_and(|known| known.strong_count() > 0) {
            // Others have come under the name in this very moment, and count by the same labels.
            return;
        }
        functions.remove(&key);
        for (class, counter) in self.classes.iter().enumerate() {
            if counter.get().is_some() {
                self.metrics.requests.remove(&self.labels(class));
            }
        }
        self.metrics.waiting.forget(&self.turned_away, &self.namespace, &self.function);
    }
}

impl Collector for DemandCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut rows = vec![];
        self.0.each(|demand| {
            let labels = RevisionLabels {
                namespace: demand.namespace.clone(),
                function: demand.function.clone(),
                revision: demand.revision.clone(),
            };
            rows.push((labels, demand.in_flight, demand.queued));
        });
        for (name, help, pick) in [
            ("in_flight", "Requests in pods now", (|row| row.1) as fn(&(RevisionLabels, u64, u64)) -> u64),
            ("queued", "Requests that wait for a pod now", |row| row.2),
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

    #[tokio::test]
    async fn one_that_is_made_anew_goes_on_counting_when_the_former_ends() {
        let metrics = Metrics::new(Ledger::new());
        let former = metrics.function("ns", "f");
        former.answered(http::StatusCode::OK);
        let anew = metrics.function("ns", "f");
        anew.answered(http::StatusCode::OK);
        drop(former);
        anew.answered(http::StatusCode::OK);
        let line = r#"rouse_activator_requests_total{namespace="ns",function="f",code="2xx"}"#;
        assert!(metrics.encode().unwrap().contains(&format!("{line} 3")));
        drop(anew);
        assert!(!metrics.encode().unwrap().contains(line));
        assert!(metrics.functions.lock().is_empty());
    }

    #[tokio::test]
    async fn a_function_has_its_own_labels_until_it_goes() {
        let ledger = Ledger::new();
        let metrics = Metrics::new(ledger.clone());
        let account = ledger.account("ns", "f", "f-00001");
        account.queue();
        let function = metrics.function("ns", "f");
        function.answered(http::StatusCode::OK);
        function.answered(http::StatusCode::IM_A_TEAPOT);
        function.turned_away(&Refusal::Deleted);
        metrics.throttled(Scope::Namespace);
        metrics.watch(&Arc::new(Budget::new(crate::admit::Caps { requests: 1, bytes: 1 })));
        metrics.refused("unknown-host");
        metrics.woken(&Err(WakeError::Awake));
        let text = metrics.encode().unwrap();
        for line in [
            r#"rouse_activator_requests_total{namespace="ns",function="f",code="2xx"} 1"#,
            r#"rouse_activator_requests_total{namespace="ns",function="f",code="4xx"} 1"#,
            r#"rouse_activator_refused_total{reason="unknown-host"} 1"#,
            r#"rouse_activator_turned_away_total{namespace="ns",function="f",reason="deleted"} 1"#,
            r#"rouse_activator_wakes_throttled_total{scope="namespace"} 1"#,
            "rouse_activator_waiting_requests 0",
            "rouse_activator_waiting_bytes 0",
            r#"rouse_activator_wakes_total{result="awake"} 1"#,
            r#"rouse_activator_queued{namespace="ns",function="f",revision="f-00001"} 1"#,
            r#"rouse_activator_in_flight{namespace="ns",function="f",revision="f-00001"} 0"#,
            "\nprocess_resident_memory_bytes ",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        drop(function);
        let text = metrics.encode().unwrap();
        assert!(!text.contains("requests_total{") && !text.contains("away_total{"), "{text}");
    }
}
