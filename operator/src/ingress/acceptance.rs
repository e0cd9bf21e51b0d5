//! Whether somebody serves what is written: the class of the Ingresses exists, the Gateway has taken the HTTPRoutes.
//!
//! A name that is wrong there is not refused by anybody: the objects are written, and nothing happens. So it is found out
//! and said, to the people of the platform and in the condition `Routable` of every public Function.

use std::time::Duration;

use k8s_openapi::api::networking::v1::IngressClass;
use kube::{Api, core::DynamicObject, discovery::ApiResource};
use rouse_crds::conditions::{GATEWAY_NOT_READY, INGRESS_CLASS_MISSING};
use tokio::time::Instant;

use super::{
    Gateway, Keeper, REVIEW,
    gateway::{Family, Verdict},
};
use crate::hosts::LostHost;

/// How long a controller may take to say something of a route, and the API server to have listed them.
const PATIENCE: Duration = Duration::from_secs(15);

/// Between two looks while something is amiss or not known.
const LOOK: Duration = Duration::from_secs(5);

/// What has been found out.
#[derive(Debug, Default)]
pub(super) struct Acceptance {
    /// Since when an answer is missing.
    open_since: Option<Instant>,
    /// When the API server was last asked for the class or the Gateway, and whether that exists. `None` if it cannot be told.
    asked: Option<(Instant, Option<bool>)>,
    /// Whether something was amiss at the last look.
    amiss: bool,
}

impl Acceptance {
    /// How long to wait for the next look.
    pub(super) fn again(&self) -> Duration {
        if self.amiss || self.is_open() { LOOK } else { REVIEW }
    }

    /// Whether an answer is missing.
    pub(super) fn is_open(&self) -> bool {
        self.open_since.is_some()
    }

    /// Whether an answer has been missing for too long, as of now.
    fn overdue(&mut self, open: bool, now: Instant) -> bool {
        if !open {
            self.open_since = None;
            return false;
        }
        now.duration_since(*self.open_since.get_or_insert(now)) >= PATIENCE
    }

    /// Whether it is time to ask the API server.
    fn due(&self, now: Instant) -> bool {
        self.asked.is_none_or(|(at, _)| now.duration_since(at) >= self.again())
    }
}

impl Keeper {
    /// What is amiss with the class of the Ingresses. One that is not named is the cluster's default, and not looked for.
    pub(super) async fn class_trouble(&self, class: Option<&str>, known: &mut Acceptance) -> Option<LostHost> {
        let class = class?;
        if known.due(Instant::now()) {
            let api: Api<IngressClass> = Api::all(self.client.clone());
            known.asked = Some((Instant::now(), exists("IngressClass", class, api.get_metadata_opt(class).await)));
        }
        known.amiss = matches!(known.asked, Some((_, Some(false))));
        known.amiss.then(|| LostHost {
            host: None,
            reason: INGRESS_CLASS_MISSING,
            message: format!(
                "the IngressClass {class} of Rouse's value ingress.className does not exist, so its hosts are not served by an ingress; calls inside the cluster are"
            ),
        })
    }

    /// What is amiss with the Gateway, on which `routes` of ours are to hang.
    pub(super) async fn gateway_trouble(
        &self,
        gateway: &Gateway,
        routes: usize,
        known: &mut Acceptance,
    ) -> Option<LostHost> {
        let message = self.gateway_message(gateway, routes, known).await;
        known.amiss = message.is_some();
        message.map(|message| LostHost {
            host: None,
            reason: GATEWAY_NOT_READY,
            message: format!("{message}; calls inside the cluster are served"),
        })
    }

    async fn gateway_message(&self, gateway: &Gateway, routes: usize, known: &mut Acceptance) -> Option<String> {
        let cache = &self.caches.httproutes;
        if !cache.is_synced() {
            let message = "HTTPRoutes cannot be read, so no host is served: are the resources of the Gateway API (gateway.networking.k8s.io/v1) installed?";
            return known.overdue(true, Instant::now()).then(|| message.to_owned());
        }
        let mut ours = cache.all();
        ours.retain(|route| route.metadata.name.as_deref().and_then(Family::of).is_some());
        // One that was written just now has not come back through the watch yet.
        let mut unheard = ours.len() < routes;
        for route in ours {
            match gateway.verdict(&route) {
                Verdict::Accepted => {}
                Verdict::Unheard => unheard = true,
                Verdict::Refused(message) => {
                    known.open_since = None;
                    return Some(message);
                }
            }
        }
        let overdue = known.overdue(unheard, Instant::now());
        if known.due(Instant::now()) {
            let resource = ApiResource {
                group: "gateway.networking.k8s.io".to_owned(),
                version: "v1".to_owned(),
                api_version: "gateway.networking.k8s.io/v1".to_owned(),
                kind: "Gateway".to_owned(),
                plural: "gateways".to_owned(),
            };
            let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &gateway.namespace, &resource);
            let found = api.get_metadata_opt(&gateway.name).await;
            known.asked = Some((Instant::now(), exists("Gateway", &gateway.to_string(), found)));
        }
        let missing = matches!(known.asked, Some((_, Some(false))));
        // Helm makes a Gateway in the same moment as the operator; one that has gone later has routes that were accepted.
        if missing && (overdue || !unheard) {
            return Some(format!("the Gateway {gateway} does not exist, so no host is served"));
        }
        overdue.then(|| {
            format!(
                "nobody has said anything of the HTTPRoutes for the Gateway {gateway}: does its GatewayClass exist, and does its controller run?"
            )
        })
    }
}

/// Whether something exists, or `None` if the API server does not say so.
fn exists<T>(kind: &str, name: &str, found: kube::Result<Option<T>>) -> Option<bool> {
    match found {
        Ok(found) => Some(found.is_some()),
        Err(error) => {
            tracing::warn!(kind, name, %error, "Cannot look for what serves the functions' hosts");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_answer_may_take_a_while_and_not_longer() {
        let mut known = Acceptance::default();
        assert!(!known.overdue(true, Instant::now()));
        assert_eq!((known.is_open(), known.again()), (true, LOOK));
        tokio::time::advance(PATIENCE - Duration::from_millis(1)).await;
        assert!(!known.overdue(true, Instant::now()));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(known.overdue(true, Instant::now()));
        assert!(!known.overdue(false, Instant::now()));
        assert!(!known.overdue(true, Instant::now()), "it counts from anew");
    }

    #[tokio::test(start_paused = true)]
    async fn the_api_server_is_asked_now_and_then() {
        let mut known = Acceptance::default();
        assert!(known.due(Instant::now()));
        known.asked = Some((Instant::now(), Some(true)));
        tokio::time::advance(LOOK).await;
        assert!(!known.due(Instant::now()));
        known.amiss = true;
        assert!(known.due(Instant::now()), "more often while something is amiss");
    }
}
