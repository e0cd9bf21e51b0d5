//! What the operator counts. No label is taken from anything a user can name freely.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
        info::Info,
    },
    registry::{Registry, Unit},
};

/// All metrics of the process; a clone counts into the same.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    reconciles: Family<Outcome, Counter>,
    reconcile_seconds: Histogram,
    writes: Family<Write, Counter>,
    scales: Family<Scale, Counter>,
    corrections: Counter,
    refused: Family<Refusal, Counter>,
    leader: Gauge,
    streams: Gauge,
    ingress_accepted: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Write {
    verb: &'static str,
    resource: String,
    code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Scale {
    direction: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Refusal {
    what: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("rouse_operator");
        let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "What this program was built from", build);
        let reconciles = Family::default();
        registry.register("reconciles", "Functions reconciled", reconciles.clone());
        let reconcile_seconds = Histogram::new(exponential_buckets(0.0001, 4.0, 10));
        registry.register_with_unit(
            "reconcile",
            "How long a reconcile takes",
            Unit::Seconds,
            reconcile_seconds.clone(),
        );
        let writes = Family::default();
        registry.register(
            "api_writes",
            "Requests to the API server that change something, by their answer",
            writes.clone(),
        );
        let scales = Family::default();
        registry.register("scales", "Changes of a replica count", scales.clone());
        let corrections = Counter::default();
        registry.register(
            "scale_corrections",
            "Replica counts that somebody else has set and that were changed again",
            corrections.clone(),
        );
        let refused = Family::default();
        registry.register(
            "demand_refused",
            "What activators have said of demand and cannot be, by what is wrong with it",
            refused.clone(),
        );
        let leader = Gauge::default();
        registry.register("leader", "1 if this replica is the leader", leader.clone());
        let streams = Gauge::default();
        registry.register("demand_streams", "Activators whose demand is being read", streams.clone());
        let ingress_accepted = Gauge::default();
        registry.register(
            "ingress_accepted",
            "1 if nothing is known that keeps the cluster's ingress from serving public hosts; told by the leader",
            ingress_accepted.clone(),
        );
        Self {
            registry: Arc::new(Mutex::new(registry)),
            reconciles,
            reconcile_seconds,
            writes,
            scales,
            corrections,
            refused,
            leader,
            streams,
            ingress_accepted,
        }
    }
}

impl Metrics {
    /// A Function was reconciled.
    pub fn reconciled(&self, took: Duration, well: bool) {
        self.reconciles.get_or_create(&Outcome { result: if well { "success" } else { "error" } }).inc();
        self.reconcile_seconds.observe(took.as_secs_f64());
    }

    /// The API server answered a request that changes something. `code` 0 is no answer.
    pub fn wrote(&self, verb: &'static str, resource: String, code: u16) {
        self.writes.get_or_create(&Write { verb, resource, code }).inc();
    }

    /// How many writes there were, whatever came of them.
    pub fn writes(&self, verb: &'static str, resource: &str, code: u16) -> u64 {
        self.writes.get_or_create(&Write { verb, resource: resource.to_owned(), code }).get()
    }

    /// A replica count was changed.
    pub fn scaled(&self, direction: &'static str, reason: &'static str) {
        self.scales.get_or_create(&Scale { direction, reason }).inc();
    }

    /// A count that somebody else has set was changed again.
    pub fn corrected(&self) {
        self.corrections.inc();
    }

    /// An activator said something that cannot be.
    pub fn refused(&self, what: &'static str) {
        self.refused.get_or_create(&Refusal { what }).inc();
    }

    /// Whether this replica leads.
    pub fn leading(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    /// An activator's stream was opened (1) or closed (-1).
    pub fn streams(&self, change: i64) {
        self.streams.inc_by(change);
    }

    /// Whether nothing keeps the cluster's ingress from serving public hosts.
    pub fn ingress_accepted(&self, accepted: bool) {
        self.ingress_accepted.set(i64::from(accepted));
    }

    /// In the OpenMetrics text format.
    pub fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry.lock())?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_was_counted() {
        let metrics = Metrics::default();
        metrics.reconciled(Duration::from_millis(2), true);
        metrics.wrote("create", "services".to_owned(), 201);
        metrics.scaled("down", "idle");
        metrics.corrected();
        metrics.refused("sequence");
        metrics.leading(true);
        metrics.streams(1);
        metrics.ingress_accepted(true);
        let text = metrics.text().unwrap();
        for line in [
            r#"rouse_operator_reconciles_total{result="success"} 1"#,
            r#"rouse_operator_api_writes_total{verb="create",resource="services",code="201"} 1"#,
            r#"rouse_operator_scales_total{direction="down",reason="idle"} 1"#,
            "rouse_operator_scale_corrections_total 1",
            r#"rouse_operator_demand_refused_total{what="sequence"} 1"#,
            "rouse_operator_leader 1",
            "rouse_operator_demand_streams 1",
            "rouse_operator_ingress_accepted 1",
            "rouse_operator_reconcile_seconds_count 1",
            "rouse_operator_build_info",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
