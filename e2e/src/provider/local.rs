//! Kubernetes' own programs on this machine, without Docker.
//!
//! The node is three namespaces: network (joined to the host by a veth pair), process and mount. Its first process holds
//! them; when that dies the kernel ends every daemon, shim and container with it, and their mounts go with the last of
//! them. What stays on the host is what [`sweep`] removes: the network namespace's name, the veth, cgroups, the folder.

mod address;
mod files;
mod network;
mod pki;
mod sweep;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};

pub use self::address::Addresses;
pub(crate) use self::files::SCALE_LOG;
pub use self::sweep::sweep;
use super::{Node, Provider};
use crate::cluster::kubectl;
use crate::gomod::{CLUSTER, CONTAINERD, RUNC};
use crate::host::{cni_folder, find_program};
use crate::images::{self, Archive};
use crate::lock::FileLock;
use crate::places::Places;
use crate::plan::title;
use crate::process::{Process, command, run, succeeds, wait_for};
use crate::progress::Progress;
use crate::state::State;

/// How long the control plane may take to answer on a machine that is busy compiling.
const START_LIMIT: Duration = Duration::from_secs(120);

/// The programs that the node runs and the node's pause image.
#[derive(Clone, Debug)]
pub struct Programs {
    cluster: PathBuf,
    containerd: PathBuf,
    runc: PathBuf,
    pause: PathBuf,
    pause_image: Archive,
}

impl Programs {
    /// Builds what the cache does not have.
    pub async fn build(places: &Places, progress: &Progress) -> Result<Self> {
        Ok(Self {
            cluster: CLUSTER.build(places, &CLUSTER.all(), progress).await?,
            containerd: CONTAINERD.build(places, &CONTAINERD.all(), progress).await?,
            runc: RUNC.build(places, &RUNC.all(), progress).await?,
            pause: images::pause_program(places).await?,
            pause_image: images::pause(places).await?,
        })
    }

    /// The kubectl of the cluster's version.
    pub fn kubectl(&self) -> PathBuf {
        self.cluster.join("kubectl")
    }

    /// The pause image, which has to be in the node before its first pod.
    pub fn pause_image(&self) -> &Archive {
        &self.pause_image
    }
}

/// Everything that has the cluster's name in it.
#[derive(Clone, Debug)]
struct Names {
    /// The network namespace, the Kubernetes node and the cgroup have one name.
    node: String,
    folder: PathBuf,
}

impl Names {
    fn new(places: &Places, name: &str) -> Self {
        Self { node: format!("rouse-{name}"), folder: places.cluster(name) }
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("containerd.sock")
    }

    fn kubeconfig(&self) -> PathBuf {
        self.folder.join("kubeconfig")
    }

    fn namespace(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.node)
    }
}

/// Gives the running node if all of it is well.
pub async fn find(places: &Places, name: &str, state: &State, programs: &Programs) -> Option<Node> {
    let names = Names::new(places, name);
    let addresses = Addresses::at(state.index?);
    let whole = state.complete && state.processes.iter().all(Process::is_alive);
    let ready = "{.status.conditions[?(@.type==\"Ready\")].status}";
    let args = ["get", "node", &names.node, "--request-timeout=5s", "-o", &format!("jsonpath={ready}")];
    let answer = if whole { run(kubectl(&programs.kubectl(), &names.kubeconfig(), args)).await } else { return None };
    (answer.ok()?.trim() == "True").then(|| node(&names, addresses))
}

fn node(names: &Names, addresses: Addresses) -> Node {
    Node {
        kubeconfig: names.kubeconfig(),
        ingress: (addresses.node(), 80).into(),
        address: Some(addresses.node().into()),
    }
}

