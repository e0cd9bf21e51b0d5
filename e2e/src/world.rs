//! A namespace of the cluster with functions in it: how tests, the demonstration and the benchmarks apply Functions, call
//! them and look at what is there.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Namespace};
use kube::{
    Api, Client, Config, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use rouse_crds::{Function, FunctionSpec, names, pod::FunctionPod};
use serde_json::json;
use tokio::time::Instant;

pub use crate::process::until;

use crate::{
    Cluster,
    caller::{Answer, Caller},
};

/// A generous limit for what the cluster does by itself.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A namespace with functions in it.
#[derive(Clone)]
pub struct World {
    /// The API server, as an administrator.
    pub client: Client,
    /// The ingress.
    pub caller: Caller,
    /// The namespace.
    pub namespace: String,
    /// The domain that Rouse was installed with.
    pub domain: String,
    /// The image of `examples/hello`.
    pub image: String,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World")
            .field("namespace", &self.namespace)
            .field("domain", &self.domain)
            .finish_non_exhaustive()
    }
}

/// A client of the cluster's API server.
///
/// # Errors
///
/// If the kubeconfig cannot be read.
pub async fn client_of(cluster: &Cluster) -> Result<Client> {
    client(cluster, None).await
}

/// The same, with the rights of another user.
///
/// # Errors
///
/// If the kubeconfig cannot be read.
pub async fn client_as(cluster: &Cluster, user: &str) -> Result<Client> {
    client(cluster, Some(user.to_owned())).await
}

async fn client(cluster: &Cluster, user: Option<String>) -> Result<Client> {
    client_from(&cluster.kubeconfig, user).await
}

/// A client of the API server that a kubeconfig names.
///
/// # Errors
///
/// If the kubeconfig cannot be read.
pub async fn client_from(kubeconfig: &Path, user: Option<String>) -> Result<Client> {
    // Several TLS providers may be compiled in; the first to be installed is the one that holds.
    drop(rustls::crypto::ring::default_provider().install_default());
    let kubeconfig = Kubeconfig::read_from(kubeconfig).context("the cluster's kubeconfig")?;
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    config.auth_info.impersonate = user;
    Ok(Client::try_from(config)?)
}

impl World {
    /// Makes the namespace if it is not there.
    ///
    /// # Errors
    ///
    /// If the cluster does not answer.
    pub async fn new(cluster: &Cluster, namespace: &str) -> Result<Self> {
        let client = client_of(cluster).await?;
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let wanted = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
        namespaces.patch(namespace, &PatchParams::apply("rouse-e2e"), &Patch::Apply(wanted)).await?;
        let caller = Caller::new(cluster.ingress);
        let image = cluster.images.get("rouse-hello").context("the cluster has no hello image")?.clone();
        Ok(Self { client, caller, namespace: namespace.to_owned(), domain: cluster.domain.clone(), image })
    }

    /// The Functions of the namespace.
    pub fn functions(&self) -> Api<Function> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The Deployments of the namespace.
    pub fn deployments(&self) -> Api<Deployment> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The function's host on the ingress.
    pub fn host(&self, name: &str) -> String {
        format!("{name}.{}.{}", self.namespace, self.domain)
    }

    /// Creates or replaces a Function with the fields of `spec` over the hello image.
    ///
    /// # Errors
    ///
    /// If the API server refuses it.
    pub async fn apply(&self, name: &str, spec: serde_json::Value) -> Result<Function> {
        let mut fields = json!({"image": self.image});
        if let (Some(fields), Some(more)) = (fields.as_object_mut(), spec.as_object()) {
            fields.extend(more.clone());
        }
        let spec: FunctionSpec = serde_json::from_value(fields).context("not a Function's spec")?;
        // Server-side, so that what the operator writes at the same moment into the status is no conflict.
        let apply = PatchParams::apply("rouse-e2e").force();
        Ok(self.functions().patch(name, &apply, &Patch::Apply(Function::new(name, spec))).await?)
    }

    /// Waits until condition `type_` has `status`, and gives its reason and message.
    ///
    /// # Errors
    ///
    /// If it does not within [`PATIENCE`].
    pub async fn condition(&self, name: &str, type_: &str, status: &str) -> Result<(String, String)> {
        let api = self.functions();
        until(&format!("{name}: {type_}={status}"), PATIENCE, || async {
            let function = api.get(name).await?;
            let generation = function.metadata.generation;
            let conditions = function.status.unwrap_or_default().conditions;
            let found = conditions.into_iter().find(|c| c.type_ == type_ && c.status == status);
            Ok(found.filter(|c| c.observed_generation == generation).map(|c| (c.reason, c.message)))
        })
        .await
    }

