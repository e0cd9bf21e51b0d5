//! A namespace of the cluster with Functions in it. Tests, the demonstration and the benchmarks use it to apply Functions,
//! send requests to them and inspect their objects.

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
    http_client::{HttpClient, Response},
};

/// Timeout of every wait for the cluster. Generous, since machines differ.
pub const TIMEOUT: Duration = Duration::from_secs(120);

/// A namespace with Functions in it.
#[derive(Clone)]
pub struct Workspace {
    /// Client of the API server with administrator rights.
    pub client: Client,
    /// HTTP client of the ingress.
    pub http_client: HttpClient,
    /// Name of the namespace.
    pub namespace: String,
    /// Domain of the installation.
    pub domain: String,
    /// Image of `examples/hello`.
    pub image: String,
}

impl std::fmt::Debug for Workspace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Workspace")
            .field("namespace", &self.namespace)
            .field("domain", &self.domain)
            .finish_non_exhaustive()
    }
}

/// Creates a client of the cluster's API server.
///
/// # Errors
///
/// If the kubeconfig cannot be read.
pub async fn client_of(cluster: &Cluster) -> Result<Client> {
    client(cluster, None).await
}

/// Creates a client that impersonates a user.
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

/// Creates a client from a kubeconfig.
///
/// # Errors
///
/// If the kubeconfig cannot be read.
pub async fn client_from(kubeconfig: &Path, user: Option<String>) -> Result<Client> {
    // Several TLS providers may be compiled in; the first one that is installed is used.
    drop(rustls::crypto::ring::default_provider().install_default());
    let kubeconfig = Kubeconfig::read_from(kubeconfig).context("the cluster's kubeconfig")?;
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    config.auth_info.impersonate = user;
    Ok(Client::try_from(config)?)
}

impl Workspace {
    /// Creates the namespace unless it exists.
    ///
    /// # Errors
    ///
    /// If the cluster does not respond.
    pub async fn new(cluster: &Cluster, namespace: &str) -> Result<Self> {
        let client = client_of(cluster).await?;
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let wanted = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
        namespaces.patch(namespace, &PatchParams::apply("rouse-e2e"), &Patch::Apply(wanted)).await?;
        let http_client = HttpClient::new(cluster.ingress);
        let image = cluster.images.get("rouse-hello").context("the cluster has no hello image")?.clone();
        Ok(Self { client, http_client, namespace: namespace.to_owned(), domain: cluster.domain.clone(), image })
    }

    /// Returns the Functions of the namespace.
    pub fn functions(&self) -> Api<Function> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Returns the Deployments of the namespace.
    pub fn deployments(&self) -> Api<Deployment> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Returns the default host of a Function.
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
        // Server-side apply, so that a concurrent status update of the operator causes no conflict.
        let apply = PatchParams::apply("rouse-e2e").force();
        Ok(self.functions().patch(name, &apply, &Patch::Apply(Function::new(name, spec))).await?)
    }

    /// Waits until condition `type_` has `status`, and returns its reason and message.
    ///
    /// # Errors
    ///
    /// If it times out after [`TIMEOUT`].
    pub async fn condition(&self, name: &str, type_: &str, status: &str) -> Result<(String, String)> {
        let api = self.functions();
        until(&format!("{name}: {type_}={status}"), TIMEOUT, || async {
            let function = api.get(name).await?;
            let generation = function.metadata.generation;
            let conditions = function.status.unwrap_or_default().conditions;
            let found = conditions.into_iter().find(|c| c.type_ == type_ && c.status == status);
            Ok(found.filter(|c| c.observed_generation == generation).map(|c| (c.reason, c.message)))
        })
        .await
    }

    /// Applies a Function and waits until it is ready and routed.
    ///
    /// # Errors
    ///
    /// If it does not become ready.
    pub async fn ready(&self, name: &str, spec: serde_json::Value) -> Result<()> {
        self.apply(name, spec).await?;
        self.condition(name, "Ready", "True").await?;
        self.routed(name).await
    }

    /// Waits until the ingress routes the hosts of the namespace to Rouse. Requests a host of the same wildcard rule that no
    /// Function owns, so that nothing is woken: Rouse responds with its own 404.
    ///
    /// # Errors
    ///
    /// If the ingress has no route after [`TIMEOUT`].
    pub async fn routed(&self, name: &str) -> Result<()> {
        let host = self.host(&format!("no-{name}"));
        until(&format!("a route for *.{}.{}", self.namespace, self.domain), TIMEOUT, || async {
            let response = self.http_client.get(&host, "/").await;
            Ok(response.ok().filter(|a| a.json()["type"].as_str().is_some_and(|t| t.contains("rouse.dev"))).map(|_| ()))
        })
        .await
    }

    /// Returns the pods of a Function, including terminating ones.
    ///
    /// # Errors
    ///
    /// If the API server does not respond.
    pub async fn pods(&self, name: &str) -> Result<Vec<FunctionPod>> {
        let api: Api<FunctionPod> = Api::namespaced(self.client.clone(), &self.namespace);
        Ok(api.list(&ListParams::default().labels(&names::function_selector(name))).await?.items)
    }

    /// Waits until no pod exists, not even a terminating one.
    ///
    /// # Errors
    ///
    /// If a pod exists after [`TIMEOUT`].
    pub async fn without_pods(&self, name: &str) -> Result<()> {
        until(&format!("{name} at zero"), TIMEOUT, || async { Ok(self.pods(name).await?.is_empty().then_some(())) })
            .await
    }

    /// Waits until every pod is terminating or deleted, and returns the time.
    ///
    /// # Errors
    ///
    /// If it times out after `limit`.
    pub async fn terminating(&self, name: &str, limit: Duration) -> Result<Instant> {
        until(&format!("termination of the pods of {name}"), limit, || async {
            let staying = self.pods(name).await?.iter().any(|p| p.metadata.deletion_timestamp.is_none());
            Ok((!staying).then(Instant::now))
        })
        .await
    }

    /// Sends `GET path` to a Function through the ingress.
    ///
    /// # Errors
    ///
    /// If there is no response.
    pub async fn get(&self, name: &str, path: &str) -> Result<Response> {
        self.http_client.get(&self.host(name), path).await
    }

    /// Deletes a Function and waits until its objects are deleted.
    ///
    /// # Errors
    ///
    /// If an object exists after [`TIMEOUT`].
    pub async fn delete(&self, name: &str) -> Result<()> {
        let api = self.functions();
        api.delete(name, &DeleteParams::background()).await?;
        until(&format!("deletion of {name}"), TIMEOUT, || async {
            Ok(api.get_opt(name).await?.is_none().then_some(()))
        })
        .await?;
        until(&format!("deletion of the objects of {name}"), TIMEOUT, || async {
            Ok(self.children(name).await?.is_empty().then_some(()))
        })
        .await
    }

    /// Returns every object that belongs to a Function, as `kind/name`.
    ///
    /// # Errors
    ///
    /// If the API server does not respond.
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

    /// Starts the deletion of the namespace.
    ///
    /// # Errors
    ///
    /// If the API server refuses.
    pub async fn delete_namespace(&self) -> Result<()> {
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
