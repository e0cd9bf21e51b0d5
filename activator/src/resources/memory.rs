//! The memory limit of this process, and its usage.

use std::fmt;

use super::cgroup::MemoryController;

/// The memory that this process may use, and where its usage is read.
#[derive(Clone, Debug)]
pub struct Memory {
    /// The limit in bytes.
    pub limit: u64,
    /// Where the limit is from.
    pub source: LimitSource,
    controller: Option<MemoryController>,
}

/// Where a memory limit is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitSource {
    /// `--memory-limit`.
    Flag,
    /// The control group.
    Cgroup,
    /// Half of the machine's memory, as there is no limit.
    Machine,
}

/// Assumed if the system reports nothing: the memory limit of the chart.
const FALLBACK: u64 = 512 << 20;

impl Memory {
    /// Finds the limit: the flag, else that of the control group, else half of the machine's memory.
    #[must_use]
    pub fn find(flag: Option<u64>) -> Self {
        Self::with(flag, MemoryController::find(), &std::fs::read_to_string("/proc/meminfo").unwrap_or_default())
    }

    fn with(flag: Option<u64>, controller: Option<MemoryController>, meminfo: &str) -> Self {
        let group = controller.as_ref().and_then(MemoryController::limit);
        let (limit, source) = match (flag, group) {
            (Some(limit), _) => (limit, LimitSource::Flag),
            (None, Some(limit)) => (limit, LimitSource::Cgroup),
            (None, None) => (kibibytes(meminfo, "MemTotal:").map_or(FALLBACK, |total| total / 2), LimitSource::Machine),
        };
        // Without a limit of its own, the group may contain other processes.
        Self { limit, source, controller: controller.filter(|_| group.is_some()) }
    }

    /// Returns the memory in use, in bytes: of the control group if that has a limit, else the resident memory of the
    /// process.
    #[must_use]
    pub fn used(&self) -> Option<u64> {
        match &self.controller {
            Some(controller) => controller.usage(),
            None => kibibytes(&std::fs::read_to_string("/proc/self/status").ok()?, "VmRSS:"),
        }
    }
}

impl fmt::Display for LimitSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flag => "flag",
            Self::Cgroup => "cgroup",
            Self::Machine => "half of the machine",
        })
    }
}

/// Returns a field of a file of `/proc`, in bytes.
fn kibibytes(text: &str, field: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    let count: u64 = line.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    count.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_has_precedence_and_no_limit_means_half_of_the_machine() {
        let meminfo = "MemTotal:        2048 kB\nMemFree: 1 kB\n";
        let of = |flag, meminfo| {
            let memory = Memory::with(flag, None, meminfo);
            (memory.limit, memory.source)
        };
        assert_eq!(of(Some(7), meminfo), (7, LimitSource::Flag));
        assert_eq!(of(None, meminfo), (1 << 20, LimitSource::Machine));
        assert_eq!(of(None, ""), (FALLBACK, LimitSource::Machine));
    }

    #[test]
    fn the_usage_of_this_process_is_read() {
        assert!(Memory::with(None, None, "").used().is_some_and(|used| used > 1 << 20));
        assert!(Memory::find(None).used().is_some_and(|used| used > 1 << 20));
    }
}
