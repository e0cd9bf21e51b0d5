//! What the machine must have, looked at before anything is done to it.
//!
//! [`Facts::gather`] looks, [`decide`] (pure) compares, [`meet`] installs what `apt` can bring and names the rest.

use std::fmt;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::host::{cni_folder, docker_responds};
use crate::places::{Places, is_root};
use crate::process::{command, run, succeeds};
use crate::progress::{Progress, note};
use crate::provider::Provider;

pub use crate::host::find_program;

/// What was found on the machine.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Runs as root.
    pub root: bool,
    /// The version of Go, if there is one.
    pub go: Option<(u32, u32)>,
    /// The version of Go that the lock files ask for.
    pub go_wanted: (u32, u32),
    /// A Docker engine responds.
    pub docker: bool,
    /// `apt-get` is there, so packages can be installed when root.
    pub apt: bool,
    /// The programs of [`PROGRAMS`] that are missing.
    pub missing_programs: Vec<&'static str>,
    /// libseccomp's header is missing.
    pub no_seccomp: bool,
    /// The static C library is missing.
    pub no_static_libc: bool,
    /// The CNI plugins are missing.
    pub no_cni: bool,
    /// Python has no pip.
    pub no_pip: bool,
    /// The state folder is on an overlay, on which containers cannot have theirs.
    pub state_on_overlay: bool,
    /// Variables that `current` needs and that are not set.
    pub unset: Vec<&'static str>,
}

/// Programs, the Debian package that has them, and whether only the local provider needs them.
const PROGRAMS: [(&str, &str, bool); 12] = [
    ("cc", "gcc", false),
    ("ldd", "libc-bin", false),
    ("python3", "python3", false),
    ("pkg-config", "pkg-config", true),
    ("ip", "iproute2", true),
    ("iptables", "iptables", true),
    ("nsenter", "util-linux", true),
    ("unshare", "util-linux", true),
    ("setsid", "util-linux", true),
    ("mount", "mount", true),
    ("kill", "procps", true),
    ("sysctl", "procps", true),
];

/// What is missing and how to get it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lack {
    /// What is missing.
    pub what: String,
    /// What a person can do about it.
    pub how: String,
}

/// What has to happen before the provider can work.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Debian packages to install.
    pub install: Vec<&'static str>,
    /// What only a person can bring.
    pub lacking: Vec<Lack>,
}

/// The machine lacks something that this tool cannot bring. Shown without a stack trace.
#[derive(Debug)]
pub struct Unmet(pub Vec<Lack>);

impl std::error::Error for Unmet {}

impl fmt::Display for Unmet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Missing requirements:")?;
        for lack in &self.0 {
            write!(f, "\n  - {}: {}", lack.what, lack.how)?;
        }
        Ok(())
    }
}

/// Compares what is there with what the provider needs.
pub fn decide(facts: &Facts, provider: Provider) -> Plan {
    let mut plan = Plan::default();
    let mut lack = |what: String, how: String| plan.lacking.push(Lack { what, how });
    let (major, minor) = facts.go_wanted;
    let get_go = format!("install Go {major}.{minor} or later from https://go.dev/dl and put its bin folder on PATH");
    match facts.go {
        None if provider != Provider::Current => lack("Go".to_owned(), get_go),
        Some(there) if there < facts.go_wanted && provider != Provider::Current => {
            lack(format!("Go {major}.{minor} (found {}.{})", there.0, there.1), get_go);
        }
        _ => {}
    }
    let local = provider == Provider::Local;
    if local && !facts.root {
        let how = "the local provider creates network namespaces and runs containers: run as root (for example \
                   `sudo -E env PATH=$PATH cargo e2e …`), or start a Docker engine and use `--provider kind`";
        lack("root".to_owned(), how.to_owned());
    }
    if local && facts.state_on_overlay {
        let how = "containers cannot run on overlayfs: set ROUSE_E2E_STATE to a folder on a disk or a volume";
        lack("a file system for containers".to_owned(), how.to_owned());
    }
    if provider == Provider::Kind && !facts.docker {
        let how = "`docker info` fails: start Docker (https://docs.docker.com/engine/install), set DOCKER_HOST, or \
                   use `--provider local` as root";
        lack("a Docker engine".to_owned(), how.to_owned());
    }
    for variable in &facts.unset {
        lack((*variable).to_owned(), format!("set it to {}", meaning(variable)));
    }
    let packages = packages(facts, provider);
    if facts.root && facts.apt {
        plan.install = packages;
    } else if !packages.is_empty() {
        let names = packages.join(" ");
        lack(
            format!("the programs of the Debian packages {names}"),
            format!("`sudo apt-get install {names}`, or the packages of your system"),
        );
    }
    plan
}

fn meaning(variable: &str) -> &'static str {
    match variable {
        "ROUSE_E2E_REGISTRY" => "the registry and path that the cluster pulls Rouse's images from",
        _ => "the host:port of the cluster's ingress",
    }
}

