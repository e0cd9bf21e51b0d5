//! Whatever happens in whatever order, the gate keeps its promises.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::admit::state::{Bound, Revision};

const OTHER: &str = "f-00002";
const BOTH: [&str; 2] = [REVISION, OTHER];
const LIMITS: [Option<u32>; 6] = [Some(1), Some(2), Some(3), Some(12), Some(200), None];

#[derive(Clone, Debug)]
enum Act {
    Come,
    /// One that a value binds.
    ComeWith(u64),
    /// By the tag of one of the two revisions.
    ComeByTag(usize),
    /// A copy for one of the two revisions.
    Copy(usize),
    /// Of those, by kind, one leaves the queue or ends.
    Go(usize, usize),
    Leave(usize),
    End(usize),
    Unreachable(usize),
    /// The watch tells of a pod that has no address, or has one, or is ready as kubelet says.
    Seen(u16),
    Starts(u16),
    Ready(u16),
    /// The probe succeeds.
    Admitted(u16),
    Drain(u16),
    Gone(u16),
    Fail(u16),
    Limit(usize),
    /// Shares of the two revisions, and which of them can be called by a tag. Shares of nothing leave them as they were.
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

/// The even pods are of one revision, the odd ones of the other.
fn revision_of(pod: u16) -> &'static str {
    if pod.is_multiple_of(2) { REVISION } else { OTHER }
}

fn pod(number: u16) -> PodFacts {
    PodFacts { revision: revision_of(number).into(), ..facts(number) }
}

fn endpoints(gate: &Gate) -> Vec<Arc<Endpoint>> {
    gate.lock().revisions.iter().flat_map(|r| &r.slots).filter_map(|slot| slot.endpoint.clone()).collect()
}

struct Model {
    gate: Arc<Gate>,
    /// Those who take what the shares give them.
    callers: Callers,
    /// Those who came by the tag of each revision, and those who are copies.
    bound: [Callers; 2],
    copies: Callers,
    limit: Option<u32>,
}

impl Model {
    fn new(limit: Option<u32>) -> Self {
        Self {
            gate: gate(limit, 20),
            callers: Callers::default(),
            bound: Default::default(),
            copies: Callers::default(),
            limit,
        }
    }

    fn act(&mut self, act: &Act) {
        let Self { gate, callers, bound, copies, limit } = self;
        match act {
            Act::Come => callers.enter(gate.enter(&Target::ANY, || 1)),
            Act::ComeWith(value) => {
                callers.enter(gate.enter(&Target::Shares { affinity: Affinity::Value(*value) }, || 1));
            }
            Act::ComeByTag(which) => {
                bound[*which].enter(gate.enter(&Target::Revision(BOTH[*which].into()), || 1));
            }
            Act::Copy(which) => copies.enter(gate.enter(&Target::Copy(BOTH[*which].into()), || 1)),
            Act::Go(kind, n) => {
                let of = if *kind < 2 { &mut bound[*kind] } else { &mut *copies };
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
                let mut lease = callers.inside.swap_remove(n);
                lease.answered();
                drop(lease);
            }
            Act::Unreachable(n) if !callers.inside.is_empty() => {
                let n = n % callers.inside.len();
                let lease = callers.inside.swap_remove(n);
                let (sequence, arrived) = (lease.sequence(), lease.arrived());
                lease.unreachable();
                callers.collect();
                callers.enter(gate.enter_again(&Target::ANY, || 1, sequence, arrived));
            }
            Act::Leave(_) | Act::End(_) | Act::Unreachable(_) => {}
            Act::Seen(number) => gate.pod_seen(&PodFacts { ip: None, ..pod(*number) }),
            Act::Starts(number) => gate.pod_seen(&pod(*number)),
            Act::Ready(number) => gate.pod_seen(&PodFacts { ready: true, ..pod(*number) }),
            Act::Admitted(number) => {
                gate.pod_seen(&pod(*number));
                let port = |e: &Arc<Endpoint>| e.address.port() == *number;
                if let Some(endpoint) = endpoints(gate).into_iter().find(port) {
                    gate.admitted(&endpoint);
                }
            }
            Act::Drain(number) => gate.pod_seen(&PodFacts { draining: true, ..pod(*number) }),
            Act::Gone(number) => gate.pod_gone(revision_of(*number), &number.to_string()),
            Act::Fail(number) => gate.pod_seen(&PodFacts { failure: failing("Error"), ..pod(*number) }),
            Act::Limit(n) => {
                *limit = LIMITS[*n];
                gate.set_policy(policy(*limit, 20));
            }
            Act::Traffic(share, tags) => {
                let mut traffic = shares(&share.map_or([0; 2], |share| [share, 100 - share]).map(|n| (REVISION, n)));
                for (which, entry) in traffic.iter_mut().enumerate() {
                    entry.revision = BOTH[which].into();
                    entry.tag = tags[which].then(|| format!("tag-{which}"));
                }
                gate.set_traffic(&traffic);
                for which in 0..2 {
                    let found = gate.tagged(&format!("tag-{which}"));
                    assert_eq!(found.as_deref(), tags[which].then_some(BOTH[which]));
                }
            }
            Act::Ramp => gate.ramp(),
            Act::Woken => {
                if let Step::Wake { revision, .. } = gate.step() {
                    gate.woken(&revision, Ok(()));
                }
            }
        }
        callers.collect();
        bound.iter_mut().for_each(Callers::collect);
        copies.collect();
    }

    fn all(&self) -> impl Iterator<Item = &Callers> {
        self.bound.iter().chain([&self.callers, &self.copies])
    }

