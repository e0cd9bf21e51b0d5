//! Shares, tags, and what becomes of those that wait when they change.

use super::*;

const NEW: &str = "f-00002";
const THIRD: &str = "f-00003";

fn to(revision: &str) -> Target {
    Target::Revision(revision.into())
}

fn same(value: &str) -> Target {
    Target::Shares { affinity: Affinity::of(value.as_bytes()) }
}

/// A pod of a revision that serves.
fn ready(revision: &str, number: u16) -> PodFacts {
    PodFacts { revision: revision.into(), ready: true, ..facts(number) }
}

/// What each revision has in pods and in its queue.
fn told(gate: &Gate) -> Vec<(String, u64, u64)> {
    let mut told = vec![];
    gate.context().ledger.each(|demand| told.push((demand.revision.clone(), demand.in_flight, demand.queued)));
    told.retain(|(_, in_flight, queued)| in_flight + queued > 0);
    told.sort();
    told
}

fn revision_of(entered: Result<Entered, Refusal>) -> String {
    match entered {
        Ok(Entered::Now(lease)) => lease.revision().to_owned(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_tag_leads_to_its_revision_alone() {
    let gate = gate(None, 10);
    let mut traffic = shares(&[(REVISION, 100)]);
    traffic.push(tag("next", NEW));
    gate.set_traffic(&traffic);
    assert_eq!((gate.tagged("next").as_deref(), gate.tagged("other")), (Some(NEW), None));
    assert!(!gate.is_split(), "a tag is no share");
    let mut callers = Callers::default();
    callers.enter(gate.enter(&to(NEW), || 1));
    assert!(matches!(gate.step(), Step::Wake { revision, replicas: 1 } if *revision == *NEW), "it is woken");
    // Pods of the others are none of its, and its pods take no others.
    gate.pod_seen(&ready(REVISION, 1));
    callers.collect();
    assert_eq!(callers.waiting.len(), 1);
    gate.pod_seen(&ready(NEW, 2));
    callers.collect();
    assert_eq!(told(&gate), [(NEW.to_owned(), 1, 0)]);
    assert_eq!(revision_of(gate.enter(&to(NEW), || 1)), NEW);
    for _ in 0..50 {
        assert_eq!(revision_of(gate.enter(&Target::ANY, || 1)), REVISION);
    }
}

#[tokio::test]
async fn a_tagged_revision_is_kept_without_pods_and_without_a_share() {
    let gate = gate(None, 10);
    let mut traffic = shares(&[(REVISION, 100)]);
    traffic.push(tag("next", NEW));
    gate.set_traffic(&traffic);
    gate.pod_seen(&ready(NEW, 2));
    gate.pod_gone(NEW, "2");
    let kept = || gate.lock().revisions.iter().any(|r| *r.name == *NEW);
    assert!(kept());
    gate.set_traffic(&shares(&[(REVISION, 100)]));
    assert!(!kept(), "without its tag it is forgotten");
    // The table of hosts may still lead here for a moment.
    let ticket = match gate.enter(&to(NEW), || 1) {
        Ok(Entered::Later(ticket)) => ticket,
        other => panic!("{other:?}"),
    };
    gate.set_traffic(&shares(&[(REVISION, 100)]));
    assert!(kept(), "somebody waits there");
    drop(ticket);
    assert!(!kept());
}

#[tokio::test]
async fn a_reader_hears_that_nobody_waits_at_a_revision_that_is_forgotten() {
    let gate = gate(None, 10);
    let ledger = &gate.context().ledger;
    let queued = |mark: Option<u64>| {
        let reading = ledger.read(mark);
        let told: Vec<_> = reading.revisions.iter().map(|r| (r.revision.clone(), r.queued, r.arrivals)).collect();
        (told, reading.mark)
    };
    gate.set_traffic(&shares(&[(NEW, 100)]));
    let waiting = park(&gate);
    let (told, mark) = queued(None);
    assert_eq!(told, [(NEW.to_owned(), 1, 1)]);
    gate.set_traffic(&shares(&[(REVISION, 100)]));
    let (mut told, mark) = queued(Some(mark));
    told.sort();
    assert_eq!(told, [(REVISION.to_owned(), 1, 1), (NEW.to_owned(), 0, 1)]);
    drop(waiting);
    // One that was called by a tag, which is taken away.
    let ticket = match gate.enter(&to(NEW), || 1) {
        Ok(Entered::Later(ticket)) => ticket,
        other => panic!("{other:?}"),
    };
    let (mut told, mark) = queued(Some(mark));
    told.sort();
    assert_eq!(told, [(REVISION.to_owned(), 0, 1), (NEW.to_owned(), 1, 2)], "it counts on");
    drop(ticket);
    assert_eq!(queued(Some(mark)).0, [(NEW.to_owned(), 0, 2)]);
}

#[tokio::test]
async fn tags_without_shares_leave_the_shares_as_they_were() {
    let gate = gate(None, 10);
    gate.set_traffic(&[tag("next", NEW)]);
    gate.pod_seen(&ready(REVISION, 1));
    gate.pod_seen(&ready(NEW, 2));
    assert_eq!(revision_of(gate.enter(&Target::ANY, || 1)), REVISION);
    assert_eq!(revision_of(gate.enter(&to(NEW), || 1)), NEW);
}

#[tokio::test]
async fn a_revision_that_stands_twice_has_both_shares() {
    let gate = gate(None, 10);
    let mut traffic = shares(&[(REVISION, 40), (NEW, 20), (REVISION, 40)]);
    traffic[2].tag = Some("stable".into());
    gate.set_traffic(&traffic);
    let percents: Vec<_> = gate.lock().revisions.iter().map(|r| (r.name.to_string(), r.percent)).collect();
    assert_eq!(percents, [(REVISION.to_owned(), 80), (NEW.to_owned(), 20)]);
    assert_eq!(gate.tagged("stable").as_deref(), Some(REVISION));
    assert!(gate.is_split());
}

#[tokio::test]
async fn going_back_takes_those_that_wait_to_the_pods_that_are_there() {
    let gate = gate(None, 100);
    gate.pod_seen(&ready(REVISION, 1));
    gate.set_traffic(&shares(&[(NEW, 100)]));
    let mut callers = Callers::default();
    (0..20).for_each(|_| callers.enter(gate.enter(&Target::ANY, || 1)));
    callers.enter(gate.enter(&to(NEW), || 1));
    assert_eq!(told(&gate), [(NEW.to_owned(), 0, 21)], "the new one has no pod");
    let mut back = shares(&[(REVISION, 100)]);
    back.push(tag("next", NEW));
    gate.set_traffic(&back);
    callers.collect();
    assert_eq!((callers.inside.len(), callers.waiting.len()), (20, 1), "all but the one that asked for the new one");
    assert_eq!(told(&gate), [(REVISION.to_owned(), 20, 0), (NEW.to_owned(), 0, 1)]);
    assert!(callers.inside.iter().all(|lease| lease.revision() == REVISION));
    // What came by the tag is let in by a pod of the new one, if there is ever one.
    gate.pod_seen(&ready(NEW, 2));
    callers.collect();
    assert!(callers.waiting.is_empty());
}

#[tokio::test]
async fn each_revision_is_woken_by_one_patch() {
    let gate = gate(None, 2000);
    gate.set_traffic(&shares(&[(REVISION, 90), (NEW, 10)]));
    let mut callers = Callers::default();
    (0..1000).for_each(|_| callers.enter(gate.enter(&Target::ANY, || 1)));
    let mut woken = std::collections::BTreeMap::new();
    while let Step::Wake { revision, replicas } = gate.step() {
        gate.woken(&revision, Ok(()));
        assert_eq!(woken.insert(revision.to_string(), replicas), None, "one patch for each");
    }
    let queued: Vec<_> = told(&gate).into_iter().map(|(_, _, queued)| queued).collect();
    assert_eq!(queued.iter().sum::<u64>(), 1000);
    assert!((840..960).contains(&queued[0]), "{queued:?}");
    assert_eq!(woken.into_iter().collect::<Vec<_>>(), [(REVISION.to_owned(), 1), (NEW.to_owned(), 1)]);
}

#[tokio::test]
async fn a_value_goes_to_one_revision_and_moves_only_to_the_one_that_grows() {
    let gate = gate(None, 10);
    for (revision, number) in [(REVISION, 1), (NEW, 2), (THIRD, 3)] {
        gate.pod_seen(&ready(revision, number));
    }
    let users: Vec<_> = (0..500).map(|n| format!("user-{n}")).collect();
    let places = || users.iter().map(|user| revision_of(gate.enter(&same(user), || 1))).collect::<Vec<String>>();
    let mut former: Option<Vec<String>> = None;
    for percent in [0, 1, 10, 50, 70, 80] {
        // One revision has a share of its own beside the roll-out.
        gate.set_traffic(&shares(&[(REVISION, 20), (NEW, 80 - percent), (THIRD, percent)]));
        let now = places();
        assert_eq!(now, places(), "every time the same");
        let of_third = now.iter().filter(|place| *place == THIRD).count() as u32;
        assert!(of_third.abs_diff(percent * 5) <= 30, "{of_third} of 500 at {percent} %");
        if let Some(former) = former.replace(now.clone()) {
            for (before, after) in former.iter().zip(&now) {
                assert!(before == after || (before == NEW && after == THIRD), "{before} to {after}");
            }
        }
    }
}

#[tokio::test]
async fn a_revision_that_is_named_is_kept_while_it_has_a_share() {
    let gate = gate(None, 10);
    gate.pod_seen(&ready(REVISION, 1));
    gate.pod_seen(&ready(NEW, 2));
    gate.set_traffic(&shares(&[(REVISION, 99), (NEW, 1)]));
    let named = |name: &str| Target::Shares { affinity: Affinity::Revision(name.into()) };
    for _ in 0..100 {
        assert_eq!(revision_of(gate.enter(&named(NEW), || 1)), NEW);
    }
    gate.set_traffic(&shares(&[(REVISION, 100), (NEW, 0)]));
    assert_eq!(revision_of(gate.enter(&named(NEW), || 1)), REVISION);
    assert_eq!(revision_of(gate.enter(&named("nothing"), || 1)), REVISION);
}

#[tokio::test]
async fn those_that_wait_stay_bound_by_their_value_when_the_shares_move() {
    let gate = gate(None, 1000);
    gate.set_traffic(&shares(&[(THIRD, 100)]));
    let mut callers = Callers::default();
    let users: Vec<_> = (0..100).map(|n| format!("user-{n}")).collect();
    for user in &users {
        callers.enter(gate.enter(&same(user), || 1));
    }
    gate.set_traffic(&shares(&[(REVISION, 50), (NEW, 50)]));
    gate.pod_seen(&ready(REVISION, 1));
    gate.pod_seen(&ready(NEW, 2));
    callers.collect();
    assert_eq!(callers.inside.len(), 100);
    for lease in &callers.inside {
        let user = &users[usize::try_from(lease.sequence()).unwrap() - 1];
        assert_eq!(revision_of(gate.enter(&same(user), || 1)), lease.revision());
    }
}

#[tokio::test(start_paused = true)]
async fn copies_take_no_room_from_those_that_are_answered() {
    let gate = gate(None, 2);
    let mut traffic = shares(&[(REVISION, 100)]);
    traffic.push(tag("next", NEW));
    gate.set_traffic(&traffic);
    let copy = Target::Copy(NEW.into());
    let mut copies = Callers::default();
    (0..5).for_each(|_| copies.enter(gate.enter(&copy, || 1 << 40)));
    assert_eq!((copies.waiting.len(), gate.context().budget.used()), (5, NOTHING));
    let mut callers = Callers::default();
    (0..3).for_each(|_| callers.enter(gate.enter(&Target::ANY, || 1)));
    assert_eq!((callers.waiting.len(), callers.turned_away), (2, 1), "the cap is as it was");
    gate.pod_seen(&ready(NEW, 2));
    copies.collect();
    assert_eq!((copies.inside.len(), gate.queued()), (5, 2));
    drop((copies, callers));
    assert_eq!((gate.queued(), gate.context().budget.used()), (0, NOTHING));
}
