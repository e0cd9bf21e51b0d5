//! The open client connections of all listeners: their slots, their number per client, and which of them are idle.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use super::refusal::Refusal;
use crate::{
    metrics::Metrics,
    overload::{Overload, Stage},
    resources::FREE_FOR_OTHERS,
};

/// Connections that a client may have however few slots are free.
const CLIENT_MINIMUM: u64 = 16;
/// Slots in use, in percent, from which on idle connections are closed early.
const CROWDED_PERCENT: usize = 80;
/// Shortest time between two logs of the same event.
const LOG_EVERY: Duration = Duration::from_secs(30);

/// All open client connections.
#[derive(Debug)]
pub struct Connections {
    most: usize,
    /// Most connections of one client; the share of the free slots holds as well.
    per_client: u64,
    slots: Arc<Semaphore>,
    open: Mutex<Open>,
    overload: Arc<Overload>,
    metrics: Arc<Metrics>,
    began: Instant,
    /// Milliseconds since `began`, as of the last tick: a connection that becomes idle does not read the clock.
    clock: AtomicU64,
    logged: Mutex<HashMap<&'static str, Instant>>,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    /// Bounded by the number of slots.
    connections: HashMap<u64, Arc<Activity>>,
    /// Number of connections by client; bounded by them.
    clients: HashMap<IpAddr, u64>,
}

/// What is known of a connection from outside.
#[derive(Debug, Default)]
struct Activity {
    /// Time by the clock plus one since when it is idle; 0 while it is not.
    idle_since: AtomicU64,
    closing: AtomicBool,
    close: Notify,
}

/// The slot of one open connection. Released on drop.
#[derive(Debug)]
pub(super) struct Slot {
    id: u64,
    client: IpAddr,
    activity: Arc<Activity>,
    connections: Arc<Connections>,
    /// Of the listener, and of the process.
    _permits: Permits,
}

/// Permits of a listener and of the process.
pub(super) type Permits = [Option<OwnedSemaphorePermit>; 2];

impl Connections {
    /// Creates the slots of at most this many connections. `per_client` is the most that one client may have; by default
    /// it may have a multiple of what is free.
    #[must_use]
    pub fn new(most: usize, per_client: Option<u64>, overload: Arc<Overload>, metrics: Arc<Metrics>) -> Arc<Self> {
        let most = most.min(Semaphore::MAX_PERMITS);
        metrics.overload.max_connections.set(i64::try_from(most).unwrap_or(i64::MAX));
        Arc::new(Self {
            most,
            per_client: per_client.unwrap_or(u64::MAX),
            slots: Arc::new(Semaphore::new(most)),
            open: Mutex::default(),
            overload,
            metrics,
            began: Instant::now(),
            clock: AtomicU64::new(0),
            logged: Mutex::default(),
        })
    }

    /// Returns a permit of these slots, or waits for one. Cancel-safe.
    pub(super) async fn permit(&self, slots: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
        if let Ok(permit) = slots.clone().try_acquire_owned() {
            return Some(permit);
        }
        self.metrics.overload.slots_exhausted.inc();
        if self.may_log("slots") {
            tracing::warn!(
                open = self.number(),
                most = self.most,
                "All connection slots are in use; new connections wait"
            );
        }
        slots.clone().acquire_owned().await.ok()
    }

    /// Returns the slots of the process.
    pub(super) fn slots(&self) -> &Arc<Semaphore> {
        &self.slots
    }

