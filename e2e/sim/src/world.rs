//! Discrete-event simulation of one function: its clients, its pods, and the policy that scales them.
//!
//! Requests are queued in FIFO order. A demand frame is sent at once, but not within 250 ms of the previous one. Functions do
//! not affect each other, so each has a separate world.
//!
//! Without a node, a new pod is ready after its start time, and the control plane takes no time, which is the same for all
//! policies. With a node, pods are created, scheduled and started by the rules of [`crate::node`].

use std::collections::VecDeque;

use rand_chacha::ChaCha8Rng;

use crate::{
    clients::{Clients, Request},
    micros::Micros,
    node::Node,
    outcome::{Outcome, Samples},
    pods::{PodId, Pods, Victims},
    queue::EventQueue,
    random::{Purpose, stream},
    request::{Arrival, Function},
    scaler::{Decision, Scaler, Trigger, View},
};

mod requests;
mod setup;
mod starts;

pub(crate) use setup::{Setup, Trail};

/// Minimum interval of demand frames, as in Rouse.
const FRAME: Micros = 250_000;

/// Maximum number of pods of a function, as in Rouse.
pub(crate) const MOST_PODS: u32 = 100;

/// Time after the end of a scenario in which queued requests may still get a pod.
const GRACE: Micros = 60_000_000;

/// Duration of a request that a function rejects.
const FAST_FAILURE: Micros = 1_000;

#[derive(Debug)]
enum Event {
    Ready(PodId),
    /// Image pull and start delay are complete; the rest of the start is CPU.
    Delayed(PodId, f64),
    /// A request that started at that time completes in its pod.
    Done(PodId, Micros),
    /// The controller creates the next batch of pods.
    Create,
    /// A client sends a request.
    Send(Request),
    /// The number of closed-loop clients changes.
    Clients(u32),
}

/// Runs a policy on one function until `end`. Requests complete after the end, but pod time counts only up to it.
pub(crate) fn run(
    function: &Function,
    requests: &[Arrival],
    end: Micros,
    seed: u64,
    scaler: &mut dyn Scaler,
) -> Outcome {
    play(function, requests, end, seed, &Setup::default(), scaler).0
}

/// As [`run`], with a node, clients and scenario measurements.
pub(crate) fn play(
    function: &Function,
    requests: &[Arrival],
    end: Micros,
    seed: u64,
    setup: &Setup,
    scaler: &mut dyn Scaler,
) -> (Outcome, Trail) {
    let victims = if setup.node.is_some() { Victims::Newest } else { Victims::Oldest };
    let mut world = World {
        scaler,
        start: function.start,
        starts: stream(seed, function.index, Purpose::Starts),
        now: 0,
        pods: Pods::new(function.limit, end).with(setup.pick, victims),
        node: setup.node.map(Node::new),
        setup,
        sending: 0,
        clients: 0,
        waiting: VecDeque::new(),
        in_flight: 0,
        arrivals: 0,
        completions: 0,
        abandoned: 0,
        request_us: 0,
        busy_us: 0,
        served_us: 0,
        desired: 0,
        events: EventQueue::default(),
        frame_at: None,
        last_frame: None,
        decide_at: None,
        samples: Samples::default(),
        wanted: vec![(0, 0)],
        trail: Trail::default(),
    };
    if let Clients::Closed { counts, .. } = &setup.clients {
        for (at, count) in counts {
            world.events.put(*at, Event::Clients(*count));
        }
        world.events.put(end, Event::Clients(0));
    }
    let mut requests = requests.iter().copied().peekable();
    loop {
        let event = world.events.next_at().unwrap_or(Micros::MAX);
        let cpu = world.node.as_ref().and_then(|node| node.cpu.next_at()).unwrap_or(Micros::MAX);
        let arrival = requests.peek().map_or(Micros::MAX, |arrival| arrival.at);
        let leave = world.leave_at().unwrap_or(Micros::MAX);
        let frame = world.frame_at.unwrap_or(Micros::MAX);
        let decide = world.decide_at.unwrap_or(Micros::MAX);
        let next = event.min(cpu).min(arrival).min(leave).min(frame).min(decide);
        let over = if setup.scenario {
            world.trail.requests == world.trail.unserved || next >= end + GRACE
        } else {
            world.in_flight == 0 && world.waiting.is_empty()
        };
        if next == Micros::MAX || (next >= end && over) {
            break;
        }
        world.advance(next);
        if event == next {
            world.event();
        } else if cpu == next {
            world.cpu();
        } else if arrival == next {
            if let Some(arrival) = requests.next() {
                world.request(Request::first(arrival));
            }
        } else if leave == next {
            world.leave();
        } else if frame == next {
            world.frame_at = None;
            world.last_frame = Some(next);
            world.decide();
        } else {
            world.decide();
        }
        if setup.scenario {
            world.record();
        }
    }
    let now = world.now.max(end);
    let World { pods, samples, wanted, mut trail, waiting, .. } = world;
    for waiting in &waiting {
        trail.waited(now - waiting.request.first);
    }
    trail.unserved = trail.requests - trail.unserved;
    (Outcome::new(samples, pods.time(now), wanted), trail)
}

