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
    MICROS_PER_SECOND, Micros,
    clients::{Clients, Request},
    node::{self, Job, Node},
    outcome::{Outcome, Samples, Sketch},
    pods::{Pick, PodId, Pods, Victims},
    queue::EventQueue,
    random::{Purpose, log_normal, stream},
    scaler::{Hears, Order, Scaler, View},
    trace::{Call, Function},
};

/// Least time between two frames of demand, as in the product.
const FRAME: Micros = 250_000;

/// Most pods of a function, as in the product.
pub(crate) const MOST_PODS: u32 = 100;

/// How long after the end of a scenario the requests that have come may still get a pod.
const GRACE: Micros = 60_000_000;

/// A request that a function rejects takes so long.
const FAST_FAILURE: Micros = 1_000;

/// Everything about a world but its function, its requests and its policy. The default has no node, clients that wait for
/// ever, and ends when all requests have a response.
#[derive(Clone, Debug, Default)]
pub(crate) struct Setup {
    pub(crate) node: Option<node::Spec>,
    pub(crate) clients: Clients,
    pub(crate) pick: Pick,
    /// A pod with more requests than that responds to one more with an error, at once.
    pub(crate) fails_above: Option<u32>,
    /// Ends the run when all requests have a pod, and [`GRACE`] after the end at the latest, and keeps a record for [`Trail`].
    pub(crate) scenario: bool,
}

/// What a scenario measures beside the outcome.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Trail {
    /// When how many pods were ready.
    pub(crate) ready: Vec<(Micros, u32)>,
    /// Requests of clients, each counted once however often it was tried.
    pub(crate) requests: u64,
    /// Requests that had no pod at the end.
    pub(crate) unserved: u64,
    /// Tries that left the queue without a pod.
    pub(crate) abandoned: u64,
    /// Requests that got an error, or whose client gave up.
    pub(crate) failed: u64,
    /// Time from the first try until a pod, giving up, or the end; in microseconds.
    pub(crate) waits: Sketch,
    pub(crate) longest: Micros,
}