    /// Takes in a connection that was accepted.
    ///
    /// # Errors
    ///
    /// Why it is refused.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr, permits: Permits) -> Result<Slot, Refusal> {
        if self.overload.stage() >= Stage::Reject {
            return Err(self.refused(Refusal::Memory, address));
        }
        let client = client(address);
        let free = self.slots.available_permits() as u64;
        let fair = free.saturating_mul(FREE_FOR_OTHERS).max(CLIENT_MINIMUM).min(self.per_client);
        let mut open = self.open.lock();
        let count = open.clients.entry(client).or_default();
        if *count >= fair {
            drop(open);
            return Err(self.refused(Refusal::Client, address));
        }
        *count += 1;
        Ok(self.slot(&mut open, client, permits))
    }

    /// Takes in a connection past all limits, as one that had waited to be accepted when the listener was closed.
    pub(super) fn enter_past_limits(self: &Arc<Self>, address: IpAddr) -> Slot {
        let client = client(address);
        let mut open = self.open.lock();
        *open.clients.entry(client).or_default() += 1;
        self.slot(&mut open, client, [None, None])
    }

    fn slot(self: &Arc<Self>, open: &mut Open, client: IpAddr, permits: Permits) -> Slot {
        let (id, activity) = (open.next, Arc::<Activity>::default());
        open.next += 1;
        open.connections.insert(id, activity.clone());
        Slot { id, client, activity, connections: self.clone(), _permits: permits }
    }

    /// Counts and logs a refused connection.
    pub(super) fn refused(&self, refusal: Refusal, address: IpAddr) -> Refusal {
        self.metrics.overload.record_refused(refusal.label());
        if self.may_log(refusal.label()) {
            tracing::warn!(client = %address, reason = refusal.label(), "Refused a connection; further ones are only counted for {} s", LOG_EVERY.as_secs());
        }
        refusal
    }

    /// Returns the number of open connections.
    #[must_use]
    pub fn number(&self) -> usize {
        self.open.lock().connections.len()
    }

    /// Whether so many slots are in use that idle connections are closed early.
    #[must_use]
    pub fn is_crowded(&self) -> bool {
        self.number() * 100 > self.most.saturating_mul(CROWDED_PERCENT)
    }

    /// Sets the clock by which idle times count.
    pub fn tick(&self, now: Instant) {
        self.clock.store(self.millis(now), Ordering::Relaxed);
    }

    /// Closes connections that have been idle for at least `least`, the longest idle ones first, and `most` of them.
    /// Returns how many. A request in flight is not affected.
    pub fn close_idle(&self, now: Instant, least: Duration, most: impl FnOnce(usize) -> usize) -> usize {
        let until = self.millis(now).saturating_sub(u64::try_from(least.as_millis()).unwrap_or(u64::MAX));
        let mut idle: Vec<(u64, Arc<Activity>)> = {
            let open = self.open.lock();
            let all = open.connections.values().filter(|one| !one.closing.load(Ordering::Relaxed));
            all.filter_map(|one| one.idle().filter(|since| *since <= until).map(|since| (since, one.clone()))).collect()
        };
        let count = most(idle.len()).min(idle.len());
        if count < idle.len() && count > 0 {
            idle.select_nth_unstable_by_key(count - 1, |(since, _)| *since);
        }
        for (_, activity) in idle.iter().take(count) {
            activity.closing.store(true, Ordering::Relaxed);
            activity.close.notify_one();
        }
        count
    }

    fn millis(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.began).as_millis()).unwrap_or(u64::MAX)
    }

    /// Whether an event may be logged again.
    pub(super) fn may_log(&self, event: &'static str) -> bool {
        let (mut logged, now) = (self.logged.lock(), Instant::now());
        let may = logged.get(event).is_none_or(|last| now.saturating_duration_since(*last) >= LOG_EVERY);
        if may {
            logged.insert(event, now);
        }
        may
    }
}

impl Activity {
    fn idle(&self) -> Option<u64> {
        self.idle_since.load(Ordering::Relaxed).checked_sub(1)
    }
}

impl Slot {
    /// The connection waits for its next request. It is idle since the first of these calls in a row.
    pub(super) fn set_idle(&self) {
        if self.activity.idle_since.load(Ordering::Relaxed) == 0 {
            self.touch();
        }
    }

    /// The connection is idle from now on, as far as is known: HTTP/2 counts from the last byte of the client.
    pub(super) fn touch(&self) {
        let now = self.connections.clock.load(Ordering::Relaxed);
        self.activity.idle_since.store(now + 1, Ordering::Relaxed);
    }

    /// The connection has a request.
    pub(super) fn set_busy(&self) {
        self.activity.idle_since.store(0, Ordering::Relaxed);
    }

    /// Returns a future that completes when the connection is to be closed as soon as it has no request. One at a time.
    pub(super) fn closed(&self) -> impl Future<Output = ()> + Send + use<> {
        let activity = self.activity.clone();
        async move { activity.close.notified().await }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut open = self.connections.open.lock();
        open.connections.remove(&self.id);
        if let Some(count) = open.clients.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                open.clients.remove(&self.client);
            }
        }
    }
}

