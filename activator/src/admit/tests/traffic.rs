//! Traffic percentages, tags, and queued requests when they change.

use super::*;

const NEW: &str = "f-00002";
const THIRD: &str = "f-00003";

fn to(revision: &str) -> Target {
    Target::Revision(revision.into())
}

fn same(value: &str) -> Target {
    Target::Traffic { affinity: Affinity::of(value.as_bytes()) }
}

/// A serving pod of a revision.
fn ready(revision: &str, number: u16) -> PodFacts {
    PodFacts { revision: revision.into(), ready: true, ..facts(number) }
}

/// Requests in flight and queued per revision.
fn told(breaker: &Breaker) -> Vec<(String, u64, u64)> {
    let mut told = vec![];
    breaker.context().ledger.each(|demand| told.push((demand.revision.clone(), demand.in_flight, demand.queued)));
    told.retain(|(_, in_flight, queued)| in_flight + queued > 0);
    told.sort();
    told
}

fn revision_of(entered: Result<Admission, Rejection>) -> String {
    match entered {
        Ok(Admission::Granted(permit)) => permit.revision().to_owned(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_tag_targets_its_revision_only() {
    let breaker = breaker(None, 10);
    let mut traffic = shares(&[(REVISION, 100)]);
    traffic.push(tag("next", NEW));
    breaker.set_traffic(&traffic);
    assert_eq!((breaker.tagged("next").as_deref(), breaker.tagged("other")), (Some(NEW), None));
    assert!(!breaker.is_split(), "a tag is no share");
    let mut callers = Callers::default();
    callers.enter(breaker.admit(&to(NEW), || 1));
    assert!(matches!(breaker.step(), Step::Wake { revision, replicas: 1 } if *revision == *NEW), "it is woken");
    // It does not use pods of the others, nor the others its pods.
    breaker.pod_updated(&ready(REVISION, 1));
    callers.collect();
    assert_eq!(callers.waiting.len(), 1);
    breaker.pod_updated(&ready(NEW, 2));
    callers.collect();
    assert_eq!(told(&breaker), [(NEW.to_owned(), 1, 0)]);
    assert_eq!(revision_of(breaker.admit(&to(NEW), || 1)), NEW);
    for _ in 0..50 {
        assert_eq!(revision_of(breaker.admit(&Target::ANY, || 1)), REVISION);
    }
}

#[tokio::test]
async fn a_tagged_revision_is_kept_without_pods_and_traffic() {
    let breaker = breaker(None, 10);
    let mut traffic = shares(&[(REVISION, 100)]);
    traffic.push(tag("next", NEW));
    breaker.set_traffic(&traffic);
    breaker.pod_updated(&ready(NEW, 2));
    breaker.pod_deleted(NEW, "2");
    let kept = || breaker.lock().revisions.iter().any(|r| *r.name == *NEW);
    assert!(kept());
    breaker.set_traffic(&shares(&[(REVISION, 100)]));
    assert!(!kept(), "without its tag it is forgotten");
    // The routing table may still point here for a moment.
    let ticket = match breaker.admit(&to(NEW), || 1) {
        Ok(Admission::Queued(ticket)) => ticket,
        other => panic!("{other:?}"),
    };
    breaker.set_traffic(&shares(&[(REVISION, 100)]));
    assert!(kept(), "requests are queued there");
    drop(ticket);
    assert!(!kept());
}

#[tokio::test]
async fn a_removed_revision_is_reported_as_empty() {
    let breaker = breaker(None, 10);
    let ledger = &breaker.context().ledger;
    let queued = |mark: Option<u64>| {
        let reading = ledger.read(mark);
        let told: Vec<_> = reading.revisions.iter().map(|r| (r.revision.clone(), r.queued, r.arrivals)).collect();
        (told, reading.mark)
    };
    breaker.set_traffic(&shares(&[(NEW, 100)]));
    let waiting = park(&breaker);
    let (told, mark) = queued(None);
    assert_eq!(told, [(NEW.to_owned(), 1, 1)]);
    breaker.set_traffic(&shares(&[(REVISION, 100)]));
    let (mut told, mark) = queued(Some(mark));
    told.sort();
    assert_eq!(told, [(REVISION.to_owned(), 1, 1), (NEW.to_owned(), 0, 1)]);
    drop(waiting);
    // A request to a tag, which is removed.
    let ticket = match breaker.admit(&to(NEW), || 1) {
        Ok(Admission::Queued(ticket)) => ticket,
        other => panic!("{other:?}"),
    };
    let (mut told, mark) = queued(Some(mark));
    told.sort();
    assert_eq!(told, [(REVISION.to_owned(), 0, 1), (NEW.to_owned(), 1, 2)], "it counts on");
    drop(ticket);
    assert_eq!(queued(Some(mark)).0, [(NEW.to_owned(), 0, 2)]);
}

#[tokio::test]
async fn tags_without_percentages_do_not_change_the_traffic() {
    let breaker = breaker(None, 10);
    breaker.set_traffic(&[tag("next", NEW)]);
    breaker.pod_updated(&ready(REVISION, 1));
    breaker.pod_updated(&ready(NEW, 2));
    assert_eq!(revision_of(breaker.admit(&Target::ANY, || 1)), REVISION);
    assert_eq!(revision_of(breaker.admit(&to(NEW), || 1)), NEW);
}

#[tokio::test]
async fn percentages_of_one_revision_add_up() {
    let breaker = breaker(None, 10);
    let mut traffic = shares(&[(REVISION, 40), (NEW, 20), (REVISION, 40)]);
    traffic[2].tag = Some("stable".into());
    breaker.set_traffic(&traffic);
    let percents: Vec<_> = breaker.lock().revisions.iter().map(|r| (r.name.to_string(), r.percent)).collect();
    assert_eq!(percents, [(REVISION.to_owned(), 80), (NEW.to_owned(), 20)]);
    assert_eq!(breaker.tagged("stable").as_deref(), Some(REVISION));
    assert!(breaker.is_split());
}

#[tokio::test]
async fn a_rollback_moves_queued_requests_to_existing_pods() {
    let breaker = breaker(None, 100);
    breaker.pod_updated(&ready(REVISION, 1));
    breaker.set_traffic(&shares(&[(NEW, 100)]));
    let mut callers = Callers::default();
    (0..20).for_each(|_| callers.enter(breaker.admit(&Target::ANY, || 1)));
    callers.enter(breaker.admit(&to(NEW), || 1));
    assert_eq!(told(&breaker), [(NEW.to_owned(), 0, 21)], "the new one has no pod");
    let mut back = shares(&[(REVISION, 100)]);
    back.push(tag("next", NEW));
    breaker.set_traffic(&back);
    callers.collect();
    assert_eq!((callers.inside.len(), callers.waiting.len()), (20, 1), "all but the one that asked for the new one");
    assert_eq!(told(&breaker), [(REVISION.to_owned(), 20, 0), (NEW.to_owned(), 0, 1)]);
    assert!(callers.inside.iter().all(|permit| permit.revision() == REVISION));
    // Requests to the tag are granted by a pod of the new revision only.
    breaker.pod_updated(&ready(NEW, 2));
    callers.collect();
    assert!(callers.waiting.is_empty());
}

#[tokio::test]
async fn each_revision_is_woken_by_one_patch() {
    let breaker = breaker(None, 2000);
    breaker.set_traffic(&shares(&[(REVISION, 90), (NEW, 10)]));
    let mut callers = Callers::default();
    (0..1000).for_each(|_| callers.enter(breaker.admit(&Target::ANY, || 1)));
    let mut woken = std::collections::BTreeMap::new();
    while let Step::Wake { revision, replicas } = breaker.step() {
        breaker.woken(&revision, Ok(()));
        assert_eq!(woken.insert(revision.to_string(), replicas), None, "one patch for each");
    }
    let queued: Vec<_> = told(&breaker).into_iter().map(|(_, _, queued)| queued).collect();
    assert_eq!(queued.iter().sum::<u64>(), 1000);
    assert!((840..960).contains(&queued[0]), "{queued:?}");
    assert_eq!(woken.into_iter().collect::<Vec<_>>(), [(REVISION.to_owned(), 1), (NEW.to_owned(), 1)]);
}

#[tokio::test]
async fn affinity_moves_clients_only_to_the_revision_that_grows() {
    let breaker = breaker(None, 10);
    for (revision, number) in [(REVISION, 1), (NEW, 2), (THIRD, 3)] {
        breaker.pod_updated(&ready(revision, number));
    }
    let users: Vec<_> = (0..500).map(|n| format!("user-{n}")).collect();
    let places = || users.iter().map(|user| revision_of(breaker.admit(&same(user), || 1))).collect::<Vec<String>>();
    let mut previous: Option<Vec<String>> = None;
    for percent in [0, 1, 10, 50, 70, 80] {
        // A third revision has traffic of its own beside the rollout.
        breaker.set_traffic(&shares(&[(REVISION, 20), (NEW, 80 - percent), (THIRD, percent)]));
        let now = places();
        assert_eq!(now, places(), "every time the same");
        let of_third = now.iter().filter(|place| *place == THIRD).count() as u32;
        assert!(of_third.abs_diff(percent * 5) <= 30, "{of_third} of 500 at {percent} %");
        if let Some(previous) = previous.replace(now.clone()) {
            for (before, after) in previous.iter().zip(&now) {
                assert!(before == after || (before == NEW && after == THIRD), "{before} to {after}");
            }
        }
    }
}

#[tokio::test]
async fn affinity_by_name_lasts_while_the_revision_has_traffic() {
    let breaker = breaker(None, 10);
    breaker.pod_updated(&ready(REVISION, 1));
    breaker.pod_updated(&ready(NEW, 2));
    breaker.set_traffic(&shares(&[(REVISION, 99), (NEW, 1)]));
    let named = |name: &str| Target::Traffic { affinity: Affinity::Revision(name.into()) };
    for _ in 0..100 {
        assert_eq!(revision_of(breaker.admit(&named(NEW), || 1)), NEW);
    }
    breaker.set_traffic(&shares(&[(REVISION, 100), (NEW, 0)]));
    assert_eq!(revision_of(breaker.admit(&named(NEW), || 1)), REVISION);
    assert_eq!(revision_of(breaker.admit(&named("nothing"), || 1)), REVISION);
}

#[tokio::test]
async fn queued_requests_keep_their_affinity_when_traffic_moves() {
    let breaker = breaker(None, 1000);
    breaker.set_traffic(&shares(&[(THIRD, 100)]));
    let mut callers = Callers::default();
    let users: Vec<_> = (0..100).map(|n| format!("user-{n}")).collect();
    for user in &users {
        callers.enter(breaker.admit(&same(user), || 1));
    }
    breaker.set_traffic(&shares(&[(REVISION, 50), (NEW, 50)]));
    breaker.pod_updated(&ready(REVISION, 1));
    breaker.pod_updated(&ready(NEW, 2));
    callers.collect();
    assert_eq!(callers.inside.len(), 100);
    for permit in &callers.inside {
        let user = &users[usize::try_from(permit.sequence()).unwrap() - 1];
        assert_eq!(revision_of(breaker.admit(&same(user), || 1)), permit.revision());
    }
}

#[tokio::test(start_paused = true)]
async fn mirrored_requests_take_no_queue_capacity() {
    let breaker = breaker(None, 2);
    let mut traffic = shares(&[(REVISION, 100)]);
    traffic.push(tag("next", NEW));
    breaker.set_traffic(&traffic);
    let copy = Target::Mirror(NEW.into());
    let mut copies = Callers::default();
    (0..5).for_each(|_| copies.enter(breaker.admit(&copy, || 1 << 40)));
    assert_eq!((copies.waiting.len(), breaker.context().budget.used()), (5, NOTHING));
    let mut callers = Callers::default();
    (0..3).for_each(|_| callers.enter(breaker.admit(&Target::ANY, || 1)));
    assert_eq!((callers.waiting.len(), callers.turned_away), (2, 1), "the cap is as it was");
    breaker.pod_updated(&ready(NEW, 2));
    copies.collect();
    assert_eq!((copies.inside.len(), breaker.queued()), (5, 2));
    drop((copies, callers));
    assert_eq!((breaker.queued(), breaker.context().budget.used()), (0, NOTHING));
}
