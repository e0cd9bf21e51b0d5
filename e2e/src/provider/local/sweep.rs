//! Removing a local cluster, whole or what a killed run has left of it: found by name, not by memory.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::{Names, network};
use crate::places::Places;
use crate::process::{command, kill, run, wait_for};
use crate::state::State;

/// The kernel needs a moment to end some hundred processes.
const END_LIMIT: Duration = Duration::from_secs(30);

/// Ends and removes everything that carries the cluster's name. Gives whether there was anything.
pub async fn sweep(places: &Places, name: &str) -> Result<bool> {
    let names = Names::new(places, name);
    let found = names.folder.exists() || names.namespace().exists() || !cgroups(&names.node)?.is_empty();
    if !found {
        return Ok(false);
    }
    if let Some(state) = State::read(&names.folder)? {
        // The first is the node's first process; the kernel ends the others with it.
        for process in &state.processes {
            process.kill().await?;
        }
    }
    wait_for("The end of the node's processes", END_LIMIT, async || {
        let left = processes(&names)?;
        for pid in &left {
            kill(*pid, "KILL").await;
        }
        Ok(left.is_empty())
    })
    .await?;
    network::remove(&names.node).await?;
    for cgroup in cgroups(&names.node)? {
        wait_for(&format!("The removal of {}", cgroup.display()), END_LIMIT, async || {
            Ok(remove_cgroup(&cgroup).is_ok())
        })
        .await?;
    }
    for mount in mounts_below(&names.folder)? {
        run(command("umount", ["-l".as_ref(), mount.as_os_str()])).await?;
    }
    ensure!(mounts_below(&names.folder)?.is_empty(), "Something is still mounted below {}", names.folder.display());
    if names.folder.exists() {
        std::fs::remove_dir_all(&names.folder).with_context(|| format!("Cannot remove {}", names.folder.display()))?;
    }
    Ok(true)
}

/// Processes in the node's network namespace or in its cgroups, but for those that ask.
fn processes(names: &Names) -> Result<BTreeSet<u32>> {
    let mut found = BTreeSet::new();
    if let Ok(namespace) = std::fs::metadata(names.namespace()) {
        for pid in std::fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        {
            // A process that ended meanwhile has no namespace.
            let theirs = std::fs::metadata(format!("/proc/{pid}/ns/net"));
            if theirs.is_ok_and(|theirs| (theirs.dev(), theirs.ino()) == (namespace.dev(), namespace.ino())) {
                found.insert(pid);
            }
        }
    }
    for cgroup in cgroups(&names.node)? {
        collect(&cgroup, &mut found);
    }
    for pid in ancestors() {
        found.remove(&pid);
    }
    Ok(found)
}

fn collect(cgroup: &Path, found: &mut BTreeSet<u32>) {
    let text = std::fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    // A process of another PID namespace reads as 0.
    found.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()).filter(|pid| *pid != 0));
    for below in folders(cgroup) {
        collect(&below, found);
    }
}

/// This process and those above it: `down` may be called from a shell inside the namespace.
fn ancestors() -> Vec<u32> {
    let parent = |pid: u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
    };
    std::iter::successors(Some(std::process::id()), |pid| parent(*pid)).collect()
}

/// The node's cgroup in each hierarchy that is version 1, or in the only one of version 2.
pub(super) fn create_cgroup(node: &str) -> Result<()> {
    let mounts = hierarchies()?;
    let first: Vec<&(PathBuf, bool)> = mounts.iter().filter(|(_, unified)| !unified).collect();
    let all: Vec<&(PathBuf, bool)> = if first.is_empty() { mounts.iter().collect() } else { first };
    for (mount, _) in all {
        let cgroup = mount.join(node);
        std::fs::create_dir_all(&cgroup).with_context(|| format!("Cannot create {}", cgroup.display()))?;
        // A new cpuset of version 1 has no processor and no memory, so nothing could run in it.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let (from, to) = (mount.join(file), cgroup.join(file));
            if from.exists() && to.exists() {
                std::fs::write(&to, std::fs::read(&from)?).with_context(|| format!("Cannot write {}", to.display()))?;
            }
        }
    }
    Ok(())
}

fn cgroups(node: &str) -> Result<Vec<PathBuf>> {
    Ok(hierarchies()?.into_iter().map(|(mount, _)| mount.join(node)).filter(|cgroup| cgroup.exists()).collect())
}

fn hierarchies() -> Result<Vec<(PathBuf, bool)>> {
    Ok(parse_hierarchies(&std::fs::read_to_string("/proc/self/mounts")?))
}

/// Mount points of cgroup hierarchies, and whether each is version 2.
fn parse_hierarchies(mounts: &str) -> Vec<(PathBuf, bool)> {
    let hierarchy = |line: &str| {
        let mut fields = line.split(' ').skip(1);
        let (mount, kind) = (fields.next()?, fields.next()?);
        matches!(kind, "cgroup" | "cgroup2").then(|| (PathBuf::from(mount), kind == "cgroup2"))
    };
    mounts.lines().filter_map(hierarchy).collect()
}

fn remove_cgroup(cgroup: &Path) -> std::io::Result<()> {
    for below in folders(cgroup) {
        remove_cgroup(&below)?;
    }
    match std::fs::remove_dir(cgroup) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn folders(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
}

/// What is mounted below a folder in the host's view, the deepest first. The node's own mounts are not: it has a mount
/// namespace.
fn mounts_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let text = std::fs::read_to_string("/proc/self/mounts")?;
    let mut mounts: Vec<PathBuf> = text
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .map(PathBuf::from)
        .filter(|mount| mount.starts_with(folder))
        .collect();
    mounts.reverse();
    Ok(mounts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_of_both_versions_are_found() {
        let mounts = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,cpu 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        let expected = [("/sys/fs/cgroup/cpu,cpuacct".into(), false), ("/sys/fs/cgroup/unified".into(), true)];
        assert_eq!(parse_hierarchies(mounts), expected);
    }

    #[test]
    fn who_asks_is_not_among_those_to_end() {
        assert!(ancestors().contains(&std::process::id()));
        assert!(ancestors().contains(&1));
    }

    #[tokio::test]
    async fn nothing_is_found_where_nothing_was() {
        let folder = tempfile::tempdir().unwrap();
        let places = Places { repo: "/".into(), cache: "/".into(), target: "/".into(), state: folder.path().into() };
        assert!(!sweep(&places, "never-started-by-anyone").await.unwrap());
    }
}
