use super::*;
use rouse_crds::demand::{RevisionDemand, VERSION};

fn source(last: u8) -> Source {
    Source { address: SocketAddr::from(([10, 0, 0, last], 9090)), pod: None }
}

fn sources(lasts: &[u8]) -> HashMap<Source, bool> {
    lasts.iter().map(|last| (source(*last), true)).collect()
}

/// A frame that a process which started at 0 wrote in this second.
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
        // Not 0: the first frame of a connection contains every revision.
        sequence: 1,
        at_us: second * 1_000_000,
        more: false,
        revisions: vec![revision],
    }
}

/// Activators whose processes `a`, `b`, … started at 0 and sent an empty frame then.
fn connected(lasts: &[u8]) -> Aggregate {
    let mut aggregate = Aggregate::default();
    aggregate.set_sources(&sources(lasts), at(0));
    for (last, process) in lasts.iter().zip(["a", "b"]) {
        aggregate.apply_frame(&source(*last), Frame { revisions: vec![], ..frame(0, process, 0, 0, 0) }, at(0));
    }
    aggregate
}

fn demand(aggregate: &mut Aggregate, second: u64) -> Demand {
    aggregate.demand(&FunctionKey::new("ns", "f"), "f-00001", at(second))
}

/// Requests in pods, arrivals and request-microseconds of a demand without queued requests.
fn counted(demand: Demand) -> (u64, u64, u64) {
    assert_eq!((demand.queued, demand.busy_us), (0, demand.request_us));
    (demand.in_flight, demand.arrivals, demand.request_us)
}

fn at(second: u64) -> Duration {
    Duration::from_secs(second)
}

#[test]
fn sums_over_activators() {
    let mut aggregate = connected(&[1, 2]);
    assert_eq!(aggregate.apply_frame(&source(1), frame(1, "a", 2, 5, 100), at(1)), [FunctionKey::new("ns", "f")]);
    aggregate.apply_frame(&source(2), frame(1, "b", 0, 7, 50), at(1));
    assert_eq!(counted(demand(&mut aggregate, 1)), (2, 12, 150));
}

#[test]
fn an_unreachable_activator_keeps_its_requests_until_it_is_removed() {
    let mut aggregate = connected(&[1]);
    aggregate.apply_frame(&source(1), frame(0, "a", 3, 3, 0), at(0));
    let silent = demand(&mut aggregate, 10);
    assert_eq!((silent.in_flight, silent.request_us), (3, 30_000_000), "three requests for ten seconds");
    aggregate.set_sources(&sources(&[]), at(20));
    let removed = demand(&mut aggregate, 30);
    assert_eq!((removed.in_flight, removed.arrivals, removed.request_us), (0, 3, 60_000_000));
}

#[test]
fn a_restart_never_decreases_counters() {
    let mut aggregate = connected(&[1]);
    aggregate.apply_frame(&source(1), frame(2, "a", 1, 100, 5_000_000), at(2));
    let before = demand(&mut aggregate, 3);
    aggregate.apply_frame(&source(1), frame(3, "a-restarted", 0, 1, 10), at(3));
    let after = demand(&mut aggregate, 3);
    assert_eq!(counted(after), (0, 101, 6_000_000));
    assert!(after.request_us >= before.request_us);
    // Counters stay when the activator is removed.
    aggregate.set_sources(&sources(&[]), at(7));
    assert_eq!(demand(&mut aggregate, 7).arrivals, 101);
}

#[test]
fn counts_before_the_first_frame_are_excluded() {
    let mut aggregate = Aggregate::default();
    assert_eq!(demand(&mut aggregate, 99), Demand::default());
    aggregate.set_sources(&sources(&[1, 2]), at(99));
    // Ten concurrent requests for an hour, as an operator that just started finds them.
    aggregate.apply_frame(&source(1), frame(3600, "a", 10, 90_000, 36_000_000_000), at(100));
    assert_eq!(counted(demand(&mut aggregate, 100)), (10, 1, 0));
    aggregate.apply_frame(&source(1), frame(3601, "a", 10, 90_025, 36_010_000_000), at(101));
    assert_eq!(counted(demand(&mut aggregate, 101)), (10, 26, 10_000_000));
    // The first frame of the other arrives later.
    aggregate.apply_frame(&source(2), frame(7200, "b", 5, 1_000, 7_000_000_000), at(101));
    assert_eq!(counted(demand(&mut aggregate, 101)), (15, 27, 10_000_000));
    assert_eq!(demand(&mut aggregate, 102).request_us, 25_000_000);
}

