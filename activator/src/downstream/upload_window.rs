//! Receive windows of HTTP/2 uploads: small while a request is queued, larger while its pod reads.
//!
//! What a client may send before anybody reads is held in memory, so the window that is announced for every stream is small. It
//! bounds the throughput too: one window per round trip. So a stream whose window was consumed quickly gets a larger one, as
//! far as the budgets of the connection and of the process allow.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use futures::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::STREAM_WINDOW;

/// Largest window of a stream: the bandwidth-delay product of 80 MB/s at 50 ms.
pub(crate) const LARGEST_STREAM_WINDOW: u32 = 4 << 20;
/// What all streams of a connection may have beyond [`STREAM_WINDOW`].
pub(crate) const CONNECTION_BUDGET: u32 = 16 << 20;
/// The same for all connections of the process.
const PROCESS_BUDGET: u32 = 64 << 20;
/// A window that is consumed within this time grows: a pod that reads slowly does not need a larger one.
const QUICK: Duration = Duration::from_millis(250);
/// Factor by which a window grows.
const GROWTH: u32 = 4;
/// The first growth: the pod reads, so the request is not queued.
const FIRST: u32 = 256 << 10;

/// Bytes of window beyond [`STREAM_WINDOW`] that are in use.
#[derive(Debug)]
pub(crate) struct WindowBudget {
    used: AtomicU32,
    most: u32,
}

/// Windows that were granted on a connection, and have not been announced yet.
#[derive(Debug)]
pub(crate) struct StreamGrants {
    /// Bytes by stream. At most one entry for each open stream.
    pending: Mutex<BTreeMap<u32, u32>>,
    connection: WindowBudget,
    process: Arc<WindowBudget>,
    /// Wakes the task that writes to the connection.
    pub(crate) writer: AtomicWaker,
}

/// The receive window of one stream.
#[derive(Debug)]
pub(crate) struct UploadWindow {
    stream: u32,
    grants: Arc<StreamGrants>,
    /// Bytes that the client may send beyond what was read.
    window: u32,
    /// Bytes that the client was allowed to send since the stream began.
    allowed: u64,
    read: u64,
    /// When the consumption of the current window began, and what had been read by then.
    since: Option<(Instant, u64)>,
}

impl WindowBudget {
    pub(crate) fn of_process() -> Arc<Self> {
        Arc::new(Self::new(PROCESS_BUDGET))
    }

    fn new(most: u32) -> Self {
        Self { used: AtomicU32::new(0), most }
    }

    /// Reserves up to `wanted` bytes.
    fn reserve(&self, wanted: u32) -> u32 {
        let more = |used: u32| (used < self.most).then(|| used + wanted.min(self.most - used));
        match self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more) {
            Ok(used) => wanted.min(self.most - used),
            Err(_) => 0,
        }
    }

    fn release(&self, bytes: u32) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl StreamGrants {
    pub(crate) fn new(process: Arc<WindowBudget>) -> Arc<Self> {
        Arc::new(Self {
            pending: Mutex::default(),
            connection: WindowBudget::new(CONNECTION_BUDGET),
            process,
            writer: AtomicWaker::new(),
        })
    }

    /// Returns the window of a stream that has begun.
    pub(crate) fn stream(self: &Arc<Self>, stream: u32) -> UploadWindow {
        UploadWindow {
            stream,
            grants: self.clone(),
            window: STREAM_WINDOW,
            allowed: STREAM_WINDOW.into(),
            read: 0,
            since: None,
        }
    }

    /// Takes the grants that have not been announced: streams and bytes.
    pub(crate) fn take(&self) -> BTreeMap<u32, u32> {
        std::mem::take(&mut *self.pending.lock())
    }

    fn reserve(&self, wanted: u32) -> u32 {
        let wanted = self.connection.reserve(wanted);
        let granted = self.process.reserve(wanted);
        self.connection.release(wanted - granted);
        granted
    }

    fn release(&self, bytes: u32) {
        self.connection.release(bytes);
        self.process.release(bytes);
    }

    fn announce(&self, stream: u32, bytes: u32) {
        *self.pending.lock().entry(stream).or_default() += bytes;
        self.writer.wake();
    }
}

