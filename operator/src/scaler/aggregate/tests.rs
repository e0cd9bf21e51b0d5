use super::*;
use rouse_crds::demand::{RevisionDemand, VERSION};

fn source(last: u8) -> Source {
    Source { address: SocketAddr::from(([10, 0, 0, last], 9090)), pod: None }
}

fn sources(lasts: &[u8]) -> HashMap<Source, bool> {
    lasts.iter().map(|last| (source(*last), true)).collect()
}

/// A frame that a process which began at 0 wrote in this second.
fn frame(second: u64, process: &str, in_flight: u64, arrivals: u64, request_us: u64) -> Frame {
    let revision = RevisionDemand {
        namespace: "ns".into(),
        function: "f".into(),
        revision: "f-00001".into(),
        in_flight,
        queued: 0,
        arrivals,
        request_us,
        busy_us: Some(request_us),
        ..RevisionDemand::default()
    };
    Frame {
        version: VERSION,
        process: process.into(),
        // Not the first of a connection, which tells all that there is.
        sequence: 1,
        at_us: second * 1_000_000,
        revisions: vec![revision],
    }
}

/// Activators whose processes `a`, `b`, … have begun at 0 and been heard then, before they had anything to tell.
fn heard(lasts: &[u8]) -> Aggregate {
    let mut aggregate = Aggregate::default();
    aggregate.set_sources(&sources(lasts), at(0));
    for (last, process) in lasts.iter().zip(["a", "b"]) {
        aggregate.frame(&source(*last), Frame { revisions: vec![], ..frame(0, process, 0, 0, 0) }, at(0));
    }
    aggregate
}

fn demand(aggregate: &mut Aggregate, second: u64) -> Demand {
    aggregate.demand(&FunctionKey::new("ns", "f"), "f-00001", at(second))
}

/// Requests in pods, arrivals and request-microseconds, of a demand in which nothing waits.
fn counted(demand: Demand) -> (u64, u64, u64) {
    assert_eq!((demand.queued, demand.busy_us), (0, demand.request_us));
    (demand.in_flight, demand.arrivals, demand.request_us)
}

fn at(second: u64) -> Duration {
    Duration::from_secs(second)
}

#[test]
fn sums_over_activators() {
    let mut aggregate = heard(&[1, 2]);
    assert_eq!(aggregate.frame(&source(1), frame(1, "a", 2, 5, 100), at(1)), [FunctionKey::new("ns", "f")]);
    aggregate.frame(&source(2), frame(1, "b", 0, 7, 50), at(1));
    assert_eq!(counted(demand(&mut aggregate, 1)), (2, 12, 150));
}

#[test]
fn an_activator_that_is_not_heard_keeps_its_requests_until_it_is_gone() {
    let mut aggregate = heard(&[1]);
    aggregate.frame(&source(1), frame(0, "a", 3, 3, 0), at(0));
    let silent = demand(&mut aggregate, 10);
    assert_eq!((silent.in_flight, silent.request_us), (3, 30_000_000), "three requests for ten seconds");
    aggregate.set_sources(&sources(&[]), at(20));
    let gone = demand(&mut aggregate, 30);
    assert_eq!((gone.in_flight, gone.arrivals, gone.request_us), (0, 3, 60_000_000));
}

#[test]
fn a_restart_never_takes_counters_back() {
    let mut aggregate = heard(&[1]);
    aggregate.frame(&source(1), frame(2, "a", 1, 100, 5_000_000), at(2));
    let before = demand(&mut aggregate, 3);
    aggregate.frame(&source(1), frame(3, "a-again", 0, 1, 10), at(3));
    let after = demand(&mut aggregate, 3);
    assert_eq!(counted(after), (0, 101, 6_000_000));
    assert!(after.request_us >= before.request_us);
    // A Function that the new process has not been called for keeps its counters as well.
    aggregate.set_sources(&sources(&[]), at(7));
    assert_eq!(demand(&mut aggregate, 7).arrivals, 101);
}

