//! Invariants of the breaker under any sequence of events.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::admit::state::{Binding, Revision};

const OTHER: &str = "f-00002";
const BOTH: [&str; 2] = [REVISION, OTHER];
const LIMITS: [Option<u32>; 6] = [Some(1), Some(2), Some(3), Some(12), Some(200), None];

#[derive(Clone, Debug)]
enum Act {
    Come,
    /// With an affinity value.
    ComeWith(u64),
    /// To the tag of one of the two revisions.
    ComeByTag(usize),
    /// A mirrored request to one of the two revisions.
    Copy(usize),
    /// Of those, by kind, one leaves the queue or ends.
    Go(usize, usize),
    Leave(usize),
    End(usize),
    Unreachable(usize),
    /// The watch reports a pod without an address, with one, or as ready.
    Seen(u16),
    Starts(u16),
    Ready(u16),
    /// The probe succeeds.
    Admitted(u16),
    Drain(u16),
    Gone(u16),
    Fail(u16),
    Limit(usize),
    /// Percentages of the two revisions, and which of them have a tag. Percentages of zero change nothing.
    Traffic(Option<u32>, [bool; 2]),
    Ramp,
    Woken,
}

fn act() -> impl Strategy<Value = Act> {
    let pod = 1..7_u16;
    prop_oneof![
        10 => Just(Act::Come),
        2 => any::<u64>().prop_map(Act::ComeWith),
        2 => (0..2_usize).prop_map(Act::ComeByTag),
        1 => (0..2_usize).prop_map(Act::Copy),
        3 => (0..3_usize, any::<usize>()).prop_map(|(kind, n)| Act::Go(kind, n)),
        2 => any::<usize>().prop_map(Act::Leave),
        8 => any::<usize>().prop_map(Act::End),
        2 => any::<usize>().prop_map(Act::Unreachable),
        1 => pod.clone().prop_map(Act::Seen),
        1 => pod.clone().prop_map(Act::Starts),
        1 => pod.clone().prop_map(Act::Ready),
        3 => pod.clone().prop_map(Act::Admitted),
        1 => pod.clone().prop_map(Act::Drain),
        1 => pod.clone().prop_map(Act::Gone),
        1 => pod.prop_map(Act::Fail),
        1 => (0..LIMITS.len()).prop_map(Act::Limit),
        2 => (prop::option::of(0..3_u32), any::<[bool; 2]>()).prop_map(|(n, tags)| Act::Traffic(n.map(|n| n * 50), tags)),
        1 => Just(Act::Ramp),
        1 => Just(Act::Woken),
    ]
}

/// Even pods are of one revision, odd ones of the other.
fn revision_of(pod: u16) -> &'static str {
    if pod.is_multiple_of(2) { REVISION } else { OTHER }
}

fn pod(number: u16) -> PodFacts {
    PodFacts { revision: revision_of(number).into(), ..facts(number) }
}

fn endpoints(breaker: &Breaker) -> Vec<Arc<Endpoint>> {
    breaker.lock().revisions.iter().flat_map(|r| &r.trackers).filter_map(|tracker| tracker.endpoint.clone()).collect()
}

struct Model {
    breaker: Arc<Breaker>,
    /// Requests by traffic percentage.
    callers: Callers,
    /// Requests to the tag of each revision, and mirrored ones.
    tagged: [Callers; 2],
    mirrored: Callers,
    limit: Option<u32>,
}

impl Model {
    fn new(limit: Option<u32>) -> Self {
        Self {
            breaker: breaker(limit, 20),
            callers: Callers::default(),
            tagged: Default::default(),
            mirrored: Callers::default(),
            limit,
        }
    }

