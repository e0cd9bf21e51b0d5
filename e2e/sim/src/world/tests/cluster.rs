//! Worlds with a node and with clients that do more than wait.

use super::*;
use crate::{clients::Clients, node, pods::Pick};

/// Wants so many pods from the first request on.
struct Fixed(u32);

impl Scaler for Fixed {
    fn hears(&self) -> Hears {
        Hears::Nothing
    }

    fn wake(&mut self, _: &View<'_>) -> Order {
        Order { pods: self.0, again: None }
    }

    fn decide(&mut self, _: &View<'_>) -> Order {
        Order { pods: self.0, again: None }
    }
}

/// Wants three pods, and after ten seconds two.
struct Fewer;

impl Scaler for Fewer {
    fn hears(&self) -> Hears {
        Hears::Nothing
    }

    fn wake(&mut self, _: &View<'_>) -> Order {
        Order { pods: 3, again: Some(10 * SECOND) }
    }

    fn decide(&mut self, _: &View<'_>) -> Order {
        Order { pods: 2, again: None }
    }
}

fn scenario(spec: node::Spec) -> Setup {
    Setup { node: Some(spec), scenario: true, ..Setup::default() }
}

/// Plays a scenario of a minute.
fn minute(function: &Function, calls: &[Call], setup: &Setup, pods: u32) -> (Outcome, Trail) {
    play(function, calls, 60 * SECOND, 1, setup, &mut Fixed(pods))
}

/// When pods became ready, in seconds.
fn ready(trail: &Trail) -> Vec<f64> {
    trail.ready.iter().map(|(at, _)| *at as f64 / 1e6).collect()
}

#[test]
fn starts_that_share_a_core_take_longer() {
    // Nearly all of a start is CPU, so that it varies alike for all.
    let function = Function { start: 0.05, ..function(1) };
    let alone = node::Spec { cores: 1.0, start_cpu_s: 2.0, creates_per_s: 1e6, ..node::Spec::default() };
    let first = ready(&minute(&function, &[call(0, 1_000)], &scenario(alone), 1).1)[0];
    assert!((1.0..4.0).contains(&first), "{first}");
    let sums = |cores: f64| {
        let starts = ready(&minute(&function, &[call(0, 1_000)], &scenario(node::Spec { cores, ..alone }), 5).1);
        (starts.len(), starts[4])
    };
    let ((all, apart), (_, shared)) = (sums(5.0), sums(1.0));
    assert_eq!(all, 5);
    // Five on one core: all of them are ready after the sum of their work.
    assert!(shared > 3.0 * apart && shared < 5.1 * apart, "{shared} and {apart}");
}

#[test]
fn requests_that_share_a_core_take_longer() {
    let spec = node::Spec { cores: 1.0, request_cpu: 0.5, ..node::Spec::default() };
    let calls = [call(0, 1_000_000); 4];
    let mut spy = Spy::default();
    play(&function(4), &calls, 60 * SECOND, 1, &scenario(spec), &mut spy);
    // Four times half a second of CPU on one core, and half a second that is not slowed.
    let (_, completions, _, _, served_us) = *spy.seen.last().unwrap();
    assert_eq!((completions, served_us), (4, 4 * 2_500_000));
}

#[test]
fn pods_beyond_the_capacity_are_pending_until_others_are_deleted() {
    let spec = node::Spec { room: 2, ..node::Spec::default() };
    let (outcome, trail) = minute(&function(1), &[call(0, 1_000)], &scenario(spec), 5);
    assert_eq!(trail.ready.iter().map(|(_, count)| *count).max(), Some(2));
    assert_eq!(outcome.pods.starts, 5);
    // A policy that wants three pods and then two: the unscheduled one is deleted, and none that serves.
    let trail = play(&function(1), &[call(0, 1_000)], 60 * SECOND, 1, &scenario(spec), &mut Fewer).1;
    assert_eq!(trail.ready.iter().map(|(_, count)| *count).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn pods_wait_for_the_image() {
    let first = |pull| {
        let spec = node::Spec { pull, ..node::Spec::default() };
        ready(&minute(&function(1), &[call(0, 1_000)], &scenario(spec), 1).1)[0]
    };
    let pulled = first(node::Pull::First(20 * SECOND)) - first(node::Pull::Present);
    assert!((pulled - 20.0).abs() < 1e-6, "{pulled}");
}

#[test]
fn a_client_gives_up_retries_and_gives_up_for_good() {
    let function = Function { start: 100.0, ..function(1) };
    let clients = Clients::Patient { timeout: SECOND, retries: 2, backoff: SECOND / 10 };
    let setup = Setup { clients, scenario: true, ..Setup::default() };
    let trail = minute(&function, &[call(0, 1_000), call(SECOND / 2, 1_000)], &setup, 1).1;
    assert_eq!((trail.requests, trail.abandoned, trail.failed, trail.unserved), (2, 6, 2, 0));
    assert_eq!(trail.longest, 3_300_000, "three seconds of patience, and pauses of 0.1 and 0.2 s");
}

#[test]
fn what_no_pod_ever_had_is_unserved() {
    let function = Function { start: 1_000.0, ..function(1) };
    let setup = scenario(node::Spec::default());
    let trail = minute(&function, &[call(0, 1_000), call(SECOND, 1_000)], &setup, 1).1;
    assert_eq!((trail.requests, trail.unserved, trail.failed), (2, 2, 0));
    assert!(trail.longest >= 60 * SECOND);
}

#[test]
fn clients_of_a_closed_loop_send_one_request_after_the_other() {
    let clients = Clients::Closed { counts: vec![(0, 1), (30 * SECOND, 3)], service: 100_000 };
    let setup = Setup { clients, scenario: true, ..Setup::default() };
    let trail = minute(&function(10), &[], &setup, 1).1;
    // Ten per second and client, but for the start of the pod.
    assert!((1_180..=1_200).contains(&trail.requests), "{}", trail.requests);
    assert_eq!(trail.unserved, 0);
}

#[test]
fn a_pod_with_too_many_requests_fails_at_once() {
    let setup = Setup { fails_above: Some(3), pick: Pick::Least, scenario: true, ..Setup::default() };
    let trail = minute(&function(10), &[call(0, SECOND as u32); 5], &setup, 1).1;
    assert_eq!((trail.failed, trail.unserved), (2, 0));
}

#[test]
fn a_world_with_a_node_is_the_same_every_time() {
    let spec = node::Spec { cores: 2.0, start_cpu_s: 1.0, stop_cpu_s: 0.5, request_cpu: 0.1, ..node::Spec::default() };
    let calls: Vec<_> = (0..500).map(|nth| call(nth * 50_000, 300_000)).collect();
    let trail = |seed| play(&function(2), &calls, 60 * SECOND, seed, &scenario(spec), &mut Fixed(9)).1;
    assert_eq!(trail(1), trail(1));
    assert_ne!(trail(1), trail(2));
}
