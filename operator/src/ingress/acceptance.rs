//! Acceptance check: whether the IngressClass exists, or the Gateway accepted the HTTPRoutes.
//!
//! The API server accepts an Ingress or HTTPRoute with an unknown class or Gateway, and no controller serves it. So the
//! operator checks it, and reports problems with an Event and in the condition `Routable` of every public Function.

use std::time::Duration;

use k8s_openapi::api::networking::v1::IngressClass;
use kube::{Api, core::DynamicObject, discovery::ApiResource};
use rouse_crds::conditions::{GATEWAY_NOT_READY, INGRESS_CLASS_MISSING};
use tokio::time::Instant;

use super::{
    Gateway, IngressReconciler, RESYNC,
    gateway::{Family, RouteAcceptance},
};
use crate::hosts::LostHost;

/// Time in which a controller must report a status for a route, and the cache of routes must be synced.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Interval of checks while a problem exists or a result is pending.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// State of the acceptance check.
#[derive(Debug, Default)]
pub(super) struct Acceptance {
    /// Time since which a result is pending.
    pending_since: Option<Instant>,
    /// Time of the last lookup of the IngressClass or Gateway, and whether it exists; `None` if the lookup failed.
    lookup: Option<(Instant, Option<bool>)>,
    /// Whether the last check found a problem.
    has_problem: bool,
}

impl Acceptance {
    /// Returns the interval until the next check.
    pub(super) fn interval(&self) -> Duration {
        if self.has_problem || self.is_pending() { CHECK_INTERVAL } else { RESYNC }
    }

    /// Returns whether a result is pending.
    pub(super) fn is_pending(&self) -> bool {
        self.pending_since.is_some()
    }

    /// Updates whether a result is `pending`, and returns whether it has been for too long.
    fn overdue(&mut self, pending: bool, now: Instant) -> bool {
        if !pending {
            self.pending_since = None;
            return false;
        }
        now.duration_since(*self.pending_since.get_or_insert(now)) >= TIMEOUT
    }

    /// Returns whether the next lookup is due.
    fn lookup_due(&self, now: Instant) -> bool {
        self.lookup.is_none_or(|(at, _)| now.duration_since(at) >= self.interval())
    }
}

impl IngressReconciler {
    /// Checks the class of the Ingresses. An empty class is the default of the cluster and is not checked.
    pub(super) async fn ingress_class_problem(&self, class: Option<&str>, state: &mut Acceptance) -> Option<LostHost> {
        let class = class?;
        if state.lookup_due(Instant::now()) {
            let api: Api<IngressClass> = Api::all(self.client.clone());
            state.lookup = Some((Instant::now(), exists("IngressClass", class, api.get_metadata_opt(class).await)));
        }
        state.has_problem = matches!(state.lookup, Some((_, Some(false))));
        state.has_problem.then(|| LostHost {
            host: None,
            reason: INGRESS_CLASS_MISSING,
            message: format!(
                "IngressClass {class} (chart value ingress.className) does not exist, so the ingress serves no public host; create it or change the value. Requests inside the cluster are served"
            ),
        })
    }

    /// Checks the Gateway that `routes` HTTPRoutes attach to.
    pub(super) async fn gateway_problem(
        &self,
        gateway: &Gateway,
        routes: usize,
        state: &mut Acceptance,
    ) -> Option<LostHost> {
        let message = self.gateway_message(gateway, routes, state).await;
        state.has_problem = message.is_some();
        message.map(|message| LostHost {
            host: None,
            reason: GATEWAY_NOT_READY,
            message: format!("{message}. Requests inside the cluster are served"),
        })
    }

    async fn gateway_message(&self, gateway: &Gateway, routes: usize, state: &mut Acceptance) -> Option<String> {
        let cache = &self.caches.httproutes;
        if !cache.is_synced() {
            let message = "Failed to read HTTPRoutes, so no public host is served; check that the CustomResourceDefinitions of the Gateway API (gateway.networking.k8s.io/v1) are installed";
            return state.overdue(true, Instant::now()).then(|| message.to_owned());
        }
        let mut ours = cache.all();
        ours.retain(|route| route.metadata.name.as_deref().and_then(Family::of).is_some());
        // The watch may not have delivered the last write yet.
        let mut pending = ours.len() < routes;
        for route in ours {
            match gateway.acceptance(&route) {
                RouteAcceptance::Accepted => {}
                RouteAcceptance::Pending => pending = true,
                RouteAcceptance::Rejected(message) => {
                    state.pending_since = None;
                    return Some(message);
                }
            }
        }
        let overdue = state.overdue(pending, Instant::now());
        if state.lookup_due(Instant::now()) {
            let resource = ApiResource {
                group: "gateway.networking.k8s.io".to_owned(),
                version: "v1".to_owned(),
                api_version: "gateway.networking.k8s.io/v1".to_owned(),
                kind: "Gateway".to_owned(),
                plural: "gateways".to_owned(),
            };
            let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &gateway.namespace, &resource);
            let found = api.get_metadata_opt(&gateway.name).await;
            state.lookup = Some((Instant::now(), exists("Gateway", &gateway.to_string(), found)));
        }
        let missing = matches!(state.lookup, Some((_, Some(false))));
        // Helm may create the Gateway together with the operator. The routes of a Gateway that was deleted later were
        // accepted.
        if missing && (overdue || !pending) {
            return Some(format!(
                "Gateway {gateway} does not exist, so no public host is served; create it or change the chart value ingress.gateway"
            ));
        }
        overdue.then(|| {
            format!(
                "No controller reported a status for the HTTPRoutes of Gateway {gateway}; check that its GatewayClass exists and that its controller is running"
            )
        })
    }
}

/// Returns whether an object exists; `None` if the request failed.
fn exists<T>(kind: &str, name: &str, found: kube::Result<Option<T>>) -> Option<bool> {
    match found {
        Ok(found) => Some(found.is_some()),
        Err(error) => {
            tracing::warn!(kind, name, %error, "Failed to look up object; will retry");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_pending_result_becomes_overdue() {
        let mut state = Acceptance::default();
        assert!(!state.overdue(true, Instant::now()));
        assert_eq!((state.is_pending(), state.interval()), (true, CHECK_INTERVAL));
        tokio::time::advance(TIMEOUT - Duration::from_millis(1)).await;
        assert!(!state.overdue(true, Instant::now()));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(state.overdue(true, Instant::now()));
        assert!(!state.overdue(false, Instant::now()));
        assert!(!state.overdue(true, Instant::now()), "the time restarts");
    }

    #[tokio::test(start_paused = true)]
    async fn lookups_are_more_frequent_during_a_problem() {
        let mut state = Acceptance::default();
        assert!(state.lookup_due(Instant::now()));
        state.lookup = Some((Instant::now(), Some(true)));
        tokio::time::advance(CHECK_INTERVAL).await;
        assert!(!state.lookup_due(Instant::now()));
        state.has_problem = true;
        assert!(state.lookup_due(Instant::now()), "more often during a problem");
    }
}