    /// Applies and waits until it is ready to be called.
    ///
    /// # Errors
    ///
    /// If it does not get ready.
    pub async fn ready(&self, name: &str, spec: serde_json::Value) -> Result<()> {
        self.apply(name, spec).await?;
        self.condition(name, "Ready", "True").await?;
        self.routed(name).await
    }

    /// Waits until the ingress leads the namespace's hosts to Rouse. A host of the same wildcard rule that no function has
    /// is asked for, so that nothing is woken: Rouse's own 404 is proof.
    ///
    /// # Errors
    ///
    /// If the ingress does not know it within [`PATIENCE`].
    pub async fn routed(&self, name: &str) -> Result<()> {
        let host = self.host(&format!("no-{name}"));
        until(&format!("a route for *.{}.{}", self.namespace, self.domain), PATIENCE, || async {
            let answer = self.caller.get(&host, "/").await;
            Ok(answer.ok().filter(|a| a.json()["type"].as_str().is_some_and(|t| t.contains("rouse.dev"))).map(|_| ()))
        })
        .await
    }

    /// The function's pods, those that are going away too.
    ///
    /// # Errors
    ///
    /// If the API server does not answer.
    pub async fn pods(&self, name: &str) -> Result<Vec<FunctionPod>> {
        let api: Api<FunctionPod> = Api::namespaced(self.client.clone(), &self.namespace);
        Ok(api.list(&ListParams::default().labels(&names::function_selector(name))).await?.items)
    }

    /// Waits for a verified zero: no pod, not even one that is terminating.
    ///
    /// # Errors
    ///
    /// If there still is one after [`PATIENCE`].
    pub async fn zero(&self, name: &str) -> Result<()> {
        until(&format!("{name} at zero"), PATIENCE, || async { Ok(self.pods(name).await?.is_empty().then_some(())) })
            .await
    }

    /// Waits until every pod there is is at least going away, and gives the moment.
    ///
    /// # Errors
    ///
    /// If one stays longer than `limit`.
    pub async fn terminating(&self, name: &str, limit: Duration) -> Result<Instant> {
        until(&format!("{name} going to zero"), limit, || async {
            let staying = self.pods(name).await?.iter().any(|p| p.metadata.deletion_timestamp.is_none());
            Ok((!staying).then(Instant::now))
        })
        .await
    }

    /// `GET path` of a function through the ingress.
    ///
    /// # Errors
    ///
    /// If no answer comes.
    pub async fn get(&self, name: &str, path: &str) -> Result<Answer> {
        self.caller.get(&self.host(name), path).await
    }

    /// Deletes the Function and waits until nothing of it is left.
    ///
    /// # Errors
    ///
    /// If something is left after [`PATIENCE`].
    pub async fn delete(&self, name: &str) -> Result<()> {
        let api = self.functions();
        api.delete(name, &DeleteParams::background()).await?;
        until(&format!("{name} gone"), PATIENCE, || async { Ok(api.get_opt(name).await?.is_none().then_some(())) })
            .await?;
        until(&format!("the children of {name} gone"), PATIENCE, || async {
            Ok(self.children(name).await?.is_empty().then_some(()))
        })
        .await
    }

    /// Every object that belongs to a function, as `kind/name`.
    ///
    /// # Errors
    ///
    /// If the API server does not answer.
    pub async fn children(&self, name: &str) -> Result<Vec<String>> {
        use k8s_openapi::api::{
            apps::v1::{ControllerRevision, ReplicaSet},
            core::v1::{Pod, Service},
        };
        let list = ListParams::default().labels(&names::function_selector(name));
        let mut found = vec![];
        found.extend(named("Deployment", &self.deployments().list_metadata(&list).await?));
        let replica_sets: Api<ReplicaSet> = Api::namespaced(self.client.clone(), &self.namespace);
        found.extend(named("ReplicaSet", &replica_sets.list_metadata(&list).await?));
        let revisions: Api<ControllerRevision> = Api::namespaced(self.client.clone(), &self.namespace);
        found.extend(named("ControllerRevision", &revisions.list_metadata(&list).await?));
        let services: Api<Service> = Api::namespaced(self.client.clone(), &self.namespace);
        found.extend(named("Service", &services.list_metadata(&list).await?));
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        found.extend(named("Pod", &pods.list_metadata(&list).await?));
        Ok(found)
    }

    /// Deletes the namespace, without waiting for the end of it.
    ///
    /// # Errors
    ///
    /// If the API server refuses.
    pub async fn leave(&self) -> Result<()> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        namespaces.delete(&self.namespace, &DeleteParams::background()).await?;
        Ok(())
    }
}

fn named<K: kube::Resource<DynamicType = ()> + Clone>(
    kind: &str,
    list: &kube::core::ObjectList<kube::core::PartialObjectMeta<K>>,
) -> Vec<String> {
    list.items.iter().map(|item| format!("{kind}/{}", item.name_any())).collect()
}
