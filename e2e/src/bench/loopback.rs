//! The activator without a cluster: the program of the image, on loopback beside an API server. The benchmark writes the
//! objects that the operator and the kubelet would write: Functions with traffic, Deployments at zero, and pods.

use std::{
    ffi::OsString,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};
use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        core::v1::{Namespace, Pod},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    runtime::{conditions::is_crd_established, wait::await_condition},
};
use rouse_crds::{Function, names};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{
    callgrind::Callgrind,
    daemon::{Core, Daemon, GROUP_ENV, Start},
};
use crate::{
    Places,
    api_server::{ApiServer, free_port},
    gomod::CLUSTER,
    http_client::HttpClient,
    images,
    process::{command, run, wait_for},
    progress::Progress,
    requirements,
    up::DOMAIN,
    workspace::client_from,
};

const NAMESPACE: &str = "bench";
/// Timeout of every wait.
const TIMEOUT: Duration = Duration::from_secs(60);

/// An API server on loopback, and the programs to measure.
#[derive(Debug)]
pub(super) struct Loopback {
    /// Configurations and logs.
    pub(super) folder: tempfile::TempDir,
    /// `rouse-load`.
    pub(super) load: PathBuf,
    programs: PathBuf,
    server: ApiServer,
    client: Debugless,
}

/// Client without a useful `Debug` output.
struct Debugless(Client);

impl std::fmt::Debug for Debugless {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}

/// How an activator runs.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Variant<'a> {
    /// Another program than the one that was compiled here.
    pub(super) program: Option<&'a Path>,
    /// Callgrind, which then runs it.
    pub(super) callgrind: Option<&'a Callgrind>,
    /// Control group that it starts in.
    pub(super) group: Option<&'a Path>,
}

/// A running activator and its public address.
#[derive(Debug)]
pub(super) struct Activator {
    pub(super) daemon: Daemon,
    pub(super) public: SocketAddr,
}

impl Loopback {
    /// Compiles the programs and starts the API server on the measuring core.
    pub(super) async fn start(places: &Places, progress: &Progress) -> Result<Self> {
        requirements::meet_go(places).await?;
        let bin = CLUSTER.build(places, &["kube-apiserver", "etcd", "kubectl"], progress).await?;
        let programs = images::programs(places, progress).await?;
        let load = images::load_program(places, progress).await?;
        let server = ApiServer::start(&bin).await?;
        server.pin(Core::Measuring.number()).await?;
        let client = client_from(&server.kubeconfig, None).await?;
        let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
        let params = PatchParams::apply("rouse-e2e");
        let crd = rouse_crds::function::crd();
        let name = crd.name_any();
        crds.patch(&name, &params, &Patch::Apply(&crd)).await.context("the API server refused the CRD")?;
        let established = await_condition(crds, &name, is_crd_established());
        timeout(TIMEOUT, established).await.context("the CRD is not established")??;
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
        namespaces.patch(NAMESPACE, &params, &Patch::Apply(namespace)).await?;
        let folder = tempfile::Builder::new().prefix("rouse-bench").tempdir()?;
        Ok(Self { folder, load, programs, server, client: Debugless(client) })
    }

    /// Returns the default host of a Function.
    pub(super) fn host(&self, function: &str) -> String {
        self.own().host(function)
    }

    /// Creates a Function whose first revision has all traffic and a Deployment at zero.
    pub(super) async fn function(&self, name: &str, spec: Value) -> Result<()> {
        self.own().function(name, spec).await
    }

