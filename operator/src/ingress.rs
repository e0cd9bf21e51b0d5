//! Shared Ingresses, or HTTPRoutes of the Gateway API, that route the hosts of public Functions to the activators.
//!
//! HTTP/1.1 and h2c have separate objects: gRPC needs HTTP/2 end to end and WebSocket needs HTTP/1.1, and ingress
//! controllers read the protocol of a backend from its port, from an annotation of its Service, or from an annotation
//! of the Ingress. For the same reason each protocol has its own Service.
//!
//! The objects are in the namespace of the release, so no owner reference to a Function is possible. They are built
//! from all Functions each time one changes. Their owner is the operator's Deployment, so they are deleted with the
//! release.

mod acceptance;
pub mod gateway;
mod httproutes;
mod ingresses;
mod names;
mod objects;
pub mod public_hosts;
mod rejections;
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
    hosts::{Claims, LostHost, Names, Won},
    runtime::{backoff, progress::Beat, queue::WorkQueue},
    telemetry::{events::Events, metrics::Metrics},
};
use acceptance::Acceptance;
pub use gateway::Gateway;
use ingresses::Settings;
pub use names::{h2c_name, http1_name};
use public_hosts::ByNamespace;
use rejections::Rejections;
pub use tls::Tls;

/// Minimum interval between two reconciles. With ten thousand Functions a reconcile takes milliseconds, and 100 ms are
/// not noticeable for users.
const DEBOUNCE: Duration = Duration::from_millis(100);

/// Maximum interval between two reconciles.
const RESYNC: Duration = Duration::from_secs(60);

/// Ingress mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Shared Ingresses.
    Ingress {
        /// `spec.ingressClassName`.
        class: Option<String>,
        /// Annotations of the Ingress for HTTP/1.1.
        annotations: BTreeMap<String, String>,
        /// Annotations of the Ingress for h2c.
        h2c_annotations: BTreeMap<String, String>,
        /// TLS Secrets.
        tls: Tls,
    },
    /// Shared HTTPRoutes.
    Gateway(Gateway),
    /// No objects: the platform routes hosts to the activators itself.
    None,
}

/// Reconciler of the shared Ingresses or HTTPRoutes. It also updates the claims to hosts.
#[allow(missing_debug_implementations, reason = "kube's Client has none of use")]
pub struct IngressReconciler {
    /// Client for writes.
    pub client: Client,
    /// Local caches.
    pub caches: Caches,
    /// Claims to hosts, updated here.
    pub claims: Claims,
    /// Hosts, URLs and the activators' Service.
    pub names: Names,
    /// Ingress mode.
    pub mode: Mode,
    /// Owner reference to the operator's Deployment, if it runs in one.
    pub owner: Option<OwnerReference>,
    /// Notified of every change of a Function, an Ingress or an HTTPRoute.
    pub changed: Arc<Notify>,
    /// Queue of the Function reconciler, for Functions whose lost hosts may have changed.
    pub functions: Arc<WorkQueue<FunctionKey>>,
    /// Event recorder.
    pub events: Events,
    /// Metrics.
    pub metrics: Metrics,
}

/// State between two reconciles.
#[derive(Debug, Default)]
struct Memory {
    /// Hosts that the API server rejects.
    rejections: Rejections,
    /// Assignment of hosts to HTTPRoutes. The cache may not have the last write yet.
    placed: Option<httproutes::Placed>,
    /// Whether the IngressClass or Gateway exists and accepts the objects.
    acceptance: Acceptance,
    /// Whether the objects of other ingress modes are deleted.
    cleaned_up: bool,
}

