use super::*;
use rstest::rstest;
use serde_json::json;

const S: Duration = Duration::from_secs(1);

/// A pod created on this day; `phase` is `ready`, `Running`, `assigned` or `new`.
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

/// `loads` are the requests in pods (0 if missing); `drained` pods may be deleted.
fn next_step(pods: &[Arc<FunctionPod>], desired: u32, to: u32, loads: &[(&str, u64)], drained: &[&str]) -> Step {
    let load = |pod: &str| loads.iter().find(|(name, _)| *name == pod).map_or(0, |(_, n)| *n);
    step(pods, desired, to, load, |pod| drained.contains(&pod))
}

fn marks(step: &Step) -> Vec<(&str, i64)> {
    step.mark.iter().map(|(pod, cost)| (pod.as_str(), *cost)).collect()
}

#[test]
fn victims_are_unready_pods_first_then_the_least_loaded_then_the_newest() {
    let pods = [
        ready("busy", 5, 0),
        ready("old", 1, 0),
        ready("new", 3, 0),
        pod("starting", 4, "Running", 0),
        pod("pending", 2, "new", 0),
        pod("assigned", 1, "assigned", 0),
    ];
    let order = ["pending", "assigned", "starting", "new", "old"];
    for number in 1u8..=5 {
        let step = next_step(&pods, 6, 6 - u32::from(number), &[("busy", 9)], &[]);
        let mut chosen: Vec<_> = step.mark.iter().map(|(pod, _)| pod.as_str()).collect();
        chosen.sort_unstable();
        let mut expected = order[..number.into()].to_vec();
        expected.sort_unstable();
        assert_eq!(chosen, expected, "{number}");
        assert_eq!(step.replicas, 6, "no victim is drained");
    }
}

#[test]
fn the_count_stays_until_the_victim_is_drained() {
    let unmarked = [ready("a", 1, 0), ready("b", 2, 0)];
    let step = next_step(&unmarked, 2, 1, &[], &["b"]);
    assert_eq!((marks(&step), step.replicas), (vec![("b", VICTIM_COST)], 2), "empty, but not marked yet");
    let marked = [ready("a", 1, 0), ready("b", 2, VICTIM_COST)];
    assert_eq!(next_step(&marked, 2, 1, &[("b", 3)], &[]), Step { replicas: 2, ..Step::default() });
    assert_eq!(next_step(&marked, 2, 1, &[], &["b"]), Step { replicas: 1, ..Step::default() });
}

#[test]
fn a_victim_stays_selected_when_another_pod_becomes_idle() {
    let pods = [ready("idle", 1, 0), ready("marked", 2, VICTIM_COST)];
    let step = next_step(&pods, 2, 1, &[("marked", 5)], &[]);
    assert_eq!(step, Step { replicas: 2, ..Step::default() });
}

#[test]
fn drained_victims_are_deleted_and_the_others_stay_marked() {
    let pods = |x: i64, y: i64, z: i64| [ready("k", 1, 0), ready("x", 2, x), ready("y", 3, y), ready("z", 4, z)];
    // Two of three are drained, but Kubernetes might delete the third: the costs are equal.
    let step = next_step(&pods(VICTIM_COST, VICTIM_COST, VICTIM_COST), 4, 1, &[("z", 1)], &["x", "y"]);
    let mut marked = marks(&step);
    marked.sort_unstable();
    assert_eq!((marked, step.replicas), (vec![("x", DRAINED_COST), ("y", DRAINED_COST)], 4));
    // The watch has shown one of the two costs: only that pod may be deleted.
    assert_eq!(next_step(&pods(DRAINED_COST, VICTIM_COST, VICTIM_COST), 4, 1, &[("z", 1)], &["x", "y"]).replicas, 3);
    assert_eq!(next_step(&pods(DRAINED_COST, DRAINED_COST, VICTIM_COST), 4, 1, &[("z", 1)], &["x", "y"]).replicas, 2);
    // The third is drained.
    let rest = [ready("k", 1, 0), ready("z", 4, VICTIM_COST)];
    assert_eq!(next_step(&rest, 2, 1, &[], &["z"]).replicas, 1);
}

#[test]
fn a_victim_with_requests_keeps_others_of_the_same_cost() {
    let pods = [ready("k", 1, 0), ready("x", 2, DRAINED_COST), ready("y", 3, DRAINED_COST)];
    assert_eq!(next_step(&pods, 3, 1, &[("y", 1)], &["x"]).replicas, 3, "Kubernetes might delete either");
}

