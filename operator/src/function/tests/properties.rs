//! Property test with random scenarios of a Function, against an API server in memory. Checks invariants after every
//! step, and that an operator that crashes after any write leaves a state from which its successor reaches the same
//! result.

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use rouse_crds::function::RolloutPhase;
use serde_json::json;

use super::world::{Step, Traffic, World, result};

pub(super) fn scenario(rng: &mut StdRng) -> Vec<Step> {
    let mut image = 1;
    let mut steps = vec![Step::Image(1)];
    for _ in 0..9 {
        steps.push(match rng.random_range(0..15u32) {
            0..=2 => {
                // Sometimes the same image, which is no change.
                image += u32::from(rng.random_bool(0.85));
                Step::Image(image)
            }
            3 => Step::Scale(rng.random_range(0..3)),
            4 | 5 => Step::Rollout(
                [
                    json!(null),
                    json!({"steps": [10, 50], "interval": "30s", "abortOn": {"errorRate": "5%"}}),
                    json!({"steps": [20], "abortOn": {"errorRate": "5%"}, "onConfigChange": "NewRevision"}),
                ][rng.random_range(0..3usize)]
                .clone(),
            ),
            6 => Step::Traffic(Traffic::Latest),
            7 => Step::Traffic(Traffic::Back(rng.random_range(0..3))),
            8 => Step::Traffic([Traffic::Split(rng.random_range(0..2)), Traffic::Missing][rng.random_range(0..2usize)]),
            9 | 10 => Step::Ready(rng.random_range(1..3)),
            11 => [Step::Crash, Step::Config][rng.random_range(0..2usize)].clone(),
            12 => Step::Idle,
            13 => Step::Requests(rng.random_range(0..60), rng.random_range(0..4)),
            _ => Step::Pass(rng.random_range(1..100)),
        });
    }
    // At the end all pods are healthy, and time passes.
    steps.push(Step::Traffic(Traffic::Latest));
    steps.extend([const { Step::Calm }; 5]);
    steps
}

async fn run(seed: u64, scenario: &[Step], crash_after: Option<usize>) -> World {
    let mut world = World::new(seed);
    world.api.die_after(crash_after);
    for step in scenario {
        world.step(step).await;
    }
    world
}

#[tokio::test(start_paused = true)]
async fn after_a_crash_at_any_write_the_successor_reaches_the_same_result() {
    let mut crashes = 0u64;
    let runs = std::env::var("ROUSE_TEST_LIVES").map_or(RUNS, |runs| runs.parse().unwrap());
    for seed in 0..runs {
        let scenario = scenario(&mut StdRng::seed_from_u64(seed));
        let whole = run(seed, &scenario, None).await;
        let status = whole.status();
        let latest = status.latest_revision.clone().unwrap();
        match status.rollout.as_ref().map(|r| r.phase) {
            None => assert_eq!((status.traffic.len(), &status.traffic[0].revision), (1, &latest), "seed {seed}"),
            Some(RolloutPhase::Aborted) => assert_ne!(status.traffic[0].revision, latest),
            Some(RolloutPhase::Progressing) => panic!("seed {seed}: the rollout did not finish: {status:#?}"),
        }
        let idle = whole.revisions().len() - status.traffic.len() - usize::from(status.rollout.is_some());
        assert!(idle <= 2, "seed {seed}: more revisions are retained than spec.revisionHistoryLimit");
        let expected = result(&whole);
        for write in 1..=whole.api.writes() {
            let world = run(seed.wrapping_add(1000), &scenario, Some(write)).await;
            assert_eq!(result(&world), expected, "seed {seed}, after write {write} of {scenario:#?}");
            crashes += world.crashes;
        }
    }
    assert!(crashes > 10 * runs, "{crashes} crashes in {runs} runs are too few");
}

/// Number of random scenarios; `ROUSE_TEST_LIVES` overrides it.
const RUNS: u64 = 3;
