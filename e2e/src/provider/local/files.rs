//! The configuration of the node's programs, and how each is started.

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::{Value, json};

use super::address::{SERVICE_API, SERVICE_DNS, SERVICES};
use super::pki::Pki;
use super::{Addresses, Names, Programs, plugins, search_path};

/// How a daemon of the node is started.
#[derive(Debug)]
pub(super) struct Daemon {
    pub(super) name: &'static str,
    pub(super) program: PathBuf,
    pub(super) args: Vec<String>,
    pub(super) env: Vec<(&'static str, String)>,
    /// Whether the others wait until this one answers.
    pub(super) first: bool,
}

/// Where in the cluster's folder the API server writes down the changes of scales.
pub(crate) const SCALE_LOG: &str = "logs/scale-patches.json";

/// Who talks to the API server with which certificate.
const KUBECONFIGS: [(&str, &str); 5] = [
    ("kubeconfig", "admin"),
    ("controller-manager.kubeconfig", "controller-manager"),
    ("scheduler.kubeconfig", "scheduler"),
    ("proxy.kubeconfig", "proxy"),
    ("kubelet.kubeconfig", "kubelet"),
];

/// Writes certificates and configuration files into the cluster's folder.
pub(super) fn write(names: &Names, addresses: Addresses, programs: &Programs) -> Result<()> {
    let folder = &names.folder;
    let pki = Pki::at(folder);
    pki.create(
        &names.node,
        addresses.node().into(),
        &[addresses.node().into(), SERVICE_API.into(), [127, 0, 0, 1].into()],
    )?;
    for (file, certificate) in KUBECONFIGS {
        put(&folder.join(file), &kubeconfig(names, addresses, &pki, certificate))?;
    }
    for below in ["cni", "logs/pods"] {
        std::fs::create_dir_all(folder.join(below))?;
    }
    put(&folder.join("cni/10-pods.conflist"), &pod_network(names, addresses))?;
    put(&folder.join("kubelet.json"), &kubelet(names, &pki))?;
    // CoreDNS forwards nothing and pods have its address, so nobody asks this server; the kubelet wants the file to be there.
    std::fs::write(folder.join("resolv.conf"), "nameserver 127.0.0.1\n")?;
    std::fs::write(folder.join("containerd.toml"), containerd(names, programs)?)?;
    put(&folder.join("audit.json"), &audit())?;
    Ok(())
}

/// JSON is YAML, so one writer serves all of them.
fn put(path: &Path, value: &Value) -> Result<()> {
    Ok(std::fs::write(path, serde_json::to_vec_pretty(value)?)?)
}

fn kubeconfig(names: &Names, addresses: Addresses, pki: &Pki, certificate: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": names.node, "cluster": {
            "server": format!("https://{}:6443", addresses.node()),
            "certificate-authority": pki.file("ca.crt"),
        }}],
        "users": [{"name": certificate, "user": {
            "client-certificate": pki.file(&format!("{certificate}.crt")),
            "client-key": pki.file(&format!("{certificate}.key")),
        }}],
        "contexts": [{"name": names.node, "context": {"cluster": names.node, "user": certificate}}],
        "current-context": names.node,
    })
}

/// Changes of a Deployment's scale are written down with the moment at which they came in, which nobody outside of the API
/// server can tell.
fn audit() -> Value {
    json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived", "ResponseStarted"],
        "rules": [
            {"level": "Metadata", "verbs": ["patch"], "resources": [{"group": "apps", "resources": ["deployments/scale"]}]},
            {"level": "None"},
        ],
    })
}

/// Point-to-point links and not a bridge: replies of a Service's pod to its neighbour then always pass the node's
/// connection tracking, whether or not the kernel filters bridges.
fn pod_network(names: &Names, addresses: Addresses) -> Value {
    json!({
        "cniVersion": "1.0.0",
        "name": names.node,
        "plugins": [
            {"type": "ptp", "ipMasq": false, "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": addresses.pods()}]],
                "routes": [{"dst": "0.0.0.0/0"}],
                "dataDir": names.folder.join("pod-addresses"),
            }},
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    })
}

fn kubelet(names: &Names, pki: &Pki) -> Value {
    let folder = &names.folder;
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {"anonymous": {"enabled": false}, "webhook": {"enabled": true}, "x509": {"clientCAFile": pki.file("ca.crt")}},
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": pki.file("kubelet.crt"),
        "tlsPrivateKeyFile": pki.file("kubelet.key"),
        "containerRuntimeEndpoint": format!("unix://{}", names.socket().display()),
        "cgroupDriver": "cgroupfs",
        // Two kubelets under one root would delete each other's pods.
        "cgroupRoot": format!("/{}", names.node),
        "failCgroupV1": false,
        "enforceNodeAllocatable": [],
        "oomScoreAdj": 0,
        "failSwapOn": false,
        "clusterDNS": [SERVICE_DNS],
        "clusterDomain": "cluster.local",
        "resolvConf": folder.join("resolv.conf"),
        "maxPods": 250,
        // The machine's disk is its owner's: a full one must not evict the pods under test.
        "evictionHard": {"memory.available": "50Mi", "nodefs.available": "0%", "nodefs.inodesFree": "0%", "imagefs.available": "0%"},
        "imageGCHighThresholdPercent": 100,
        "podLogsDir": folder.join("logs/pods"),
        "volumePluginDir": folder.join("volume-plugins"),
    })
}

