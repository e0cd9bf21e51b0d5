//! A control group with a memory limit, as the container of a pod has one.

use std::{
    fs::{read_to_string, write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::{Context as _, Result};
use tokio::task::JoinHandle;

/// Mount points of version 1 and 2 of the memory controller.
const V1: &str = "/sys/fs/cgroup/memory";
const V2: &str = "/sys/fs/cgroup";
/// Interval at which the usage of a group of version 1 is read: it has no peak of the sum of processes and sockets.
const SAMPLE: Duration = Duration::from_millis(20);

/// A control group, removed on drop.
#[derive(Debug)]
pub(super) struct MemoryGroup {
    folder: PathBuf,
    version_1: bool,
    peak: Arc<AtomicU64>,
    sampling: JoinHandle<()>,
}

impl MemoryGroup {
    /// Creates a group with this limit in bytes, and without swap.
    pub(super) fn create(name: &str, limit: u64) -> Result<Self> {
        let version_1 = Path::new(V1).join("memory.limit_in_bytes").exists();
        let folder = Path::new(if version_1 { V1 } else { V2 }).join(format!("{name}-{}", std::process::id()));
        if !version_1 {
            write(Path::new(V2).join("cgroup.subtree_control"), "+memory").context("cannot delegate memory")?;
        }
        std::fs::create_dir(&folder)
            .with_context(|| format!("cannot create the control group {}", folder.display()))?;
        let set = |file: &str, value: &str| {
            write(folder.join(file), value).with_context(|| format!("cannot write {file} of {}", folder.display()))
        };
        if version_1 {
            set("memory.limit_in_bytes", &limit.to_string())?;
            // Counts the memory of sockets only if it has a limit.
            set("memory.kmem.tcp.limit_in_bytes", &limit.to_string())?;
            set("memory.swappiness", "0")?;
        } else {
            set("memory.max", &limit.to_string())?;
            // Missing in kernels without swap.
            drop(set("memory.swap.max", "0"));
        }
        let peak = Arc::<AtomicU64>::default();
        let sampling = tokio::spawn(sample(folder.clone(), version_1, peak.clone()));
        Ok(Self { folder, version_1, peak, sampling })
    }

    /// Returns the folder, whose `cgroup.procs` takes processes.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns the current usage in bytes, sockets included.
    pub(super) fn current(&self) -> u64 {
        usage(&self.folder, self.version_1)
    }

    /// Returns the highest usage so far in bytes, sockets included.
    pub(super) fn peak(&self) -> u64 {
        if self.version_1 { self.peak.load(Relaxed) } else { number(&self.folder.join("memory.peak")) }
    }

    /// Returns how often the kernel has killed a process of the group.
    pub(super) fn kills(&self) -> u64 {
        let file = if self.version_1 { "memory.oom_control" } else { "memory.events" };
        let text = read_to_string(self.folder.join(file)).unwrap_or_default();
        text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok()).unwrap_or(0)
    }

    /// Returns parts of the usage, for a person who asks why.
    pub(super) fn parts(&self) -> String {
        let stat = read_to_string(self.folder.join("memory.stat")).unwrap_or_default();
        let parts = ["anon ", "rss ", "file ", "cache ", "sock ", "slab ", "kernel ", "percpu "];
        let mut found: Vec<_> = stat.lines().filter(|line| parts.iter().any(|part| line.starts_with(part))).collect();
        let (sockets, kernel) = ("memory.kmem.tcp.usage_in_bytes", "memory.kmem.usage_in_bytes");
        let more = [sockets, kernel].map(|file| format!("{file} {}", number(&self.folder.join(file))));
        if self.version_1 {
            found.extend(more.iter().map(String::as_str));
        }
        found.join(", ")
    }
}

impl Drop for MemoryGroup {
    #[allow(clippy::disallowed_methods, reason = "a drop cannot wait otherwise, and this one ends a benchmark")]
    fn drop(&mut self) {
        self.sampling.abort();
        // Its processes were killed before; the kernel removes them a moment later. A group that stays is empty.
        for _ in 0..20 {
            if std::fs::remove_dir(&self.folder).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

async fn sample(folder: PathBuf, version_1: bool, peak: Arc<AtomicU64>) {
    loop {
        peak.fetch_max(usage(&folder, version_1), Relaxed);
        tokio::time::sleep(SAMPLE).await;
    }
}

fn usage(folder: &Path, version_1: bool) -> u64 {
    if version_1 {
        number(&folder.join("memory.usage_in_bytes")) + number(&folder.join("memory.kmem.tcp.usage_in_bytes"))
    } else {
        number(&folder.join("memory.current"))
    }
}

fn number(file: &Path) -> u64 {
    read_to_string(file).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}