#[test]
fn counts_during_a_disconnect_are_excluded_except_one_arrival() {
    let mut aggregate = connected(&[1]);
    aggregate.apply_frame(&source(1), frame(1, "a", 2, 10, 1_000_000), at(1));
    // Disconnected for a minute, with twenty concurrent requests.
    aggregate.apply_frame(&source(1), frame(61, "a", 20, 500, 1_000_000_000), at(61));
    assert_eq!(counted(demand(&mut aggregate, 61)), (20, 11, 121_000_000));
    aggregate.apply_frame(&source(1), frame(62, "a", 20, 510, 1_020_000_000), at(62));
    assert_eq!(counted(demand(&mut aggregate, 62)), (20, 21, 141_000_000));
    // A revision whose first request arrived while disconnected.
    let mut other = frame(162, "a", 0, 7, 9_000_000);
    other.revisions[0].revision = "f-00002".into();
    aggregate.apply_frame(&source(1), other, at(162));
    let first = aggregate.demand(&FunctionKey::new("ns", "f"), "f-00002", at(162));
    assert_eq!(counted(first), (0, 1, 0));
}

#[test]
fn an_extrapolation_that_was_too_high_hides_no_load() {
    let mut aggregate = connected(&[1]);
    aggregate.apply_frame(&source(1), frame(1, "a", 50, 50, 0), at(1));
    // No frame for a minute, in which fifty are extrapolated, and there were five.
    assert_eq!(counted(demand(&mut aggregate, 61)), (50, 50, 3_000_000_000));
    aggregate.apply_frame(&source(1), frame(61, "a", 5, 500, 300_000_000), at(61));
    assert_eq!(counted(demand(&mut aggregate, 61)), (5, 51, 3_000_000_000));
    aggregate.apply_frame(&source(1), frame(62, "a", 5, 505, 305_000_000), at(62));
    assert_eq!(counted(demand(&mut aggregate, 62)), (5, 56, 3_005_000_000));
}

#[test]
fn extrapolated_integrals_never_decrease() {
    let mut aggregate = Aggregate::default();
    aggregate.set_sources(&sources(&[1]), at(0));
    aggregate.apply_frame(&source(1), frame(0, "a", 1, 1, 0), at(0));
    assert_eq!(demand(&mut aggregate, 2).request_us, 2_000_000);
    // The request had ended after one second.
    aggregate.apply_frame(&source(1), frame(2, "a", 0, 1, 1_000_000), at(2));
    assert_eq!(demand(&mut aggregate, 3).request_us, 2_000_000);
}

#[test]
fn demand_is_complete_only_with_current_frames_of_every_required_activator() {
    let mut aggregate = Aggregate::default();
    assert!(!aggregate.complete(at(0)), "no activator");
    aggregate.set_sources(&HashMap::from([(source(1), true), (source(2), false)]), at(0));
    assert!(!aggregate.complete(at(0)), "an activator that may have requests has sent no frame");
    aggregate.apply_frame(&source(1), frame(1, "a", 0, 0, 0), at(1));
    assert!(aggregate.complete(at(1)), "an activator that is not ready yet is not required");
    aggregate.set_sources(&sources(&[1, 2]), at(2));
    assert!(!aggregate.complete(at(2)));
    aggregate.set_sources(&sources(&[1]), at(3));
    assert!(aggregate.complete(at(3)));
    assert!(!aggregate.complete(at(5)), "an activator without current frames may have requests");
    aggregate.apply_frame(&source(1), frame(5, "a", 0, 0, 0), at(5));
    assert!(aggregate.complete(at(5)));
}

#[test]
fn counters_that_the_same_process_restarts_are_added() {
    let mut aggregate = Aggregate::default();
    aggregate.set_sources(&sources(&[1]), at(0));
    aggregate.apply_frame(&source(1), frame(1, "a", 0, 100, 50_000_000), at(1));
    let before = demand(&mut aggregate, 1);
    aggregate.apply_frame(&source(1), frame(2, "a", 1, 1, 0), at(2));
    aggregate.apply_frame(&source(1), frame(4, "a", 1, 1, 2_000_000), at(4));
    let after = demand(&mut aggregate, 4);
    assert_eq!(after.arrivals, before.arrivals + 1);
    assert_eq!(after.request_us, before.request_us + 2_000_000);
}