fn containerd(names: &Names, programs: &Programs) -> Result<String> {
    let folder = names.folder.display();
    Ok(format!(
        r#"version = 3
root = "{folder}/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.image-verifier.v1.bindir", "io.containerd.tracing.processor.v1.otlp"]
[grpc]
  address = "{socket}"
[plugins."io.containerd.nri.v1.nri"]
  disable = true
[plugins."io.containerd.internal.v1.opt"]
  path = "{folder}/opt"
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "{pause}"
[plugins."io.containerd.cri.v1.runtime"]
  # Root without CAP_SYS_RESOURCE may not lower a process's OOM score.
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
[plugins."io.containerd.cri.v1.runtime".cni]
  bin_dirs = ["{plugins}"]
  conf_dir = "{folder}/cni"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
  SystemdCgroup = false
  BinaryName = "{runc}/runc"
"#,
        socket = names.socket().display(),
        pause = programs.pause_image.reference,
        plugins = plugins()?.display(),
        runc = programs.runc.display(),
    ))
}

/// What the node's first process does in its new mount namespace before it becomes the reaper of all others.
///
/// Programs with fixed paths (`/run/containerd`, `/var/lib/kubelet`, `/var/log/containers`, …) get file systems of their own
/// there, which vanish with the namespace.
pub(super) fn mounts_script(folder: &Path, cache: &Path, pause: &Path) -> String {
    let (folder, cache, pause) = (folder.display(), cache.display(), pause.display());
    format!(
        r#"
        mount -t tmpfs tmpfs /run
        mkdir /run/cluster /run/cache
        mount --bind '{folder}' /run/cluster
        mount --bind '{cache}' /run/cache
        mount -t tmpfs tmpfs /var/lib
        mount -t tmpfs tmpfs /var/log
        mkdir -p '{folder}' '{cache}'
        mount --bind /run/cluster '{folder}'
        mount --bind /run/cache '{cache}'
        umount /run/cluster /run/cache
        # Pods may ask for mounts that propagate; they propagate within this namespace only.
        mount --make-rshared /
        : > '{folder}/node-is-up'
        exec '{pause}'
        "#
    )
}

