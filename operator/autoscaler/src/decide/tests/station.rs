//! A queueing station: requests arrive, wait for a slot in first-come order, and are served by pods that take a while to
//! start. The autoscaler decides on each frame of demand, every 250 ms, as in the product.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
};

use super::*;

/// Milliseconds.
type Ms = u64;

const TICK: Ms = 10;
const FRAME: Ms = 250;

pub(crate) struct Station {
    pub(crate) policy: Policy,
    limit: u64,
    /// How long a pod takes to start.
    pub(crate) start: Ms,
    /// How much later than it serves a pod is called ready.
    pub(crate) lag: Ms,
    called: VecDeque<(Ms, u32)>,
    /// So many pods can run at once.
    pub(crate) room: u32,
    /// So many of the pods that are asked for next never become ready.
    pub(crate) stuck: u32,
    /// How much longer a request takes for each pod beyond so many, as on a node that they share.
    pub(crate) shared: Option<u64>,
    /// A client gives up after so long in the queue, and tries again at once if `retries`.
    pub(crate) patience: Option<Ms>,
    pub(crate) retries: bool,
    state: State,
    now: Ms,
    desired: u32,
    ready: u32,
    /// When pods that were asked for are ready.
    starting: VecDeque<Ms>,
    queue: VecDeque<(Ms, Ms)>,
    running: BinaryHeap<Reverse<(Ms, Ms)>>,
    demand: Demand,
    /// Requests of closed-loop clients that come as soon as the one before has ended, and what each takes.
    pub(crate) clients: u64,
    client_service: Ms,
    again: u64,
    /// What was wanted and ready, and what waited, each time it was decided.
    pub(crate) seen: Vec<(Ms, u32, u32, usize)>,
    pub(crate) reasons: Vec<Reason>,
    /// How long each request waited that got a slot.
    pub(crate) waits: Vec<Ms>,
}

impl Station {
    pub(crate) fn new(limit: u32, start: Ms, mut policy: Policy) -> Self {
        (policy.limit, policy.target) = (Some(limit), (f64::from(limit) * 0.7).max(1.0));
        let mut state = State::new(Duration::ZERO);
        decide(Duration::ZERO, &Demand::default(), &Observed::default(), &policy, &mut state);
        Self {
            policy,
            limit: u64::from(limit),
            start,
            lag: 0,
            called: VecDeque::new(),
            room: u32::MAX,
            stuck: 0,
            shared: None,
            patience: None,
            retries: false,
            state,
            now: 0,
            desired: 0,
            ready: 0,
            starting: VecDeque::new(),
            queue: VecDeque::new(),
            running: BinaryHeap::new(),
            demand: Demand::default(),
            clients: 0,
            client_service: 0,
            again: 0,
            seen: Vec::new(),
            reasons: Vec::new(),
            waits: Vec::new(),
        }
    }

    pub(crate) fn assume(&mut self, learned: crate::Learned) {
        self.state.assume(learned);
    }

    pub(crate) fn arrive(&mut self, count: u64, service: Ms) {
        self.demand.arrivals += count;
        for _ in 0..count {
            self.queue.push_back((self.now, service));
        }
        if self.desired == 0 && count > 0 {
            // The activator's wake.
            self.set(1);
            self.decide();
        }
    }

    /// Clients that send their next request as soon as the one before has ended.
    pub(crate) fn join(&mut self, clients: u64, service: Ms) {
        self.clients += clients;
        self.client_service = service;
        self.arrive(clients, service);
    }

    /// `rate` requests a second of `service` milliseconds each, evenly, for so long.
    pub(crate) fn run(&mut self, seconds: u64, rate: u64, service: Ms) {
        self.run_for(seconds * 1000, rate, service);
    }

    /// The same for so many milliseconds.
    pub(crate) fn run_for(&mut self, millis: Ms, rate: u64, service: Ms) {
        let begun = self.now;
        let mut sent = 0;
        while self.now < begun + millis {
            self.now += TICK;
            let due = (self.now - begun) * rate / 1000;
            self.arrive(due - sent, service);
            sent = due;
            self.tick();
            if self.now.is_multiple_of(FRAME) {
                self.decide();
            }
        }
    }

    fn tick(&mut self) {
        while self.ready < self.room
            && let Some(started) = self.starting.iter().position(|at| *at <= self.now)
        {
            self.starting.remove(started);
            self.ready += 1;
        }
        while let Some(Reverse((end, took))) = self.running.peek().copied().filter(|Reverse((end, _))| *end <= self.now)
        {
            let _ = end;
            self.running.pop();
            self.demand.completions += 1;
            self.demand.served_us += took * 1000;
            self.again += u64::from(self.clients > 0);
        }
        let again = std::mem::take(&mut self.again);
        self.arrive(again, self.client_service);
        if let Some(patience) = self.patience {
            while self.queue.front().is_some_and(|(came, _)| self.now - came >= patience) {
                let Some((_, service)) = self.queue.pop_front() else { break };
                self.demand.abandoned += 1;
                if self.retries {
                    self.arrive(1, service);
                }
            }
        }
        while (self.running.len() as u64) < u64::from(self.ready) * self.limit
            && let Some((came, service)) = self.queue.pop_front()
        {
            let service = self.shared.map_or(service, |pods| service * u64::from(self.ready).max(pods) / pods);
            self.waits.push(self.now - came);
            self.running.push(Reverse((self.now + service, service)));
        }
        let (running, queued) = (self.running.len() as u64, self.queue.len() as u64);
        (self.demand.in_flight, self.demand.queued) = (running, queued);
        self.demand.busy_us += running * TICK * 1000;
        self.demand.request_us += (running + queued) * TICK * 1000;
    }