impl IngressReconciler {
    /// Runs until `stop`.
    pub async fn run(&self, stop: &CancellationToken, beat: &Beat) {
        let (mut failures, mut memory) = (0, Memory::default());
        loop {
            beat.now();
            let wait = match self.reconcile(&mut memory).await {
                Ok(wait) => {
                    failures = 0;
                    wait
                }
                Err(error) => {
                    failures += 1;
                    let wait = backoff::RECONCILE.after(failures).min(RESYNC);
                    tracing::warn!(%error, failures, retry_in = ?wait, "Failed to reconcile the shared ingress objects; will retry");
                    wait
                }
            };
            let earliest = Instant::now() + if failures == 0 { DEBOUNCE } else { wait };
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

    /// Updates claims and objects from the Functions, and checks whether the ingress accepts the objects. Unchanged
    /// objects cause no writes. Returns the time until the next reconcile without a change.
    async fn reconcile(&self, memory: &mut Memory) -> kube::Result<Duration> {
        let (public, won) = self.public_hosts();
        let (mut rejected, mut outcome) = (BTreeMap::new(), Ok(()));
        let problem = match &self.mode {
            Mode::None => None,
            Mode::Ingress { class, annotations, h2c_annotations, tls } => {
                let settings = Settings { class: class.as_ref(), annotations, h2c_annotations, tls };
                (rejected, outcome) = self.apply_ingresses(&public, &won, settings, &mut memory.rejections).await;
                self.ingress_class_problem(class.as_deref(), &mut memory.acceptance).await
            }
            Mode::Gateway(gateway) => {
                if self.caches.httproutes.is_synced() {
                    (rejected, outcome) = self.apply_httproutes(&public, &won, gateway, &mut memory.placed).await;
                }
                let routes = memory.placed.iter().flat_map(|placed| placed.values()).map(BTreeMap::len).sum();
                self.gateway_problem(gateway, routes, &mut memory.acceptance).await
            }
        };
        let wait =
            if problem.is_some() { memory.acceptance.interval() } else { RESYNC.min(memory.acceptance.interval()) };
        let wait = memory.rejections.wait(Instant::now()).map_or(wait, |retry| wait.min(retry.max(DEBOUNCE)));
        let accepted = problem.is_none() && !memory.acceptance.is_pending();
        // Before a failed write is returned: what is known is reported in any case.
        self.report(problem).await;
        self.report_rejected(rejected);
        outcome?;
        // The objects of the previous mode are deleted when the new ones are accepted.
        if accepted && !memory.cleaned_up {
            // An error does not fail the reconcile, because the wanted objects are written.
            match self.clean_up().await {
                Ok(()) => memory.cleaned_up = true,
                Err(error) => {
                    tracing::warn!(%error, "Failed to delete resources of the previous ingress.mode; will retry");
                }
            }
        }
        Ok(wait)
    }

    /// Updates the claims, and returns the hosts and paths to route, and the claims that have won.
    fn public_hosts(&self) -> (ByNamespace, Arc<Won>) {
        let all = self.caches.functions.all();
        let functions = || all.iter().filter_map(|f| f.0.as_ref().ok()).filter(|f| !is_deleted(f));
        let (won, changed) = self.claims.replace(functions());
        for function in changed {
            self.functions.add(function);
        }
        (public_hosts::by_namespace(functions(), &won, &self.names.hosts), won)
    }

    /// Reports the Functions whose hosts the API server rejects, or no longer rejects.
    fn report_rejected(&self, rejected: BTreeMap<FunctionKey, LostHost>) {
        self.metrics.ingress_rejected(rejected.len());
        for function in self.claims.set_rejected(rejected) {
            self.functions.add(function);
        }
    }

    /// Reports a problem that affects every public host, or that it is resolved.
    async fn report(&self, problem: Option<LostHost>) {
        self.metrics.ingress_accepted(problem.is_none());
        if !self.claims.set_ingress_problem(problem.clone()) {
            return;
        }
        for function in self.caches.functions.all() {
            if let Ok(function) = &function.0
                && function.spec.visibility() == Visibility::Public
                && let Some(key) = FunctionKey::of(function)
            {
                self.functions.add(key);
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
        match (&problem, about) {
            (Some(LostHost { host: _, reason, message }), about) => {
                tracing::error!(reason, detail = message, "Ingress does not serve public hosts");
                if let Some(about) = about {
                    self.events.warning(&about, reason, message).await;
                }
            }
            (None, about) => {
                tracing::info!("Ingress serves public hosts");
                if let Some(about) = about {
                    self.events.normal(&about, "IngressReady", "The ingress serves public hosts.").await;
                }
            }
        }
    }
}

fn is_deleted(function: &Function) -> bool {
    function.metadata.deletion_timestamp.is_some()
}

/// Returns an owner reference to the operator's Deployment, so that objects in its namespace are deleted with it.
/// `None` if the operator does not run in a Deployment, for example during development.
///
/// # Errors
///
/// If the request to the API server fails.
pub async fn own_deployment(client: &Client, namespace: &str, name: &str) -> kube::Result<Option<OwnerReference>> {
    let api: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    // Without `controller`: the Deployment does not manage the objects.
    let owner = api.get_metadata_opt(name).await?.and_then(|d| d.owner_ref(&()));
    if owner.is_none() {
        tracing::warn!(
            namespace,
            name,
            "Deployment of the operator not found; shared ingress objects will not be deleted with it"
        );
    }
    Ok(owner)
}