#[test]
fn what_a_process_had_counted_before_it_was_heard_is_no_rise() {
    let mut aggregate = Aggregate::default();
    assert_eq!(demand(&mut aggregate, 99), Demand::default());
    aggregate.set_sources(&sources(&[1, 2]), at(99));
    // Ten at once for an hour, as an operator finds it that has just begun.
    aggregate.frame(&source(1), frame(3600, "a", 10, 90_000, 36_000_000_000), at(100));
    assert_eq!(counted(demand(&mut aggregate, 100)), (10, 1, 0));
    aggregate.frame(&source(1), frame(3601, "a", 10, 90_025, 36_010_000_000), at(101));
    assert_eq!(counted(demand(&mut aggregate, 101)), (10, 26, 10_000_000));
    // The other is heard later.
    aggregate.frame(&source(2), frame(7200, "b", 5, 1_000, 7_000_000_000), at(101));
    assert_eq!(counted(demand(&mut aggregate, 101)), (15, 27, 10_000_000));
    assert_eq!(demand(&mut aggregate, 102).request_us, 25_000_000);
}

#[test]
fn what_came_while_nobody_listened_is_no_rise_and_a_call_all_the_same() {
    let mut aggregate = heard(&[1]);
    aggregate.frame(&source(1), frame(1, "a", 2, 10, 1_000_000), at(1));
    // The way was cut for a minute, in which twenty were at once.
    aggregate.frame(&source(1), frame(61, "a", 20, 500, 1_000_000_000), at(61));
    assert_eq!(counted(demand(&mut aggregate, 61)), (20, 11, 121_000_000));
    aggregate.frame(&source(1), frame(62, "a", 20, 510, 1_020_000_000), at(62));
    assert_eq!(counted(demand(&mut aggregate, 62)), (20, 21, 141_000_000));
    // One that was called for the first time meanwhile.
    let mut other = frame(162, "a", 0, 7, 9_000_000);
    other.revisions[0].revision = "f-00002".into();
    aggregate.frame(&source(1), other, at(162));
    let first = aggregate.demand(&FunctionKey::new("ns", "f"), "f-00002", at(162));
    assert_eq!(counted(first), (0, 1, 0));
}

#[test]
fn a_guess_that_was_too_high_hides_no_load() {
    let mut aggregate = heard(&[1]);
    aggregate.frame(&source(1), frame(1, "a", 50, 50, 0), at(1));
    // The way is cut for a minute, in which fifty are given out, and there were five.
    assert_eq!(counted(demand(&mut aggregate, 61)), (50, 50, 3_000_000_000));
    aggregate.frame(&source(1), frame(61, "a", 5, 500, 300_000_000), at(61));
    assert_eq!(counted(demand(&mut aggregate, 61)), (5, 51, 3_000_000_000));
    aggregate.frame(&source(1), frame(62, "a", 5, 505, 305_000_000), at(62));
    assert_eq!(counted(demand(&mut aggregate, 62)), (5, 56, 3_005_000_000));
}

#[test]
fn the_guess_between_frames_is_never_taken_back() {
    let mut aggregate = Aggregate::default();
    aggregate.set_sources(&sources(&[1]), at(0));
    aggregate.frame(&source(1), frame(0, "a", 1, 1, 0), at(0));
    assert_eq!(demand(&mut aggregate, 2).request_us, 2_000_000);
    // It had ended after one second.
    aggregate.frame(&source(1), frame(2, "a", 0, 1, 1_000_000), at(2));
    assert_eq!(demand(&mut aggregate, 3).request_us, 2_000_000);
}

