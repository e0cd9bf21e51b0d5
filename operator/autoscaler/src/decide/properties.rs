//! Property tests of decisions, for any demand.

use proptest::prelude::*;

use super::*;
use crate::Metric;

/// Milliseconds until the next decision, requests in flight and queued from then on, requests received and completed in
/// between, and the observed pods.
type Step = (u64, u64, u64, u64, Option<(u32, u32)>);

fn steps(most: usize) -> impl Strategy<Value = Vec<Step>> {
    let observed = prop::option::weighted(0.3, (0u32..30, 0u32..30));
    let millis = prop_oneof![4 => 0u64..1000, 1 => 0u64..100_000];
    prop::collection::vec((millis, 0u64..200, 0u64..50, 0u64..3, observed), 1..most)
}

fn policies() -> impl Strategy<Value = Policy> {
    let counts = (0u32..4, 0u32..4, 0u32..4, 1u32..30);
    let times = (1u64..100, 6u64..120, 1u64..20, 0u64..60);
    (counts, times, 0.5f64..50.0, any::<(bool, bool)>()).prop_map(|(counts, times, target, (rps, prewarm))| {
        let (min, scheduled, initial, max) = counts;
        let (idle, stable, panic, delay) = times;
        Policy {
            min,
            max,
            initial,
            held: 0,
            starting: false,
            scheduled,
            metric: if rps { Metric::Rps } else { Metric::Concurrency },
            target,
            limit: None,
            idle_timeout: Duration::from_secs(idle),
            stable_window: Duration::from_secs(stable),
            panic_window: Duration::from_secs(panic.min(stable)),
            scale_down_delay: Duration::from_secs(delay),
            prewarm: prewarm.then_some(crate::COLD_START_COST),
            paused: false,
        }
    })
}

/// Runs the steps; `check` receives each decision with its inputs. Pods follow the decision unless a step overrides them.
fn run(
    steps: &[Step],
    policy: &Policy,
    mut check: impl FnMut(Duration, &Demand, &Observed, &State, Decision) -> Result<(), TestCaseError>,
) -> Result<(State, Duration, Demand, Observed), TestCaseError> {
    let (mut state, mut now) = (State::new(Duration::ZERO), Duration::ZERO);
    let (mut demand, mut observed) = (Demand::default(), Observed::default());
    for (millis, in_flight, queued, short, seen) in steps {
        now += Duration::from_millis(*millis);
        demand.request_us += demand.concurrency() * millis * 1000;
        demand.busy_us += demand.in_flight * millis * 1000;
        demand.arrivals += short + in_flight.saturating_sub(demand.in_flight);
        // Half of the steps are without requests, so that idle times occur.
        (demand.in_flight, demand.queued) = if millis % 2 == 0 { (*in_flight, *queued) } else { (0, 0) };
        if let Some((desired, ready)) = seen {
            observed = Observed { desired: *desired, ready: *ready };
        }
        let before = observed;
        let decision = decide(now, &demand, &observed, policy, &mut state);
        check(now, &demand, &before, &state, decision)?;
        observed = Observed { desired: decision.replicas, ready: decision.replicas };
    }
    Ok((state, now, demand, observed))
}

