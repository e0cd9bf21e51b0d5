//! One sample of every metric, for the generated reference page.

use std::{fmt, sync::Arc, time::Duration};

use http::StatusCode;
use rouse_crds::demand::RevisionDemand;

use super::{DemandSource, Metrics, queue::QueueUsage, reject_reason::RejectReason};
use crate::function_id::FunctionKey;

/// A source with one revision.
#[derive(Debug)]
struct OneRevision;

impl DemandSource for OneRevision {
    fn visit(&self, visit: &mut dyn FnMut(&RevisionDemand)) {
        visit(&RevisionDemand::default());
    }
}

impl Metrics {
    /// Returns OpenMetrics text in which every metric has a sample. A metric family without a sample is not encoded, so its
    /// help text and labels could not be listed otherwise.
    ///
    /// # Errors
    ///
    /// If a metric cannot be encoded.
    pub fn sample() -> Result<String, fmt::Error> {
        let metrics = Self::new(Arc::new(OneRevision));
        let function = metrics.function(&FunctionKey::new("", ""));
        function.record_response(StatusCode::OK);
        function.record_rejected(RejectReason::Deleted);
        metrics.record_unrouted("");
        metrics.record_wake("");
        metrics.record_mirrored("");
        metrics.record_delayed_wake("");
        metrics.record_panic("");
        metrics.connections.open("");
        metrics.overload.record_closed("", 1);
        metrics.overload.record_refused("");
        metrics.tls.expires(1);
        metrics.watch_age("", || Some(Duration::ZERO));
        metrics.watch_queue(|| QueueUsage { requests: 0, bytes: 0 });
        metrics.encode()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_family_has_a_sample() {
        let text = Metrics::sample().unwrap();
        let families: Vec<_> =
            text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
        assert!(families.len() >= 19, "{families:?}");
        let suffixes = ["{", " ", "_total", "_info", "_bucket"];
        let is_of = |line: &str, family| {
            line.strip_prefix(family).is_some_and(|rest| suffixes.iter().any(|s| rest.starts_with(s)))
        };
        for family in families {
            assert!(text.lines().any(|line| is_of(line, family)), "{family} has no sample in\n{text}");
        }
    }
}
