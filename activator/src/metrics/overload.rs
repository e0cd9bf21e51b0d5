//! Metrics of connections and of the overload manager.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};

/// Metrics of connections and of the overload manager.
#[derive(Clone, Debug, Default)]
pub(crate) struct Overload {
    /// Stage: 0 normal, 1 trim, 2 shrink, 3 reject.
    pub(crate) stage: Gauge,
    /// Memory limit that the stages refer to.
    pub(crate) memory_limit: Gauge,
    /// Memory in use, as read last.
    pub(crate) memory_used: Gauge,
    /// Maximum number of client connections.
    pub(crate) max_connections: Gauge,
    /// Times at which a new connection had to wait for a slot.
    pub(crate) slots_exhausted: Counter,
    closed: Family<ReasonLabels, Counter>,
    refused: Family<ReasonLabels, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

impl Overload {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "overload_stage",
            "Stage of memory pressure: 0 normal, 1 trim, 2 shrink, 3 reject",
            metrics.stage.clone(),
        );
        registry.register_with_unit(
            "memory_limit",
            "Memory limit that the caps and the stages of memory pressure follow from",
            Unit::Bytes,
            metrics.memory_limit.clone(),
        );
        registry.register_with_unit(
            "memory_used",
            "Memory in use, of the control group if that has a limit",
            Unit::Bytes,
            metrics.memory_used.clone(),
        );
        registry.register(
            "max_connections",
            "Maximum number of client connections of all listeners",
            metrics.max_connections.clone(),
        );
        registry.register(
            "connection_slots_exhausted",
            "Times at which all connection slots were in use and a new connection had to wait",
            metrics.slots_exhausted.clone(),
        );
        registry.register(
            "idle_connections_closed",
            "Idle connections closed before their timeout, by reason: memory, slots",
            metrics.closed.clone(),
        );
        registry.register(
            "connections_refused",
            "Connections refused with 503 when they were accepted, by reason: memory, client, descriptors",
            metrics.refused.clone(),
        );
        metrics
    }

    /// Counts idle connections that were closed. `reason` is one of a few fixed words.
    pub(crate) fn record_closed(&self, reason: &'static str, count: usize) {
        self.closed.get_or_create(&ReasonLabels { reason }).inc_by(count as u64);
    }

    /// Counts a refused connection. `reason` is one of a few fixed words.
    pub(crate) fn record_refused(&self, reason: &'static str) {
        self.refused.get_or_create(&ReasonLabels { reason }).inc();
    }
}
