//! Default limits: as many requests and connections as fit the memory limit and the limit of open files.
//!
//! The costs are upper bounds per item, of user and kernel memory together, since both count against the limit of a pod.
//! `docs/operations/capacity.md` explains them; the benchmark `park` measures the largest of them.

/// Memory of the process itself: code, routing table, watches and probes of 10,000 Functions.
const PROCESS: u64 = 96 << 20;
/// The process's part of a smaller limit.
const PROCESS_FRACTION: u64 = 4;
/// Part of the limit that the caps may add up to, in percent. It is less than the usage at which the activator starts
/// to reject, so what has no cap of its own has the rest: requests in flight, tunnels, fragmentation.
const USABLE_PERCENT: u64 = 85;
/// A client connection without a request: its socket in the kernel, its task and its buffers.
pub(super) const CONNECTION: u64 = 10 << 10;
/// What a queued request adds to its connection, without what counts as its bytes.
pub(super) const QUEUED: u64 = 20 << 10;
/// Descriptors that are not for clients and pods: listeners, watches, the admin port, refused clients, files.
const RESERVED_FILES: u64 = 128;
/// A proxied request has a connection to its client and one to its pod.
const FILES_PER_CONNECTION: u64 = 2;
/// A namespace may use one part in this many less than the process: something is left for the others.
const NAMESPACE_PARTS: u64 = 2;
/// Fewest connections and requests, whatever the limits are.
const FEWEST: u64 = 16;

/// Multiple of the free capacity that one user of it may hold, here a client of the connections: four fifths if there is
/// no other.
pub const FREE_FOR_OTHERS: u64 = 4;

/// Limits of the process that follow from its resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizing {
    /// Client connections of all listeners together.
    pub connections: u64,
    /// Queued requests.
    pub queued_requests: u64,
    /// Queued requests of one namespace.
    pub namespace_requests: u64,
    /// Bytes that queued requests hold.
    pub queued_bytes: u64,
    /// Bytes that queued requests of one namespace hold.
    pub namespace_bytes: u64,
}

/// Limits that flags set; the others are derived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Chosen {
    /// See [`Sizing::connections`].
    pub connections: Option<u64>,
    /// See [`Sizing::queued_requests`].
    pub queued_requests: Option<u64>,
    /// See [`Sizing::namespace_requests`].
    pub namespace_requests: Option<u64>,
    /// See [`Sizing::queued_bytes`].
    pub queued_bytes: Option<u64>,
    /// See [`Sizing::namespace_bytes`].
    pub namespace_bytes: Option<u64>,
}

impl Sizing {
    /// Derives the limits from a memory limit in bytes and a limit of open files.
    ///
    /// Half of the usable memory is for queued requests, a third for connections, and a sixth for queued bytes. A
    /// chosen limit stays as it is, except that there are never more connections than descriptors.
    #[must_use]
    pub fn derive(memory: u64, files: u64, chosen: Chosen) -> Self {
        let shared = (memory / 100 * USABLE_PERCENT).saturating_sub(process(memory));
        let by_files = (files.saturating_sub(RESERVED_FILES) / FILES_PER_CONNECTION).max(FEWEST);
        let queued_requests = chosen.queued_requests.unwrap_or_else(|| (shared / 2 / QUEUED).max(FEWEST));
        let queued_bytes = chosen.queued_bytes.unwrap_or(shared / 6);
        Self {
            connections: chosen.connections.unwrap_or_else(|| (shared / 3 / CONNECTION).max(FEWEST)).min(by_files),
            queued_requests,
            namespace_requests: chosen
                .namespace_requests
                .unwrap_or_else(|| (queued_requests / NAMESPACE_PARTS).max(1))
                .min(queued_requests),
            queued_bytes,
            namespace_bytes: chosen.namespace_bytes.unwrap_or(queued_bytes / NAMESPACE_PARTS).min(queued_bytes),
        }
    }

    /// Returns the memory that the process needs at these limits, in bytes.
    #[must_use]
    pub fn memory(&self, limit: u64) -> u64 {
        process(limit)
            .saturating_add(self.connections.saturating_mul(CONNECTION))
            .saturating_add(self.queued_requests.saturating_mul(QUEUED))
            .saturating_add(self.queued_bytes)
    }
}

/// Returns the memory of the process itself, in bytes.
fn process(limit: u64) -> u64 {
    PROCESS.min(limit / PROCESS_FRACTION)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn limits_of_the_chart_s_memory_limit() {
        let sizing = Sizing::derive(512 * MIB, 1 << 20, Chosen::default());
        assert_eq!(
            sizing,
            Sizing {
                connections: 11_578,
                queued_requests: 8_683,
                namespace_requests: 4_341,
                queued_bytes: 59_279_494,
                namespace_bytes: 29_639_747,
            }
        );
    }

    #[test]
    fn there_are_never_more_connections_than_files() {
        let all = Chosen { connections: Some(65_536), ..Chosen::default() };
        assert_eq!(Sizing::derive(512 * MIB, 1024, all).connections, 448);
        assert_eq!(Sizing::derive(512 * MIB, 0, all).connections, 16);
    }

    #[test]
    fn chosen_limits_stay() {
        let chosen = Chosen {
            connections: Some(1),
            queued_requests: Some(20_000),
            namespace_requests: Some(30_000),
            queued_bytes: Some(MIB),
            namespace_bytes: Some(7),
        };
        let sizing = Sizing::derive(64 * MIB, 1 << 20, chosen);
        let Sizing { connections, queued_requests, namespace_requests, queued_bytes, namespace_bytes } = sizing;
        assert_eq!((connections, queued_requests, queued_bytes, namespace_bytes), (1, 20_000, MIB, 7));
        assert_eq!(namespace_requests, 20_000, "never more than the process");
        assert!(sizing.memory(64 * MIB) > 64 * MIB, "too much is seen as such");
    }

    proptest! {
        #[test]
        fn derived_limits_fit_the_memory_limit(memory in 16 * MIB..1 << 40, files in 0_u64..1 << 24) {
            let sizing = Sizing::derive(memory, files, Chosen::default());
            prop_assert!(sizing.memory(memory) <= memory / 10 * 9, "{sizing:?} needs {}", sizing.memory(memory));
            prop_assert!(sizing.namespace_requests <= sizing.queued_requests && sizing.namespace_requests > 0);
        }
    }
}