#[test]
fn transfer_time_of_a_frame_does_not_count_as_request_time() {
    let mut aggregate = Aggregate::default();
    aggregate.set_sources(&sources(&[1]), at(0));
    let millis = Duration::from_millis;
    // One request runs continuously; the second frame is 40 ms late.
    aggregate.apply_frame(&source(1), frame(1, "a", 1, 1, 1_000_000), at(1));
    aggregate.apply_frame(&source(1), frame(2, "a", 1, 1, 2_000_000), at(2) + millis(40));
    let late = demand(&mut aggregate, 3).request_us;
    aggregate.apply_frame(&source(1), frame(3, "a", 1, 1, 3_000_000), at(3));
    let seen = [late, demand(&mut aggregate, 3).request_us, demand(&mut aggregate, 4).request_us];
    for (seen, expected) in seen.into_iter().zip([2_000_000u64, 2_000_000, 3_000_000]) {
        assert!(seen.abs_diff(expected) <= 2_000, "{seen} is not {expected}");
    }
}

#[test]
fn a_reused_address_is_another_source() {
    let mut aggregate = Aggregate::default();
    let of = |pod: &str| Source { pod: Some(pod.into()), ..source(1) };
    aggregate.set_sources(&HashMap::from([(of("x"), true)]), at(0));
    aggregate.apply_frame(&of("x"), frame(0, "a", 4, 4, 0), at(0));
    aggregate.set_sources(&HashMap::from([(of("y"), true)]), at(1));
    assert_eq!(demand(&mut aggregate, 1).in_flight, 0);
    assert!(
        aggregate.apply_frame(&of("x"), frame(1, "a", 9, 9, 0), at(1)).is_empty(),
        "a late frame of a removed source is ignored"
    );
    assert_eq!(demand(&mut aggregate, 1).in_flight, 0);
}

#[test]
fn a_deleted_function_is_removed() {
    let mut aggregate = Aggregate::default();
    aggregate.set_sources(&sources(&[1]), at(0));
    aggregate.apply_frame(&source(1), frame(0, "a", 1, 1, 1), at(0));
    demand(&mut aggregate, 0);
    aggregate.remove_function(&FunctionKey::new("ns", "f"));
    assert_eq!(demand(&mut aggregate, 1), Demand::default());
    assert!(aggregate.retained.is_empty());
    // An activator that does not know yet reports it once more; then it counts for a new Function of that name.
    aggregate.apply_frame(&source(1), frame(1, "a", 1, 1, 1_000_001), at(1));
    assert_eq!(counted(demand(&mut aggregate, 1)), (1, 0, 1_000_000));
    aggregate.apply_frame(&source(1), frame(2, "a", 0, 0, 0), at(2));
    assert_eq!(counted(demand(&mut aggregate, 3)), (0, 0, 1_000_000));
    aggregate.retain_revisions(|_, _| false);
    assert!(aggregate.retained.is_empty() && aggregate.sources[&source(1)].samples.is_empty());
}

#[test]
fn requests_missing_from_the_first_frame_of_a_connection_ended() {
    let mut aggregate = connected(&[1]);
    let with = |sequence, frame: Frame| Frame { sequence, ..frame };
    aggregate.apply_frame(&source(1), with(1, frame(1, "a", 3, 3, 0)), at(1));
    assert_eq!(counted(demand(&mut aggregate, 2)), (3, 3, 3_000_000));
    let empty = Frame { revisions: vec![], ..frame(3, "a", 0, 0, 0) };
    aggregate.apply_frame(&source(1), with(2, empty.clone()), at(3));
    assert_eq!(demand(&mut aggregate, 3).in_flight, 3, "a heartbeat changes nothing");
    assert_eq!(aggregate.apply_frame(&source(1), with(0, empty), at(3)), [FunctionKey::new("ns", "f")]);
    let ended = demand(&mut aggregate, 9);
    assert_eq!((ended.in_flight, ended.arrivals, ended.request_us), (0, 3, 6_000_000));
}

/// A report in parts of one revision each, from the first frame of a connection on. Each revision has as many requests as it
/// is said to and received a thousand before.
fn parts(second: u64, process: &str, revisions: &[(&str, u64)]) -> Vec<Frame> {
    let part = |(sequence, (revision, in_flight)): (u64, &(&str, u64))| {
        let mut part = frame(second, process, *in_flight, 1000 + in_flight, 5_000_000);
        part.revisions[0].revision = (*revision).into();
        part.revisions[0].completions = 1000;
        Frame { sequence, more: sequence + 1 < revisions.len() as u64, ..part }
    };
    (0..).zip(revisions).map(part).collect()
}

