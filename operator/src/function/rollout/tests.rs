use super::*;
use rouse_crds::pod::PodFailure;
use rstest::rstest;

const OLD: &str = "f-00001";
const NEW: &str = "f-00002";

/// A rollout that a test drives through its states.
struct World {
    spec: RolloutSpec,
    rollout: Option<RolloutStatus>,
    stable: String,
    latest: String,
    state: RevisionState,
    stable_pods: u32,
    verification_pods: u32,
    stats: RequestStats,
    /// Whether it was ready before.
    verified: bool,
    second: i64,
}

impl World {
    fn new(steps: &[i32], abort_on: Option<&str>) -> Self {
        let abort_on = abort_on.map(|rate| serde_json::from_value(json!({"errorRate": rate})).unwrap());
        let steps = (!steps.is_empty()).then(|| steps.to_vec());
        Self {
            spec: RolloutSpec { steps, abort_on, ..RolloutSpec::default() },
            rollout: None,
            stable: OLD.into(),
            latest: NEW.into(),
            state: RevisionState { desired: 1, ..RevisionState::default() },
            stable_pods: 1,
            verification_pods: 1,
            stats: RequestStats::default(),
            verified: false,
            second: 0,
        }
    }

    /// Computes the next state and returns the percentage of the new revision.
    fn next(&mut self) -> (u32, Next) {
        let next = next(&Inputs {
            spec: &self.spec,
            former: self.rollout.as_ref(),
            stable: Some(&self.stable),
            latest: &self.latest,
            verified: self.verified || self.state.ready > 0,
            state: &self.state,
            stable_pods: self.stable_pods,
            verification_pods: self.verification_pods,
            max: 100,
            cold_start: Duration::from_secs(60),
            stats: &self.stats,
            now: Timestamp::from_second(1_800_000_000 + self.second).unwrap(),
        });
        self.rollout.clone_from(&next.rollout);
        let percent = match &next.split {
            Split { from, to: None } if *from == self.latest => 100,
            Split { from, to: None } if *from == self.stable => 0,
            Split { from, to: Some((to, percent)) } if *from == self.stable && *to == self.latest => *percent,
            other => panic!("{other:?}"),
        };
        (percent, next)
    }

    fn percent_at(&mut self, second: i64) -> u32 {
        self.second = second;
        self.next().0
    }

    fn ready(&mut self, pods: u32) {
        self.state.ready = pods;
        self.state.failure = None;
    }

    fn fails(&mut self) {
        self.state.ready = 0;
        self.state.failure = Some(PodFailure { reason: "CrashLoopBackOff".into(), message: "exit 1".into() });
    }

    fn aborted(&self) -> Option<&str> {
        self.rollout.as_ref().filter(|r| r.phase == RolloutPhase::Aborted)?.message.as_deref()
    }
}

#[test]
fn without_steps_all_traffic_moves_when_the_revision_is_ready() {
    let mut world = World::new(&[], None);
    assert_eq!(world.percent_at(0), 0);
    assert_eq!(world.rollout.as_ref().unwrap().pods, Some(1));
    world.ready(1);
    assert_eq!(world.percent_at(5), 100);
    assert_eq!(world.rollout, None);
    world.stable = NEW.into();
    assert_eq!(world.next().1, Next { rollout: None, split: Split::all(NEW), requeue_after: None });
}

#[test]
fn a_verified_revision_starts_no_pods_without_traffic() {
    let mut world = World::new(&[], None);
    (world.stable_pods, world.verified) = (0, true);
    assert_eq!(world.percent_at(0), 100);
    let mut world = World::new(&[], None);
    (world.stable_pods, world.verified) = (2, true);
    assert_eq!(world.percent_at(0), 0, "with traffic it does");
    assert_eq!(world.rollout.as_ref().unwrap().pods, Some(2));
}

#[test]
fn the_first_revision_receives_all_traffic_at_once() {
    let world = World::new(&[10], None);
    let next = next(&Inputs {
        spec: &world.spec,
        former: None,
        stable: None,
        latest: NEW,
        verified: false,
        state: &world.state,
        stable_pods: 0,
        verification_pods: 1,
        max: 100,
        cold_start: Duration::ZERO,
        stats: &world.stats,
        now: Timestamp::UNIX_EPOCH,
    });
    assert_eq!(next, Next { rollout: None, split: Split::all(NEW), requeue_after: None });
}

#[test]
fn a_step_lasts_an_interval() {
    let mut world = World::new(&[10, 50], None);
    world.ready(1);
    assert_eq!(world.percent_at(0), 10);
    assert_eq!(world.next().1.requeue_after, Some(Duration::from_secs(60)));
    assert_eq!(world.percent_at(59), 10);
    world.ready(2);
    assert_eq!(world.percent_at(60), 50);
    assert_eq!(world.percent_at(119), 50);
    world.ready(3);
    assert_eq!(world.percent_at(120), 100);
    assert_eq!(world.rollout, None);
}

