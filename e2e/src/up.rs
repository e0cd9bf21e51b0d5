//! The whole way: from a machine to a cluster with Rouse on it, and back.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::addons;
use crate::cluster::Cluster;
use crate::forecast::{Facts, forecast};
use crate::gomod::HELM;
use crate::host::{docker_responds, find_program};
use crate::images::{self, Archive, Profile};
use crate::install;
use crate::lock::FileLock;
use crate::places::{Places, check_name};
use crate::plan::title;
use crate::progress::{Progress, note};
use crate::provider::{Node, Provider, current, kind, local};
use crate::requirements::{self, Lack, Unmet};
use crate::state::State;

/// The domain below which functions of a test cluster answer.
pub const DOMAIN: &str = "rouse.test";
/// The registry part of image references where nothing is pulled.
const LOCAL_PREFIX: &str = "localhost";

/// What `up` is asked for.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The cluster's name; the checkout's own if none.
    pub name: Option<String>,
    /// Who makes it; whoever made it before, or who can here, if none.
    pub provider: Option<Provider>,
    /// Leave Rouse out: a bare cluster with its ingress.
    pub without_rouse: bool,
    /// Bring the images of the outside suites too, which only the tests need.
    pub suites: bool,
    /// Build Rouse as a release does; else as quick as possible.
    pub release: bool,
    /// The demo follows, as one more step.
    pub demo: bool,
}

impl Options {
    pub(crate) fn name(&self, places: &Places) -> Result<String> {
        let name = self.name.clone().unwrap_or_else(|| places.default_name());
        check_name(&name)?;
        Ok(name)
    }

    /// A cluster that pulls from a registry gets the release builds that `cargo e2e images` has written for it.
    fn profile(&self, provider: Provider) -> Profile {
        if self.release || provider == Provider::Current { Profile::Release } else { Profile::Quick }
    }
}

/// The programs of the provider.
enum Programs {
    Local(local::Programs),
    Kind(kind::Programs),
    Current(PathBuf),
}

impl Programs {
    async fn build(places: &Places, provider: Provider, progress: &Progress) -> Result<Self> {
        Ok(match provider {
            Provider::Local => Self::Local(local::Programs::build(places, progress).await?),
            Provider::Kind => Self::Kind(kind::Programs::build(places, progress).await?),
            Provider::Current => Self::Current(current::kubectl(places, progress).await?),
        })
    }

    fn kubectl(&self) -> PathBuf {
        match self {
            Self::Local(programs) => programs.kubectl(),
            Self::Kind(programs) => programs.kubectl.clone(),
            Self::Current(kubectl) => kubectl.clone(),
        }
    }

    async fn load(&self, places: &Places, name: &str, archives: &[Archive]) -> Result<()> {
        match self {
            Self::Local(programs) => local::load(places, name, programs, archives).await,
            Self::Kind(programs) => kind::load(name, programs, archives).await,
            Self::Current(_) => Ok(()),
        }
    }
}

/// Everything that is built before a cluster starts.
struct Built {
    programs: Programs,
    helm: PathBuf,
    addons: Option<addons::Images>,
    ours: Vec<Archive>,
}

impl Built {
    async fn build(places: &Places, provider: Provider, options: &Options, progress: &Progress) -> Result<Self> {
        let prefix = match provider {
            Provider::Current => current::registry()?,
            Provider::Local | Provider::Kind => LOCAL_PREFIX.to_owned(),
        };
        // First, because it fails more often than what is pinned.
        let mut ours = if options.without_rouse {
            Vec::new()
        } else {
            images::ours(places, &prefix, options.profile(provider), progress).await?
        };
        let programs = Programs::build(places, provider, progress).await?;
        let helm = match (provider, find_program("helm")) {
            (Provider::Current, Some(helm)) => helm,
            _ => HELM.build(places, &["helm"], progress).await?.join("helm"),
        };
        let addons = match provider {
            Provider::Current => None,
            Provider::Local | Provider::Kind => Some(addons::Images {
                coredns: match provider {
                    Provider::Local => Some(images::coredns(places, progress).await?),
                    Provider::Kind | Provider::Current => None,
                },
                contour: images::contour(places, progress).await?,
                envoy: images::envoy(places, progress).await?,
            }),
        };
        if options.suites {
            ours.push(images::suites(places, &prefix, progress).await?);
        }
        Ok(Self { programs, helm, addons, ours })
    }