fn in_flight(aggregate: &mut Aggregate, revisions: &[&str], second: u64) -> Vec<u64> {
    let mut of = |revision: &&str| aggregate.demand(&FunctionKey::new("ns", "f"), revision, at(second)).in_flight;
    revisions.iter().map(&mut of).collect()
}

#[test]
fn a_report_counts_as_whole_after_its_last_part() {
    let mut aggregate = connected(&[1]);
    for part in parts(1, "a", &[("f-1", 1), ("f-2", 2), ("f-3", 3)]) {
        aggregate.apply_frame(&source(1), part, at(1));
    }
    // The connection was lost meanwhile, and a request of the second revision ended.
    let again = parts(2, "a", &[("f-1", 4), ("f-3", 0), ("f-4", 5)]);
    let known = |aggregate: &mut Aggregate| in_flight(aggregate, &["f-1", "f-2", "f-3", "f-4"], 2);
    let mut seen = vec![];
    for part in again {
        aggregate.apply_frame(&source(1), part, at(2));
        seen.push((known(&mut aggregate), aggregate.complete(at(2))));
    }
    let expected = [(vec![4, 2, 3, 0], false), (vec![4, 2, 0, 0], false), (vec![4, 0, 0, 5], true)];
    assert_eq!(seen, expected, "what no part contained ends with the last part, and not before");
    // Later reports in parts end nothing, and the demand is complete after each.
    let mut later = parts(3, "a", &[("f-1", 6), ("f-4", 7)]);
    later.iter_mut().for_each(|part| part.sequence += 3);
    for (part, complete) in later.into_iter().zip([false, true]) {
        aggregate.apply_frame(&source(1), part, at(3));
        assert_eq!(aggregate.complete(at(3)), complete);
    }
    assert_eq!(in_flight(&mut aggregate, &["f-1", "f-2", "f-3", "f-4"], 3), [6, 0, 0, 7]);
}

#[test]
fn a_report_without_one_of_its_parts_is_not_whole() {
    let known = [("f-1", 1), ("f-2", 2), ("f-3", 3)];
    for missing in 0..3 {
        let mut aggregate = connected(&[1]);
        for part in parts(1, "a", &known) {
            aggregate.apply_frame(&source(1), part, at(1));
        }
        for part in parts(2, "a", &known).into_iter().filter(|part| part.sequence != missing) {
            aggregate.apply_frame(&source(1), part, at(2));
        }
        assert_eq!(in_flight(&mut aggregate, &["f-1", "f-2", "f-3"], 2), [1, 2, 3], "without part {missing}");
        // Without its end it is never complete; the next connection reports all.
        assert_eq!(aggregate.complete(at(2)), missing != 2);
        aggregate.apply_frame(&source(1), parts(3, "a", &[("f-1", 9)]).remove(0), at(3));
        assert!(aggregate.complete(at(3)));
        assert_eq!(in_flight(&mut aggregate, &["f-1", "f-2", "f-3"], 3), [9, 0, 0]);
    }
}

#[test]
fn no_part_of_a_first_report_counts_requests_from_before_the_connection() {
    let arrivals =
        |aggregate: &mut Aggregate, revision| aggregate.demand(&FunctionKey::new("ns", "f"), revision, at(9)).arrivals;
    // An operator that has just started, and one that reconnects after a pause.
    for connected_before in [false, true] {
        let mut aggregate = Aggregate::default();
        aggregate.set_sources(&sources(&[1]), at(0));
        if connected_before {
            aggregate.apply_frame(&source(1), Frame { revisions: vec![], ..frame(0, "a", 0, 0, 0) }, at(0));
        }
        for part in parts(9, "a", &[("f-1", 0), ("f-2", 0), ("f-3", 0)]) {
            aggregate.apply_frame(&source(1), part, at(9));
        }
        for revision in ["f-1", "f-2", "f-3"] {
            assert_eq!(arrivals(&mut aggregate, revision), 1, "{connected_before} {revision}");
        }
    }
}

