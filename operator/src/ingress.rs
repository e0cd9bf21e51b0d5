//! What leads every public function's hosts to the activators: shared Ingresses, or shared HTTPRoutes of the Gateway API.
//!
//! What leads by HTTP/1.1 and what leads by HTTP/2 are objects of their own: gRPC needs HTTP/2 all the way and WebSocket needs
//! HTTP/1.1, and ingress controllers take the protocol of a backend from its port, from an annotation of its Service or from
//! one of the whole Ingress. So each of the two has a Service of its own, too.
//!
//! The objects are in the release namespace, away from the Functions, so no owner reference ties them to those: they are
//! built from all of them together each time one changes. Their own owner is the operator's Deployment, so that they go with
//! the release.

mod acceptance;
pub mod gateway;
mod httproutes;
mod ingresses;
mod objects;
pub mod public_hosts;
pub mod rules;
pub mod shards;
mod tls;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use k8s_openapi::{
    api::{apps::v1::Deployment, core::v1::ObjectReference},
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::{Api, Client, Resource as _};
use rouse_crds::{Function, function::Visibility};
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    cluster::{caches::Caches, key::FunctionKey},
    hosts::{Claims, LostHost, Names},
    runtime::{backoff, progress::Beat, queue::WorkQueue},
    telemetry::{events::Events, metrics::Metrics},
};
use acceptance::Acceptance;
pub use gateway::Gateway;
pub use ingresses::{H2C_NAME, NAME};
use public_hosts::Ways;
pub use tls::Tls;

/// After a pass, changes are gathered for so long before the next: with ten thousand Functions a pass is milliseconds of
/// work, and a user does not see a tenth of a second.
const GATHER: Duration = Duration::from_millis(100);

/// A pass is made this often even if nothing changes.
const REVIEW: Duration = Duration::from_secs(60);

/// How the cluster's ingress is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// By Ingresses of ours.
    Ingress {
        /// `spec.ingressClassName`.
        class: Option<String>,
        /// Annotations for the ingress controller.
        annotations: BTreeMap<String, String>,
        /// The same for the hosts whose functions speak h2c.
        h2c_annotations: BTreeMap<String, String>,
        /// Certificates.
        tls: Tls,
    },
    /// By HTTPRoutes of ours.
    Gateway(Gateway),
    /// Not by us: somebody routes hosts to the activators.
    None,
}

/// Keeps the Ingresses or HTTPRoutes, and the claims.
#[allow(missing_debug_implementations, reason = "kube's Client has none of use")]
pub struct Keeper {
    /// For what is written.
    pub client: Client,
    /// The Functions.
    pub caches: Caches,
    /// Kept here.
    pub claims: Claims,
    /// Domains and the activators' Service.
    pub names: Names,
    /// How the cluster's ingress is used.
    pub mode: Mode,
    /// The operator's own Deployment, if it runs in one.
    pub owner: Option<OwnerReference>,
    /// Told of every change of a Function, an Ingress or an HTTPRoute.
    pub changed: Arc<Notify>,
    /// Told of Functions that are to be told something else of their hosts.
    pub reconciler: Arc<WorkQueue<FunctionKey>>,
    /// Tells the platform's people.
    pub events: Events,
    /// Counts.
    pub metrics: Metrics,
}

/// What is known from one pass to the next.
#[derive(Debug, Default)]
struct Memory {
    /// Where hosts are in HTTPRoutes: the cache may not have heard of the last write yet.
    placed: Option<httproutes::Placed>,
    /// What has been found out about who serves what is written.
    acceptance: Acceptance,
    /// Whether what another mode has left is gone.
    swept: bool,
}

