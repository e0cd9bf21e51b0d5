//! Third-party clients for the tests of tier 3: curl, Python with requests and aiohttp, Node with fetch and ws, and the gRPC
//! interoperability client.
//!
//! The programs are installed on the system. Their packages are pinned in `clients/` and cached by hash.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

use crate::gomod::SUITES;
use crate::host::find_program;
use crate::lock::FileLock;
use crate::places::{Places, hex, is_root};
use crate::process::{command, run, succeeds};
use crate::progress::Progress;
use crate::requirements::{Lack, Unmet, apt_install};

/// Programs and their Debian packages.
const PROGRAMS: [(&str, &str); 3] = [("curl", "curl"), ("node", "nodejs"), ("npm", "npm")];

/// Paths of the clients.
#[derive(Clone, Debug)]
pub struct Clients {
    /// Python interpreter with requests and aiohttp.
    pub python: PathBuf,
    /// `node_modules` with ws.
    pub node_modules: PathBuf,
    /// gRPC interoperability client.
    pub grpc: PathBuf,
}

/// Installs the programs that are missing.
///
/// # Errors
///
/// [`Unmet`] without root or apt; another error if a package cannot be installed.
pub async fn meet(progress: &Progress) -> Result<()> {
    let mut packages: Vec<&str> =
        PROGRAMS.iter().filter(|(program, _)| find_program(program).is_none()).map(|(_, package)| *package).collect();
    if !succeeds(command("python3", ["-c", "import ensurepip, venv"])).await {
        packages.push("python3-venv");
    }
    if packages.is_empty() {
        return Ok(());
    }
    let names = packages.join(" ");
    if !(is_root() && find_program("apt-get").is_some()) {
        let what = format!("the programs of the Debian packages {names}, HTTP clients of the tests of tier 3");
        let how = format!("`sudo apt-get install {names}`, or the packages of your system");
        return Err(Unmet(vec![Lack { what, how }]).into());
    }
    let step = progress.step(&format!("Installing {names}"));
    apt_install(&packages).await?;
    step.done();
    Ok(())
}

impl Clients {
    /// Installs the packages that are not cached.
    ///
    /// # Errors
    ///
    /// If pip, npm or go fails.
    pub async fn install(places: &Places, progress: &Progress) -> Result<Self> {
        let python = python(places, progress).await.context("Cannot install the Python clients")?;
        let node_modules = node_modules(places, progress).await.context("Cannot install the Node clients")?;
        let grpc = SUITES.build(places, &["grpc-client"], progress).await?.join("grpc-client");
        Ok(Self { python, node_modules, grpc })
    }

    /// Returns the environment variables for [`Clients::from_environment`].
    pub fn environment(&self) -> [(&'static str, String); 3] {
        let text = |path: &PathBuf| path.display().to_string();
        [
            ("ROUSE_E2E_PYTHON", text(&self.python)),
            ("ROUSE_E2E_NODE_MODULES", text(&self.node_modules)),
            ("ROUSE_E2E_GRPC", text(&self.grpc)),
        ]
    }

    /// Reads the paths from the environment of this process.
    ///
    /// # Errors
    ///
    /// If a variable is not set.
    pub fn from_environment() -> Result<Self> {
        let path = |name: &str| {
            let value = std::env::var_os(name);
            value.map(PathBuf::from).with_context(|| format!("{name} is not set: run `cargo e2e test --tier 3`"))
        };
        Ok(Self {
            python: path("ROUSE_E2E_PYTHON")?,
            node_modules: path("ROUSE_E2E_NODE_MODULES")?,
            grpc: path("ROUSE_E2E_GRPC")?,
        })
    }
}

/// Creates a virtual environment with `clients/requirements.txt`. The interpreter is part of the cache key.
async fn python(places: &Places, progress: &Progress) -> Result<PathBuf> {
    let wanted = places.repo.join("e2e/clients/requirements.txt");
    let interpreter = run(command("python3", ["-c", "import sys; print(sys.version, sys.base_prefix)"])).await?;
    let folder = cached(places, "python-clients", &[&std::fs::read(&wanted)?, interpreter.as_bytes()]);
    let python = folder.join("bin/python");
    let _lock = FileLock::acquire(&folder.with_extension("lock")).await?;
    // A virtual environment contains its own path, so it cannot be created elsewhere and moved. A marker shows that it is
    // complete.
    let complete = folder.join("complete");
    if !complete.exists() {
        let step = progress.step("Installing the Python clients");
        run(command("python3", ["-m".as_ref(), "venv".as_ref(), "--clear".as_ref(), folder.as_os_str()])).await?;
        let mut pip = command(&python, ["-m", "pip", "install", "--quiet", "--no-deps", "--requirement"]);
        pip.arg(&wanted);
        run(pip).await?;
        std::fs::write(&complete, "")?;
        step.done();
    }
    Ok(python)
}

/// Installs the packages in `clients/package-lock.json`.
async fn node_modules(places: &Places, progress: &Progress) -> Result<PathBuf> {
    let source = places.repo.join("e2e/clients");
    let lock = std::fs::read(source.join("package-lock.json"))?;
    let folder = cached(places, "node-clients", &[&lock]);
    let modules = folder.join("node_modules");
    let _guard = FileLock::acquire(&folder.with_extension("lock")).await?;
    if !modules.exists() {
        let step = progress.step("Installing the Node clients");
        let fresh = folder.with_extension("new");
        if fresh.exists() {
            std::fs::remove_dir_all(&fresh)?;
        }
        std::fs::create_dir_all(&fresh)?;
        for file in ["package.json", "package-lock.json"] {
            std::fs::copy(source.join(file), fresh.join(file))?;
        }
        let mut npm = command("npm", ["ci", "--silent", "--ignore-scripts", "--prefix"]);
        npm.arg(&fresh).current_dir(&fresh);
        run(npm).await?;
        std::fs::rename(&fresh, &folder).context("Cannot cache the Node clients")?;
        step.done();
    }
    Ok(modules)
}

fn cached(places: &Places, name: &str, parts: &[&[u8]]) -> PathBuf {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    places.cache.join(format!("{name}-{}", &hex(&hash.finalize())[..12]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_depends_on_the_requirements() {
        let places = Places { repo: "/r".into(), cache: "/c".into(), target: "/t".into(), state: "/s".into() };
        let folder = |parts: &[&[u8]]| cached(&places, "x", parts);
        assert_ne!(folder(&[b"a==1", b"3.11"]), folder(&[b"a==2", b"3.11"]));
        assert_ne!(folder(&[b"ab", b"c"]), folder(&[b"a", b"bc"]));
        assert_eq!(folder(&[b"a"]), folder(&[b"a"]));
    }
}
