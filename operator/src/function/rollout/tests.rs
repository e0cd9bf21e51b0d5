use super::*;
use rouse_crds::pod::PodFailure;
use rstest::rstest;

const OLD: &str = "f-00001";
const NEW: &str = "f-00002";

/// A roll-out that a test leads through its states.
struct World {
    spec: RolloutSpec,
    rollout: Option<RolloutStatus>,
    stable: String,
    latest: String,
    state: RevisionState,
    need: u32,
    proof: u32,
    figures: Figures,
    /// It has been ready before.
    proven: bool,
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
            need: 1,
            proof: 1,
            figures: Figures::default(),
            proven: false,
            second: 0,
        }
    }

    /// The next state; the share that the new revision has in it.
    fn next(&mut self) -> (u32, Next) {
        let next = next(&Inputs {
            spec: &self.spec,
            former: self.rollout.as_ref(),
            stable: Some(&self.stable),
            latest: &self.latest,
            proven: self.proven || self.state.ready > 0,
            state: &self.state,
            need: self.need,
            proof: self.proof,
            max: 100,
            cold_start: Duration::from_secs(60),
            figures: &self.figures,
            now: Timestamp::from_second(1_800_000_000 + self.second).unwrap(),
        });
        self.rollout.clone_from(&next.rollout);
        let share = match &next.split {
            Split { from, to: None } if *from == self.latest => 100,
            Split { from, to: None } if *from == self.stable => 0,
            Split { from, to: Some((to, share)) } if *from == self.stable && *to == self.latest => *share,
            other => panic!("{other:?}"),
        };
        (share, next)
    }

    fn share_at(&mut self, second: i64) -> u32 {
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
fn without_steps_all_calls_go_when_it_is_ready() {
    let mut world = World::new(&[], None);
    assert_eq!(world.share_at(0), 0);
    assert_eq!(world.rollout.as_ref().unwrap().pods, Some(1));
    world.ready(1);
    assert_eq!(world.share_at(5), 100);
    assert_eq!(world.rollout, None);
    world.stable = NEW.into();
    assert_eq!(world.next().1, Next { rollout: None, split: Split::all(NEW), look_again: None });
}

#[test]
fn one_that_was_proven_long_ago_is_not_started_for_nothing() {
    let mut world = World::new(&[], None);
    (world.need, world.proven) = (0, true);
    assert_eq!(world.share_at(0), 100);
    let mut world = World::new(&[], None);
    (world.need, world.proven) = (2, true);
    assert_eq!(world.share_at(0), 0, "but where there are calls it is");
    assert_eq!(world.rollout.as_ref().unwrap().pods, Some(2));
}

#[test]
fn the_first_revision_has_no_other_to_wait_for() {
    let world = World::new(&[10], None);
    let next = next(&Inputs {
        spec: &world.spec,
        former: None,
        stable: None,
        latest: NEW,
        proven: false,
        state: &world.state,
        need: 0,
        proof: 1,
        max: 100,
        cold_start: Duration::ZERO,
        figures: &world.figures,
        now: Timestamp::UNIX_EPOCH,
    });
    assert_eq!(next, Next { rollout: None, split: Split::all(NEW), look_again: None });
}

#[test]
fn a_step_lasts_an_interval() {
    let mut world = World::new(&[10, 50], None);
    world.ready(1);
    assert_eq!(world.share_at(0), 10);
    assert_eq!(world.next().1.look_again, Some(Duration::from_secs(60)));
    assert_eq!(world.share_at(59), 10);
    world.ready(2);
    assert_eq!(world.share_at(60), 50);
    assert_eq!(world.share_at(119), 50);
    world.ready(3);
    assert_eq!(world.share_at(120), 100);
    assert_eq!(world.rollout, None);
}

#[test]
fn as_many_pods_as_the_share_needs_or_a_cold_start_s_time() {
    let mut world = World::new(&[], None);
    world.need = 20;
    assert_eq!(world.share_at(0), 0);
    assert_eq!(world.rollout.as_ref().unwrap().pods, Some(20));
    world.ready(1);
    assert_eq!(world.share_at(10), 0, "one pod does not do the work of twenty");
    world.need = 4;
    assert_eq!(world.share_at(69), 0, "fewer are not enough because they became fewer meanwhile");
    assert_eq!(world.next().1.look_again, Some(Duration::from_secs(1)));
    assert_eq!(world.share_at(70), 100, "with what there is");
    let mut world = World::new(&[], None);
    world.need = 20;
    world.ready(20);
    assert_eq!(world.share_at(0), 100);
}

#[test]
fn pods_for_a_greater_share_are_counted_once() {
    let mut world = World::new(&[50], None);
    world.need = 10;
    world.ready(5);
    assert_eq!(world.share_at(0), 50);
    world.need = 5;
    assert_eq!(world.share_at(60), 50);
    assert_eq!(world.rollout.as_ref().unwrap().pods, Some(10));
    world.ready(9);
    assert_eq!(world.share_at(65), 50);
    assert_eq!(world.rollout.as_ref().unwrap().pods, Some(10));
    world.ready(10);
    assert_eq!(world.share_at(66), 100);
}

#[test]
fn what_never_gets_ready_gets_nothing() {
    let mut world = World::new(&[10], Some("5%"));
    world.fails();
    for second in [0, 60, 600, 6000] {
        assert_eq!(world.share_at(second), 0);
        assert_eq!(world.aborted(), None, "it has nothing to lose");
    }
    world.ready(1);
    assert_eq!(world.share_at(6001), 10, "it was mended from outside");
}

#[test]
fn one_that_was_ready_and_crashes_before_it_has_calls_gets_none() {
    let mut world = World::new(&[], None);
    world.need = 3;
    world.ready(1);
    assert_eq!(world.share_at(0), 0);
    world.fails();
    assert_eq!(world.share_at(100), 0);
    world.state.failure = None;
    assert_eq!(world.share_at(200), 0, "none is ready");
}

#[test]
fn errors_end_it_and_it_stays_ended() {
    let mut world = World::new(&[10, 50], Some("5%"));
    world.ready(1);
    assert_eq!(world.share_at(0), 10);
    assert_eq!(world.next().1.look_again, Some(Duration::from_secs(1)));
    world.figures = Figures { answered: 40, failed: 1, ..Figures::default() };
    assert_eq!(world.share_at(10), 10);
    world.figures = Figures { answered: 40, failed: 4, ..Figures::default() };
    assert_eq!(world.share_at(11), 0);
    let message = world.aborted().unwrap().to_owned();
    assert_eq!(
        message,
        "f-00002 had 10% of the calls: 4 of its 40 calls failed, 10.0%, and spec.rollout.abortOn.errorRate is 5%. They went back to f-00001."
    );
    world.figures = Figures::default();
    assert_eq!(world.share_at(10_000), 0);
    assert_eq!(world.next().1.look_again, None);
    // Other terms are another try.
    world.spec.steps = Some(vec![1]);
    assert_eq!(world.share_at(10_001), 1);
    assert_eq!(world.aborted(), None);
}

#[test]
fn another_revision_begins_from_the_one_that_had_all() {
    let mut world = World::new(&[10], Some("5%"));
    world.ready(1);
    assert_eq!(world.share_at(0), 10);
    world.latest = "f-00003".into();
    world.ready(0);
    assert_eq!(world.share_at(1), 0);
    assert_eq!(world.rollout.as_ref().unwrap().from, OLD);
    world.ready(1);
    assert_eq!(world.share_at(2), 10);
}

#[test]
fn a_crash_of_all_its_pods_ends_it() {
    let mut world = World::new(&[10], None);
    world.ready(1);
    assert_eq!(world.share_at(0), 10);
    world.fails();
    assert_eq!(world.share_at(5), 0);
    assert!(world.aborted().unwrap().contains("CrashLoopBackOff: exit 1"));
}

#[test]
fn want_of_room_ends_it_only_when_it_lasts() {
    let mut world = World::new(&[10], Some("5%"));
    world.ready(1);
    assert_eq!(world.share_at(0), 10);
    world.state.ready = 0;
    world.state.failure = Some(PodFailure { reason: "Unschedulable".into(), message: "0/3 nodes".into() });
    world.state.passing = Some(Duration::from_secs(30));
    assert_eq!(world.share_at(5), 10, "a node may be coming");
    world.state.passing = None;
    assert_eq!(world.share_at(40), 0);
    assert!(world.aborted().unwrap().contains("Unschedulable: 0/3 nodes"));
}

#[test]
fn an_idle_function_changes_without_pods() {
    let mut world = World::new(&[10, 50], Some("5%"));
    (world.need, world.proof) = (0, 0);
    let step = |world: &mut World, second| {
        // Nothing is to be started, so it counts as proven.
        let next = next(&Inputs {
            spec: &world.spec,
            former: world.rollout.as_ref(),
            stable: Some(OLD),
            latest: NEW,
            proven: true,
            state: &RevisionState::default(),
            need: 0,
            proof: 0,
            max: 100,
            cold_start: Duration::from_secs(60),
            figures: &Figures::default(),
            now: Timestamp::from_second(second).unwrap(),
        });
        world.rollout.clone_from(&next.rollout);
        next.split.to.map_or(0, |(_, share)| share)
    };
    assert_eq!(step(&mut world, 0), 10);
    assert_eq!(step(&mut world, 60), 50);
    step(&mut world, 120);
    assert_eq!(world.rollout, None);
}

#[test]
fn steps_that_are_taken_away_in_the_middle() {
    let mut world = World::new(&[10, 50], None);
    world.ready(1);
    assert_eq!(world.share_at(0), 10);
    world.spec.steps = None;
    world.ready(2);
    assert_eq!(world.share_at(1), 100);
}

#[test]
fn a_clock_that_went_back_only_waits() {
    let mut world = World::new(&[10], None);
    world.ready(2);
    assert_eq!(world.share_at(1000), 10);
    assert_eq!(world.share_at(0), 10);
    assert_eq!(world.share_at(1060), 100);
}

#[rstest]
#[case::during_a_step(json!({"rollout": {"revision": "f-2", "from": "f-1", "percent": 50, "phase": "Progressing"}, "traffic": [{"revision": "f-1", "percent": 50, "latest": true}, {"revision": "f-2", "percent": 50, "latest": true}]}), Some("f-1"))]
#[case::else_who_has_the_latest(json!({"traffic": [{"revision": "f-0", "percent": 90}, {"revision": "f-2", "percent": 10, "latest": true}]}), Some("f-2"))]
#[case::else_who_has_most(json!({"traffic": [{"revision": "f-0", "percent": 10}, {"revision": "f-1", "percent": 90}]}), Some("f-1"))]
#[case::not_one_that_is_gone(json!({"rollout": {"revision": "f-2", "from": "f-9", "percent": 50, "phase": "Progressing"}, "traffic": [{"revision": "f-9", "percent": 50, "latest": true}, {"revision": "f-2", "percent": 50, "latest": true}]}), Some("f-2"))]
#[case::nobody(json!({}), None)]
fn who_had_all_calls(#[case] former: serde_json::Value, #[case] expected: Option<&str>) {
    let former: FunctionStatus = serde_json::from_value(former).unwrap();
    assert_eq!(stable(&former, true, |name| name != "f-9").as_deref(), expected);
}

#[test]
fn one_that_had_only_a_tag_is_rolled_out_when_it_is_to_have_calls() {
    let former = json!({"traffic": [
        {"revision": "f-3", "percent": 100}, {"revision": "f-4", "percent": 0, "latest": true, "tag": "next"},
    ]});
    let former: FunctionStatus = serde_json::from_value(former).unwrap();
    assert_eq!(stable(&former, true, |_| true).as_deref(), Some("f-3"));
    assert_eq!(
        stable(&former, false, |_| true).as_deref(),
        Some("f-4"),
        "who has the tag has it until the next is ready"
    );
}
