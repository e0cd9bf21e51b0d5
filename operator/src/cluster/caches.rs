//! All local copies together: they are filled by every replica, so that a new leader knows everything at once.

use std::sync::Arc;

use k8s_openapi::api::{
    core::v1::{ConfigMap, Secret},
    discovery::v1::EndpointSlice,
    networking::v1::Ingress,
};
use kube::{Api, Client, core::DeserializeGuard, runtime::watcher};
use rouse_crds::{
    Function,
    names::{FUNCTION_LABEL, MANAGED_BY, MANAGED_BY_LABEL},
    pod::FunctionPod,
};
use tokio::task::JoinSet;

use super::{
    cache::{Cache, Cached, follow},
    children::{DeploymentObject, RevisionObject, ServiceObject},
    config_versions::{Configs, Kind},
    httproute::HTTPRoute,
    key::FunctionKey,
};

/// The local copies.
#[derive(Clone, Debug, Default)]
pub struct Caches {
    /// Every Function, also those that cannot be parsed.
    pub functions: Arc<Cache<DeserializeGuard<Function>>>,
    /// The ControllerRevisions of Functions.
    pub revisions: Arc<Cache<RevisionObject>>,
    /// Their Deployments.
    pub deployments: Arc<Cache<DeploymentObject>>,
    /// Their Services.
    pub services: Arc<Cache<ServiceObject>>,
    /// Their pods.
    pub pods: Arc<Cache<FunctionPod>>,
    /// Where the activators are. Filed under one key, the activators' Service.
    pub slices: Arc<Cache<EndpointSlice>>,
    /// The shared Ingresses, each filed under its own name; nothing if there is to be none.
    pub ingresses: Arc<Cache<Ingress>>,
    /// The shared HTTPRoutes, filed likewise. Nothing waits for them: a cluster may lack the Gateway API.
    pub httproutes: Arc<Cache<HTTPRoute>>,
    /// Versions of ConfigMaps and Secrets, if they are followed.
    pub configs: Option<Arc<Configs>>,
}

/// Where and what to follow beside the Functions.
#[derive(Clone, Debug)]
pub struct Scope {
    /// Namespace of the release.
    pub namespace: String,
    /// The activators' Service.
    pub activator_service: String,
    /// Whether shared Ingresses are kept.
    pub ingress: bool,
    /// Whether shared HTTPRoutes are kept.
    pub gateway: bool,
}

/// Who wants to know of changes.
pub trait Listener: Send + Sync + 'static {
    /// Something of this Function changed.
    fn touched(&self, function: &FunctionKey);
    /// A Function itself changed.
    fn function_changed(&self);
    /// The set of activators changed.
    fn activators_changed(&self);
    /// A shared Ingress or HTTPRoute changed.
    fn ingress_changed(&self);
}