fn packages(facts: &Facts, provider: Provider) -> Vec<&'static str> {
    if provider == Provider::Current {
        return PROGRAMS.iter().filter(|p| p.0 == "cc" && facts.missing_programs.contains(&p.0)).map(|p| p.1).collect();
    }
    let local = provider == Provider::Local;
    let mut packages: Vec<&str> = PROGRAMS
        .iter()
        .filter(|(program, _, only_local)| facts.missing_programs.contains(program) && (local || !only_local))
        .map(|(_, package, _)| *package)
        .collect();
    let others = [
        (facts.no_pip, "python3-pip"),
        (facts.no_static_libc, "libc6-dev"),
        (local && facts.no_seccomp, "libseccomp-dev"),
        (local && facts.no_cni, "containernetworking-plugins"),
    ];
    packages.extend(others.iter().filter(|(missing, _)| *missing).map(|(_, package)| *package));
    packages.sort_unstable();
    packages.dedup();
    packages
}

impl Facts {
    /// Looks at this machine.
    pub async fn gather(places: &Places, provider: Provider) -> Result<Self> {
        let on_path = |program: &str| find_program(program).is_some();
        let library = run(command("cc", ["-print-file-name=libc.a"])).await.unwrap_or_default();
        let header =
            |name: &str| ["/usr/include", "/usr/local/include"].iter().any(|f| Path::new(f).join(name).exists());
        let wanted: &[&str] = match provider {
            Provider::Current => &["ROUSE_E2E_REGISTRY", "ROUSE_E2E_INGRESS"],
            Provider::Local | Provider::Kind => &[],
        };
        Ok(Self {
            root: is_root(),
            go: run(command("go", ["env", "GOVERSION"])).await.ok().and_then(|version| go_version(&version)),
            go_wanted: go_wanted(places)?,
            docker: docker_responds().await,
            apt: on_path("apt-get"),
            missing_programs: PROGRAMS.iter().map(|p| p.0).filter(|program| !on_path(program)).collect(),
            no_seccomp: !header("seccomp.h"),
            no_static_libc: !Path::new(library.trim()).is_absolute(),
            no_cni: cni_folder().is_none(),
            no_pip: !succeeds(command("python3", ["-m", "pip", "--version"])).await,
            state_on_overlay: on_overlay(&places.state).await,
            unset: wanted.iter().copied().filter(|name| std::env::var_os(name).is_none()).collect(),
        })
    }
}

/// Why the network of a pod cannot be made slow from here, if it cannot: that is done in the pod's network namespace.
pub fn no_slow_network(provider: Provider) -> Option<&'static str> {
    if provider == Provider::Current {
        return Some("the pods of an external cluster run on other machines");
    }
    if !is_root() {
        return Some("root is needed to enter the network namespace of a pod");
    }
    (!Path::new("/dev/net/tun").exists() || find_program("python3").is_none())
        .then_some("python3 and /dev/net/tun are needed where the kernel has no netem")
}

/// The Debian packages that have to be installed; an [`Unmet`] error if something else is missing.
pub async fn check(places: &Places, provider: Provider) -> Result<Vec<&'static str>> {
    let plan = decide(&Facts::gather(places, provider).await?, provider);
    if plan.lacking.is_empty() { Ok(plan.install) } else { Err(Unmet(plan.lacking).into()) }
}

/// The title of the step that installs packages.
pub fn install_title(packages: &[&str]) -> String {
    format!("Installing {}", packages.join(", "))
}