    fn inside(&self) -> impl Iterator<Item = &Lease> {
        self.all().flat_map(|callers| &callers.inside)
    }

    /// What holds after each act. `before` is what was in each pod before it.
    fn check(&self, before: &HashMap<*const Endpoint, u32>) -> Result<(), TestCaseError> {
        let Self { gate, limit, .. } = self;
        let mut held: HashMap<*const Endpoint, u32> = HashMap::new();
        for lease in self.inside() {
            let endpoint = lease.endpoint();
            let now = endpoint.in_flight();
            let former = before.get(&Arc::as_ptr(endpoint)).copied().unwrap_or(0);
            // A limit that was lowered takes nobody out of a pod, and lets nobody in.
            prop_assert!(limit.is_none_or(|limit| now <= limit.max(former)), "{now} are in a pod, {former} were");
            *held.entry(Arc::as_ptr(endpoint)).or_default() += 1;
        }
        for lease in self.inside() {
            prop_assert_eq!(lease.endpoint().in_flight(), held[&Arc::as_ptr(lease.endpoint())]);
        }
        let inner = gate.lock();
        let waiting: usize = self.all().map(|callers| callers.waiting.len()).sum();
        prop_assert_eq!(inner.waiting.requests, waiting);
        prop_assert_eq!(inner.waiting.copies, self.copies.waiting.len());
        prop_assert_eq!(inner.waiting.requests, inner.revisions.iter().map(|r| r.queue.len()).sum::<usize>());
        let waiting = (waiting - self.copies.waiting.len()) as u64;
        prop_assert_eq!(inner.waiting.bytes, waiting);
        prop_assert_eq!(gate.context().budget.used(), Caps { requests: waiting, bytes: waiting });
        for revision in &inner.revisions {
            for slot in &revision.slots {
                prop_assert!(
                    !slot.has_room(*limit, true) || revision.queue.is_empty(),
                    "somebody waits while there is room"
                );
                prop_assert!(slot.load().is_none() || !slot.draining, "a pod that goes is given requests");
            }
            let free = revision.queue.values().filter(|waiter| waiter.bound != Bound::Here).count();
            prop_assert!(revision.percent > 0 || free == 0, "somebody waits where no calls go");
            let named = BOTH.iter().position(|name| *revision.name == **name);
            let here = named.map_or(0, |which| self.bound[which].waiting.len());
            let copies = revision.queue.values().filter(|waiter| waiter.held.is_nothing()).count();
            prop_assert_eq!(revision.queue.len() - free - copies, here, "one that came by a tag waits elsewhere");
        }
        for (which, bound) in self.bound.iter().enumerate() {
            prop_assert!(bound.inside.iter().all(|lease| lease.revision() == BOTH[which]), "a tag led elsewhere");
        }
        prop_assert_eq!(gate.is_split(), inner.revisions.iter().filter(|r| r.percent > 0).count() > 1);
        let draining = |r: &Revision| r.slots.iter().filter(|slot| slot.draining).count();
        let going: usize = inner.revisions.iter().map(draining).sum();
        let told = gate.context().ledger.read(None).revisions;
        for revision in &told {
            let in_pods: u64 = revision.pods.iter().map(|pod| pod.in_flight).sum();
            prop_assert_eq!(in_pods, revision.in_flight, "what is in pods is not what is told of them");
        }
        let told = told.iter().flat_map(|r| &r.pods).filter(|pod| pod.draining).count();
        prop_assert!(told >= going, "{told} of {going} pods are told to go");
        prop_assert!(inner.waiting.requests == 0 || inner.keeper, "somebody waits, and nobody sees to it");
        Ok(())
    }

    /// Time passes: a pod that takes requests is not left idle for the sake of a crowd.
    async fn settle(&mut self) -> Result<(), TestCaseError> {
        tokio::time::advance(Duration::from_secs(2)).await;
        for _ in 0..12 {
            self.gate.ramp();
        }
        self.callers.collect();
        self.bound.iter_mut().for_each(Callers::collect);
        self.copies.collect();
        for revision in &self.gate.lock().revisions {
            let room = revision.slots.iter().any(|slot| slot.has_room(self.limit, false));
            prop_assert!(!room || revision.queue.is_empty(), "somebody waits for ever");
        }
        Ok(())
    }

    /// Everything ends.
    fn end(self) -> Result<(), TestCaseError> {
        let Self { gate, callers, bound, copies, .. } = self;
        let endpoints = endpoints(&gate);
        drop((callers, bound, copies));
        prop_assert_eq!((gate.queued(), gate.context().budget.used()), (0, NOTHING));
        prop_assert!(endpoints.iter().all(|endpoint| endpoint.in_flight() == 0));
        let mut left = 0;
        gate.context().ledger.each(|demand| left += demand.concurrency());
        prop_assert_eq!(left, 0);
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Never over the limit, first come first served, nobody waits while there is room, and nobody is lost.
    #[test]
    fn the_gate_keeps_its_promises(limit in 0..LIMITS.len(), acts in prop::collection::vec(act(), 1..160)) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().start_paused(true).build().unwrap();
        // Nothing is awaited between the acts, so probes and keepers do not run: the acts are all that happens.
        runtime.block_on(async {
            let mut model = Model::new(LIMITS[limit]);
            for act in &acts {
                let inside = model.inside().map(Lease::endpoint);
                let before = inside.map(|e| (Arc::as_ptr(e), e.in_flight())).collect();
                model.act(act);
                model.check(&before)?;
            }
            model.settle().await?;
            model.end()
        })?;
    }
}
