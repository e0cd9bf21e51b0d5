//! Counts of the TLS that ends here.

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

/// Counts of the TLS that ends here.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tls {
    expiry: Expiry,
    /// Handshakes that did not come to their end.
    pub(crate) failed_handshakes: Counter,
    /// Changes of the certificate's files that could not be used.
    pub(crate) failed_reloads: Counter,
}

/// In seconds of Unix time; 0 as long as there is no certificate.
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
            "Changes of the certificate that could not be used; the former is kept",
            tls.failed_reloads.clone(),
        );
        tls
    }

    /// Tells from now on when the certificate ends that is in use, in seconds of Unix time.
    pub(crate) fn expires(&self, seconds: i64) {
        self.expiry.0.store(seconds, Ordering::Relaxed);
    }
}

impl Collector for Expiry {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let seconds = self.0.load(Ordering::Relaxed);
        if seconds == 0 {
            // Whoever watches for a certificate that ends soon is not to be told of one that is not there.
            return Ok(());
        }
        let gauge = ConstGauge::new(seconds);
        let help = "When the certificate in use ends, in Unix time";
        gauge.encode(encoder.encode_descriptor(
            "certificate_expiry",
            help,
            Some(&Unit::Seconds),
            gauge.metric_type(),
        )?)
    }
}
