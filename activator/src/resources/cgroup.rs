//! Memory of this process's control group (cgroup), of version 2 or 1: its limit and its usage.

use std::{
    fs::read_to_string,
    path::{Path, PathBuf},
};

/// The memory controller of this process's control group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemoryController {
    /// Version 2: `memory.max`, `memory.current`. The memory of sockets is part of it.
    V2(Folder),
    /// Version 1: `memory.limit_in_bytes`, `memory.usage_in_bytes`. The memory of sockets is counted separately.
    V1(Folder),
}

/// Folder of a control group, and the mount point above it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folder {
    group: PathBuf,
    mount: PathBuf,
}

const MOUNT: &str = "/sys/fs/cgroup";
/// Version 1 reports the largest number of pages for "no limit".
const UNLIMITED: u64 = 1 << 60;

impl MemoryController {
    /// Finds the controller; `None` if there is none, as outside of a container.
    #[must_use]
    pub fn find() -> Option<Self> {
        Self::find_at(Path::new(MOUNT), &read_to_string("/proc/self/cgroup").ok()?)
    }

    /// Finds the controller below a mount point, by the text of `/proc/self/cgroup`.
    fn find_at(mount: &Path, membership: &str) -> Option<Self> {
        let path_of = |controller: &str| {
            membership.lines().find_map(|line| {
                let mut fields = line.splitn(3, ':').skip(1);
                let (controllers, path) = (fields.next()?, fields.next()?);
                controllers.split(',').any(|name| name == controller).then_some(path)
            })
        };
        // A controller is either of version 1 or of version 2, and a list that names it means version 1.
        if let Some(path) = path_of("memory") {
            return Folder::find(&mount.join("memory"), path, "memory.usage_in_bytes").map(Self::V1);
        }
        Folder::find(mount, path_of("")?, "memory.current").map(Self::V2)
    }

    /// Returns the lowest limit of the group and of those above it, in bytes; `None` without a limit.
    #[must_use]
    pub fn limit(&self) -> Option<u64> {
        let (Self::V2(folder) | Self::V1(folder)) = self;
        let file = if matches!(self, Self::V2(_)) { "memory.max" } else { "memory.limit_in_bytes" };
        let groups = folder.group.ancestors().take_while(|group| group.starts_with(&folder.mount));
        groups.filter_map(|group| number(&group.join(file))).filter(|limit| *limit < UNLIMITED).min()
    }

    /// Returns the memory in use, in bytes, without file pages that the kernel would reclaim first; `None` if it cannot
    /// be read.
    #[must_use]
    pub fn usage(&self) -> Option<u64> {
        match self {
            Self::V2(folder) => folder.usage("memory.current", "inactive_file"),
            Self::V1(folder) => {
                let sockets = number(&folder.group.join("memory.kmem.tcp.usage_in_bytes")).unwrap_or(0);
                Some(folder.usage("memory.usage_in_bytes", "total_inactive_file")?.saturating_add(sockets))
            }
        }
    }
}

impl Folder {
    /// Finds the folder of a group. In a container the mount point is often the group itself, whatever its path is
    /// outside.
    fn find(mount: &Path, path: &str, file: &str) -> Option<Self> {
        let group = mount.join(path.trim_start_matches('/'));
        let group = [group, mount.to_owned()].into_iter().find(|group| group.join(file).exists())?;
        Some(Self { group, mount: mount.to_owned() })
    }

    fn usage(&self, file: &str, reclaimable: &str) -> Option<u64> {
        let used = number(&self.group.join(file))?;
        let stat = read_to_string(self.group.join("memory.stat")).unwrap_or_default();
        let pages = stat.lines().find_map(|line| line.strip_prefix(reclaimable)?.trim().parse().ok());
        Some(used.saturating_sub(pages.unwrap_or(0)))
    }
}

/// Reads a file with one number; `None` for `max`.
fn number(file: &Path) -> Option<u64> {
    read_to_string(file).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, files: &[(&str, &str)]) {
        for (file, text) in files {
            let file = folder.join(file);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        }
    }

    #[test]
    fn version_2_has_the_lowest_limit_of_all_levels() {
        let mount = tempfile::tempdir().unwrap();
        write(
            mount.path(),
            &[
                ("pods/memory.max", "1000\n"),
                ("pods/a/memory.max", "max\n"),
                ("pods/a/memory.current", "700\n"),
                ("pods/a/memory.stat", "anon 600\ninactive_file 50\ninactive_file_x 1\n"),
            ],
        );
        let found = MemoryController::find_at(mount.path(), "0::/pods/a\n").unwrap();
        assert!(matches!(found, MemoryController::V2(_)));
        assert_eq!((found.limit(), found.usage()), (Some(1000), Some(650)));
    }

    #[test]
    fn the_mount_point_is_the_group_in_a_container() {
        let mount = tempfile::tempdir().unwrap();
        write(mount.path(), &[("memory.max", "512\n"), ("memory.current", "7\n")]);
        for membership in ["0::/\n", "0::/../../kubepods/pod1/c1\n"] {
            let found = MemoryController::find_at(mount.path(), membership).unwrap();
            assert_eq!((found.limit(), found.usage()), (Some(512), Some(7)), "{membership}");
        }
    }

    #[test]
    fn version_1_counts_sockets_too() {
        let mount = tempfile::tempdir().unwrap();
        write(
            mount.path(),
            &[
                ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
                ("memory/memory.usage_in_bytes", "1\n"),
                ("memory/pod/memory.limit_in_bytes", "2000\n"),
                ("memory/pod/memory.usage_in_bytes", "1500\n"),
                ("memory/pod/memory.stat", "total_inactive_file 100\n"),
                ("memory/pod/memory.kmem.tcp.usage_in_bytes", "30\n"),
            ],
        );
        let found = MemoryController::find_at(mount.path(), "5:cpu,cpuacct:/x\n4:memory:/pod\n0::/\n").unwrap();
        assert_eq!((found.limit(), found.usage()), (Some(2000), Some(1430)));
        let outside = MemoryController::find_at(mount.path(), "4:memory:/elsewhere\n0::/\n").unwrap();
        assert_eq!(outside.limit(), None, "no limit at the mount point");
    }

    #[test]
    fn no_controller_is_none() {
        let mount = tempfile::tempdir().unwrap();
        for membership in ["", "0::/\n", "4:memory:/a\n", "nonsense"] {
            assert_eq!(MemoryController::find_at(mount.path(), membership), None, "{membership}");
        }
    }
}