    fn act(&mut self, act: &Act) {
        let Self { breaker, callers, tagged, mirrored, limit } = self;
        match act {
            Act::Come => callers.enter(breaker.admit(&Target::ANY, || 1)),
            Act::ComeWith(value) => {
                callers.enter(breaker.admit(&Target::Traffic { affinity: Affinity::Value(*value) }, || 1));
            }
            Act::ComeByTag(which) => {
                tagged[*which].enter(breaker.admit(&Target::Revision(BOTH[*which].into()), || 1));
            }
            Act::Copy(which) => mirrored.enter(breaker.admit(&Target::Mirror(BOTH[*which].into()), || 1)),
            Act::Go(kind, n) => {
                let of = if *kind < 2 { &mut tagged[*kind] } else { &mut *mirrored };
                if !of.waiting.is_empty() && n % 2 == 0 {
                    drop(of.waiting.remove(n % of.waiting.len()));
                } else if !of.inside.is_empty() {
                    drop(of.inside.swap_remove(n % of.inside.len()));
                }
            }
            Act::Leave(n) if !callers.waiting.is_empty() => {
                let n = n % callers.waiting.len();
                drop(callers.waiting.remove(n));
            }
            Act::End(n) if !callers.inside.is_empty() => {
                let n = n % callers.inside.len();
                let mut permit = callers.inside.swap_remove(n);
                permit.mark_responded();
                drop(permit);
            }
            Act::Unreachable(n) if !callers.inside.is_empty() => {
                let n = n % callers.inside.len();
                let permit = callers.inside.swap_remove(n);
                let (sequence, arrived) = (permit.sequence(), permit.arrived());
                permit.connect_failed();
                callers.collect();
                callers.enter(breaker.readmit(&Target::ANY, || 1, sequence, arrived));
            }
            Act::Leave(_) | Act::End(_) | Act::Unreachable(_) => {}
            Act::Seen(number) => breaker.pod_updated(&PodFacts { ip: None, ..pod(*number) }),
            Act::Starts(number) => breaker.pod_updated(&pod(*number)),
            Act::Ready(number) => breaker.pod_updated(&PodFacts { ready: true, ..pod(*number) }),
            Act::Admitted(number) => {
                breaker.pod_updated(&pod(*number));
                let port = |e: &Arc<Endpoint>| e.address.port() == *number;
                if let Some(endpoint) = endpoints(breaker).into_iter().find(port) {
                    breaker.endpoint_ready(&endpoint);
                }
            }
            Act::Drain(number) => breaker.pod_updated(&PodFacts { draining: true, ..pod(*number) }),
            Act::Gone(number) => breaker.pod_deleted(revision_of(*number), &number.to_string()),
            Act::Fail(number) => breaker.pod_updated(&PodFacts { failure: failing("Error"), ..pod(*number) }),
            Act::Limit(n) => {
                *limit = LIMITS[*n];
                breaker.set_policy(policy(*limit, 20));
            }
            Act::Traffic(share, tags) => {
                let mut traffic = shares(&share.map_or([0; 2], |share| [share, 100 - share]).map(|n| (REVISION, n)));
                for (which, entry) in traffic.iter_mut().enumerate() {
                    entry.revision = BOTH[which].into();
                    entry.tag = tags[which].then(|| format!("tag-{which}"));
                }
                breaker.set_traffic(&traffic);
                for which in 0..2 {
                    let found = breaker.tagged(&format!("tag-{which}"));
                    assert_eq!(found.as_deref(), tags[which].then_some(BOTH[which]));
                }
            }
            Act::Ramp => breaker.ramp(),
            Act::Woken => {
                if let Step::Wake { revision, .. } = breaker.step() {
                    breaker.woken(&revision, Ok(()));
                }
            }
        }
        callers.collect();
        tagged.iter_mut().for_each(Callers::collect);
        mirrored.collect();
    }

    fn all(&self) -> impl Iterator<Item = &Callers> {
        self.tagged.iter().chain([&self.callers, &self.mirrored])
    }

    fn inside(&self) -> impl Iterator<Item = &Permit> {
        self.all().flat_map(|callers| &callers.inside)
    }