/// All daemons, in the order they are started.
pub(super) fn daemons(names: &Names, addresses: Addresses, programs: &Programs) -> Result<Vec<Daemon>> {
    let (folder, pki) = (&names.folder, Pki::at(&names.folder));
    let file = |name: &str| folder.join(name).display().to_string();
    let path = search_path(&[&programs.containerd, &programs.runc])?;
    let daemon = |name, bin: &Path, first, args: Vec<(&str, String)>| Daemon {
        name,
        program: bin.join(name),
        args: args.into_iter().map(|(flag, value)| format!("--{flag}={value}")).collect(),
        env: vec![("PATH", path.clone())],
        first,
    };
    let yes = || "true".to_owned();
    let etcd = daemon(
        "etcd",
        &programs.cluster,
        true,
        vec![
            ("data-dir", file("etcd")),
            ("listen-client-urls", "http://127.0.0.1:2379".into()),
            ("advertise-client-urls", "http://127.0.0.1:2379".into()),
            ("listen-peer-urls", "http://127.0.0.1:2380".into()),
            // A crash of the machine costs a test cluster that is not wanted any more.
            ("unsafe-no-fsync", yes()),
            ("log-level", "warn".into()),
        ],
    );
    let containerd = daemon("containerd", &programs.containerd, true, vec![("config", file("containerd.toml"))]);
    let api = daemon(
        "kube-apiserver",
        &programs.cluster,
        true,
        vec![
            ("etcd-servers", "http://127.0.0.1:2379".into()),
            ("advertise-address", addresses.node().to_string()),
            ("bind-address", "0.0.0.0".into()),
            ("secure-port", "6443".into()),
            ("service-cluster-ip-range", SERVICES.into()),
            ("client-ca-file", pki.file("ca.crt")),
            ("tls-cert-file", pki.file("apiserver.crt")),
            ("tls-private-key-file", pki.file("apiserver.key")),
            ("service-account-issuer", "https://kubernetes.default.svc.cluster.local".into()),
            ("service-account-key-file", pki.file("service-accounts.pub")),
            ("service-account-signing-key-file", pki.file("service-accounts.key")),
            ("authorization-mode", "Node,RBAC".into()),
            ("enable-admission-plugins", "NodeRestriction".into()),
            ("allow-privileged", yes()),
            ("kubelet-client-certificate", pki.file("apiserver-kubelet-client.crt")),
            ("kubelet-client-key", pki.file("apiserver-kubelet-client.key")),
            ("kubelet-certificate-authority", pki.file("ca.crt")),
            // Without it `kubectl logs` and `exec` look for the node's name in DNS.
            ("kubelet-preferred-address-types", "InternalIP".into()),
            ("audit-policy-file", file("audit.json")),
            ("audit-log-path", file(SCALE_LOG)),
            ("requestheader-client-ca-file", pki.file("front-proxy-ca.crt")),
            ("requestheader-allowed-names", "front-proxy-client".into()),
            ("requestheader-extra-headers-prefix", "X-Remote-Extra-".into()),
            ("requestheader-group-headers", "X-Remote-Group".into()),
            ("requestheader-username-headers", "X-Remote-User".into()),
            ("proxy-client-cert-file", pki.file("front-proxy-client.crt")),
            ("proxy-client-key-file", pki.file("front-proxy-client.key")),
        ],
    );
    let controllers = daemon(
        "kube-controller-manager",
        &programs.cluster,
        false,
        vec![
            ("kubeconfig", file("controller-manager.kubeconfig")),
            ("authentication-kubeconfig", file("controller-manager.kubeconfig")),
            ("authorization-kubeconfig", file("controller-manager.kubeconfig")),
            ("service-account-private-key-file", pki.file("service-accounts.key")),
            ("root-ca-file", pki.file("ca.crt")),
            ("use-service-account-credentials", yes()),
            ("cluster-cidr", addresses.pods()),
            ("allocate-node-cidrs", yes()),
            ("node-cidr-mask-size", "16".into()),
            ("cluster-signing-cert-file", pki.file("ca.crt")),
            ("cluster-signing-key-file", pki.file("ca.key")),
            ("leader-elect", "false".into()),
            ("bind-address", "127.0.0.1".into()),
        ],
    );
    let scheduler = daemon(
        "kube-scheduler",
        &programs.cluster,
        false,
        vec![
            ("kubeconfig", file("scheduler.kubeconfig")),
            ("authentication-kubeconfig", file("scheduler.kubeconfig")),
            ("authorization-kubeconfig", file("scheduler.kubeconfig")),
            ("leader-elect", "false".into()),
            ("bind-address", "127.0.0.1".into()),
        ],
    );
    let kubelet = daemon(
        "kubelet",
        &programs.cluster,
        false,
        vec![
            ("kubeconfig", file("kubelet.kubeconfig")),
            ("config", file("kubelet.json")),
            ("root-dir", file("kubelet")),
            ("hostname-override", names.node.clone()),
            ("node-ip", addresses.node().to_string()),
        ],
    );
    let proxy = daemon(
        "kube-proxy",
        &programs.cluster,
        false,
        vec![
            ("kubeconfig", file("proxy.kubeconfig")),
            ("hostname-override", names.node.clone()),
            ("cluster-cidr", addresses.pods()),
            ("proxy-mode", "iptables".into()),
            ("oom-score-adj", "0".into()),
            // These sysctls are read-only on some machines; their defaults will do.
            ("conntrack-max-per-core", "0".into()),
            ("conntrack-tcp-timeout-established", "0s".into()),
            ("conntrack-tcp-timeout-close-wait", "0s".into()),
        ],
    );
    Ok(vec![etcd, containerd, api, controllers, scheduler, kubelet, proxy])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_clusters_share_nothing_but_programs() {
        let names = |name: &str| Names { node: format!("rouse-{name}"), folder: format!("/s/{name}").into() };
        let (a, b) = (names("a"), names("b"));
        let pki = Pki::at(&a.folder);
        assert_ne!(kubelet(&a, &pki)["cgroupRoot"], kubelet(&b, &pki)["cgroupRoot"]);
        let network = |names: &Names, index| pod_network(names, Addresses::at(index)).to_string();
        assert_ne!(network(&a, 0), network(&b, 1));
        let config = kubeconfig(&b, Addresses::at(1), &Pki::at(&b.folder), "admin");
        assert_eq!(config["clusters"][0]["cluster"]["server"], "https://10.250.1.2:6443");
        assert_eq!(config["users"][0]["user"]["client-key"], "/s/b/pki/admin.key");
    }

    #[test]
    fn fixed_paths_of_the_host_are_covered_before_the_first_process_runs() {
        let script = mounts_script(Path::new("/s/a"), Path::new("/c"), Path::new("/c/pause"));
        let covered = script.find("tmpfs /var/lib").unwrap();
        assert!(covered < script.find("exec '/c/pause'").unwrap());
    }
}
