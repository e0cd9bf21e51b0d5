//! The gate against a model, against time, and against many threads.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use futures::future::BoxFuture;
use proptest::prelude::*;
use rouse_crds::{FunctionSpec, pod::PodFailure};
use tokio::{sync::oneshot::error::TryRecvError, time::Instant};

use super::*;
use crate::{
    context::Context,
    demand::Ledger,
    endpoints::{Dialer, Endpoint, PodFacts},
    metrics::Metrics,
    wake::{Scaler, WakeError},
};

#[derive(Debug)]
struct NoScaler;

impl Scaler for NoScaler {
    fn wake<'a>(&'a self, _: &'a str, _: &'a str, _: u32) -> BoxFuture<'a, Result<(), WakeError>> {
        Box::pin(std::future::pending())
    }
}

const REVISION: &str = "f-00001";

fn gate(limit: Option<u32>, queue: u32) -> Arc<Gate> {
    let ledger = Ledger::new();
    let metrics = Metrics::new(ledger.clone());
    let context = Context::new(Arc::new(NoScaler), Budget::new(1 << 30), Dialer::new(true), metrics, ledger);
    let policy = Policy { limit, queue_requests: queue, ..Policy::from(&FunctionSpec::default()) };
    let id = FunctionId { namespace: "ns".into(), name: "f".into(), uid: "u".into() };
    let gate = Gate::new(id, policy, Arc::new(Budget::new(1 << 30)), context);
    gate.set_traffic(&[(REVISION.into(), 100)]);
    gate
}

fn facts(number: u16) -> PodFacts {
    PodFacts {
        id: number.to_string().into(),
        revision: REVISION.into(),
        ip: Some("127.0.0.1".parse().unwrap()),
        port: Some(number),
        protocol: None,
        readiness_path: None,
        scheduled: true,
        ready: false,
        draining: false,
        failure: None,
    }
}

fn endpoint(gate: &Gate, number: u16) -> Option<Arc<Endpoint>> {
    let inner = gate.lock();
    let slots = &inner.revisions.iter().find(|r| *r.name == *REVISION)?.slots;
    slots.iter().find(|s| *s.id == *number.to_string())?.endpoint.clone()
}

/// Lets a pod serve, as a probe does.
fn serve(gate: &Arc<Gate>, number: u16) {
    gate.pod_seen(&facts(number));
    gate.admitted(&endpoint(gate, number).unwrap());
}

#[derive(Clone, Debug)]
enum Act {
    Come,
    Leave(usize),
    End(usize),
    Unreachable(usize),
    Serve(u16),
    Drain(u16),
    Gone(u16),
    Fail(u16),
}

fn act() -> impl Strategy<Value = Act> {
    let pod = 1..5_u16;
    prop_oneof![
        6 => Just(Act::Come),
        1 => any::<usize>().prop_map(Act::Leave),
        4 => any::<usize>().prop_map(Act::End),
        1 => any::<usize>().prop_map(Act::Unreachable),
        2 => pod.clone().prop_map(Act::Serve),
        1 => pod.clone().prop_map(Act::Drain),
        1 => pod.clone().prop_map(Act::Gone),
        1 => pod.prop_map(Act::Fail),
    ]
}

/// Who waits and who is in a pod, as the callers see it.
#[derive(Default)]
struct Callers {
    waiting: Vec<Ticket>,
    inside: Vec<Lease>,
    turned_away: usize,
}

impl Callers {
    fn enter(&mut self, entered: Result<Entered, Refusal>) {
        match entered {
            Ok(Entered::Now(lease)) => self.inside.push(lease),
            Ok(Entered::Later(ticket)) => self.waiting.push(ticket),
            Err(_) => self.turned_away += 1,
        }
    }

