//! Metrics of the TLS listener.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{counter::Counter, gauge::ConstGauge},
    registry::{Registry, Unit},
};

/// Metrics of the TLS listener.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tls {
    expiry: Expiry,
    /// Handshakes that failed.
    pub(crate) failed_handshakes: Counter,
    /// Reloads that found an unusable certificate.
    pub(crate) failed_reloads: Counter,
}

/// Unix time in seconds; 0 while there is no certificate.
#[derive(Clone, Debug, Default)]
struct Expiry(Arc<AtomicI64>);

impl Tls {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let tls = Self::default();
        let registry = registry.sub_registry_with_prefix("rouse_tls");
        registry.register_collector(Box::new(tls.expiry.clone()));
        registry.register("handshake_failures", "TLS handshakes that failed", tls.failed_handshakes.clone());
        registry.register(
            "certificate_reload_failures",
            "Reloads that found an unusable certificate; the previous one is kept",
            tls.failed_reloads.clone(),
        );
        tls
    }

    /// Sets when the certificate in use expires, as Unix time in seconds.
    pub(crate) fn expires(&self, seconds: i64) {
        self.expiry.0.store(seconds, Ordering::Relaxed);
    }
}

impl Collector for Expiry {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let seconds = self.0.load(Ordering::Relaxed);
        if seconds == 0 {
            // An alert on an expiring certificate must not fire when there is none.
            return Ok(());
        }
        let gauge = ConstGauge::new(seconds);
        let help = "Expiry of the certificate in use, as Unix time";
        gauge.encode(encoder.encode_descriptor(
            "certificate_expiration_timestamp",
            help,
            Some(&Unit::Seconds),
            gauge.metric_type(),
        )?)
    }
}