#[test]
fn knows_when_it_does_not_know() {
    let mut aggregate = Aggregate::default();
    assert!(!aggregate.complete(at(0)), "no activator at all");
    aggregate.set_sources(&HashMap::from([(source(1), true), (source(2), false)]), at(0));
    assert!(!aggregate.complete(at(0)), "one that may have requests has not been heard");
    aggregate.frame(&source(1), frame(1, "a", 0, 0, 0), at(1));
    assert!(aggregate.complete(at(1)), "one that is not ready yet has none");
    aggregate.set_sources(&sources(&[1, 2]), at(2));
    assert!(!aggregate.complete(at(2)));
    aggregate.set_sources(&sources(&[1]), at(3));
    assert!(aggregate.complete(at(3)));
    assert!(!aggregate.complete(at(5)), "one that fell silent at zero is not known to be at zero");
    aggregate.frame(&source(1), frame(5, "a", 0, 0, 0), at(5));
    assert!(aggregate.complete(at(5)));
}

#[test]
fn a_revision_that_is_counted_anew_by_the_same_process_goes_on() {
    let mut aggregate = Aggregate::default();
    aggregate.set_sources(&sources(&[1]), at(0));
    aggregate.frame(&source(1), frame(1, "a", 0, 100, 50_000_000), at(1));
    let before = demand(&mut aggregate, 1);
    aggregate.frame(&source(1), frame(2, "a", 1, 1, 0), at(2));
    aggregate.frame(&source(1), frame(4, "a", 1, 1, 2_000_000), at(4));
    let after = demand(&mut aggregate, 4);
    assert_eq!(after.arrivals, before.arrivals + 1);
    assert_eq!(after.request_us, before.request_us + 2_000_000);
}

#[test]
fn the_way_of_a_frame_is_not_taken_for_time_in_which_requests_ran() {
    let mut aggregate = Aggregate::default();
    aggregate.set_sources(&sources(&[1]), at(0));
    let millis = Duration::from_millis;
    // One request runs all the time; the second frame is 40 ms late.
    aggregate.frame(&source(1), frame(1, "a", 1, 1, 1_000_000), at(1));
    aggregate.frame(&source(1), frame(2, "a", 1, 1, 2_000_000), at(2) + millis(40));
    let late = demand(&mut aggregate, 3).request_us;
    aggregate.frame(&source(1), frame(3, "a", 1, 1, 3_000_000), at(3));
    let seen = [late, demand(&mut aggregate, 3).request_us, demand(&mut aggregate, 4).request_us];
    for (seen, expected) in seen.into_iter().zip([2_000_000u64, 2_000_000, 3_000_000]) {
        assert!(seen.abs_diff(expected) <= 2_000, "{seen} is not {expected}");
    }
}

#[test]
fn an_address_that_another_pod_took_over_is_another_source() {
    let mut aggregate = Aggregate::default();
    let of = |pod: &str| Source { pod: Some(pod.into()), ..source(1) };
    aggregate.set_sources(&HashMap::from([(of("x"), true)]), at(0));
    aggregate.frame(&of("x"), frame(0, "a", 4, 4, 0), at(0));
    aggregate.set_sources(&HashMap::from([(of("y"), true)]), at(1));
    assert_eq!(demand(&mut aggregate, 1).in_flight, 0);
    assert!(aggregate.frame(&of("x"), frame(1, "a", 9, 9, 0), at(1)).is_empty(), "its last words are not heard");
    assert_eq!(demand(&mut aggregate, 1).in_flight, 0);
}

#[test]
fn a_function_that_is_gone_is_forgotten() {
    let mut aggregate = Aggregate::default();
    aggregate.set_sources(&sources(&[1]), at(0));
    aggregate.frame(&source(1), frame(0, "a", 1, 1, 1), at(0));
    demand(&mut aggregate, 0);
    aggregate.forget(&FunctionKey::new("ns", "f"));
    assert_eq!(demand(&mut aggregate, 1), Demand::default());
    assert!(aggregate.carried.is_empty());
    // An activator that has not heard of it yet tells of it once more; then it counts for another of the name.
    aggregate.frame(&source(1), frame(1, "a", 1, 1, 1_000_001), at(1));
    assert_eq!(counted(demand(&mut aggregate, 1)), (1, 0, 1_000_000));
    aggregate.frame(&source(1), frame(2, "a", 0, 0, 0), at(2));
    assert_eq!(counted(demand(&mut aggregate, 3)), (0, 0, 1_000_000));
    aggregate.keep(|_, _| false);
    assert!(aggregate.carried.is_empty() && aggregate.sources[&source(1)].samples.is_empty());
}