    fn archives(&self) -> Vec<Archive> {
        let pause = match &self.programs {
            Programs::Local(programs) => Some(programs.pause_image().clone()),
            Programs::Kind(_) | Programs::Current(_) => None,
        };
        let addons = self.addons.as_ref().map(addons::Images::archives).unwrap_or_default();
        pause.into_iter().chain(addons).chain(self.ours.iter().cloned()).collect()
    }
}

/// Brings the cluster up, or finds it up. Does only what is missing.
pub async fn up(places: &Places, options: &Options, progress: &Progress) -> Result<Cluster> {
    let name = options.name(places)?;
    let folder = places.cluster(&name);
    let provider = provider(&name, &folder, options).await?;
    let packages = requirements::check(places, provider).await?;
    let facts = Facts {
        provider,
        packages: &packages,
        running: State::read(&folder)?.is_some_and(|state| state.seems_up()),
        profile: (!options.without_rouse).then(|| options.profile(provider)),
        suites: options.suites,
        demo: options.demo,
    };
    progress.begin(forecast(places, &facts).await?);
    requirements::install(places, provider, &packages, progress).await?;
    let built = Built::build(places, provider, options, progress).await?;

    let _lock = FileLock::acquire(&lock_path(places, &name)).await?;
    let mut state = State::read(&folder)?.unwrap_or_else(|| State::new(provider));
    let node = node(places, &name, &built, &mut state, progress).await?;
    load(places, &name, &built, &mut state, progress).await?;
    let cluster = Cluster {
        name: name.clone(),
        provider,
        kubeconfig: node.kubeconfig.clone(),
        ingress: node.ingress,
        kubectl: built.programs.kubectl(),
        helm: built.helm.clone(),
        domain: DOMAIN.to_owned(),
        images: built.ours.iter().map(|archive| (archive.name.clone(), archive.reference.clone())).collect(),
        node: node.address,
        folder: folder.clone(),
    };
    cluster.save(places)?;
    let mut deployed = false;
    if let Some(images) = &built.addons {
        deployed = addons::deploy(places, &cluster.kubectl, &node, images, &mut state).await?;
        if deployed {
            addons::wait(&cluster.kubectl, &node, images, progress).await?;
            state.write(&folder)?;
        }
    }
    if !options.without_rouse {
        install::install(places, &cluster, &mut state, progress).await?;
        state.write(&folder)?;
    }
    if deployed {
        note(&format!("Logs and configuration are in {}", folder.display()));
    }
    Ok(cluster)
}

/// The provider of the cluster: the recorded one, else the wanted one, else the machine's default.
async fn provider(name: &str, folder: &Path, options: &Options) -> Result<Provider> {
    match State::read(folder)?.map(|state| state.provider) {
        Some(recorded) => {
            let docker = recorded != Provider::Kind || docker_responds().await;
            recorded_provider(name, recorded, options.provider, docker)
        }
        None => match options.provider {
            Some(wanted) => Ok(wanted),
            None => Ok(Provider::default_here().await),
        },
    }
}

/// Checks that the recorded cluster is of the wanted provider and that its Docker engine responds. `down` helps in either case.
fn recorded_provider(name: &str, recorded: Provider, wanted: Option<Provider>, docker: bool) -> Result<Provider> {
    let down = format!("run `cargo e2e down --name {name}`");
    match wanted {
        Some(wanted) if wanted != recorded => bail!(
            "The cluster `{name}` was created by the provider {recorded}, not {wanted}: {down} to remove it, or choose another --name"
        ),
        _ if !docker => {
            let how = format!("start Docker, or {down} to forget the cluster; `up` then creates a new one");
            Err(Unmet(vec![Lack { what: format!("the Docker engine that runs the cluster `{name}`"), how }]).into())
        }
        _ => Ok(recorded),
    }
}