#[test]
fn the_pod_that_kubernetes_deletes_first_must_be_drained_first() {
    // `n` is not ready, so Kubernetes deletes it first regardless of its cost, and it has a request.
    let pods = [ready("k", 1, 0), ready("x", 2, VICTIM_COST), pod("n", 3, "Running", 0)];
    let step = next_step(&pods, 3, 2, &[("n", 1)], &["x"]);
    assert_eq!(step, Step { mark: vec![("n".into(), VICTIM_COST)], unmark: vec!["x".into()], replicas: 3 });
}

#[test]
fn pods_that_were_never_created_need_no_draining() {
    let pods = [ready("a", 1, 0), ready("b", 2, 0)];
    let step = next_step(&pods, 9, 1, &[], &[]);
    assert_eq!((marks(&step), step.replicas), (vec![("b", VICTIM_COST)], 2));
    assert_eq!(next_step(&[], 9, 1, &[], &[]).replicas, 1);
    assert_eq!(next_step(&pods, 9, 0, &[], &[]), Step::default(), "all pods are deleted, so nothing is marked");
}

#[test]
fn former_victims_are_unmarked_when_the_count_rises() {
    let pods = [ready("a", 1, 0), ready("b", 2, VICTIM_COST), ready("c", 3, DRAINED_COST)];
    let unmarked = |to| next_step(&pods, 3, to, &[("b", 4)], &["c"]).unmark;
    assert_eq!((unmarked(1), unmarked(2)), (vec![], vec!["b".to_owned()]));
    let mut both = unmarked(3);
    both.sort();
    assert_eq!(both, ["b", "c"]);
    // The count is patched and the victims still exist.
    assert_eq!(next_step(&pods, 1, 1, &[], &[]), Step { replicas: 1, ..Step::default() });
    assert_eq!(
        next_step(&pods, 1, 2, &[("b", 4)], &[]),
        Step { unmark: vec!["b".into()], replicas: 2, ..Step::default() }
    );
}

const DRAINING: PodReport = PodReport::Present { in_flight: 0, draining: true };
const SENDING: PodReport = PodReport::Present { in_flight: 0, draining: false };

#[rstest]
#[case::all_report_draining(&[DRAINING, DRAINING], 0, 0, Ok(()))]
#[case::one_still_sends(&[DRAINING, SENDING], 0, 10, Err(290))]
#[case::requests_in_flight(&[DRAINING], 2, 10, Err(290))]
#[case::absent_before_the_report_delay(&[DRAINING, PodReport::Absent], 0, 1, Err(2))]
#[case::absent_after_the_report_delay(&[DRAINING, PodReport::Absent], 0, 3, Ok(()))]
#[case::pods_not_reported(&[PodReport::Unknown], 0, 299, Err(1))]
#[case::timeout(&[PodReport::Unknown, SENDING], 7, 300, Ok(()))]
fn is_drained(
    #[case] reports: &[PodReport],
    #[case] in_flight: u64,
    #[case] elapsed: u32,
    #[case] expected: Result<(), u32>,
) {
    assert_eq!(drained(elapsed * S, reports, in_flight, 300 * S), expected.map_err(|remaining| remaining * S));
}

#[test]
fn tracks_marked_pods_and_requested_costs() {
    let mut tracker = DrainTracker::default();
    assert!(tracker.request("a", VICTIM_COST, S, 2 * S));
    assert!(!tracker.request("a", VICTIM_COST, 2 * S, 2 * S), "the watch may lag");
    assert!(tracker.request("a", DRAINED_COST, 2 * S, 2 * S) && tracker.request("a", DRAINED_COST, 4 * S, 2 * S));
    assert_eq!(tracker.marked_since("a"), None, "requested, but not observed yet");
    tracker.observe(&[ready("a", 1, VICTIM_COST), ready("b", 1, 0)], 5 * S);
    tracker.observe(&[ready("a", 1, DRAINED_COST), ready("b", 1, VICTIM_COST)], 6 * S);
    assert_eq!((tracker.marked_since("a"), tracker.marked_since("b")), (Some(5 * S), Some(6 * S)));
    assert_eq!(tracker.victims().count(), 2);
    tracker.observe(&[ready("a", 1, 0)], 7 * S);
    assert_eq!((tracker.marked_since("a"), tracker.marked_since("b")), (None, None));
    tracker.observe(&[], 8 * S);
    assert!(tracker.victims.is_empty());
}