/// An operator that does not know `more` takes each part for a report. This is what it makes of it; the same code stands for
/// it, without `more`.
#[test]
fn an_older_reader_ends_up_with_the_same_requests() {
    let older = |part: Frame| Frame { more: false, ..part };
    let mut aggregate = connected(&[1]);
    for part in parts(1, "a", &[("f-1", 1), ("f-2", 2)]) {
        aggregate.apply_frame(&source(1), older(part), at(1));
    }
    let mut seen = vec![];
    for part in parts(2, "a", &[("f-1", 1), ("f-2", 2)]) {
        aggregate.apply_frame(&source(1), older(part), at(2));
        seen.push(in_flight(&mut aggregate, &["f-1", "f-2"], 2));
    }
    assert_eq!(seen, [[1, 0], [1, 2]], "between the parts it misses some");
    let again = aggregate.demand(&FunctionKey::new("ns", "f"), "f-2", at(2)).arrivals;
    assert_eq!(again, 2 * 1002, "and counts the earlier requests of the others again");
}

/// An activator that does not know `more` sends each report as one frame, however long.
#[test]
fn a_report_of_an_older_writer_is_whole() {
    let mut aggregate = connected(&[1]);
    for part in parts(1, "a", &[("f-1", 1), ("f-2", 2)]) {
        aggregate.apply_frame(&source(1), part, at(1));
    }
    let line = r#"{"version":1,"process":"a","sequence":0,"atUs":2000000,"revisions":[{"namespace":"ns","function":"f","revision":"f-2","inFlight":3,"queued":0,"arrivals":1003,"completions":1000,"requestUs":5000000}]}"#;
    aggregate.apply_frame(&source(1), serde_json::from_str(line).unwrap(), at(2));
    assert!(aggregate.complete(at(2)));
    assert_eq!(in_flight(&mut aggregate, &["f-1", "f-2"], 2), [0, 3]);
}

#[test]
fn held_requests_are_no_demand() {
    let mut aggregate = connected(&[1]);
    let mut held = frame(1, "a", 0, 0, 0);
    held.revisions[0].held = 7;
    aggregate.apply_frame(&source(1), held, at(1));
    assert_eq!(demand(&mut aggregate, 5), Demand::default());
    assert_eq!(aggregate.by_activator(&FunctionKey::new("ns", "f"), "f-00001", at(5))[0].held, 7);
}

#[test]
fn deleted_revisions_are_kept_while_they_have_requests() {
    let mut aggregate = connected(&[1]);
    let other = |second, in_flight| {
        let mut frame = frame(second, "a", in_flight, 1, 0);
        (frame.revisions[0].revision, frame.sequence) = ("f-00002".into(), second);
        frame
    };
    aggregate.apply_frame(&source(1), Frame { sequence: 1, ..frame(1, "a", 0, 1, 5) }, at(1));
    aggregate.apply_frame(&source(1), other(1, 1), at(1));
    aggregate.retain_revisions(|_, revision| revision == "f-00009");
    let remaining: Vec<_> = aggregate.sources[&source(1)].samples.keys().map(|key| key.revision.clone()).collect();
    assert_eq!(remaining, ["f-00002"]);
    aggregate.apply_frame(&source(1), other(2, 0), at(2));
    aggregate.retain_revisions(|_, _| false);
    assert!(aggregate.sources[&source(1)].samples.is_empty());
}

#[test]
fn in_pod_time_is_counted_separately_from_queue_time() {
    let mut aggregate = connected(&[1]);
    let mut report = frame(1, "a", 1, 5, 9_000_000);
    let revision = &mut report.revisions[0];
    (revision.queued, revision.completions, revision.abandoned) = (2, 1, 1);
    (revision.busy_us, revision.served_us) = (Some(3_000_000), 2_000_000);
    aggregate.apply_frame(&source(1), report, at(1));
    let actual = demand(&mut aggregate, 2);
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
    assert_eq!(actual, expected, "one more second of three requests, one of them in a pod");
    // The process and its requests ended: the one in a pod was there for two seconds.
    aggregate.set_sources(&sources(&[]), at(2));
    let removed = Demand { in_flight: 0, queued: 0, completions: 2, abandoned: 3, served_us: 4_000_000, ..expected };
    assert_eq!(demand(&mut aggregate, 9), removed);
}

#[test]
fn without_a_separate_in_pod_time_the_whole_time_counts() {
    let mut aggregate = connected(&[1]);
    let mut report = frame(1, "a", 0, 5, 9_000_000);
    report.revisions[0].busy_us = None;
    aggregate.apply_frame(&source(1), report, at(1));
    let actual = demand(&mut aggregate, 1);
    assert_eq!((actual.request_us, actual.busy_us, actual.served_us), (9_000_000, 9_000_000, 9_000_000));
}
