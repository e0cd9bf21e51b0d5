//! Gauges of client connections.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, gauge::Gauge},
    registry::Registry,
};

/// Gauges of client connections by listener and protocol.
#[derive(Clone, Debug, Default)]
pub(crate) struct Connections(Family<ConnectionLabels, Gauge>);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ConnectionLabels {
    listener: &'static str,
    protocol: &'static str,
}

/// A connection, counted until this is dropped.
#[derive(Debug)]
pub(crate) struct OpenConnection {
    connections: Connections,
    labels: ConnectionLabels,
}

impl Connections {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let connections = Self::default();
        registry.register(
            "connections",
            "Client connections by listener and protocol; `new` before the first request",
            connections.0.clone(),
        );
        connections
    }

    /// Counts a new connection. `listener` is one of a few fixed words.
    pub(crate) fn open(&self, listener: &'static str) -> OpenConnection {
        let open = OpenConnection { connections: self.clone(), labels: ConnectionLabels { listener, protocol: "new" } };
        open.add(1);
        open
    }
}

impl OpenConnection {
    /// Sets the protocol, which is one of a few fixed words.
    pub(crate) fn set_protocol(&mut self, protocol: &'static str) {
        if self.labels.protocol != protocol {
            self.add(-1);
            self.labels.protocol = protocol;
            self.add(1);
        }
    }

    fn add(&self, count: i64) {
        self.connections.0.get_or_create(&self.labels).inc_by(count);
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.add(-1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_has_one_protocol_at_a_time() {
        let mut registry = Registry::default();
        let connections = Connections::register(&mut registry);
        let gauges = || {
            let count =
                |protocol| connections.0.get_or_create(&ConnectionLabels { listener: "public", protocol }).get();
            ["new", "http1", "tunnel"].map(count)
        };
        let mut one = connections.open("public");
        let other = connections.open("public");
        assert_eq!(gauges(), [2, 0, 0]);
        one.set_protocol("http1");
        one.set_protocol("http1");
        assert_eq!(gauges(), [1, 1, 0]);
        one.set_protocol("tunnel");
        drop(other);
        assert_eq!(gauges(), [0, 0, 1]);
        drop(one);
        assert_eq!(gauges(), [0, 0, 0]);
    }
}