pub(crate) fn lock_path(places: &Places, name: &str) -> PathBuf {
    places.state.join(format!(".{name}.lock"))
}

/// Installs what `up` would need, or says what it lacks, and does nothing else. Tells whether the cluster is up already.
pub async fn prepare(places: &Places, options: &Options, progress: &Progress) -> Result<bool> {
    let name = options.name(places)?;
    let folder = places.cluster(&name);
    requirements::meet(places, provider(&name, &folder, options).await?, progress).await?;
    Ok(State::read(&folder)?.is_some_and(|state| state.complete))
}

/// The node that runs, or a new one in the place of whatever is left of an earlier one.
async fn node(places: &Places, name: &str, built: &Built, state: &mut State, progress: &Progress) -> Result<Node> {
    let swept = |anything: bool| {
        if anything {
            note("Removed the remains of an earlier run");
        }
    };
    match &built.programs {
        Programs::Current(kubectl) => current::find(places, name, kubectl).await,
        Programs::Local(programs) => {
            if let Some(node) = local::find(places, name, state, programs).await {
                return Ok(node);
            }
            swept(local::sweep(places, name).await?);
            *state = State::new(Provider::Local);
            local::start(places, name, state, programs, &built.archives(), progress).await
        }
        Programs::Kind(programs) => {
            if let Some(node) = kind::find(places, name, state, programs).await? {
                return Ok(node);
            }
            swept(kind::sweep(places, name, programs).await?);
            *state = State::new(Provider::Kind);
            kind::start(places, name, state, programs, progress).await
        }
    }
}

/// Puts in the images that are not there yet.
async fn load(places: &Places, name: &str, built: &Built, state: &mut State, progress: &Progress) -> Result<()> {
    let missing: Vec<Archive> =
        built.archives().into_iter().filter(|archive| !state.loaded.contains(&archive.key())).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let step = progress.step(title::LOAD);
    built.programs.load(places, name, &missing).await?;
    for archive in &missing {
        archive.record(&mut state.loaded);
    }
    state.write(&places.cluster(name))?;
    step.done();
    Ok(())
}

/// Builds everything that `up` would need, and copies the images' archives to a folder if one is named.
pub async fn build_images(
    places: &Places,
    provider: Provider,
    out: Option<&Path>,
    progress: &Progress,
) -> Result<Vec<Archive>> {
    requirements::meet(places, provider, progress).await?;
    let built =
        Built::build(places, provider, &Options { suites: true, release: true, ..Options::default() }, progress)
            .await?;
    let archives = built.archives();
    if let Some(out) = out {
        std::fs::create_dir_all(out).with_context(|| format!("Cannot create {}", out.display()))?;
        for archive in &archives {
            let target = out.join(format!("{}.tar", archive.name));
            std::fs::copy(&archive.path, &target).with_context(|| format!("Cannot write {}", target.display()))?;
        }
    }
    Ok(archives)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_measured_or_pulled_is_a_release_build() {
        let profile = |release, provider| Options { release, ..Options::default() }.profile(provider);
        assert_eq!(profile(false, Provider::Local), Profile::Quick);
        assert_eq!(profile(true, Provider::Kind), Profile::Release);
        assert_eq!(profile(false, Provider::Current), Profile::Release);
    }

    #[test]
    fn a_recorded_cluster_keeps_its_provider() {
        for wanted in [None, Some(Provider::Kind)] {
            assert_eq!(recorded_provider("a", Provider::Kind, wanted, true).unwrap(), Provider::Kind);
        }
        assert_eq!(recorded_provider("a", Provider::Local, None, true).unwrap(), Provider::Local);
    }

    #[test]
    fn another_provider_and_a_lost_docker_name_the_command_that_helps() {
        for (wanted, docker) in [(Some(Provider::Local), true), (Some(Provider::Local), false), (None, false)] {
            let error = recorded_provider("a", Provider::Kind, wanted, docker).unwrap_err().to_string();
            assert!(error.contains("`cargo e2e down --name a`"), "{error}");
        }
    }
}