proptest! {
    #[test]
    fn bounds_hold_and_every_request_has_a_pod(steps in steps(80), policy in policies()) {
        let mut last_call = Duration::ZERO;
        let mut arrivals = None;
        run(&steps, &policy, |now, demand, observed, state, decision| {
            let least = policy.min.max(policy.scheduled).max(policy.initial).min(policy.max);
            prop_assert!(decision.replicas >= least && decision.replicas <= policy.max, "{}", decision);
            if demand.concurrency() > 0 || arrivals.is_some_and(|before| before != demand.arrivals) {
                last_call = now;
                prop_assert!(decision.replicas >= 1, "{}", decision);
            }
            arrivals = Some(demand.arrivals);
            if observed.desired > 0 && now < last_call + policy.idle_timeout {
                prop_assert!(decision.replicas >= 1, "{}", decision);
            }
            if let Some(at) = decision.wake_at {
                prop_assert!(at > now, "it asks for the past: {:?}", decision);
            } else {
                prop_assert!(demand.concurrency() == 0 && state.idle() >= policy.idle_timeout);
            }
            Ok(())
        })?;
    }

    #[test]
    fn decisions_are_deterministic_and_idempotent(steps in steps(60), policy in policies()) {
        run(&steps, &policy, |now, demand, observed, state, decision| {
            let mut again = state.clone();
            let observed = Observed { desired: decision.replicas, ..*observed };
            let repeated = decide(now, demand, &observed, &policy, &mut again);
            prop_assert_eq!(repeated.replicas, decision.replicas, "{} then {}", decision, repeated);
            Ok(())
        })?;
    }

    #[test]
    fn more_demand_never_wants_fewer_pods(
        steps in steps(60), policy in policies(), millis in 1u64..3000,
        low in (0u64..100, 0u64..50), more in (0u64..100, 0u64..50, 0u64..50), pods in prop::option::of((0u32..30, 0u32..30)),
    ) {
        let (state, now, demand, mut observed) = run(&steps, &policy, |_, _, _, _, _| Ok(()))?;
        if let Some((desired, ready)) = pods {
            observed = Observed { desired, ready };
        }
        let now = now + Duration::from_millis(millis);
        let with = |in_flight, queued, arrivals| {
            let demand = Demand {
                in_flight,
                queued,
                arrivals: demand.arrivals + arrivals,
                request_us: demand.request_us + (in_flight + queued) * millis * 1000,
                busy_us: demand.busy_us + in_flight * millis * 1000,
                ..demand
            };
            decide(now, &demand, &observed, &policy, &mut state.clone())
        };
        let little = with(low.0, low.1, low.0);
        let much = with(low.0 + more.0, low.1 + more.1, low.0 + more.0 + more.2);
        prop_assert!(much.replicas >= little.replicas, "{} but {}", little, much);
    }

    #[test]
    fn without_requests_the_count_reaches_its_minimum(steps in steps(40), policy in policies()) {
        let (mut state, mut now, mut demand, mut observed) = run(&steps, &policy, |_, _, _, _, _| Ok(()))?;
        (demand.in_flight, demand.queued) = (0, 0);
        let policy = Policy { prewarm: None, ..policy };
        for _ in 0..10_000 {
            let decision = decide(now, &demand, &observed, &policy, &mut state);
            observed = Observed { desired: decision.replicas, ready: decision.replicas };
            let Some(at) = decision.wake_at else { break };
            now = at;
        }
        let floor = policy.min.max(policy.scheduled).max(policy.initial).min(policy.max);
        prop_assert_eq!(observed.desired, floor);
    }

    /// With slow pod starts and a constant load, once the windows contain only that load, the count changes in one direction
    /// only and settles at the need of the load.
    #[test]
    fn a_constant_load_settles(steps in steps(30), policy in policies(), level in 1u64..300, lag in 1usize..12) {
        let policy = Policy { metric: Metric::Concurrency, max: 1000, ..policy };
        let (mut state, mut now, mut demand, mut observed) = run(&steps, &policy, |_, _, _, _, _| Ok(()))?;
        (demand.in_flight, demand.queued) = (level, 0);
        let floor = policy.min.max(policy.scheduled).max(policy.initial).max(1);
        let wanted = pods(level as f64 / policy.target).max(floor);
        let mut coming = std::collections::VecDeque::from(vec![observed.ready; lag]);
        let (mut before, mut changes) = (observed.desired, Vec::new());
        let window = 4 * policy.stable_window.as_secs() + 4;
        // A window for the hysteresis, the hold time of a rise, and the delay, in quarters of a second.
        let settling = 2 * window + 4 * (2 * hold_time(&policy) + policy.scale_down_delay).as_secs() + 60;
        for quarter in 0..settling + 400 {
            let decision = decide(now, &demand, &observed, &policy, &mut state);
            if decision.replicas != before && quarter > window {
                changes.push(decision.replicas > before);
            }
            before = decision.replicas;
            observed.desired = decision.replicas;
            coming.push_back(decision.replicas);
            observed.ready = coming.pop_front().unwrap_or_default().min(observed.desired);
            if quarter > settling {
                prop_assert_eq!(decision.replicas, wanted, "{}", decision);
            }
            now += Duration::from_millis(250);
            demand.request_us += level * 250_000;
            demand.busy_us += level * 250_000;
        }
        changes.dedup();
        prop_assert!(changes.len() <= 1, "it turns: {:?}", changes);
    }

    /// From an idle state, the count never exceeds the need of the load.
    #[test]
    fn a_step_from_rest_does_not_overshoot(policy in policies(), level in 1u64..300, lag in 1usize..12) {
        let policy = Policy { metric: Metric::Concurrency, max: 1000, min: 0, scheduled: 0, initial: 0, ..policy };
        let (mut state, mut now) = (State::new(Duration::ZERO), Duration::from_secs(200));
        let (mut demand, mut observed) = (Demand::default(), Observed::default());
        decide(now, &demand, &observed, &policy, &mut state);
        demand.in_flight = level;
        let wanted = pods(level as f64 / policy.target).max(1);
        let mut coming = std::collections::VecDeque::from(vec![0; lag]);
        for quarter in 0..1000 {
            observed.desired = decide(now, &demand, &observed, &policy, &mut state).replicas;
            prop_assert!((1..=wanted).contains(&observed.desired), "{} of {}", observed.desired, wanted);
            // After one second of the load, when the first pods are ready.
            if quarter > 6 + lag {
                prop_assert_eq!(observed.desired, wanted);
            }
            coming.push_back(observed.desired);
            observed.ready = coming.pop_front().unwrap_or_default();
            now += Duration::from_millis(250);
            demand.request_us += level * 250_000;
            demand.busy_us += level * 250_000;
        }
    }

    #[test]
    fn every_request_has_a_pod_under_an_erratic_clock(
        jumps in prop::collection::vec((0u64..200_000, 0u64..100, 0u64..2), 1..60), policy in policies(),
    ) {
        let mut state = State::new(Duration::ZERO);
        let (mut demand, mut observed) = (Demand::default(), Observed { desired: 1, ready: 1 });
        // The time of requests before the first sample is unknown, so only later requests count.
        decide(Duration::ZERO, &demand, &observed, &policy, &mut state);
        for (now, in_flight, short) in jumps {
            (demand.in_flight, demand.arrivals) = (in_flight, demand.arrivals + short);
            demand.request_us += in_flight * 250_000;
            demand.busy_us += in_flight * 250_000;
            let now = Duration::from_secs(now);
            let decision = decide(now, &demand, &observed, &policy, &mut state);
            prop_assert!(decision.replicas <= policy.max);
            prop_assert!(in_flight + short == 0 || decision.replicas >= 1);
            prop_assert!(decision.wake_at.is_none_or(|at| at >= now));
            observed = Observed { desired: decision.replicas, ready: decision.replicas };
        }
    }
}
