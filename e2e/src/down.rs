//! `cargo e2e down`: removes a cluster. It always succeeds in removing the cluster's record: what cannot be reached, such as a
//! Docker engine that is gone, is reported and forgotten.

use std::future::Future;

use anyhow::{Context as _, Result, bail};

use crate::cluster::Cluster;
use crate::host::docker_responds;
use crate::install::{NAMESPACE, RELEASE};
use crate::lock::FileLock;
use crate::places::Places;
use crate::process::run;
use crate::progress::{Progress, note};
use crate::provider::{Provider, kind, local};
use crate::state::State;
use crate::up::{Options, lock_path};

/// Removes the cluster and its record. Returns whether there was anything.
///
/// # Errors
///
/// If files, processes or mounts of this machine cannot be removed. A cluster elsewhere that cannot be reached is no error.
pub async fn down(places: &Places, options: &Options, progress: &Progress) -> Result<bool> {
    let name = options.name(places)?;
    let lock = FileLock::acquire(&lock_path(places, &name)).await?;
    let recorded = State::read(&places.cluster(&name))?.map(|state| state.provider);
    // The record knows better than the command line who has to delete the cluster.
    let found = match recorded.or(options.provider) {
        Some(Provider::Kind) => {
            or_forget(places, &name, &kind::delete_command(&name), delete_kind(places, &name, progress)).await?
        }
        Some(Provider::Current) => {
            let by_hand = format!("helm uninstall {RELEASE} --namespace {NAMESPACE}");
            or_forget(places, &name, &by_hand, uninstall(places, &name)).await?
        }
        // Without a record there can still be remains of a local cluster whose start was killed.
        Some(Provider::Local) | None => local::sweep(places, &name).await?,
    };
    drop(lock);
    // The folder of all clusters is removed with the last of them; it is not empty while there is another.
    let last = std::fs::read_dir(&places.state).is_ok_and(|mut entries| entries.next().is_none());
    if last {
        std::fs::remove_dir(&places.state).with_context(|| format!("Cannot remove {}", places.state.display()))?;
    }
    Ok(found)
}

/// Waits for `delete`, then removes the record. If `delete` fails, reports what is left and the command that deletes it.
async fn or_forget(
    places: &Places,
    name: &str,
    by_hand: &str,
    delete: impl Future<Output = Result<bool>>,
) -> Result<bool> {
    let folder = places.cluster(name);
    let had_record = folder.exists();
    let deleted = match delete.await {
        Ok(deleted) => deleted,
        // Nothing is known of such a cluster, so nothing is left of it.
        Err(_) if !had_record => false,
        Err(error) => {
            note(&format!("Cannot delete the cluster `{name}`: {error:#}"));
            note(&format!("Removed its record. If the cluster still exists, delete it with: {by_hand}"));
            true
        }
    };
    if folder.exists() {
        std::fs::remove_dir_all(&folder).with_context(|| format!("Cannot remove {}", folder.display()))?;
    }
    Ok(deleted || had_record)
}

async fn delete_kind(places: &Places, name: &str, progress: &Progress) -> Result<bool> {
    // Asked first: without Docker, kind would be compiled for nothing.
    if !docker_responds().await {
        bail!("Docker does not respond");
    }
    let programs = kind::Programs::build(places, progress).await?;
    kind::sweep(places, name, &programs).await
}

/// Removes Rouse from a cluster that this tool did not create. The CustomResourceDefinition stays: deleting it deletes the
/// user's Functions.
async fn uninstall(places: &Places, name: &str) -> Result<bool> {
    let cluster = Cluster::load(places, name)?;
    run(cluster.kubectl(["get", "--raw", "/version", "--request-timeout=10s"])).await?;
    run(cluster.helm(["uninstall", RELEASE, "--namespace", NAMESPACE, "--ignore-not-found", "--wait"])).await?;
    run(cluster.kubectl(["delete", "namespace", NAMESPACE, "--ignore-not-found"])).await?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(folder: &std::path::Path) -> Places {
        Places { repo: "/".into(), cache: "/".into(), target: "/".into(), state: folder.into() }
    }

    async fn fails() -> Result<bool> {
        bail!("Docker does not respond")
    }

    #[tokio::test]
    async fn a_cluster_that_cannot_be_reached_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let places = places(folder.path());
        State::new(Provider::Kind).write(&places.cluster("a")).unwrap();
        assert!(or_forget(&places, "a", "docker rm a", fails()).await.unwrap());
        assert_eq!(State::read(&places.cluster("a")).unwrap(), None);
        assert!(!places.cluster("a").exists());
        assert!(!or_forget(&places, "a", "docker rm a", fails()).await.unwrap(), "nothing is left to remove");
    }

    #[tokio::test]
    async fn a_cluster_of_a_kubeconfig_that_was_never_written_down_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let places = places(&folder.path().join("state"));
        let options = Options { name: Some("a".to_owned()), ..Options::default() };
        State::new(Provider::Current).write(&places.cluster("a")).unwrap();
        // `up` failed before it wrote cluster.json, so there is no kubeconfig to uninstall by.
        assert!(down(&places, &options, &Progress::default()).await.unwrap());
        assert!(!places.state.exists());
    }
}
