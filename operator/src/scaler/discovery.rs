//! Discovery of activators: runs one demand stream reader per endpoint of their Service.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use tokio::{sync::Notify, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{
    Scaler,
    aggregate::Source,
    stream::{self, TokenFile},
};
use crate::cluster::key::FunctionKey;

/// Name of the activators' admin port.
const PORT: &str = "admin";

/// Interval at which the demand of deleted revisions is dropped.
const CLEANUP_INTERVAL: Duration = Duration::from_secs(300);

/// Runs a reader for each activator in the EndpointSlices of `service`, until `stop`. Each shows the activator its token.
pub async fn run(
    scaler: Arc<Scaler>,
    service: FunctionKey,
    token: TokenFile,
    changed: Arc<Notify>,
    stop: CancellationToken,
) {
    let mut cleanup = tokio::time::interval(CLEANUP_INTERVAL);
    let mut readers = JoinSet::new();
    let mut running = HashMap::new();
    loop {
        let sources = sources(&scaler.caches.slices.of(&service));
        running.retain(|source, reader: &mut tokio::task::AbortHandle| {
            let listed = sources.contains_key(source);
            if !listed {
                tracing::info!(activator = %source.address, "Activator removed");
                reader.abort();
            }
            // A reader that panicked is restarted.
            listed && !reader.is_finished()
        });
        scaler.set_sources(&sources);
        for source in sources.into_keys() {
            running.entry(source.clone()).or_insert_with(|| {
                tracing::info!(activator = %source.address, "Activator added");
                let (frames, gauge, faults) = (Arc::clone(&scaler), Arc::clone(&scaler), Arc::clone(&scaler));
                let from = source.clone();
                readers.spawn(stream::follow(
                    source,
                    token.clone(),
                    move |frame| frames.apply_frame(&from, frame),
                    move |change| gauge.metrics.streams(change),
                    move |fault| faults.metrics.refused(fault.label()),
                ))
            });
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = changed.notified() => {}
            _ = cleanup.tick() => scaler.drop_deleted_revisions(),
            // Removes aborted readers: without this the set would grow with every former activator.
            Some(_) = readers.join_next(), if !readers.is_empty() => {}
        }
    }
}

/// Returns every endpoint, including terminating and unready ones, which may still have requests. The value is whether a
/// current frame is required for a scale-down: `false` for an activator that is starting.
fn sources(slices: &[Arc<EndpointSlice>]) -> HashMap<Source, bool> {
    let mut sources = HashMap::new();
    for slice in slices {
        let ports = slice.ports.iter().flatten();
        let port =
            ports.filter(|p| p.name.as_deref() == Some(PORT)).find_map(|p| p.port).and_then(|p| u16::try_from(p).ok());
        let Some(port) = port else { continue };
        for endpoint in &slice.endpoints {
            let address = endpoint.addresses.first().and_then(|a| a.parse::<IpAddr>().ok());
            let Some(address) = address else { continue };
            let pod = endpoint.target_ref.as_ref().and_then(|t| t.uid.clone());
            sources.insert(Source { address: SocketAddr::new(address, port), pod }, required(endpoint));
        }
    }
    sources
}

fn required(endpoint: &Endpoint) -> bool {
    let Some(conditions) = &endpoint.conditions else { return true };
    let ready = conditions.ready.unwrap_or(true);
    ready || conditions.serving.unwrap_or(ready) || conditions.terminating.unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_endpoint_is_found_and_starting_ones_are_not_required() {
        let slice: EndpointSlice = serde_json::from_value(json!({
            "metadata": {"name": "s"}, "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8081}, {"name": "admin", "port": 9090}],
            "endpoints": [
                {"addresses": ["10.0.0.1"], "conditions": {"ready": true, "serving": true, "terminating": false}, "targetRef": {"uid": "u1"}},
                {"addresses": ["10.0.0.2"], "conditions": {"ready": false, "serving": false, "terminating": false}},
                {"addresses": ["10.0.0.3"], "conditions": {"ready": false, "serving": false, "terminating": true}},
                {"addresses": ["10.0.0.4"], "conditions": {}},
            ],
        }))
        .unwrap();
        let portless: EndpointSlice = serde_json::from_value(json!({
            "metadata": {"name": "t"}, "addressType": "IPv4", "ports": [], "endpoints": [{"addresses": ["10.0.0.9"]}],
        }))
        .unwrap();
        let found = sources(&[Arc::new(slice), Arc::new(portless)]);
        let mut found: Vec<_> =
            found.into_iter().map(|(s, required)| (s.address.to_string(), s.pod, required)).collect();
        found.sort();
        assert_eq!(
            found,
            [
                ("10.0.0.1:9090".to_owned(), Some("u1".to_owned()), true),
                ("10.0.0.2:9090".to_owned(), None, false),
                ("10.0.0.3:9090".to_owned(), None, true),
                ("10.0.0.4:9090".to_owned(), None, true),
            ]
        );
    }
}