impl Keeper {
    /// Runs until `stop`.
    pub async fn run(&self, stop: &CancellationToken, beat: &Beat) {
        let (mut failures, mut memory) = (0, Memory::default());
        loop {
            beat.now();
            let wait = match self.pass(&mut memory).await {
                Ok(wait) => {
                    failures = 0;
                    wait
                }
                Err(error) => {
                    failures += 1;
                    let wait = backoff::RECONCILE.after(failures).min(REVIEW);
                    tracing::warn!(%error, failures, retry_in = ?wait, "What leads to the activators could not be written and will be tried again");
                    wait
                }
            };
            let earliest = Instant::now() + if failures == 0 { GATHER } else { wait };
            let again = async {
                tokio::select! {
                    () = self.changed.notified() => tokio::time::sleep_until(earliest).await,
                    () = tokio::time::sleep(wait) => {}
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = again => {}
            }
        }
    }

    /// Brings claims and objects in line with the Functions, and finds out who serves them. Writes nothing if all is as it
    /// should be. Yields when to look again though nothing changes.
    async fn pass(&self, memory: &mut Memory) -> kube::Result<Duration> {
        let ways = self.ways();
        let trouble = match &self.mode {
            Mode::None => None,
            Mode::Ingress { class, annotations, h2c_annotations, tls } => {
                self.keep_ingresses(&ways, class.as_ref(), [annotations, h2c_annotations], tls).await?;
                self.class_trouble(class.as_deref(), &mut memory.acceptance).await
            }
            Mode::Gateway(gateway) => {
                if self.caches.httproutes.is_synced() {
                    self.keep_routes(&ways, gateway, &mut memory.placed).await?;
                }
                let routes = memory.placed.iter().flat_map(|placed| placed.values()).map(BTreeMap::len).sum();
                self.gateway_trouble(gateway, routes, &mut memory.acceptance).await
            }
        };
        let wait = if trouble.is_some() { memory.acceptance.again() } else { REVIEW.min(memory.acceptance.again()) };
        let served = trouble.is_none() && !memory.acceptance.is_open();
        self.report(trouble).await;
        // The way that there was goes when the new one is there.
        if served && !memory.swept {
            // It holds up nothing: what is wanted is written.
            match self.sweep().await {
                Ok(()) => memory.swept = true,
                Err(error) => {
                    tracing::warn!(%error, "What another ingress.mode has left could not be removed and will be tried again");
                }
            }
        }
        Ok(wait)
    }

    /// Settles the claims, and yields what is to lead where.
    fn ways(&self) -> Ways {
        let all = self.caches.functions.all();
        let functions = || all.iter().filter_map(|f| f.0.as_ref().ok()).filter(|f| alive(f));
        let (won, changed) = self.claims.replace(functions());
        for function in changed {
            self.reconciler.add(function);
        }
        public_hosts::build(functions(), &won, &self.names.hosts)
    }

    /// Tells of what keeps public hosts from leading to the activators, or that nothing does any more.
    async fn report(&self, trouble: Option<LostHost>) {
        self.metrics.ingress_accepted(trouble.is_none());
        if !self.claims.set_way_in(trouble.clone()) {
            return;
        }
        for function in self.caches.functions.all() {
            if let Ok(function) = &function.0
                && function.spec.visibility() == Visibility::Public
                && let (Some(namespace), Some(name)) = (&function.metadata.namespace, &function.metadata.name)
            {
                self.reconciler.add(FunctionKey::new(namespace, name));
            }
        }
        let about = self.owner.clone().map(|owner| ObjectReference {
            api_version: Some(owner.api_version),
            kind: Some(owner.kind),
            name: Some(owner.name),
            namespace: Some(self.names.namespace.clone()),
            uid: Some(owner.uid),
            ..ObjectReference::default()
        });
        match (&trouble, about) {
            (Some(LostHost { host: _, reason, message }), about) => {
                tracing::error!(
                    reason,
                    detail = message,
                    "No public host leads to the activators by the cluster's ingress"
                );
                if let Some(about) = about {
                    self.events.warning(&about, reason, message).await;
                }
            }
            (None, about) => {
                tracing::info!("Public hosts lead to the activators by the cluster's ingress");
                if let Some(about) = about {
                    self.events.normal(&about, "IngressReady", "The cluster's ingress serves public hosts.").await;
                }
            }
        }
    }
}

fn alive(function: &Function) -> bool {
    function.metadata.deletion_timestamp.is_none()
}

/// A reference to the operator's own Deployment, so that what is made in its namespace goes with it. `None` if it does not
/// run in one, as in a developer's shell.
///
/// # Errors
///
/// If the API server cannot be asked.
pub async fn own_deployment(client: &Client, namespace: &str, name: &str) -> kube::Result<Option<OwnerReference>> {
    let api: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    // `controller` would tell tools that the Deployment manages it; it only takes it along.
    let owner = api.get_metadata_opt(name).await?.and_then(|d| d.owner_ref(&()));
    if owner.is_none() {
        tracing::warn!(
            namespace,
            name,
            "The operator's own Deployment does not exist, so what leads to the activators will not go with it"
        );
    }
    Ok(owner)
}