    /// Returns the namespace of all benchmarks that need only one.
    fn own(&self) -> Tenant<'_> {
        Tenant { loopback: self, namespace: NAMESPACE.to_owned() }
    }

    /// Creates a Function without other objects.
    pub(super) async fn bare_function(&self, name: &str, mut spec: Value) -> Result<()> {
        spec["image"] = json!("example.com/function:1");
        let function = Function::new(name, serde_json::from_value(spec).context("not a Function's spec")?);
        self.functions()
            .create(&PostParams::default(), &function)
            .await
            .context("the API server refused the Function")?;
        Ok(())
    }

    /// Patches a Function and returns its new generation.
    pub(super) async fn change(&self, function: &str, change: Value) -> Result<i64> {
        let changed = self
            .functions()
            .patch(function, &PatchParams::default(), &Patch::Merge(change))
            .await
            .context("the API server refused the change")?;
        Ok(changed.metadata.generation.unwrap_or_default())
    }

    /// Returns the Functions.
    pub(super) fn functions(&self) -> Api<Function> {
        Api::namespaced(self.client.0.clone(), NAMESPACE)
    }

    /// Returns whether a Deployment exists.
    pub(super) async fn has_deployment(&self, name: &str) -> Result<bool> {
        let deployments: Api<Deployment> = Api::namespaced(self.client.0.clone(), NAMESPACE);
        Ok(deployments.get_opt(name).await?.is_some())
    }

    /// Sets the status of a Deployment to one ready pod, as its controller.
    pub(super) async fn one_pod_ready(&self, deployment: &str) -> Result<()> {
        let deployments: Api<Deployment> = Api::namespaced(self.client.0.clone(), NAMESPACE);
        let status =
            json!({"status": {"replicas": 1, "readyReplicas": 1, "availableReplicas": 1, "updatedReplicas": 1}});
        deployments.patch_status(deployment, &PatchParams::default(), &Patch::Merge(status)).await?;
        Ok(())
    }

    /// Creates a ready pod of the first revision, with the server at `address`.
    pub(super) async fn pod(&self, function: &str, address: SocketAddr) -> Result<()> {
        self.own().pod(function, address).await
    }

    /// Like [`Self::pod`], for the revision with this number.
    pub(super) async fn pod_of(&self, function: &str, revision: i64, address: SocketAddr) -> Result<()> {
        self.own().pod_of(function, revision, address).await
    }

    /// Deletes all Functions, Deployments and pods.
    pub(super) async fn clear(&self) -> Result<()> {
        self.own().clear().await
    }

    /// Starts an activator on the measured core and waits until it is ready.
    pub(super) async fn activator(&self, flags: &[&str]) -> Result<Activator> {
        self.variant(Variant::default(), flags).await
    }

    /// Like [`Self::activator`], for a variant of it.
    pub(super) async fn variant(&self, variant: Variant<'_>, flags: &[&str]) -> Result<Activator> {
        let mut env: Vec<(&str, OsString)> = vec![("KUBECONFIG", self.server.kubeconfig.clone().into())];
        env.extend(variant.group.map(|group| (GROUP_ENV, group.as_os_str().to_owned())));
        let [public, cluster, admin] = [free_address()?, free_address()?, free_address()?];
        let mut args = vec![
            "--allow-local-pods".to_owned(),
            format!("--public-addr={public}"),
            format!("--cluster-addr={cluster}"),
            format!("--admin-addr={admin}"),
            format!("--domain={DOMAIN}"),
            "--log-format=text".to_owned(),
        ];
        args.extend(flags.iter().map(|flag| (*flag).to_owned()));
        let start = Start {
            name: "activator",
            program: &self.activator_program(variant),
            args: args.into_iter().map(Into::into).collect(),
            env,
            core: Core::Measured,
            folder: self.folder.path(),
            callgrind: variant.callgrind,
        };
        let daemon = ready(start.start()?, admin).await?;
        Ok(Activator { daemon, public })
    }

    /// Starts an operator on the measured core and waits until it is ready. It discovers no activator, since an
    /// EndpointSlice must not contain a loopback address, so it writes only what does not depend on demand.
    pub(super) async fn operator(&self) -> Result<Daemon> {
        let admin = free_address()?;
        let args = [
            format!("--admin-addr={admin}"),
            format!("--domain={DOMAIN}"),
            format!("--namespace={NAMESPACE}"),
            "--ingress-mode=none".to_owned(),
            "--log-format=text".to_owned(),
        ];
        let start = Start {
            name: "operator",
            program: &self.programs.join("rouse-operator"),
            args: args.into_iter().map(Into::into).collect(),
            env: vec![("KUBECONFIG", self.server.kubeconfig.clone().into())],
            core: Core::Measured,
            folder: self.folder.path(),
            callgrind: None,
        };
        ready(start.start()?, admin).await
    }

    fn activator_program(&self, variant: Variant<'_>) -> PathBuf {
        variant.program.map_or_else(|| self.programs.join("rouse-activator"), Path::to_owned)
    }

    /// Returns the flags that the activator supports: the benchmark also runs at commits without some of them.
    pub(super) async fn flags(&self, variant: Variant<'_>, wanted: &[(&str, &str)]) -> Result<Vec<String>> {
        let help = run(command(self.activator_program(variant), ["--help"])).await?;
        let has = |flag: &str| help.split_whitespace().any(|word| word == flag);
        Ok(wanted.iter().filter(|(flag, _)| has(flag)).map(|(flag, value)| format!("{flag}={value}")).collect())
    }

    /// Returns the limit of open files of a process.
    pub(super) fn file_limit() -> Result<usize> {
        let limits = std::fs::read_to_string("/proc/self/limits")?;
        let line = limits.lines().find(|l| l.starts_with("Max open files")).context("no limit of open files")?;
        Ok(line.split_whitespace().nth(3).context("no limit of open files")?.parse().unwrap_or(usize::MAX))
    }

    /// Starts an origin on the measuring core.
    pub(super) async fn origin(&self) -> Result<(Daemon, SocketAddr)> {
        self.origin_of("origin").await
    }

    /// Starts the function of noisy tenants on the measuring core.
    pub(super) async fn noise_origin(&self) -> Result<(Daemon, SocketAddr)> {
        self.origin_of("noise-origin").await
    }

    async fn origin_of(&self, verb: &str) -> Result<(Daemon, SocketAddr)> {
        let start = Start {
            name: verb,
            program: &self.load,
            args: vec![verb.into()],
            env: vec![],
            core: Core::Measuring,
            folder: self.folder.path(),
            callgrind: None,
        };
        let (daemon, line) = start.start_and_read_line().await?;
        let address = line.parse().with_context(|| format!("the origin printed `{line}`"))?;
        Ok((daemon, address))
    }

    /// Creates a namespace.
    pub(super) async fn tenant(&self, namespace: &str) -> Result<Tenant<'_>> {
        let namespaces: Api<Namespace> = Api::all(self.client.0.clone());
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
        namespaces.patch(namespace, &PatchParams::apply("rouse-e2e"), &Patch::Apply(object)).await?;
        Ok(Tenant { loopback: self, namespace: namespace.to_owned() })
    }

    /// Returns the folder of configurations and logs.
    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// A namespace of its own.