    /// Holds after each event. `before` is what was in flight in each pod before it.
    fn check(&self, before: &HashMap<*const Endpoint, u32>) -> Result<(), TestCaseError> {
        let Self { breaker, limit, .. } = self;
        let mut reservation: HashMap<*const Endpoint, u32> = HashMap::new();
        for permit in self.inside() {
            let endpoint = permit.endpoint();
            let now = endpoint.in_flight();
            let previous = before.get(&Arc::as_ptr(endpoint)).copied().unwrap_or(0);
            // A lowered limit aborts no request, and grants none.
            prop_assert!(limit.is_none_or(|limit| now <= limit.max(previous)), "{now} are in a pod, {previous} were");
            *reservation.entry(Arc::as_ptr(endpoint)).or_default() += 1;
        }
        for permit in self.inside() {
            prop_assert_eq!(permit.endpoint().in_flight(), reservation[&Arc::as_ptr(permit.endpoint())]);
        }
        let inner = breaker.lock();
        let waiting: usize = self.all().map(|callers| callers.waiting.len()).sum();
        prop_assert_eq!(inner.waiting.requests, waiting);
        prop_assert_eq!(inner.waiting.mirrored, self.mirrored.waiting.len());
        prop_assert_eq!(inner.waiting.requests, inner.revisions.iter().map(|r| r.queue.len()).sum::<usize>());
        let waiting = (waiting - self.mirrored.waiting.len()) as u64;
        prop_assert_eq!(inner.waiting.bytes, waiting);
        prop_assert_eq!(breaker.context().budget.used(), Caps { requests: waiting, bytes: waiting });
        for revision in &inner.revisions {
            for tracker in &revision.trackers {
                prop_assert!(
                    !tracker.has_capacity(*limit, true) || revision.queue.is_empty(),
                    "requests are queued while there is capacity"
                );
                prop_assert!(tracker.load().is_none() || !tracker.draining, "a pod that goes is sent_at requests");
            }
            let free = revision.queue.values().filter(|waiter| waiter.binding != Binding::Revision).count();
            prop_assert!(revision.percent > 0 || free == 0, "requests are queued at a revision without traffic");
            let named = BOTH.iter().position(|name| *revision.name == **name);
            let here = named.map_or(0, |which| self.tagged[which].waiting.len());
            let mirrored = revision.queue.values().filter(|waiter| waiter.reservation.is_none()).count();
            prop_assert_eq!(revision.queue.len() - free - mirrored, here, "one that came by a tag waits elsewhere");
        }
        for (which, tagged) in self.tagged.iter().enumerate() {
            prop_assert!(tagged.inside.iter().all(|permit| permit.revision() == BOTH[which]), "a tag led elsewhere");
        }
        prop_assert_eq!(breaker.is_split(), inner.revisions.iter().filter(|r| r.percent > 0).count() > 1);
        let draining = |r: &Revision| r.trackers.iter().filter(|tracker| tracker.draining).count();
        let going: usize = inner.revisions.iter().map(draining).sum();
        let told = breaker.context().ledger.read(None).revisions;
        for revision in &told {
            let in_pods: u64 = revision.pods.iter().map(|pod| pod.in_flight).sum();
            prop_assert_eq!(in_pods, revision.in_flight, "requests in pods differ from the report");
        }
        let told = told.iter().flat_map(|r| &r.pods).filter(|pod| pod.draining).count();
        prop_assert!(told >= going, "{told} of {going} draining pods are reported");
        prop_assert!(inner.waiting.requests == 0 || inner.wake_task_running, "requests are queued without a wake task");
        Ok(())
    }

    /// Time passes: a serving pod is not left idle because of the ramp.
    async fn settle(&mut self) -> Result<(), TestCaseError> {
        tokio::time::advance(Duration::from_secs(2)).await;
        for _ in 0..12 {
            self.breaker.ramp();
        }
        self.callers.collect();
        self.tagged.iter_mut().for_each(Callers::collect);
        self.mirrored.collect();
        for revision in &self.breaker.lock().revisions {
            let room = revision.trackers.iter().any(|tracker| tracker.has_capacity(self.limit, false));
            prop_assert!(!room || revision.queue.is_empty(), "requests are queued for ever");
        }
        Ok(())
    }

    /// Everything ends.
    fn end(self) -> Result<(), TestCaseError> {
        let Self { breaker, callers, tagged, mirrored, .. } = self;
        let endpoints = endpoints(&breaker);
        drop((callers, tagged, mirrored));
        prop_assert_eq!((breaker.queued(), breaker.context().budget.used()), (0, NOTHING));
        prop_assert!(endpoints.iter().all(|endpoint| endpoint.in_flight() == 0));
        let mut left = 0;
        breaker.context().ledger.each(|demand| left += demand.concurrency());
        prop_assert_eq!(left, 0);
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// The limit holds, grants are first in first out, nothing is queued while there is capacity, and nothing is lost.
    #[test]
    fn breaker_invariants_hold(limit in 0..LIMITS.len(), acts in prop::collection::vec(act(), 1..160)) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().start_paused(true).build().unwrap();
        // Nothing is awaited between the events, so probes and wake tasks do not run: the events are all that happens.
        runtime.block_on(async {
            let mut model = Model::new(LIMITS[limit]);
            for act in &acts {
                let inside = model.inside().map(Permit::endpoint);
                let before = inside.map(|e| (Arc::as_ptr(e), e.in_flight())).collect();
                model.act(act);
                model.check(&before)?;
            }
            model.settle().await?;
            model.end()
        })?;
    }
}