#[test]
fn what_a_new_connection_does_not_tell_has_ended() {
    let mut aggregate = heard(&[1]);
    let told = |sequence, frame: Frame| Frame { sequence, ..frame };
    aggregate.frame(&source(1), told(1, frame(1, "a", 3, 3, 0)), at(1));
    assert_eq!(counted(demand(&mut aggregate, 2)), (3, 3, 3_000_000));
    let nothing = Frame { revisions: vec![], ..frame(3, "a", 0, 0, 0) };
    aggregate.frame(&source(1), told(2, nothing.clone()), at(3));
    assert_eq!(demand(&mut aggregate, 3).in_flight, 3, "a heartbeat tells nothing new");
    assert_eq!(aggregate.frame(&source(1), told(0, nothing), at(3)), [FunctionKey::new("ns", "f")]);
    let ended = demand(&mut aggregate, 9);
    assert_eq!((ended.in_flight, ended.arrivals, ended.request_us), (0, 3, 6_000_000));
}

#[test]
fn of_revisions_that_are_no_more_only_requests_are_kept() {
    let mut aggregate = heard(&[1]);
    let other = |second, in_flight| {
        let mut frame = frame(second, "a", in_flight, 1, 0);
        (frame.revisions[0].revision, frame.sequence) = ("f-00002".into(), second);
        frame
    };
    aggregate.frame(&source(1), Frame { sequence: 1, ..frame(1, "a", 0, 1, 5) }, at(1));
    aggregate.frame(&source(1), other(1, 1), at(1));
    aggregate.keep(|_, revision| revision == "f-00009");
    let left: Vec<_> = aggregate.sources[&source(1)].samples.keys().map(|key| key.revision.clone()).collect();
    assert_eq!(left, ["f-00002"]);
    aggregate.frame(&source(1), other(2, 0), at(2));
    aggregate.keep(|_, _| false);
    assert!(aggregate.sources[&source(1)].samples.is_empty());
}

#[test]
fn time_in_pods_is_counted_apart_from_time_in_the_queue() {
    let mut aggregate = heard(&[1]);
    let mut told = frame(1, "a", 1, 5, 9_000_000);
    let revision = &mut told.revisions[0];
    (revision.queued, revision.completions, revision.abandoned) = (2, 1, 1);
    (revision.busy_us, revision.served_us) = (Some(3_000_000), 2_000_000);
    aggregate.frame(&source(1), told, at(1));
    let seen = demand(&mut aggregate, 2);
    let expected = Demand {
        in_flight: 1,
        queued: 2,
        arrivals: 5,
        completions: 1,
        abandoned: 1,
        request_us: 12_000_000,
        busy_us: 4_000_000,
        served_us: 2_000_000,
    };
    assert_eq!(seen, expected, "a second more of three requests, one of which is in a pod");
    // The process is gone, and its requests with it: the one in a pod has been there for two seconds.
    aggregate.set_sources(&sources(&[]), at(2));
    let gone = Demand { in_flight: 0, queued: 0, completions: 2, abandoned: 3, served_us: 4_000_000, ..expected };
    assert_eq!(demand(&mut aggregate, 9), gone);
}

#[test]
fn an_activator_that_does_not_count_it_apart_is_taken_at_all_of_it() {
    let mut aggregate = heard(&[1]);
    let mut told = frame(1, "a", 0, 5, 9_000_000);
    told.revisions[0].busy_us = None;
    aggregate.frame(&source(1), told, at(1));
    let seen = demand(&mut aggregate, 1);
    assert_eq!((seen.request_us, seen.busy_us, seen.served_us), (9_000_000, 9_000_000, 9_000_000));
}