/// Returns the client of an address. Whoever has an IPv6 address has 2⁶⁴ of them.
fn client(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.into(),
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use rstest::rstest;

    use super::*;
    use crate::demand::Ledger;

    fn connections(most: usize, per_client: Option<u64>) -> Arc<Connections> {
        Connections::new(most, per_client, Arc::default(), Metrics::new(Ledger::new()))
    }

    fn ip(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    fn enter(connections: &Arc<Connections>, last: u8) -> Result<Slot, Refusal> {
        let permit = connections.slots.clone().try_acquire_owned().ok();
        connections.enter(ip(last), [None, permit])
    }

    fn fill(connections: &Arc<Connections>, last: u8) -> Vec<Slot> {
        std::iter::from_fn(|| enter(connections, last).ok()).take(10_000).collect()
    }

    #[tokio::test]
    async fn one_client_leaves_slots_for_others() {
        let connections = connections(1000, None);
        let first = fill(&connections, 1);
        assert_eq!(first.len(), 800, "four fifths");
        let second = fill(&connections, 2);
        assert_eq!(second.len(), 160, "four fifths of the rest");
        assert!(enter(&connections, 3).is_ok());
        drop((first, second));
        assert_eq!((connections.number(), connections.open.lock().clients.len()), (0, 0));
        assert_eq!(fill(&connections, 2).len(), 800);
    }

    #[tokio::test]
    async fn a_cap_per_client_holds_however_much_is_free() {
        let connections = connections(1000, Some(3));
        let held = fill(&connections, 1);
        assert_eq!((held.len(), fill(&connections, 2).len()), (3, 3));
    }

    #[rstest]
    #[case("10.0.0.1", "::ffff:10.0.0.1", true)]
    #[case("10.0.0.1", "10.0.0.2", false)]
    #[case("2001:db8:1:2::1", "2001:db8:1:2:ffff::", true)]
    #[case("2001:db8:1:2::1", "2001:db8:1:3::1", false)]
    fn a_client_is_an_ipv4_address_or_an_ipv6_network(#[case] a: &str, #[case] b: &str, #[case] same: bool) {
        assert_eq!(client(a.parse().unwrap()) == client(b.parse().unwrap()), same);
    }

    #[tokio::test(start_paused = true)]
    async fn the_longest_idle_connections_are_closed_first() {
        let connections = connections(100, None);
        let mut slots = fill(&connections, 1);
        slots.truncate(4);
        for slot in &slots {
            slot.set_idle();
            tokio::time::advance(Duration::from_secs(1)).await;
            connections.tick(Instant::now());
        }
        slots[1].set_busy();
        let mut closed: Vec<_> = slots.iter().map(|slot| Box::pin(slot.closed())).collect();
        let mut count_closed = || closed.iter_mut().map(|one| one.now_or_never().is_some()).collect::<Vec<_>>();
        assert_eq!(connections.close_idle(Instant::now(), Duration::from_secs(2), |idle| idle.min(1)), 1);
        assert_eq!(count_closed(), [true, false, false, false]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_closed_once_and_only_when_idle_for_long_enough() {
        let connections = connections(100, None);
        let (young, old, busy) =
            (enter(&connections, 1).unwrap(), enter(&connections, 1).unwrap(), enter(&connections, 1).unwrap());
        old.set_idle();
        busy.set_idle();
        busy.set_busy();
        tokio::time::advance(Duration::from_secs(9)).await;
        connections.tick(Instant::now());
        old.set_idle();
        young.set_idle();
        tokio::time::advance(Duration::from_secs(1)).await;
        let close = || connections.close_idle(Instant::now(), Duration::from_secs(10), |all| all);
        assert_eq!([close(), close()], [1, 0]);
        assert!(old.closed().now_or_never().is_some(), "also if nobody waited for it at that time");
        assert!(young.closed().now_or_never().is_none() && busy.closed().now_or_never().is_none());
    }

    #[tokio::test]
    async fn memory_pressure_refuses_everybody() {
        let connections = connections(100, None);
        let before = enter(&connections, 1).unwrap();
        connections.overload.set(Stage::Shrink);
        assert!(enter(&connections, 1).is_ok());
        connections.overload.set(Stage::Reject);
        assert_eq!(enter(&connections, 2).unwrap_err(), Refusal::Memory);
        drop(before);
        let text = connections.metrics.encode().unwrap();
        assert!(text.contains("rouse_activator_connections_refused_total{reason=\"memory\"} 1"), "{text}");
    }
}