/// Starts a node from nothing, with these images in it. What an earlier run left behind must have been swept.
pub async fn start(
    places: &Places,
    name: &str,
    state: &mut State,
    programs: &Programs,
    archives: &[Archive],
    progress: &Progress,
) -> Result<Node> {
    let step = progress.step(title::START_LOCAL);
    let names = Names::new(places, name);
    std::fs::create_dir_all(names.folder.join("logs"))?;
    let addresses = {
        // Held until the choice is written down, so that two clusters do not choose the same.
        let _lock = FileLock::acquire(&places.state.join(".addresses.lock")).await?;
        let addresses = network::choose(places).await?;
        state.index = Some(addresses.index());
        state.write(&names.folder)?;
        addresses
    };
    network::create(&names, addresses).await?;
    sweep::create_cgroup(&names.node)?;
    files::write(&names, addresses, programs)?;
    let mut node_of = Daemons { names: &names, state };
    node_of.hold(programs, &places.cache).await?;

    step.detail("etcd, API server, containerd");
    let daemons = files::daemons(&names, addresses, programs)?;
    let (first, second): (Vec<_>, Vec<_>) = daemons.into_iter().partition(|daemon| daemon.first);
    for daemon in &first {
        node_of.start(daemon)?;
    }
    let (loaded, answered) = tokio::join!(
        async {
            wait_for("The start of containerd", START_LIMIT, async || Ok(ctr(&names, programs, &["version"]).await))
                .await?;
            // The kubelet needs the first one for every pod; the others may come while the control plane starts.
            load(places, name, programs, archives).await
        },
        wait_for("The start of the API server", START_LIMIT, async || {
            let get = ["get", "--raw", "/readyz", "--request-timeout=2s"];
            Ok(succeeds(kubectl(&programs.kubectl(), &names.kubeconfig(), get)).await)
        })
    );
    loaded.and(answered).with_context(|| format!("See the logs in {}", names.folder.join("logs").display()))?;
    node_of.state.loaded = archives.iter().map(Archive::key).collect();
    step.detail("controllers, kubelet");
    for daemon in &second {
        node_of.start(daemon)?;
    }
    for wait in ["--for=create", "--for=condition=Ready"] {
        let what = format!("node/{}", names.node);
        run(kubectl(&programs.kubectl(), &names.kubeconfig(), ["wait", wait, &what, "--timeout=120s"]))
            .await
            .with_context(|| format!("See {}", names.folder.join("logs/kubelet.log").display()))?;
    }
    state.complete = true;
    state.write(&names.folder)?;
    step.done();
    Ok(node(&names, addresses))
}

/// Puts images into the node's container runtime.
pub async fn load(places: &Places, name: &str, programs: &Programs, archives: &[Archive]) -> Result<()> {
    let names = Names::new(places, name);
    for archive in archives {
        let mut import = command(programs.containerd.join("ctr"), ["--address"]);
        import.arg(names.socket()).args(["--namespace", "k8s.io", "images", "import"]).arg(&archive.path);
        run(import).await.with_context(|| format!("Cannot load {}", archive.reference))?;
    }
    Ok(())
}

async fn ctr(names: &Names, programs: &Programs, args: &[&str]) -> bool {
    let mut ctr = command(programs.containerd.join("ctr"), ["--address"]);
    ctr.arg(names.socket()).args(args);
    succeeds(ctr).await
}

/// The last records of the node's processes; kept current so that a run that is killed can be cleaned up.
struct Daemons<'a> {
    names: &'a Names,
    state: &'a mut State,
}

impl Daemons<'_> {
    /// Starts the node's first process, which makes and holds its process and mount namespaces.
    async fn hold(&mut self, programs: &Programs, cache: &Path) -> Result<()> {
        let script = files::mounts_script(&self.names.folder, cache, &programs.pause);
        let net = format!("--net={}", self.names.namespace().display());
        let argv = [
            "nsenter",
            &net,
            "unshare",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount",
            "--mount-proc",
            "--propagation",
            "private",
            "sh",
            "-ec",
            &script,
        ];
        let log = self.names.folder.join("logs/node.log");
        let holder = Process::daemon("node", &argv, &log)?;
        let marker = self.names.folder.join("node-is-up");
        self.record(holder.clone())?;
        wait_for("The start of the node's first process", START_LIMIT, async || {
            anyhow::ensure!(holder.is_alive(), "The node's first process ended, see {}", log.display());
            Ok(marker.exists())
        })
        .await
    }

    fn start(&mut self, daemon: &files::Daemon) -> Result<()> {
        let holder = self.state.process("node").context("The node has no first process")?.pid;
        let mut argv: Vec<String> = vec![
            "nsenter".to_owned(),
            format!("--net={}", self.names.namespace().display()),
            format!("--mount=/proc/{holder}/ns/mnt"),
            // unshare's own namespace is the host's; the one it has made is its children's.
            format!("--pid=/proc/{holder}/ns/pid_for_children"),
            "env".to_owned(),
        ];
        argv.extend(daemon.env.iter().map(|(name, value)| format!("{name}={value}")));
        argv.push(daemon.program.display().to_string());
        argv.extend(daemon.args.iter().cloned());
        let log = self.names.folder.join(format!("logs/{}.log", daemon.name));
        let process = Process::daemon(daemon.name, &argv, &log)?;
        self.record(process)
    }

    fn record(&mut self, process: Process) -> Result<()> {
        self.state.processes.push(process);
        self.state.write(&self.names.folder)
    }
}

/// The folders that programs of the node find iptables and the like in.
fn search_path(extra: &[&Path]) -> Result<String> {
    let iptables = find_program("iptables").context("iptables is not installed")?;
    let mut folders: Vec<PathBuf> = extra.iter().map(|folder| (*folder).to_owned()).collect();
    folders.extend(iptables.parent().map(Path::to_owned));
    folders.extend(["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(PathBuf::from));
    Ok(std::env::join_paths(folders)?.to_string_lossy().into_owned())
}

/// The folder of the CNI plugins.
fn plugins() -> Result<&'static Path> {
    cni_folder().context("The CNI plugins are not installed")
}

/// A new state for this provider.
pub fn fresh_state() -> State {
    State::new(Provider::Local)
}
