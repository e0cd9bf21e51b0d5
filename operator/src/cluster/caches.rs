//! All local caches. Every replica fills them, so a new leader can start at once.

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
    config_versions::{ConfigVersions, Kind},
    httproute::HTTPRoute,
    key::FunctionKey,
};

/// Local caches.
#[derive(Clone, Debug, Default)]
pub struct Caches {
    /// Functions, including those that cannot be parsed.
    pub functions: Arc<Cache<DeserializeGuard<Function>>>,
    /// ControllerRevisions of Functions.
    pub revisions: Arc<Cache<RevisionObject>>,
    /// Deployments of Functions.
    pub deployments: Arc<Cache<DeploymentObject>>,
    /// Services of Functions.
    pub services: Arc<Cache<ServiceObject>>,
    /// Pods of Functions.
    pub pods: Arc<Cache<FunctionPod>>,
    /// EndpointSlices of the activators' Service, indexed by that Service.
    pub slices: Arc<Cache<EndpointSlice>>,
    /// Shared Ingresses, each indexed by its own name. Empty in other ingress modes.
    pub ingresses: Arc<Cache<Ingress>>,
    /// Shared HTTPRoutes, each indexed by its own name. Startup does not wait for them: a cluster may lack the Gateway
    /// API.
    pub httproutes: Arc<Cache<HTTPRoute>>,
    /// Versions of ConfigMaps and Secrets, if they are watched.
    pub configs: Option<Arc<ConfigVersions>>,
}

/// Objects to watch, besides Functions and their children.
#[derive(Clone, Debug)]
pub struct Scope {
    /// Namespace of the release.
    pub namespace: String,
    /// Name of the Service of the activators' admin ports.
    pub activator_service: String,
    /// Whether to watch shared Ingresses.
    pub ingress: bool,
    /// Whether to watch shared HTTPRoutes.
    pub gateway: bool,
}

/// Receiver of changes.
pub trait Listener: Send + Sync + 'static {
    /// This Function or one of its objects changed.
    fn touched(&self, function: &FunctionKey);
    /// A Function changed.
    fn function_changed(&self);
    /// The set of activators changed.
    fn activators_changed(&self);
    /// A shared Ingress or HTTPRoute changed.
    fn ingress_changed(&self);
}

impl Caches {
    /// Starts the watches. They stop when the returned set is dropped.
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
            // Nothing to watch, so nothing to wait for.
            drop(ingresses.apply(watcher::Event::InitDone));
        }
        tasks
    }

    /// Waits until the initial list of every cache is complete.
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

    /// Returns the names of the caches whose initial list is not complete.
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

    /// Returns whether the initial list of every cache is complete.
    pub fn is_synced(&self) -> bool {
        self.unsynced().is_empty()
    }
}

/// Objects per page of a list. A page is decoded in full before it is pruned, so it determines the memory of a relist.
/// Ten thousand Functions are a hundred small requests.
const PAGE: u32 = 100;

/// Label of an EndpointSlice with the name of its Service.
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
        FunctionKey::of(self)
    }

    /// Keeps everything: there are at most two, and `managedFields` is read.
    fn prune(&mut self) {}
}

impl Cached for HTTPRoute {
    fn function_key(&self) -> Option<FunctionKey> {
        FunctionKey::of(self)
    }

    fn prune(&mut self) {
        self.metadata.managed_fields = None;
    }
}