/// Installs what [`check`] has found.
pub async fn install(
    places: &Places,
    provider: Provider,
    packages: &[&'static str],
    progress: &Progress,
) -> Result<()> {
    if !packages.is_empty() {
        let step = progress.step(&install_title(packages));
        apt_install(packages).await?;
        step.done();
        let left = decide(&Facts::gather(places, provider).await?, provider);
        if !left.install.is_empty() {
            note(&format!("Still missing after the installation: {}", left.install.join(", ")));
        }
    }
    Ok(())
}

/// Checks and installs.
pub async fn meet(places: &Places, provider: Provider, progress: &Progress) -> Result<()> {
    install(places, provider, &check(places, provider).await?, progress).await
}

/// An [`Unmet`] error unless there is the Go that compiles an API server, which is all that the tests of tier 2 need.
pub async fn meet_go(places: &Places) -> Result<()> {
    let mut lacking = decide(&Facts::gather(places, Provider::Local).await?, Provider::Local).lacking;
    lacking.retain(|lack| lack.what.starts_with("Go"));
    if lacking.is_empty() { Ok(()) } else { Err(Unmet(lacking).into()) }
}

/// Installs what a benchmark needs beside the cluster: pairs of a program and the Debian package that has it.
///
/// # Errors
///
/// [`Unmet`] if something is missing and cannot be installed here.
pub async fn meet_programs(wanted: &[(&str, &'static str)], progress: &Progress) -> Result<()> {
    let missing: Vec<&str> = wanted.iter().filter(|w| find_program(w.0).is_none()).map(|w| w.1).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.join(" ");
    if !is_root() || find_program("apt-get").is_none() {
        let how = format!("`sudo apt-get install {names}`, or the packages of your system");
        return Err(Unmet(vec![Lack { what: format!("the programs of the Debian packages {names}"), how }]).into());
    }
    let step = progress.step(&format!("Installing {names}"));
    apt_install(&missing).await?;
    step.done();
    Ok(())
}

pub(crate) async fn apt_install(packages: &[&str]) -> Result<()> {
    let install = || {
        let mut apt = command("apt-get", ["install", "-y", "-q", "--no-install-recommends"]);
        apt.args(packages).env("DEBIAN_FRONTEND", "noninteractive");
        run(apt)
    };
    // The package lists may be absent or old: fetch them only then, it is slow.
    if install().await.is_err() {
        run(command("apt-get", ["update", "-q"])).await?;
        install().await.context("Cannot install the packages")?;
    }
    Ok(())
}

/// The highest `go` line of the lock files.
fn go_wanted(places: &Places) -> Result<(u32, u32)> {
    let gomods = places.repo.join("e2e/gomods");
    let mut wanted = (0, 0);
    for entry in std::fs::read_dir(&gomods).with_context(|| format!("Cannot read {}", gomods.display()))? {
        let text = std::fs::read_to_string(entry?.path().join("go.mod"))?;
        wanted =
            wanted.max(text.lines().find_map(|line| line.strip_prefix("go ")).and_then(go_version).unwrap_or((0, 0)));
    }
    Ok(wanted)
}

/// Major and minor out of `go1.26.8` or `1.26.0`.
fn go_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.trim().trim_start_matches("go").split(['.', ' ', '-', 'r', 'b']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

async fn on_overlay(folder: &Path) -> bool {
    let there = folder.ancestors().find(|folder| folder.exists()).unwrap_or_else(|| Path::new("/"));
    let kind = run(command("stat", ["-f", "-c", "%T", &there.to_string_lossy()])).await;
    kind.is_ok_and(|kind| kind.trim() == "overlayfs")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complete() -> Facts {
        Facts { root: true, go: Some((1, 26)), go_wanted: (1, 26), docker: true, apt: true, ..Facts::default() }
    }

    fn named(plan: &Plan) -> String {
        Unmet(plan.lacking.clone()).to_string()
    }

    #[test]
    fn a_complete_machine_needs_nothing() {
        for provider in [Provider::Local, Provider::Kind, Provider::Current] {
            assert_eq!(decide(&complete(), provider), Plan::default(), "{provider:?}");
        }
    }

    #[test]
    fn no_go_and_old_go_are_named_with_where_to_get_it() {
        let none = decide(&Facts { go: None, ..complete() }, Provider::Local);
        assert!(named(&none).contains("go.dev/dl"));
        let old = decide(&Facts { go: Some((1, 25)), ..complete() }, Provider::Kind);
        assert!(named(&old).contains("found 1.25"), "{}", named(&old));
        assert_eq!(decide(&Facts { go: None, ..complete() }, Provider::Current), Plan::default());
    }

    #[test]
    fn only_local_needs_root_and_only_kind_needs_docker() {
        let facts = Facts { root: false, docker: false, ..complete() };
        assert!(named(&decide(&facts, Provider::Local)).contains("root"));
        assert!(!named(&decide(&facts, Provider::Local)).contains("engine:"));
        let kind = named(&decide(&facts, Provider::Kind));
        assert!(kind.contains("Docker engine") && !kind.contains("- root"), "{kind}");
    }

    #[test]
    fn packages_are_installed_by_root_with_apt_and_named_to_others() {
        let facts = Facts { missing_programs: vec!["ip", "cc"], no_cni: true, ..complete() };
        let plan = decide(&facts, Provider::Local);
        assert_eq!(plan.install, ["containernetworking-plugins", "gcc", "iproute2"]);
        assert!(plan.lacking.is_empty());
        let plan = decide(&Facts { apt: false, ..facts.clone() }, Provider::Local);
        assert!(plan.install.is_empty() && named(&plan).contains("iproute2"));
        assert_eq!(decide(&facts, Provider::Kind).install, ["gcc"]);
    }

    #[test]
    fn current_needs_to_be_told_what_it_cannot_know() {
        let facts = Facts { unset: vec!["ROUSE_E2E_INGRESS"], ..complete() };
        assert!(named(&decide(&facts, Provider::Current)).contains("ROUSE_E2E_INGRESS"));
    }

    #[test]
    fn go_versions_are_read() {
        assert_eq!(go_version("go1.26.8\n"), Some((1, 26)));
        assert_eq!(go_version("1.27rc1"), Some((1, 27)));
        assert_eq!(go_version("devel"), None);
    }
}