impl Trail {
    fn waited(&mut self, time: Micros) {
        self.waits.add(time as f64);
        self.longest = self.longest.max(time);
    }
}

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

    fn request(&mut self, request: Request) {
        self.arrivals += 1;
        self.trail.requests += u64::from(request.tries == 0);
        self.changed();
        // Who waits goes first, so only an empty queue lets one pass.
        if self.waiting.is_empty()
            && let Some(pod) = self.pods.begin(self.now)
        {
            self.begin(request, pod, false);
            return;
        }
        self.waiting.push_back(Waiting { request, alone: self.pods.ready() == 0 });
        if self.desired == 0 {
            let order = self.ask(|scaler, view| scaler.wake(view));
            self.obey(order);
        } else if self.scaler.hears() == Hears::Waiting {
            self.decide();
        }
    }

    /// When the next client gives up. Requests are in the queue in the order of their tries, and all have the same patience.
    fn leave_at(&self) -> Option<Micros> {
        let Clients::Patient { timeout, .. } = self.setup.clients else { return None };
        self.waiting.front().map(|first| first.request.at + timeout)
    }

    fn leave(&mut self) {
        let Some(Waiting { request, .. }) = self.waiting.pop_front() else { return };
        self.abandoned += 1;
        self.trail.abandoned += 1;
        self.changed();
        if let Some(again) = self.setup.clients.again(&request, self.now) {
            self.events.put(again.at, Event::Send(again));
        } else {
            self.trail.failed += 1;
            self.trail.unserved += 1;
            self.trail.waited(self.now - request.first);
        }
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

    /// A client of those that send one request after the other sends one.
    fn send(&mut self) {
        if let Clients::Closed { service, .. } = self.setup.clients {
            self.request(Request::first(Call { at: self.now, service }));
        }
    }

    /// Something has had all the CPU that it wants.
    fn cpu(&mut self) {
        let Some(node) = &mut self.node else { return };
        match node.cpu.take(self.now) {
            Some(Job::Start(pod)) => {
                node.end_start(self.now, pod);
                self.ready(pod);
            }
            Some(Job::Stop) => {
                node.stopped();
                self.schedule();
            }
            Some(Job::Request { pod, began, rest }) => self.events.put(self.now + rest, Event::Done(pod, began)),
            None => {}
        }
    }

    fn ready(&mut self, pod: PodId) {
        // Unless it was taken away while it started.
        if !self.pods.is_ready(pod, self.now) {
            return;
        }
        self.changed();
        self.hand_out(true);
    }

    fn done(&mut self, pod: PodId, began: Micros) {
        self.in_flight -= 1;
        self.completions += 1;
        self.served_us += self.now - began;
        let before = self.pods.scheduled();
        self.pods.finish(pod, self.now);
        self.removed(before);
        self.changed();
        self.hand_out(false);
        if self.sending > self.clients {
            self.sending -= 1;
        } else if self.sending > 0 {
            self.send();
        }
    }

    /// Gives waiting calls to pods. Cold is who came when there was no pod, and who gets a `new` one.
    fn hand_out(&mut self, new: bool) {
        while !self.waiting.is_empty() {
            let Some(pod) = self.pods.begin(self.now) else { return };
            if let Some(Waiting { request, alone }) = self.waiting.pop_front() {
                self.begin(request, pod, new || alone);
            }
        }
    }

    fn begin(&mut self, request: Request, pod: PodId, cold: bool) {
        self.in_flight += 1;
        let waited = self.now - request.first;
        self.samples.note(waited, request.service, cold);
        self.trail.unserved += 1;
        if self.setup.scenario {
            self.trail.waited(waited);
        }
        let mut service = Micros::from(request.service);
        if self.setup.fails_above.is_some_and(|most| self.pods.in_flight(pod) > most) {
            self.trail.failed += 1;
            service = FAST_FAILURE;
        }
        match &mut self.node {
            Some(node) if node.spec.request_cpu > 0.0 => {
                let work = (service as f64 * node.spec.request_cpu).min(service as f64);
                let rest = service - work as Micros;
                node.cpu.run(self.now, work, Job::Request { pod, began: self.now, rest });
            }
            _ => self.events.put(self.now + service, Event::Done(pod, self.now)),
        }
    }

    /// The controller creates a batch.
    fn create(&mut self) {
        let Some(node) = &mut self.node else { return };
        let (count, next) = node.create(self.now);
        for _ in 0..count {
            node.pending.push_back(self.pods.create(self.now));
        }
        if let Some(next) = next {
            self.events.put(next, Event::Create);
        }
        self.schedule();
    }

    /// Of pods that were scheduled before, some may be deleted.
    fn removed(&mut self, before: u32) {
        if let Some(node) = &mut self.node {
            node.stop(self.now, before - self.pods.scheduled());
            self.schedule();
        }
    }

    /// Gives capacity to pods that have none, in the order in which they were created.
    fn schedule(&mut self) {
        let Some(node) = &mut self.node else { return };
        while node.fits(self.pods.scheduled())
            && let Some(pod) = node.pending.pop_front()
        {
            if !self.pods.is_starting(pod) {
                continue;
            }
            self.pods.schedule(pod);
            let varies = log_normal(&mut self.starts, 1.0, 0.2);
            let delay = (self.start * varies).clamp(0.05, 1_200.0) * MICROS_PER_SECOND;
            let work = node.spec.start_cpu_s * varies * MICROS_PER_SECOND;
            self.events.put(node.image(self.now) + delay as Micros, Event::Delayed(pod, work));
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
        let Some(node) = &mut self.node else {
            let live = self.pods.live();
            for _ in live..wanted {
                let pod = self.pods.start(self.now);
                let seconds = log_normal(&mut self.starts, self.start, 0.2).clamp(0.05, 120.0);
                self.events.put(self.now + (seconds * MICROS_PER_SECOND) as Micros, Event::Ready(pod));
            }
            if wanted < live {
                self.pods.stop(live - wanted, self.now);
            }
            return;
        };
        let live = self.pods.live() + node.uncreated();
        if node.ask(wanted.saturating_sub(live)) {
            self.events.put(self.now, Event::Create);
        }
        let fewer = node.take_back(live.saturating_sub(wanted));
        let before = self.pods.scheduled();
        for pod in self.pods.stop(fewer, self.now) {
            node.end_start(self.now, pod);
        }
        self.removed(before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Micros = 1_000_000;

    /// Wants one pod from the first call on, and none from a time on.
    struct One {
        until: Micros,
    }

    impl Scaler for One {
        fn hears(&self) -> Hears {
            Hears::Nothing
        }

        fn wake(&mut self, view: &View<'_>) -> Order {
            Order { pods: 1, again: Some(self.until).filter(|at| *at > view.now) }
        }

        fn decide(&mut self, view: &View<'_>) -> Order {
            Order { pods: u32::from(view.now < self.until), again: None }
        }
    }

    fn function(limit: u32) -> Function {
        Function { index: 0, kind: "test", limit, start: 0.4, expected: 0.0 }
    }

    fn call(at: Micros, service: u32) -> Call {
        Call { at, service }
    }

    #[test]
    fn calls_wait_for_the_pod_and_then_for_one_another() {
        let calls = [call(SECOND, 500_000), call(SECOND, 500_000), call(60 * SECOND, 500_000)];
        let outcome = run(&function(1), &calls, 100 * SECOND, 1, &mut One { until: 50 * SECOND });
        assert_eq!((outcome.calls, outcome.cold), (3, 3));
        // The second waited for the same pod as the first; the third came when it was gone.
        assert_eq!(outcome.pods.starts, 2);
        assert_eq!(outcome.pods.busy, 1_500_000);
        assert!((49 * SECOND..90 * SECOND).contains(&outcome.pods.all), "{}", outcome.pods.all);
        let wanted: Vec<_> = outcome.wanted.iter().map(|(at, count)| (at / SECOND, *count)).collect();
        assert_eq!(wanted, [(0, 0), (1, 1), (50, 0), (60, 1)]);
    }

    #[test]
    fn a_pod_with_two_places_takes_both_at_once() {
        let calls = [call(0, 500_000), call(0, 500_000)];
        let outcome = run(&function(2), &calls, 100 * SECOND, 1, &mut One { until: 50 * SECOND });
        assert_eq!((outcome.cold, outcome.pods.busy), (2, 500_000));
    }

    #[test]
    fn what_has_come_is_answered_beyond_the_end() {
        let calls = [call(9 * SECOND, 20_000_000), call(9 * SECOND, 20_000_000)];
        let outcome = run(&function(1), &calls, 10 * SECOND, 1, &mut One { until: 1_000 * SECOND });
        assert_eq!(outcome.calls, 2);
        assert_eq!(outcome.pods.all, SECOND);
        assert!(outcome.pods.busy < SECOND);
    }

    /// Keeps what a policy is shown at each frame.
    #[derive(Default)]
    struct Spy {
        seen: Vec<(Micros, u64, u64, u64, u64)>,
    }

    impl Scaler for Spy {
        fn hears(&self) -> Hears {
            Hears::Frames
        }

        fn wake(&mut self, _: &View<'_>) -> Order {
            Order { pods: 1, again: None }
        }

        fn decide(&mut self, view: &View<'_>) -> Order {
            self.seen.push((view.now, view.completions, view.request_us, view.busy_us, view.served_us));
            Order { pods: 1, again: None }
        }
    }

    #[test]
    fn work_is_counted_apart_from_waiting() {
        let calls = [call(0, 500_000), call(0, 500_000)];
        let mut spy = Spy::default();
        run(&function(1), &calls, 100 * SECOND, 1, &mut spy);
        let (ended, completions, request_us, busy_us, served_us) = *spy.seen.last().unwrap();
        let start = ended - SECOND;
        assert_eq!((completions, busy_us, served_us), (2, SECOND, SECOND));
        // Both wait for the pod, and one of them for the other.
        assert_eq!(request_us, SECOND + 2 * start + 500_000);
        assert!(
            spy.seen.iter().all(|(_, _, request_us, busy_us, served_us)| busy_us <= request_us && served_us <= busy_us)
        );
    }

    #[test]
    fn nothing_happens_without_calls() {
        let outcome = run(&function(1), &[], 10 * SECOND, 1, &mut One { until: SECOND });
        assert_eq!((outcome.calls, outcome.pods.all, outcome.pods.starts), (0, 0, 0));
    }

    /// Waits in a queue before one server have a known distribution if calls and their lengths are memoryless: what is
    /// longer than t is a part of `load * exp(-(1 - load) * t / service)`.
    #[test]
    fn a_queue_waits_as_long_as_theory_says() {
        use rand_distr::{Distribution as _, Exp1};
        let random = &mut stream(1, 0, Purpose::Calls);
        let (load, service) = (0.7, 0.1);
        let mut at = 0.0;
        let mut calls = Vec::new();
        for _ in 0..400_000 {
            let (gap, long): (f64, f64) = (Exp1.sample(random), Exp1.sample(random));
            at += gap * service / load;
            calls.push(call((at * 1e6) as Micros, (long * service * 1e6) as u32));
        }
        let end = (at * 1e6) as Micros + SECOND;
        let outcome = run(&function(1), &calls, end, 1, &mut One { until: Micros::MAX });
        assert_eq!(outcome.waits.percentile(0.29).to_bits(), 0);
        for part in [0.5, 0.9, 0.99] {
            let expected = (load / (1.0 - part)).ln() * service / (1.0 - load) * 1e6;
            let seen = outcome.waits.percentile(part);
            assert!((seen / expected - 1.0).abs() < 0.05, "{part}: {seen} and not {expected}");
        }
        let busy = outcome.pods.busy as f64 / outcome.pods.all as f64;
        assert!((busy - load).abs() < 0.01, "{busy}");
    }
}