#[test]
fn the_traffic_percentage_never_exceeds_the_part_of_the_pods_that_is_ready() {
    let mut world = World::new(&[], None);
    world.stable_pods = 20;
    assert_eq!(world.percent_at(0), 0);
    assert_eq!(world.rollout.as_ref().unwrap().pods, Some(20));
    world.ready(1);
    assert_eq!(world.percent_at(10), 0, "one pod cannot serve the load of twenty");
    world.stable_pods = 4;
    assert_eq!(world.percent_at(69), 0, "the number of required pods does not decrease during a step");
    assert_eq!(world.next().1.requeue_after, Some(Duration::from_secs(1)));
    assert_eq!(world.percent_at(70), 5, "one of twenty pods serves a twentieth");
    assert_eq!(world.rollout.as_ref().unwrap().pods, Some(20), "the others are still requested");
    world.ready(3);
    assert_eq!(world.percent_at(71), 15);
    world.ready(2);
    assert_eq!(world.percent_at(72), 15, "it does not go back");
    world.ready(19);
    assert_eq!(world.percent_at(73), 95);
    world.ready(20);
    assert_eq!(world.percent_at(74), 100);
    // With steps, and an interval after each whole one.
    let mut world = World::new(&[50], None);
    world.stable_pods = 20;
    world.ready(1);
    assert_eq!((world.percent_at(0), world.percent_at(60)), (0, 5));
    world.ready(9);
    assert_eq!(world.percent_at(61), 45);
    world.ready(10);
    assert_eq!((world.percent_at(62), world.percent_at(121)), (50, 50));
    world.fails();
    assert_eq!(world.percent_at(122), 0, "a part can be rolled back, as a step can");
    let mut world = World::new(&[], None);
    world.stable_pods = 20;
    world.ready(20);
    assert_eq!(world.percent_at(0), 100);
}

#[test]
fn required_pods_are_computed_once_per_step() {
    let mut world = World::new(&[50], None);
    world.stable_pods = 10;
    world.ready(5);
    assert_eq!(world.percent_at(0), 50);
    world.stable_pods = 5;
    assert_eq!(world.percent_at(60), 50);
    assert_eq!(world.rollout.as_ref().unwrap().pods, Some(10));
    world.ready(9);
    assert_eq!(world.percent_at(65), 50);
    assert_eq!(world.rollout.as_ref().unwrap().pods, Some(10));
    world.ready(10);
    assert_eq!(world.percent_at(66), 100);
}

#[test]
fn a_revision_that_never_becomes_ready_receives_no_traffic() {
    let mut world = World::new(&[10], Some("5%"));
    world.fails();
    for second in [0, 60, 600, 6000] {
        assert_eq!(world.percent_at(second), 0);
        assert_eq!(world.aborted(), None, "there is no traffic to roll back");
    }
    world.ready(1);
    assert_eq!(world.percent_at(6001), 10, "it recovered");
}

#[test]
fn a_revision_that_crashes_before_its_first_step_receives_no_traffic() {
    let mut world = World::new(&[], None);
    world.stable_pods = 3;
    world.ready(1);
    assert_eq!(world.percent_at(0), 0);
    world.fails();
    assert_eq!(world.percent_at(100), 0);
    world.state.failure = None;
    assert_eq!(world.percent_at(200), 0, "none is ready");
}

#[test]
fn errors_abort_the_rollout_until_its_settings_change() {
    let mut world = World::new(&[10, 50], Some("5%"));
    world.ready(1);
    assert_eq!(world.percent_at(0), 10);
    assert_eq!(world.next().1.requeue_after, Some(Duration::from_secs(1)));
    world.stats = RequestStats { completed: 40, failed: 1, ..RequestStats::default() };
    assert_eq!(world.percent_at(10), 10);
    world.stats = RequestStats { completed: 40, failed: 4, ..RequestStats::default() };
    assert_eq!(world.percent_at(11), 0);
    let message = world.aborted().unwrap().to_owned();
    assert_eq!(
        message,
        "Aborted at 10% of the traffic for f-00002: 4 of 40 requests failed (10.0%), more than spec.rollout.abortOn.errorRate (5%). All traffic returned to f-00001."
    );
    world.stats = RequestStats::default();
    assert_eq!(world.percent_at(10_000), 0);
    assert_eq!(world.next().1.requeue_after, None);
    // A change of the settings restarts the rollout.
    world.spec.steps = Some(vec![1]);
    assert_eq!(world.percent_at(10_001), 1);
    assert_eq!(world.aborted(), None);
}