impl UploadWindow {
    /// Records that this many bytes were read, and that more are expected.
    pub(crate) fn on_read(&mut self, bytes: usize, now: Instant) {
        let (since, read_before) = *self.since.get_or_insert((now, self.read));
        self.read += bytes as u64;
        if self.read - read_before >= u64::from(self.window) {
            if now.saturating_duration_since(since) <= QUICK {
                let larger = self.window.saturating_mul(GROWTH).clamp(FIRST, LARGEST_STREAM_WINDOW);
                self.window += self.grants.reserve(larger - self.window);
            }
            self.since = Some((now, self.read));
        }
        let target = self.read + u64::from(self.window);
        let more = target - self.allowed;
        // Few updates, and early enough that the client has nearly the whole window.
        if more >= u64::from((self.window / 8).max(STREAM_WINDOW / 2)) {
            self.allowed = target;
            // At most the window and what was read of it.
            self.grants.announce(self.stream, u32::try_from(more).unwrap_or(u32::MAX));
        }
    }
}

impl Drop for UploadWindow {
    fn drop(&mut self) {
        self.grants.release(self.window - STREAM_WINDOW);
        self.grants.pending.lock().remove(&self.stream);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grants() -> Arc<StreamGrants> {
        StreamGrants::new(WindowBudget::of_process())
    }

    /// Reads `total` bytes, `each` at a time and `pause` apart. The client never has more than its allowance.
    fn upload(window: &mut UploadWindow, now: &mut Instant, total: u64, each: u32, pause: Duration) {
        let mut allowed = u64::from(STREAM_WINDOW);
        let mut read = 0;
        while read < total {
            assert!(read + u64::from(each) <= allowed, "the client waits for a window: {read} of {allowed}");
            window.on_read(each as usize, *now);
            read += u64::from(each);
            allowed += u64::from(window.grants.take().remove(&window.stream).unwrap_or(0));
            assert!(allowed <= read + u64::from(LARGEST_STREAM_WINDOW), "more than the largest window");
            *now += pause;
        }
    }

    #[test]
    fn a_quick_pod_gets_the_largest_window_and_a_slow_one_the_first() {
        let (grants, mut now) = (grants(), Instant::now());
        let mut quick = grants.stream(1);
        upload(&mut quick, &mut now, 8 << 20, 4 << 10, Duration::from_micros(10));
        assert_eq!(quick.window, LARGEST_STREAM_WINDOW);
        let mut slow = grants.stream(3);
        upload(&mut slow, &mut now, 1 << 20, 4 << 10, Duration::from_millis(100));
        assert_eq!(slow.window, STREAM_WINDOW);
    }

    #[test]
    fn windows_are_bounded_by_connection_and_process() {
        let process = WindowBudget::of_process();
        let connections: Vec<_> = (0..6).map(|_| StreamGrants::new(process.clone())).collect();
        let mut now = Instant::now();
        let mut streams = vec![];
        for grants in &connections {
            for stream in 0..8 {
                let mut window = grants.stream(stream);
                upload(&mut window, &mut now, 8 << 20, 4 << 10, Duration::ZERO);
                streams.push(window);
            }
            assert!(grants.connection.used.load(Ordering::Relaxed) <= CONNECTION_BUDGET);
        }
        assert_eq!(process.used.load(Ordering::Relaxed), PROCESS_BUDGET, "all of it, and not more");
        drop(streams);
        assert_eq!(process.used.load(Ordering::Relaxed), 0);
        assert!(connections.iter().all(|grants| grants.connection.used.load(Ordering::Relaxed) == 0));
    }
}
