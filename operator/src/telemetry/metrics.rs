//! Prometheus metrics of the operator. No label contains text that users choose freely.

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

/// Metrics of the process. Clones share their values.
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
    ingress_rejected: Gauge,
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
    reason: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("rouse_operator");
        let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "Version of the operator", build);
        let reconciles = Family::default();
        registry.register("reconciles", "Reconciles of Functions, by result", reconciles.clone());
        let reconcile_seconds = Histogram::new(exponential_buckets(0.0001, 4.0, 10));
        registry.register_with_unit("reconcile", "Duration of a reconcile", Unit::Seconds, reconcile_seconds.clone());
        let writes = Family::default();
        registry.register(
            "api_writes",
            "Write requests to the API server, by verb, resource and status code (0 if there was no response)",
            writes.clone(),
        );
        let scales = Family::default();
        registry.register("scales", "Changes of replica counts by the scaler, by direction and reason", scales.clone());
        let corrections = Counter::default();
        registry.register(
            "scale_corrections",
            "Replica counts that another client set and the scaler changed again",
            corrections.clone(),
        );
        let refused = Family::default();
        registry.register(
            "demand_rejections",
            "Invalid demand frames, or parts of them, that were rejected, by reason",
            refused.clone(),
        );
        let leader = Gauge::default();
        registry.register("leader", "1 if this replica is the leader, else 0", leader.clone());
        let streams = Gauge::default();
        registry.register("demand_streams", "Open demand streams of activators", streams.clone());
        let ingress_accepted = Gauge::default();
        registry.register(
            "ingress_accepted",
            "1 if no problem is known that keeps the ingress from serving public hosts, else 0; set by the leader only",
            ingress_accepted.clone(),
        );
        let ingress_rejected = Gauge::default();
        registry.register(
            "ingress_rejected_functions",
            "Functions whose hosts the API server rejects in an Ingress or HTTPRoute; set by the leader only",
            ingress_rejected.clone(),
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
            ingress_rejected,
        }
    }
}

impl Metrics {
    /// Counts a reconcile of a Function and its duration.
    pub fn reconciled(&self, duration: Duration, success: bool) {
        self.reconciles.get_or_create(&Outcome { result: if success { "success" } else { "error" } }).inc();
        self.reconcile_seconds.observe(duration.as_secs_f64());
    }

    /// Counts a write request to the API server. `code` is 0 without a response.
    pub fn wrote(&self, verb: &'static str, resource: String, code: u16) {
        self.writes.get_or_create(&Write { verb, resource, code }).inc();
    }

    /// Returns the number of write requests with this status code.
    pub fn writes(&self, verb: &'static str, resource: &str, code: u16) -> u64 {
        self.writes.get_or_create(&Write { verb, resource: resource.to_owned(), code }).get()
    }

    /// Counts a change of a replica count.
    pub fn scaled(&self, direction: &'static str, reason: &'static str) {
        self.scales.get_or_create(&Scale { direction, reason }).inc();
    }

    /// Counts a correction of a replica count that another client set.
    pub fn corrected(&self) {
        self.corrections.inc();
    }

    /// Counts an invalid demand frame, or a part of one, that was rejected.
    pub fn refused(&self, reason: &'static str) {
        self.refused.get_or_create(&Refusal { reason }).inc();
    }

    /// Sets whether this replica is the leader.
    pub fn leading(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    /// Counts a demand stream that was opened (1) or closed (-1).
    pub fn streams(&self, change: i64) {
        self.streams.inc_by(change);
    }

    /// Sets whether the ingress serves public hosts, as far as known.
    pub fn ingress_accepted(&self, accepted: bool) {
        self.ingress_accepted.set(i64::from(accepted));
    }

    /// Sets the number of Functions whose hosts the API server rejects.
    pub fn ingress_rejected(&self, functions: usize) {
        self.ingress_rejected.set(i64::try_from(functions).unwrap_or(i64::MAX));
    }

    /// Encodes the metrics in the OpenMetrics text format.
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
    fn encodes_all_metrics() {
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
            r#"rouse_operator_demand_rejections_total{reason="sequence"} 1"#,
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
