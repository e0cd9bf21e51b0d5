//! One function, its callers, its pods, and a policy that decides how many there are.
//!
//! Calls wait in the order in which they came. A demand frame goes out at once when nothing was said for 250 ms, and
//! else when they are over. Functions do not know of one another, so each has a world to itself.
//!
//! Without a node, a new pod takes as long as it takes; what starts pods takes no time of its own, since it is the same for
//! all policies. With one, pods are created, scheduled and started by the rules of [`crate::node`].

use std::collections::VecDeque;

use rand_chacha::ChaCha8Rng;

use crate::{
    Micros,
    clients::{Clients, Request},
    node::Node,
    outcome::{Outcome, Samples},
    pods::{PodId, Pods, Victims},
    queue::EventQueue,
    random::{Purpose, stream},
    scaler::{Hears, Order, Scaler, View},
    trace::{Call, Function},
};

mod requests;
mod setup;
mod starts;

pub(crate) use setup::{Setup, Trail};

/// Least time between two frames of demand, as in the product.
const FRAME: Micros = 250_000;

/// Most pods of a function, as in the product.
pub(crate) const MOST_PODS: u32 = 100;

/// How long after the end of a scenario the requests that have come may still get a pod.
const GRACE: Micros = 60_000_000;

/// A request that a function rejects takes so long.
const FAST_FAILURE: Micros = 1_000;

#[derive(Debug)]
enum Event {
    Ready(PodId),
    /// The image and the start delay are over; what is left of the start is CPU.
    Delayed(PodId, f64),
    /// A request that began then ends in its pod.
    Done(PodId, Micros),
    /// The controller creates the next batch of pods.
    Create,
    /// A client sends a request.
    Send(Request),
    /// From now on so many clients send one request after the other.
    Clients(u32),
}

/// Runs a policy on one function for so long. Calls that came are answered beyond the end, but time counts only up to it.
pub(crate) fn run(function: &Function, calls: &[Call], end: Micros, seed: u64, scaler: &mut dyn Scaler) -> Outcome {
    play(function, calls, end, seed, &Setup::default(), scaler).0
}

/// As [`run`], in a world with properties.
pub(crate) fn play(
    function: &Function,
    calls: &[Call],
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
        look_at: None,
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
    let mut calls = calls.iter().copied().peekable();
    loop {
        let event = world.events.next_at().unwrap_or(Micros::MAX);
        let cpu = world.node.as_ref().and_then(|node| node.cpu.next_at()).unwrap_or(Micros::MAX);
        let call = calls.peek().map_or(Micros::MAX, |call| call.at);
        let leave = world.leave_at().unwrap_or(Micros::MAX);
        let frame = world.frame_at.unwrap_or(Micros::MAX);
        let look = world.look_at.unwrap_or(Micros::MAX);
        let next = event.min(cpu).min(call).min(leave).min(frame).min(look);
        let over = if setup.scenario {
            world.trail.requests == world.trail.unserved || next >= end + GRACE
        } else {
            world.in_flight == 0 && world.waiting.is_empty()
        };
        if next == Micros::MAX || (next >= end && over) {
            break;
        }
        world.pass(next);
        if event == next {
            world.event();
        } else if cpu == next {
            world.cpu();
        } else if call == next {
            if let Some(call) = calls.next() {
                world.request(Request::first(call));
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
struct Waiting {
    request: Request,
    /// When it came there was no pod.
    alone: bool,
}

struct World<'a> {
    scaler: &'a mut dyn Scaler,
    /// Median of a pod's start, in seconds.
    start: f64,
    starts: ChaCha8Rng,
    now: Micros,
    pods: Pods,
    node: Option<Node>,
    setup: &'a Setup,
    /// Clients that have a request on its way, of those that send one after the other, and how many there are to be.
    sending: u32,
    clients: u32,
    waiting: VecDeque<Waiting>,
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
    look_at: Option<Micros>,
    samples: Samples,
    /// When how many pods were wanted.
    wanted: Vec<(Micros, u32)>,
    /// Its `unserved` counts those that had their response until the end.
    trail: Trail,
}

impl World<'_> {
    fn pass(&mut self, to: Micros) {
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

    /// Demand has changed, so there will be a frame.
    fn changed(&mut self) {
        if self.scaler.hears() == Hears::Frames && self.frame_at.is_none() {
            self.frame_at = Some(self.last_frame.map_or(self.now, |last| self.now.max(last + FRAME)));
        }
    }

    fn decide(&mut self) {
        let order = self.ask(|scaler, view| scaler.decide(view));
        self.obey(order);
    }

    fn ask(&mut self, ask: impl FnOnce(&mut dyn Scaler, &View<'_>) -> Order) -> Order {
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
        ask(self.scaler, &view)
    }

    fn obey(&mut self, order: Order) {
        self.look_at = order.again.map(|at| at.max(self.now + 1));
        let wanted = order.pods.min(MOST_PODS);
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