    fn decide(&mut self) {
        (self.demand.in_flight, self.demand.queued) = (self.running.len() as u64, self.queue.len() as u64);
        self.called.push_back((self.now, self.ready));
        while self.called.len() > 1 && self.called[1].0 + self.lag <= self.now {
            self.called.pop_front();
        }
        let called = self.called.front().filter(|(at, _)| at + self.lag <= self.now).map_or(0, |(_, ready)| *ready);
        let observed = Observed { desired: self.desired, ready: called.min(self.ready) };
        let decision = decide(Duration::from_millis(self.now), &self.demand, &observed, &self.policy, &mut self.state);
        if decision.replicas != self.desired {
            self.state.wrote(decision.replicas);
        }
        self.set(decision.replicas);
        self.seen.push((self.now, self.desired, self.ready, self.queue.len()));
        self.reasons.push(decision.reason);
    }

    fn set(&mut self, count: u32) {
        for _ in self.desired..count {
            let stuck = self.stuck > 0;
            self.stuck -= u32::from(stuck);
            self.starting.push_back(if stuck { Ms::MAX } else { self.now + self.start });
        }
        for _ in count..self.desired {
            if self.starting.pop_back().is_none() {
                self.ready -= 1;
            }
        }
        self.desired = count;
    }

    /// So many ready pods fail, and are ready again after so long.
    pub(crate) fn crash(&mut self, pods: u32, back: Ms) {
        self.ready -= pods;
        (0..pods).for_each(|_| self.starting.push_back(self.now + back));
    }

    /// Another sets the count.
    pub(crate) fn wake(&mut self, pods: u32) {
        self.set(pods);
        self.decide();
    }

    /// The operator restarts: nothing is known any more.
    pub(crate) fn restart(&mut self) {
        self.state = State::new(Duration::from_millis(self.now));
    }

    /// What was learned of pods and requests.
    pub(crate) fn learned(&self) -> crate::Learned {
        self.state.learned()
    }

    /// What is wanted, ready and queued now.
    pub(crate) fn last(&self) -> (u32, u32, usize) {
        self.seen.last().map_or((0, 0, 0), |(_, wanted, ready, queued)| (*wanted, *ready, *queued))
    }

    /// The most that was wanted from `from` seconds on.
    pub(crate) fn most(&self, from: u64) -> u32 {
        self.seen.iter().filter(|(at, ..)| *at >= from * 1000).map(|(_, wanted, ..)| *wanted).max().unwrap_or(0)
    }

    /// The least.
    pub(crate) fn least(&self, from: u64) -> u32 {
        self.seen.iter().filter(|(at, ..)| *at >= from * 1000).map(|(_, wanted, ..)| *wanted).min().unwrap_or(0)
    }

    /// How often the count turned from `from` seconds on.
    pub(crate) fn turns(&self, from: u64) -> usize {
        let counts = self.seen.iter().filter(|(at, ..)| *at >= from * 1000).map(|(_, wanted, ..)| *wanted);
        let mut up = Vec::new();
        let mut before = None;
        for count in counts {
            if let Some(last) = before.filter(|last| *last != count) {
                up.push(count > last);
            }
            before = Some(count);
        }
        up.dedup();
        up.len().saturating_sub(1)
    }

    /// When more than `wanted` pods were asked for, in milliseconds after `from` seconds.
    pub(crate) fn reached(&self, from: u64, wanted: u32) -> Option<Ms> {
        let (at, ..) = self.seen.iter().find(|(at, count, ..)| *at >= from * 1000 && *count >= wanted)?;
        Some(at - from * 1000)
    }

    /// When the queue was empty, in milliseconds since the beginning.
    pub(crate) fn drained(&self) -> Option<Ms> {
        let first = self.seen.iter().position(|(_, _, ready, _)| *ready > 0)?;
        self.seen[first..].iter().find(|(.., queued)| *queued == 0).map(|(at, ..)| *at)
    }

    /// The changes of wanted and ready, as a person would look at them: `seconds: wanted/ready queued`.
    pub(crate) fn timeline(&self) -> String {
        let mut text = String::new();
        let mut before = None;
        for ((at, wanted, ready, queued), reason) in self.seen.iter().zip(&self.reasons) {
            if before.replace((*wanted, *ready)) != Some((*wanted, *ready)) {
                text += &format!("{}: {wanted}/{ready} {queued} {}; ", *at as f64 / 1000.0, reason.word());
            }
        }
        text
    }
}