#[test]
fn a_newer_revision_starts_from_the_stable_one() {
    let mut world = World::new(&[10], Some("5%"));
    world.ready(1);
    assert_eq!(world.percent_at(0), 10);
    world.latest = "f-00003".into();
    world.ready(0);
    assert_eq!(world.percent_at(1), 0);
    assert_eq!(world.rollout.as_ref().unwrap().from, OLD);
    world.ready(1);
    assert_eq!(world.percent_at(2), 10);
}

#[test]
fn a_crash_of_all_pods_aborts_the_rollout() {
    let mut world = World::new(&[10], None);
    world.ready(1);
    assert_eq!(world.percent_at(0), 10);
    world.fails();
    assert_eq!(world.percent_at(5), 0);
    assert!(world.aborted().unwrap().contains("CrashLoopBackOff: exit 1"));
}

#[test]
fn insufficient_capacity_aborts_the_rollout_only_when_it_lasts() {
    let mut world = World::new(&[10], Some("5%"));
    world.ready(1);
    assert_eq!(world.percent_at(0), 10);
    world.state.ready = 0;
    world.state.failure = Some(PodFailure { reason: "Unschedulable".into(), message: "0/3 nodes".into() });
    world.state.transient = Some(Duration::from_secs(30));
    assert_eq!(world.percent_at(5), 10, "a node may be added");
    world.state.transient = None;
    assert_eq!(world.percent_at(40), 0);
    assert!(world.aborted().unwrap().contains("Unschedulable: 0/3 nodes"));
}

#[test]
fn an_idle_function_is_rolled_out_without_pods() {
    let mut world = World::new(&[10, 50], Some("5%"));
    (world.stable_pods, world.verification_pods) = (0, 0);
    let step = |world: &mut World, second| {
        // Verification is skipped, so the revision counts as verified.
        let next = next(&Inputs {
            spec: &world.spec,
            former: world.rollout.as_ref(),
            stable: Some(OLD),
            latest: NEW,
            verified: true,
            state: &RevisionState::default(),
            stable_pods: 0,
            verification_pods: 0,
            max: 100,
            cold_start: Duration::from_secs(60),
            stats: &RequestStats::default(),
            now: Timestamp::from_second(second).unwrap(),
        });
        world.rollout.clone_from(&next.rollout);
        next.split.to.map_or(0, |(_, percent)| percent)
    };
    assert_eq!(step(&mut world, 0), 10);
    assert_eq!(step(&mut world, 60), 50);
    step(&mut world, 120);
    assert_eq!(world.rollout, None);
}

#[test]
fn removing_the_steps_completes_the_rollout() {
    let mut world = World::new(&[10, 50], None);
    world.ready(1);
    assert_eq!(world.percent_at(0), 10);
    world.spec.steps = None;
    world.ready(2);
    assert_eq!(world.percent_at(1), 100);
}

#[test]
fn a_clock_that_was_set_back_only_delays() {
    let mut world = World::new(&[10], None);
    world.ready(2);
    assert_eq!(world.percent_at(1000), 10);
    assert_eq!(world.percent_at(0), 10);
    assert_eq!(world.percent_at(1060), 100);
}

#[rstest]
#[case::during_a_step(json!({"rollout": {"revision": "f-2", "from": "f-1", "percent": 50, "phase": "Progressing"}, "traffic": [{"revision": "f-1", "percent": 50, "latest": true}, {"revision": "f-2", "percent": 50, "latest": true}]}), Some("f-1"))]
#[case::else_the_latest_target(json!({"traffic": [{"revision": "f-0", "percent": 90}, {"revision": "f-2", "percent": 10, "latest": true}]}), Some("f-2"))]
#[case::else_the_highest_percentage(json!({"traffic": [{"revision": "f-0", "percent": 10}, {"revision": "f-1", "percent": 90}]}), Some("f-1"))]
#[case::not_a_deleted_one(json!({"rollout": {"revision": "f-2", "from": "f-9", "percent": 50, "phase": "Progressing"}, "traffic": [{"revision": "f-9", "percent": 50, "latest": true}, {"revision": "f-2", "percent": 50, "latest": true}]}), Some("f-2"))]
#[case::none(json!({}), None)]
fn stable_revision(#[case] former: serde_json::Value, #[case] expected: Option<&str>) {
    let former: FunctionStatus = serde_json::from_value(former).unwrap();
    assert_eq!(stable(&former, true, |name| name != "f-9").as_deref(), expected);
}

#[test]
fn a_revision_with_only_a_tag_is_not_stable() {
    let former = json!({"traffic": [
        {"revision": "f-3", "percent": 100}, {"revision": "f-4", "percent": 0, "latest": true, "tag": "next"},
    ]});
    let former: FunctionStatus = serde_json::from_value(former).unwrap();
    assert_eq!(stable(&former, true, |_| true).as_deref(), Some("f-3"));
    assert_eq!(
        stable(&former, false, |_| true).as_deref(),
        Some("f-4"),
        "the tag stays until the next revision is ready"
    );
}