impl Caches {
    /// Begins to fill the caches; they are kept up to date until the returned set is dropped.
    pub fn follow(&self, client: &Client, scope: &Scope, listener: &Arc<impl Listener>) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        let Self { functions, revisions, deployments, services, pods, slices, ingresses, httproutes, configs } =
            self.clone();
        let all = || watcher::Config::default().page_size(PAGE);
        let managed = || all().labels(&format!("{MANAGED_BY_LABEL}={MANAGED_BY},{FUNCTION_LABEL}"));
        let touch = || {
            let listener = Arc::clone(listener);
            move |key: &FunctionKey| listener.touched(key)
        };
        let to = Arc::clone(listener);
        tasks.spawn(follow(Api::all(client.clone()), all(), functions, move |key| {
            to.touched(key);
            to.function_changed();
        }));
        tasks.spawn(follow(Api::all(client.clone()), managed(), revisions, touch()));
        tasks.spawn(follow(Api::all(client.clone()), managed(), deployments, touch()));
        tasks.spawn(follow(Api::all(client.clone()), managed(), services, touch()));
        tasks.spawn(follow(Api::all(client.clone()), all().labels(FUNCTION_LABEL), pods, touch()));
        if let Some(configs) = configs {
            let other = Arc::clone(&configs);
            tasks.spawn(configs.follow::<ConfigMap>(client.clone(), Kind::ConfigMap, touch()));
            tasks.spawn(other.follow::<Secret>(client.clone(), Kind::Secret, touch()));
        }
        let Scope { namespace, activator_service, ingress, gateway } = scope;
        let of_service = all().labels(&format!("{SERVICE_NAME_LABEL}={activator_service}"));
        let to = Arc::clone(listener);
        tasks.spawn(follow(Api::namespaced(client.clone(), namespace), of_service, slices, move |_| {
            to.activators_changed();
        }));
        let ours = || all().labels(&format!("{MANAGED_BY_LABEL}={MANAGED_BY}"));
        if *gateway {
            let to = Arc::clone(listener);
            tasks.spawn(follow(Api::namespaced(client.clone(), namespace), ours(), httproutes, move |_| {
                to.ingress_changed();
            }));
        }
        if *ingress {
            let to = Arc::clone(listener);
            tasks.spawn(follow(Api::namespaced(client.clone(), namespace), ours(), ingresses, move |_| {
                to.ingress_changed();
            }));
        } else {
            // Nothing to follow, so nothing to wait for.
            drop(ingresses.apply(watcher::Event::InitDone));
        }
        tasks
    }

    /// Waits until every cache has had its first list.
    pub async fn synced(&self) {
        let Self { functions, revisions, deployments, services, pods, slices, ingresses, httproutes: _, configs } =
            self;
        let configs = async {
            if let Some(configs) = configs {
                configs.synced().await;
            }
        };
        tokio::join!(
            configs,
            functions.synced(),
            revisions.synced(),
            deployments.synced(),
            services.synced(),
            pods.synced(),
            slices.synced(),
            ingresses.synced()
        );
    }

    /// Names of the caches that have not had their first list.
    pub fn unsynced(&self) -> Vec<&'static str> {
        let Self { functions, revisions, deployments, services, pods, slices, ingresses, httproutes: _, configs } =
            self;
        let configs = configs.iter().flat_map(|configs| configs.unsynced());
        let synced = [
            ("functions", functions.is_synced()),
            ("controllerrevisions", revisions.is_synced()),
            ("deployments", deployments.is_synced()),
            ("services", services.is_synced()),
            ("pods", pods.is_synced()),
            ("endpointslices", slices.is_synced()),
            ("ingresses", ingresses.is_synced()),
        ];
        synced.into_iter().filter(|(_, synced)| !synced).map(|(name, _)| name).chain(configs).collect()
    }

    /// Whether every cache has had its first list.
    pub fn is_synced(&self) -> bool {
        self.unsynced().is_empty()
    }
}

/// Objects in one page of a list. A page is decoded in full before it is made small, so it is what a relist costs at once;
/// ten thousand Functions are a hundred small requests.
const PAGE: u32 = 100;

/// Label by which an EndpointSlice names its Service.
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

impl Cached for EndpointSlice {
    fn function_key(&self) -> Option<FunctionKey> {
        let service = self.metadata.labels.as_ref()?.get(SERVICE_NAME_LABEL)?;
        Some(FunctionKey::new(self.metadata.namespace.clone()?, service))
    }

    fn prune(&mut self) {
        self.metadata.managed_fields = None;
    }
}

impl Cached for Ingress {
    fn function_key(&self) -> Option<FunctionKey> {
        Some(FunctionKey::new(self.metadata.namespace.clone()?, self.metadata.name.clone()?))
    }

    /// There are two at most, and who wrote an annotation is read.
    fn prune(&mut self) {}
}

impl Cached for HTTPRoute {
    fn function_key(&self) -> Option<FunctionKey> {
        Some(FunctionKey::new(self.metadata.namespace.clone()?, self.metadata.name.clone()?))
    }

    fn prune(&mut self) {
        self.metadata.managed_fields = None;
    }
}
