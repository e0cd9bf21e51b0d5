//! Telemetry: Prometheus metrics and Kubernetes Events.

pub mod events;
pub mod metrics;
