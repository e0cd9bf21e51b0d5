//! Ages of the watches, read at each scrape.

use std::{fmt, sync::Arc, time::Duration};

use parking_lot::Mutex;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric},
    metrics::gauge::ConstGauge,
    registry::{Registry, Unit},
};

/// Ages of the watches. Their sources are added at startup.
#[derive(Clone, Default)]
pub(super) struct Watches(Arc<Mutex<Vec<(&'static str, Age)>>>);

type Age = Box<dyn Fn() -> Option<Duration> + Send + Sync>;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WatchLabels {
    kind: &'static str,
}

impl Watches {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let watches = Self::default();
        registry.register_collector(Box::new(watches.clone()));
        watches
    }

    pub(super) fn add(&self, kind: &'static str, age: impl Fn() -> Option<Duration> + Send + Sync + 'static) {
        self.0.lock().push((kind, Box::new(age)));
    }
}

impl fmt::Debug for Watches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Watches").finish_non_exhaustive()
    }
}

impl Collector for Watches {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let ages: Vec<_> = self.0.lock().iter().filter_map(|(kind, age)| Some((*kind, age()?))).collect();
        if ages.is_empty() {
            return Ok(());
        }
        let help = "Time since the API server was last heard on the watch of this kind";
        let metric_type = ConstGauge::new(0.0).metric_type();
        let mut metric = encoder.encode_descriptor("watch_age", help, Some(&Unit::Seconds), metric_type)?;
        for (kind, age) in ages {
            ConstGauge::new(age.as_secs_f64()).encode(metric.encode_family(&WatchLabels { kind })?)?;
        }
        Ok(())
    }
}
