//! Worlds with a node, retries and closed-loop clients.

use super::*;
use crate::{clients::Clients, node, pods::Pick};

/// Wants a fixed number of pods from the first request on.
struct Fixed(u32);

impl Scaler for Fixed {
    fn trigger(&self) -> Trigger {
        Trigger::Poll
    }

    fn wake(&mut self, _: &View<'_>) -> Decision {
        Decision { pods: self.0, decide_at: None }
    }

    fn decide(&mut self, _: &View<'_>) -> Decision {
        Decision { pods: self.0, decide_at: None }
    }
}

/// Wants three pods, and after ten seconds two.
struct Fewer;

impl Scaler for Fewer {
    fn trigger(&self) -> Trigger {
        Trigger::Poll
    }

    fn wake(&mut self, _: &View<'_>) -> Decision {
        Decision { pods: 3, decide_at: Some(10 * SECOND) }
    }

    fn decide(&mut self, _: &View<'_>) -> Decision {
        Decision { pods: 2, decide_at: None }
    }
}

fn scenario(spec: node::Spec) -> Setup {
    Setup { node: Some(spec), scenario: true, ..Setup::default() }
}

/// Plays a scenario of a minute.
fn minute(function: &Function, requests: &[Arrival], setup: &Setup, pods: u32) -> (Outcome, Trail) {
    play(function, requests, 60 * SECOND, 1, setup, &mut Fixed(pods))
}

/// When pods became ready, in seconds.
fn ready(trail: &Trail) -> Vec<f64> {
    trail.ready.iter().map(|(at, _)| *at as f64 / 1e6).collect()
}

#[test]
fn starts_that_share_a_core_take_longer() {
    // Nearly all of a start is CPU, which varies equally for all.
    let function = Function { start: 0.05, ..function(1) };
    let single = node::Spec { cores: 1.0, start_cpu_s: 2.0, creates_per_s: 1e6, ..node::Spec::default() };
    let first = ready(&minute(&function, &[arrival(0, 1_000)], &scenario(single), 1).1)[0];
    assert!((1.0..4.0).contains(&first), "{first}");
    let sums = |cores: f64| {
        let starts = ready(&minute(&function, &[arrival(0, 1_000)], &scenario(node::Spec { cores, ..single }), 5).1);
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
    let requests = [arrival(0, 1_000_000); 4];
    let mut spy = Spy::default();
    play(&function(4), &requests, 60 * SECOND, 1, &scenario(spec), &mut spy);
    // Four times half a second of CPU on one core, and half a second that is not slowed.
    let (_, completions, _, _, served_us) = *spy.seen.last().unwrap();
    assert_eq!((completions, served_us), (4, 4 * 2_500_000));
}

#[test]
fn pods_beyond_the_capacity_are_pending_until_others_are_deleted() {
    let spec = node::Spec { capacity: 2, ..node::Spec::default() };
    let (outcome, trail) = minute(&function(1), &[arrival(0, 1_000)], &scenario(spec), 5);
    assert_eq!(trail.ready.iter().map(|(_, count)| *count).max(), Some(2));
    assert_eq!(outcome.pods.starts, 5);
    // A policy that wants three pods and then two: the unscheduled one is deleted, and none that serves.
    let trail = play(&function(1), &[arrival(0, 1_000)], 60 * SECOND, 1, &scenario(spec), &mut Fewer).1;
    assert_eq!(trail.ready.iter().map(|(_, count)| *count).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn pods_wait_for_the_image() {
    let first = |pull| {
        let spec = node::Spec { pull, ..node::Spec::default() };
        ready(&minute(&function(1), &[arrival(0, 1_000)], &scenario(spec), 1).1)[0]
    };
    let pulled = first(node::Pull::First(20 * SECOND)) - first(node::Pull::Present);
    assert!((pulled - 20.0).abs() < 1e-6, "{pulled}");
}

#[test]
fn a_client_gives_up_retries_and_gives_up_for_good() {
    let function = Function { start: 100.0, ..function(1) };
    let clients = Clients::Patient { timeout: SECOND, retries: 2, backoff: SECOND / 10 };
    let setup = Setup { clients, scenario: true, ..Setup::default() };
    let trail = minute(&function, &[arrival(0, 1_000), arrival(SECOND / 2, 1_000)], &setup, 1).1;
    assert_eq!((trail.requests, trail.abandoned, trail.failed, trail.unserved), (2, 6, 2, 0));
    assert_eq!(trail.longest, 3_300_000, "three seconds of patience, and pauses of 0.1 and 0.2 s");
}

#[test]
fn requests_that_no_pod_received_are_unserved() {
    let function = Function { start: 1_000.0, ..function(1) };
    let setup = scenario(node::Spec::default());
    let trail = minute(&function, &[arrival(0, 1_000), arrival(SECOND, 1_000)], &setup, 1).1;
    assert_eq!((trail.requests, trail.unserved, trail.failed), (2, 2, 0));
    assert!(trail.longest >= 60 * SECOND);
}

#[test]
fn closed_loop_clients_send_one_request_at_a_time() {
    let clients = Clients::Closed { counts: vec![(0, 1), (30 * SECOND, 3)], service: 100_000 };
    let setup = Setup { clients, scenario: true, ..Setup::default() };
    let trail = minute(&function(10), &[], &setup, 1).1;
    // Ten per second and client, after the start of the pod.
    assert!((1_180..=1_200).contains(&trail.requests), "{}", trail.requests);
    assert_eq!(trail.unserved, 0);
}

#[test]
fn an_overloaded_pod_rejects_requests_at_once() {
    let setup = Setup { fails_above: Some(3), pick: Pick::Least, scenario: true, ..Setup::default() };
    let trail = minute(&function(10), &[arrival(0, SECOND as u32); 5], &setup, 1).1;
    assert_eq!((trail.failed, trail.unserved), (2, 0));
}

#[test]
fn a_world_with_a_node_is_reproducible() {
    let spec = node::Spec { cores: 2.0, start_cpu_s: 1.0, stop_cpu_s: 0.5, request_cpu: 0.1, ..node::Spec::default() };
    let requests: Vec<_> = (0..500).map(|nth| arrival(nth * 50_000, 300_000)).collect();
    let trail = |seed| play(&function(2), &requests, 60 * SECOND, seed, &scenario(spec), &mut Fixed(9)).1;
    assert_eq!(trail(1), trail(1));
    assert_ne!(trail(1), trail(2));
}
