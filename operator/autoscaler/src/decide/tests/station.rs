//! A simulated queueing station: requests arrive, wait for a slot in FIFO order, and are served by pods with a start time. The
//! autoscaler decides on each demand frame, every 250 ms, as in the operator.

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
    /// Pod start time.
    pub(crate) start: Ms,
    /// Delay from the first possible request of a pod until it is reported ready.
    pub(crate) lag: Ms,
    reported: VecDeque<(Ms, u32)>,
    /// Maximum number of running pods.
    pub(crate) room: u32,
    /// Number of the next requested pods that never become ready.
    pub(crate) stuck: u32,
    /// Slowdown of requests for each pod beyond a number, as on a shared node.
    pub(crate) shared: Option<u64>,
    /// Time in the queue after which a client gives up; it retries at once if `retries`.
    pub(crate) patience: Option<Ms>,
    pub(crate) retries: bool,
    state: State,
    now: Ms,
    desired: u32,
    ready: u32,
    /// When the pending pods are ready.
    starting: VecDeque<Ms>,
    queue: VecDeque<(Ms, Ms)>,
    running: BinaryHeap<Reverse<(Ms, Ms)>>,
    demand: Demand,
    /// Closed-loop clients and the service time of their requests.
    pub(crate) clients: u64,
    client_service: Ms,
    again: u64,
    /// Wanted and ready pods and queued requests at each decision.
    pub(crate) seen: Vec<(Ms, u32, u32, usize)>,
    pub(crate) reasons: Vec<Reason>,
    /// Time in the queue of each request that got a slot.
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
            reported: VecDeque::new(),
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
            // The activator wakes the revision.
            self.set(1);
            self.decide();
        }
    }

    /// Adds closed-loop clients, which send the next request when the previous one completes.
    pub(crate) fn join(&mut self, clients: u64, service: Ms) {
        self.clients += clients;
        self.client_service = service;
        self.arrive(clients, service);
    }

    /// Runs with `rate` evenly spaced requests per second of `service` milliseconds each.
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
        self.reported.push_back((self.now, self.ready));
        while self.reported.len() > 1 && self.reported[1].0 + self.lag <= self.now {
            self.reported.pop_front();
        }
        let reported = self.reported.front().filter(|(at, _)| at + self.lag <= self.now).map_or(0, |(_, ready)| *ready);
        let observed = Observed { desired: self.desired, ready: reported.min(self.ready) };
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

    /// Fails ready pods, which are ready again after `back`.
    pub(crate) fn crash(&mut self, pods: u32, back: Ms) {
        self.ready -= pods;
        (0..pods).for_each(|_| self.starting.push_back(self.now + back));
    }

    /// Sets the count as another client.
    pub(crate) fn wake(&mut self, pods: u32) {
        self.set(pods);
        self.decide();
    }

    /// Restarts the operator, which loses the state.
    pub(crate) fn restart(&mut self) {
        self.state = State::new(Duration::from_millis(self.now));
    }

    /// Returns the measured start time and service time.
    pub(crate) fn learned(&self) -> crate::Learned {
        self.state.learned()
    }

    /// Returns the wanted, ready and queued counts of the last decision.
    pub(crate) fn last(&self) -> (u32, u32, usize) {
        self.seen.last().map_or((0, 0, 0), |(_, wanted, ready, queued)| (*wanted, *ready, *queued))
    }

    /// Returns the maximum wanted count from `from` seconds on.
    pub(crate) fn most(&self, from: u64) -> u32 {
        self.seen.iter().filter(|(at, ..)| *at >= from * 1000).map(|(_, wanted, ..)| *wanted).max().unwrap_or(0)
    }

    /// Returns the minimum wanted count from `from` seconds on.
    pub(crate) fn least(&self, from: u64) -> u32 {
        self.seen.iter().filter(|(at, ..)| *at >= from * 1000).map(|(_, wanted, ..)| *wanted).min().unwrap_or(0)
    }

    /// Returns the number of direction changes of the count from `from` seconds on.
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

    /// Returns when more than `wanted` pods were requested, in milliseconds after `from` seconds.
    pub(crate) fn reached(&self, from: u64, wanted: u32) -> Option<Ms> {
        let (at, ..) = self.seen.iter().find(|(at, count, ..)| *at >= from * 1000 && *count >= wanted)?;
        Some(at - from * 1000)
    }

    /// Returns when the queue was empty, in milliseconds since the start.
    pub(crate) fn drained(&self) -> Option<Ms> {
        let first = self.seen.iter().position(|(_, _, ready, _)| *ready > 0)?;
        self.seen[first..].iter().find(|(.., queued)| *queued == 0).map(|(at, ..)| *at)
    }

    /// Formats the changes of the counts for a failure message: `seconds: wanted/ready queued`.
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