/// A request in the queue.
struct Queued {
    request: Request,
    /// Whether there was no pod when the request arrived.
    without_pod: bool,
}

struct World<'a> {
    scaler: &'a mut dyn Scaler,
    /// Median pod start time in seconds.
    start: f64,
    starts: ChaCha8Rng,
    now: Micros,
    pods: Pods,
    node: Option<Node>,
    setup: &'a Setup,
    /// Closed-loop clients with a request in progress, and their wanted number.
    sending: u32,
    clients: u32,
    waiting: VecDeque<Queued>,
    in_flight: u64,
    arrivals: u64,
    completions: u64,
    abandoned: u64,
    request_us: u64,
    busy_us: u64,
    served_us: u64,
    desired: u32,
    events: EventQueue<Event>,
    frame_at: Option<Micros>,
    last_frame: Option<Micros>,
    decide_at: Option<Micros>,
    samples: Samples,
    /// Changes of the wanted count.
    wanted: Vec<(Micros, u32)>,
    /// `unserved` counts the requests with a response until the end of the run.
    trail: Trail,
}

impl World<'_> {
    fn advance(&mut self, to: Micros) {
        let passed = to - self.now;
        self.request_us += (self.in_flight + self.waiting.len() as u64) * passed;
        self.busy_us += self.in_flight * passed;
        self.now = to;
    }

    fn event(&mut self) {
        match self.events.take() {
            Some((_, Event::Ready(pod))) => self.ready(pod),
            Some((_, Event::Delayed(pod, work))) => match &mut self.node {
                Some(node) if work > 0.0 && self.pods.is_starting(pod) => node.begin_start(self.now, pod, work),
                _ => self.ready(pod),
            },
            Some((_, Event::Done(pod, began))) => self.done(pod, began),
            Some((_, Event::Create)) => self.create(),
            Some((_, Event::Send(request))) => self.request(request),
            Some((_, Event::Clients(count))) => {
                self.clients = count;
                while self.sending < count {
                    self.sending += 1;
                    self.send();
                }
            }
            None => {}
        }
    }

    fn record(&mut self) {
        let ready = self.pods.ready();
        if self.trail.ready.last().map_or(0, |(_, before)| *before) != ready {
            self.trail.ready.push((self.now, ready));
        }
    }

    /// Schedules a frame, since demand has changed.
    fn changed(&mut self) {
        if self.scaler.trigger() == Trigger::Frames && self.frame_at.is_none() {
            self.frame_at = Some(self.last_frame.map_or(self.now, |last| self.now.max(last + FRAME)));
        }
    }

    fn decide(&mut self) {
        let decision = self.with_view(|scaler, view| scaler.decide(view));
        self.apply(decision);
    }

    fn with_view(&mut self, invoke: impl FnOnce(&mut dyn Scaler, &View<'_>) -> Decision) -> Decision {
        let view = View {
            now: self.now,
            in_flight: self.in_flight,
            queued: self.waiting.len() as u64,
            arrivals: self.arrivals,
            completions: self.completions,
            abandoned: self.abandoned,
            request_us: self.request_us,
            busy_us: self.busy_us,
            served_us: self.served_us,
            desired: self.desired,
            pods: &self.pods,
        };
        invoke(self.scaler, &view)
    }

    fn apply(&mut self, decision: Decision) {
        self.decide_at = decision.decide_at.map(|at| at.max(self.now + 1));
        let wanted = decision.pods.min(MOST_PODS);
        if wanted == self.desired {
            return;
        }
        self.wanted.push((self.now, wanted));
        self.desired = wanted;
        self.scale(wanted);
    }
}

#[cfg(test)]
mod tests;