#[derive(Debug)]
pub(super) struct Tenant<'a> {
    loopback: &'a Loopback,
    namespace: String,
}

impl Tenant<'_> {
    /// Returns the default host of a Function.
    pub(super) fn host(&self, function: &str) -> String {
        format!("{function}.{}.{DOMAIN}", self.namespace)
    }

    /// Creates a Function whose first revision has all traffic and a Deployment at zero.
    pub(super) async fn function(&self, name: &str, mut spec: Value) -> Result<()> {
        spec["image"] = json!("example.com/function:1");
        let functions = self.functions();
        let function = Function::new(name, serde_json::from_value(spec).context("not a Function's spec")?);
        let created =
            functions.create(&PostParams::default(), &function).await.context("the API server refused the Function")?;
        let revision = names::revision_name(name, 1);
        let labels = labels(name, 1, &created.uid().unwrap_or_default());
        let deployment = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": revision, "labels": labels},
            "spec": {"replicas": 0, "selector": {"matchLabels": {names::REVISION_LABEL: revision}}, "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": names::CONTAINER, "image": "example.com/function:1"}]},
            }},
        });
        let deployments: Api<Deployment> = Api::namespaced(self.loopback.client.0.clone(), &self.namespace);
        deployments.create(&PostParams::default(), &serde_json::from_value(deployment)?).await?;
        let status = json!({"status": {"traffic": [{"revision": revision, "percent": 100}]}});
        functions.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await?;
        Ok(())
    }

    fn functions(&self) -> Api<Function> {
        Api::namespaced(self.loopback.client.0.clone(), &self.namespace)
    }

    /// Creates a ready pod of the first revision, with the server at `address`.
    pub(super) async fn pod(&self, function: &str, address: SocketAddr) -> Result<()> {
        self.pod_of(function, 1, address).await
    }

    /// Like [`Self::pod`], for the revision with this number.
    pub(super) async fn pod_of(&self, function: &str, revision: i64, address: SocketAddr) -> Result<()> {
        let uid = self.functions().get(function).await?.uid().unwrap_or_default();
        let deployment = names::revision_name(function, revision);
        let name = format!("{deployment}-pod");
        let mut labels = labels(function, revision, &uid);
        labels[names::POD_TEMPLATE_HASH_LABEL] = json!(TEMPLATE_HASH);
        // Nothing here collects garbage, so the ReplicaSet need not exist.
        let owner = json!({
            "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{deployment}-{TEMPLATE_HASH}"), "uid": uid,
            "controller": true,
        });
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "labels": labels, "ownerReferences": [owner]},
            "spec": {"containers": [{"name": names::CONTAINER, "image": "example.com/function:1",
                "ports": [{"name": names::CONTAINER_PORT, "containerPort": address.port()}]}]},
        });
        let pods: Api<Pod> = Api::namespaced(self.loopback.client.0.clone(), &self.namespace);
        pods.create(&PostParams::default(), &serde_json::from_value(pod)?)
            .await
            .context("the API server refused the Pod")?;
        let status = json!({"status": {
            "phase": "Running", "podIP": address.ip(), "podIPs": [{"ip": address.ip()}],
            "conditions": [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "True"}],
        }});
        pods.patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await?;
        Ok(())
    }

    /// Deletes all Functions, Deployments and pods.
    pub(super) async fn clear(&self) -> Result<()> {
        let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
        let all = kube::api::ListParams::default();
        Api::<Function>::namespaced(self.loopback.client.0.clone(), &self.namespace)
            .delete_collection(&now, &all)
            .await?;
        Api::<Deployment>::namespaced(self.loopback.client.0.clone(), &self.namespace)
            .delete_collection(&now, &all)
            .await?;
        Api::<Pod>::namespaced(self.loopback.client.0.clone(), &self.namespace).delete_collection(&now, &all).await?;
        Ok(())
    }
}

/// Waits until a program is ready, by its admin port.
async fn ready(mut daemon: Daemon, admin: SocketAddr) -> Result<Daemon> {
    let http_client = HttpClient::new(admin);
    wait_for(&format!("the {}'s readiness", daemon.name), TIMEOUT, async || {
        daemon.check_alive()?;
        Ok(http_client.get("admin", "/readyz").await.is_ok_and(|response| response.status.is_success()))
    })
    .await?;
    Ok(daemon)
}

/// Hash in the name of the ReplicaSet of every pod, as the Deployment controller computes one.
const TEMPLATE_HASH: &str = "5d9f";

/// Returns the labels that the operator writes.
fn labels(function: &str, revision: i64, uid: &str) -> Value {
    json!({
        names::FUNCTION_LABEL: function, names::REVISION_LABEL: names::revision_name(function, revision),
        names::FUNCTION_UID_LABEL: uid, names::MANAGED_BY_LABEL: names::MANAGED_BY,
    })
}

/// Returns a loopback address with a free port.
pub(super) fn free_address() -> Result<SocketAddr> {
    Ok((Ipv4Addr::LOCALHOST, free_port()?).into())
}
