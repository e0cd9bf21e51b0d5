use super::*;
use rstest::rstest;
use serde_json::json;

const S: Duration = Duration::from_secs(1);

/// A pod that was made on this day; `phase` is `ready`, `Running`, `assigned` or `new`.
fn pod(name: &str, day: u8, phase: &str, cost: i64) -> Arc<FunctionPod> {
    let scheduled = json!({"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let ready = json!({"type": "Ready", "status": "True"});
    let (phase, conditions) = match phase {
        "ready" => ("Running", json!([scheduled, ready])),
        "Running" => ("Running", json!([scheduled])),
        "assigned" => ("Pending", json!([scheduled])),
        _ => ("Pending", json!([])),
    };
    let annotations = if cost == 0 { json!({}) } else { json!({POD_DELETION_COST_ANNOTATION: cost.to_string()}) };
    let created = format!("2026-01-{day:02}T00:00:00Z");
    Arc::new(
        serde_json::from_value(json!({
            "metadata": {"name": name, "creationTimestamp": created, "annotations": annotations},
            "status": {"phase": phase, "conditions": conditions},
        }))
        .unwrap(),
    )
}

fn ready(name: &str, day: u8, cost: i64) -> Arc<FunctionPod> {
    pod(name, day, "ready", cost)
}

/// `loads` are requests in pods, those that are not named have none; `drained` may go.
fn go(pods: &[Arc<FunctionPod>], desired: u32, to: u32, loads: &[(&str, u64)], drained: &[&str]) -> Step {
    let load = |pod: &str| loads.iter().find(|(name, _)| *name == pod).map_or(0, |(_, n)| *n);
    step(pods, desired, to, load, |pod| drained.contains(&pod))
}

fn marks(step: &Step) -> Vec<(&str, i64)> {
    step.mark.iter().map(|(pod, cost)| (pod.as_str(), *cost)).collect()
}

#[test]
fn those_that_do_not_serve_go_first_then_the_least_busy_then_the_newest() {
    let pods = [
        ready("busy", 5, 0),
        ready("old", 1, 0),
        ready("new", 3, 0),
        pod("starting", 4, "Running", 0),
        pod("waiting", 2, "new", 0),
        pod("assigned", 1, "assigned", 0),
    ];
    let order = ["waiting", "assigned", "starting", "new", "old"];
    for number in 1u8..=5 {
        let step = go(&pods, 6, 6 - u32::from(number), &[("busy", 9)], &[]);
        let mut chosen: Vec<_> = step.mark.iter().map(|(pod, _)| pod.as_str()).collect();
        chosen.sort_unstable();
        let mut expected = order[..number.into()].to_vec();
        expected.sort_unstable();
        assert_eq!(chosen, expected, "{number}");
        assert_eq!(step.count, 6, "none is drained");
    }
}

#[test]
fn nothing_is_patched_before_the_victim_is_drained() {
    let fresh = [ready("a", 1, 0), ready("b", 2, 0)];
    let step = go(&fresh, 2, 1, &[], &["b"]);
    assert_eq!((marks(&step), step.count), (vec![("b", MARKED)], 2), "it is empty, and not marked yet");
    let marked = [ready("a", 1, 0), ready("b", 2, MARKED)];
    assert_eq!(go(&marked, 2, 1, &[("b", 3)], &[]), Step { count: 2, ..Step::default() });
    assert_eq!(go(&marked, 2, 1, &[], &["b"]), Step { count: 1, ..Step::default() });
}

#[test]
fn a_victim_stays_one_though_another_has_become_idle() {
    let pods = [ready("idle", 1, 0), ready("marked", 2, MARKED)];
    let step = go(&pods, 2, 1, &[("marked", 5)], &[]);
    assert_eq!(step, Step { count: 2, ..Step::default() });
}

#[test]
fn the_drained_part_goes_and_the_rest_stays_marked() {
    let pods = |x: i64, y: i64, z: i64| [ready("k", 1, 0), ready("x", 2, x), ready("y", 3, y), ready("z", 4, z)];
    // Two of three are empty; Kubernetes could not tell them from the third.
    let step = go(&pods(MARKED, MARKED, MARKED), 4, 1, &[("z", 1)], &["x", "y"]);
    let mut marked = marks(&step);
    marked.sort_unstable();
    assert_eq!((marked, step.count), (vec![("x", EMPTY), ("y", EMPTY)], 4));
    // One mark has come, the other not: only that one may go.
    assert_eq!(go(&pods(EMPTY, MARKED, MARKED), 4, 1, &[("z", 1)], &["x", "y"]).count, 3);
    assert_eq!(go(&pods(EMPTY, EMPTY, MARKED), 4, 1, &[("z", 1)], &["x", "y"]).count, 2);
    // Then the third.
    let rest = [ready("k", 1, 0), ready("z", 4, MARKED)];
    assert_eq!(go(&rest, 2, 1, &[], &["z"]).count, 1);
}

#[test]
fn one_that_has_something_in_it_again_keeps_others_that_look_alike() {
    let pods = [ready("k", 1, 0), ready("x", 2, EMPTY), ready("y", 3, EMPTY)];
    assert_eq!(go(&pods, 3, 1, &[("y", 1)], &["x"]).count, 3, "either of the two might be taken");
}

#[test]
fn what_kubernetes_would_take_first_has_to_be_drained_first() {
    // It is not ready, so it would go whatever its cost is; and it has a request in it.
    let pods = [ready("k", 1, 0), ready("x", 2, MARKED), pod("n", 3, "Running", 0)];
    let step = go(&pods, 3, 2, &[("n", 1)], &["x"]);
    assert_eq!(step, Step { mark: vec![("n".into(), MARKED)], spare: vec!["x".into()], count: 3 });
}

#[test]
fn pods_that_were_never_made_need_no_draining() {
    let pods = [ready("a", 1, 0), ready("b", 2, 0)];
    let step = go(&pods, 9, 1, &[], &[]);
    assert_eq!((marks(&step), step.count), (vec![("b", MARKED)], 2));
    assert_eq!(go(&[], 9, 1, &[], &[]).count, 1);
    assert_eq!(go(&pods, 9, 0, &[], &[]), Step::default(), "all go, so there is nothing to choose");
}

#[test]
fn marks_are_taken_off_as_far_as_pods_are_wanted_again() {
    let pods = [ready("a", 1, 0), ready("b", 2, MARKED), ready("c", 3, EMPTY)];
    let spared = |to| go(&pods, 3, to, &[("b", 4)], &["c"]).spare;
    assert_eq!((spared(1), spared(2)), (vec![], vec!["b".to_owned()]));
    let mut both = spared(3);
    both.sort();
    assert_eq!(both, ["b", "c"]);
    // The count has been patched, and the pods that are to go are there still.
    assert_eq!(go(&pods, 1, 1, &[], &[]), Step { count: 1, ..Step::default() });
    assert_eq!(go(&pods, 1, 2, &[("b", 4)], &[]), Step { spare: vec!["b".into()], count: 2, ..Step::default() });
}

const DRAINING: Word = Word::Named { in_flight: 0, draining: true };
const SENDING: Word = Word::Named { in_flight: 0, draining: false };

#[rstest]
#[case::all_say_so(&[DRAINING, DRAINING], 0, 0, Ok(()))]
#[case::one_sends_still(&[DRAINING, SENDING], 0, 10, Err(290))]
#[case::something_is_in_it(&[DRAINING], 2, 10, Err(290))]
#[case::one_that_says_nothing_has_to_have_had_its_time(&[DRAINING, Word::Unnamed], 0, 1, Err(2))]
#[case::one_that_says_nothing_does_not_know_it(&[DRAINING, Word::Unnamed], 0, 3, Ok(()))]
#[case::one_that_cannot_say(&[Word::Mute], 0, 299, Err(1))]
#[case::the_bound(&[Word::Mute, SENDING], 7, 300, Ok(()))]
fn may_go(#[case] words: &[Word], #[case] in_flight: u64, #[case] passed: u32, #[case] expected: Result<(), u32>) {
    assert_eq!(drained(passed * S, words, in_flight, 300 * S), expected.map_err(|left| left * S));
}

#[test]
fn remembers_since_when_and_what_was_asked() {
    let mut drain = Drain::default();
    assert!(drain.ask("a", MARKED, S, 2 * S));
    assert!(!drain.ask("a", MARKED, 2 * S, 2 * S), "the watch may only be late");
    assert!(drain.ask("a", EMPTY, 2 * S, 2 * S) && drain.ask("a", EMPTY, 4 * S, 2 * S));
    assert_eq!(drain.since("a"), None, "it is asked for and has not been seen");
    drain.see(&[ready("a", 1, MARKED), ready("b", 1, 0)], 5 * S);
    drain.see(&[ready("a", 1, EMPTY), ready("b", 1, MARKED)], 6 * S);
    assert_eq!((drain.since("a"), drain.since("b")), (Some(5 * S), Some(6 * S)));
    assert_eq!(drain.under_way().count(), 2);
    drain.see(&[ready("a", 1, 0)], 7 * S);
    assert_eq!((drain.since("a"), drain.since("b")), (None, None));
    drain.see(&[], 8 * S);
    assert!(drain.victims.is_empty());
}