    /// Takes what was granted. Whoever was granted a place came before everybody who still waits.
    fn collect(&mut self) {
        let mut granted = vec![];
        for mut ticket in std::mem::take(&mut self.waiting) {
            match ticket.answer.try_recv() {
                Ok(Ok(lease)) => {
                    ticket.over = true;
                    granted.push(lease);
                }
                Ok(Err(_)) => {
                    ticket.over = true;
                    self.turned_away += 1;
                }
                Err(TryRecvError::Empty) => self.waiting.push(ticket),
                Err(TryRecvError::Closed) => panic!("an answer was lost"),
            }
        }
        let latest = granted.iter().map(Lease::sequence).max();
        let earliest = self.waiting.iter().map(|t| t.sequence).min();
        if let (Some(latest), Some(earliest)) = (latest, earliest) {
            assert!(latest < earliest, "{latest} was let in before {earliest}");
        }
        self.inside.append(&mut granted);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Never over the limit, first come first served, nobody waits while there is room, and nobody is lost.
    #[test]
    fn the_gate_keeps_its_promises(limit in 1..4_u32, acts in prop::collection::vec(act(), 1..120)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        // Probes and keepers are spawned here and never run: the acts are all that happens.
        let _inside = runtime.enter();
        let gate = gate(Some(limit), 20);
        let mut callers = Callers::default();
        for act in acts {
            match act {
                Act::Come => callers.enter(gate.enter(1)),
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
                    callers.enter(gate.enter_again(1, sequence, arrived));
                }
                Act::Serve(pod) => serve(&gate, pod),
                Act::Drain(pod) => gate.pod_seen(&PodFacts { draining: true, ..facts(pod) }),
                Act::Gone(pod) => gate.pod_gone(REVISION, &pod.to_string()),
                Act::Fail(pod) => {
                    let failure = Some(PodFailure { reason: "Error".into(), message: String::new() });
                    gate.pod_seen(&PodFacts { failure, ..facts(pod) });
                }
                Act::Leave(_) | Act::End(_) | Act::Unreachable(_) => {}
            }
            callers.collect();

            let mut held: HashMap<*const Endpoint, u32> = HashMap::new();
            for lease in &callers.inside {
                *held.entry(Arc::as_ptr(lease.endpoint())).or_default() += 1;
                prop_assert!(lease.endpoint().in_flight() <= limit);
            }
            let inner = gate.lock();
            prop_assert_eq!(inner.queued, callers.waiting.len());
            prop_assert_eq!(inner.queued_bytes, callers.waiting.len() as u64);
            for slot in inner.revisions.iter().flat_map(|r| &r.slots) {
                let Some(endpoint) = &slot.endpoint else { continue };
                prop_assert_eq!(endpoint.in_flight(), held.get(&Arc::as_ptr(endpoint)).copied().unwrap_or(0));
                let room = slot.has_room(Some(limit), true);
                prop_assert!(!room || callers.waiting.is_empty(), "somebody waits while there is room");
            }
        }
        // Everything ends: nothing is held any more.
        drop(callers);
        prop_assert_eq!(gate.queued(), 0);
        prop_assert_eq!(gate.context().budget.used(), 0);
        let mut left = 0;
        gate.context().ledger.each(|demand| left += demand.concurrency());
        prop_assert_eq!(left, 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_limit_holds_between_threads() {
    let gate = gate(Some(2), 10_000);
    serve(&gate, 1);
    serve(&gate, 2);
    let inside: Arc<[AtomicU32; 3]> = Arc::default();
    let callers: Vec<_> = (0..2000)
        .map(|number| {
            let (gate, inside) = (gate.clone(), inside.clone());
            tokio::spawn(async move {
                let lease = match gate.enter(1).unwrap() {
                    Entered::Now(lease) => lease,
                    Entered::Later(ticket) if number % 7 == 0 => {
                        tokio::task::yield_now().await;
                        drop(ticket);
                        return;
                    }
                    Entered::Later(mut ticket) => ticket.wait().await.unwrap(),
                };
                let now = &inside[usize::from(lease.endpoint().address.port())];
                assert!(now.fetch_add(1, Ordering::SeqCst) < 2);
                tokio::task::yield_now().await;
                now.fetch_sub(1, Ordering::SeqCst);
                drop(lease);
            })
        })
        .collect();
    for caller in callers {
        tokio::time::timeout(Duration::from_secs(30), caller).await.expect("a wake-up was lost").unwrap();
    }
    assert_eq!((gate.queued(), gate.context().budget.used()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_crowd_is_let_in_step_by_step() {
    let gate = gate(None, 10_000);
    let mut callers = Callers::default();
    (0..1000).for_each(|_| callers.enter(gate.enter(1)));
    serve(&gate, 1);
    callers.collect();
    assert_eq!(callers.inside.len(), 100);
    // One ends, and so there is room for it and for one more.
    callers.inside.pop();
    callers.collect();
    assert_eq!(callers.inside.len(), 101);
    gate.ramp();
    callers.collect();
    assert_eq!(callers.inside.len(), 202);
    for _ in 0..3 {
        gate.ramp();
        callers.collect();
    }
    assert!(callers.waiting.is_empty());
    // Nobody waits: whoever comes now goes in at once.
    callers.enter(gate.enter(1));
    assert!(callers.waiting.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_wake_is_repeated_as_long_as_there_is_no_pod() {
    let gate = gate(None, 10);
    assert_eq!(gate.step(), Step::Done);
    let Ok(Entered::Later(ticket)) = gate.enter(1) else { panic!("there is no pod") };
    let wake = Step::Wake { revision: REVISION.into(), replicas: 1 };
    assert_eq!(gate.step(), wake);
    for result in [
        Ok(()),
        Err(WakeError::Awake),
        Err(WakeError::Missing),
        Err(WakeError::Busy { after: None, message: String::new() }),
    ] {
        gate.woken(REVISION, result);
        let Step::Wait(until) = gate.step() else { panic!("it is woken without a pause") };
        assert!(until <= Instant::now() + Duration::from_secs(5));
        tokio::time::sleep_until(until).await;
        assert_eq!(gate.step(), wake);
    }
    // A pod that is on its way is waited for; one that goes is replaced at once.
    gate.woken(REVISION, Ok(()));
    gate.pod_seen(&PodFacts { ip: None, ..facts(1) });
    assert!(matches!(gate.step(), Step::Wait(_)));
    gate.pod_seen(&PodFacts { ip: None, draining: true, ..facts(1) });
    assert_eq!(gate.step(), wake);
    drop(ticket);
    assert_eq!(gate.step(), Step::Done);
}

#[tokio::test(start_paused = true)]
async fn what_the_operator_says_of_pods_counts_only_while_it_can_be_meant() {
    let gate = gate(None, 10);
    let failure = PodFailure { reason: "PodCreationFailed".into(), message: "exceeded quota".into() };
    let mut callers = Callers::default();
    callers.enter(gate.enter(1));
    gate.pods_refused(&failure);
    callers.collect();
    assert_eq!(callers.waiting.len(), 1, "nothing was woken yet, so this is of another time");
    gate.woken(REVISION, Ok(()));
    gate.pods_refused(&failure);
    callers.collect();
    assert_eq!((callers.waiting.len(), callers.turned_away), (0, 1));
    assert!(matches!(gate.enter(1), Err(Refusal::Failing { failure: told, .. }) if told == failure));
    tokio::time::advance(Duration::from_secs(2)).await;
    assert!(matches!(gate.enter(1), Ok(Entered::Later(_))), "it is tried again");
}

#[tokio::test]
async fn readiness_that_is_lost_is_believed() {
    let gate = gate(None, 10);
    gate.pod_seen(&PodFacts { ready: true, ..facts(1) });
    assert!(matches!(gate.enter(1), Ok(Entered::Now(_))));
    gate.pod_seen(&facts(1));
    assert!(matches!(gate.enter(1), Ok(Entered::Later(_))));
    gate.pod_seen(&PodFacts { ready: true, ..facts(1) });
    assert!(matches!(gate.enter(1), Ok(Entered::Now(_))));
}

#[tokio::test]
async fn traffic_that_moves_takes_the_waiting_along_in_order() {
    let gate = gate(None, 10);
    let mut callers = Callers::default();
    (0..5).for_each(|_| callers.enter(gate.enter(1)));
    gate.set_traffic(&[]);
    gate.set_traffic(&[("f-00002".into(), 100)]);
    gate.pod_seen(&PodFacts { revision: "f-00002".into(), ready: true, ..facts(9) });
    callers.collect();
    assert!(callers.inside.iter().map(Lease::sequence).eq(1..=5));
    let mut told = vec![];
    gate.context().ledger.each(|demand| told.push((demand.revision.clone(), demand.in_flight, demand.queued)));
    assert_eq!(told, [("f-00002".to_owned(), 5, 0)], "the former revision is forgotten");
}
