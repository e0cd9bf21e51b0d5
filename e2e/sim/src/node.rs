//! Node model: CPU shared by starting and serving pods, pod capacity, and the rate of pod creation.
//!
//! - **Creation**: the ReplicaSet controller creates pods in slow-start batches of 1, 2, 4, 8 …, and its client has a rate.
//!   Here a batch of `b` pods takes `b ÷ creates_per_s` seconds, and the next batch starts after it.
//! - **Capacity**: [`Spec::capacity`] pods fit. Any more are unschedulable, and are scheduled in order as soon as others are
//!   deleted.
//! - **Start**: the image pull, then the function's start delay, then [`Spec::start_cpu_s`] of CPU.
//! - **Deletion**: takes [`Spec::stop_cpu_s`] of CPU, and the pod keeps its capacity until then. A start is not completed.
//! - **Requests**: [`Spec::request_cpu`] of the service time is CPU, and the rest is waiting that is not slowed down.
//! - **CPU**: processor sharing, see [`Cpu`].

use std::collections::{BTreeMap, VecDeque};

use crate::{
    micros::{MICROS_PER_SECOND, Micros},
    pods::PodId,
};

/// Properties of a node.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spec {
    /// CPUs shared by the pods; infinity for no limit.
    pub(crate) cores: f64,
    /// CPU-seconds that the start of a pod takes, after its start delay.
    pub(crate) start_cpu_s: f64,
    /// CPU-seconds that the deletion of a scheduled pod takes.
    pub(crate) stop_cpu_s: f64,
    /// Fraction of a request's service time that is CPU, from 0 to 1.
    pub(crate) request_cpu: f64,
    /// Pods that fit.
    pub(crate) capacity: u32,
    /// Pods that are created in a second.
    pub(crate) creates_per_s: f64,
    pub(crate) pull: Pull,
}

/// Image pull time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pull {
    /// The image is present.
    Present,
    /// The first pod pulls it, and pods scheduled meanwhile wait for the same pull.
    First(Micros),
    /// Every pod pulls it (`imagePullPolicy: Always` without a cache).
    Every(Micros),
}

impl Default for Spec {
    /// An unlimited node with the creation rate of kube-controller-manager (`--kube-api-qps` 20).
    fn default() -> Self {
        Self {
            cores: f64::INFINITY,
            start_cpu_s: 0.0,
            stop_cpu_s: 0.0,
            request_cpu: 0.0,
            capacity: u32::MAX,
            creates_per_s: 20.0,
            pull: Pull::Present,
        }
    }
}

/// Work that takes CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Job {
    Start(PodId),
    Stop,
    /// The CPU part of a request that began then; `rest` is the part that is waiting.
    Request {
        pod: PodId,
        began: Micros,
        rest: Micros,
    },
}

/// State of a node.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) spec: Spec,
    pub(crate) cpu: Cpu<Job>,
    /// Pods that were requested and are not created.
    uncreated: u32,
    /// Size of the next batch; none while no batch is in progress.
    batch: Option<u32>,
    /// Pods that are created and not scheduled.
    pub(crate) pending: VecDeque<PodId>,
    /// Pods that are deleted and keep their capacity until that is complete.
    stopping: u32,
    image_at: Option<Micros>,
    starts: BTreeMap<u64, Token>,
}

impl Node {
    pub(crate) fn new(spec: Spec) -> Self {
        Self {
            spec,
            cpu: Cpu::new(spec.cores),
            uncreated: 0,
            batch: None,
            pending: VecDeque::new(),
            stopping: 0,
            image_at: None,
            starts: BTreeMap::new(),
        }
    }

    /// Returns the pods that were requested and are not created.
    pub(crate) fn uncreated(&self) -> u32 {
        self.uncreated
    }

    /// Requests more pods. Returns whether a first batch has to be started.
    pub(crate) fn request(&mut self, more: u32) -> bool {
        self.uncreated += more;
        let begins = more > 0 && self.batch.is_none();
        if begins {
            self.batch = Some(1);
        }
        begins
    }

    /// Cancels up to `fewer` pods that are not created. Returns the number of pods that remain to be deleted.
    pub(crate) fn cancel_uncreated(&mut self, fewer: u32) -> u32 {
        let back = fewer.min(self.uncreated);
        self.uncreated -= back;
        fewer - back
    }

    /// Returns the number of pods to create now, and when the next batch is due.
    pub(crate) fn create(&mut self, now: Micros) -> (u32, Option<Micros>) {
        let count = self.batch.unwrap_or(1).min(self.uncreated);
        if count == 0 {
            self.batch = None;
            return (0, None);
        }
        self.uncreated -= count;
        // A sync that has created all pods ends, and the next one starts with one pod.
        self.batch = Some(if self.uncreated == 0 { 1 } else { count * 2 });
        let takes = f64::from(count) / self.spec.creates_per_s * MICROS_PER_SECOND;
        (count, Some(now + takes.ceil() as Micros))
    }

    /// Returns whether one more pod can be scheduled.
    pub(crate) fn fits(&self, scheduled: u32) -> bool {
        scheduled + self.stopping < self.spec.capacity
    }

    /// Starts the deletion of scheduled pods.
    pub(crate) fn stop(&mut self, now: Micros, count: u32) {
        if self.spec.stop_cpu_s > 0.0 {
            self.stopping += count;
            for _ in 0..count {
                self.cpu.run(now, self.spec.stop_cpu_s * MICROS_PER_SECOND, Job::Stop);
            }
        }
    }

    /// Completes the deletion of one pod.
    pub(crate) fn complete_deletion(&mut self) {
        self.stopping -= 1;
    }

    /// Returns when a pod that is scheduled now has pulled its image.
    pub(crate) fn image_ready_at(&mut self, now: Micros) -> Micros {
        match self.spec.pull {
            Pull::Present => now,
            Pull::First(takes) => now.max(*self.image_at.get_or_insert(now + takes)),
            Pull::Every(takes) => now + takes,
        }
    }

    /// Starts the CPU part of a pod start.
    pub(crate) fn begin_start(&mut self, now: Micros, pod: PodId, work: f64) {
        let token = self.cpu.run(now, work, Job::Start(pod));
        self.starts.insert(pod.id(), token);
    }

    /// Removes the start of a pod that is deleted or complete.
    pub(crate) fn end_start(&mut self, now: Micros, pod: PodId) {
        if let Some(token) = self.starts.remove(&pod.id()) {
            self.cpu.cancel(now, token);
        }
    }
}

/// Identifies a running job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Token {
    /// Bits of the CPU time at which the job ends: of numbers that are not negative, bits are in the order of the numbers.
    ends: u64,
    nth: u64,
}

/// Processor sharing: each job has a thread, so with `n` jobs each gets `min(1, cores ÷ n)` CPUs.
///
/// All jobs progress at the same rate, so one number is enough, the CPU time that each job has had since the start. Jobs are
/// ordered by the number at which they end. Each operation is O(log n).
#[derive(Debug)]
pub(crate) struct Cpu<J> {
    cores: f64,
    now: Micros,
    /// CPU-microseconds of a job that has run since the start.
    each: f64,
    jobs: BTreeMap<Token, J>,
    nth: u64,
    /// CPU-microseconds of all jobs together.
    used: f64,
}

/// Tolerance of the end of a job in CPU-microseconds, for rounding errors.
const ROUNDING: f64 = 1e-3;

impl<J> Cpu<J> {
    pub(crate) fn new(cores: f64) -> Self {
        Self { cores, now: 0, each: 0.0, jobs: BTreeMap::new(), nth: 0, used: 0.0 }
    }

    /// Returns the CPUs of each job.
    fn rate(&self) -> f64 {
        (self.cores / self.jobs.len() as f64).min(1.0)
    }

    fn advance(&mut self, now: Micros) {
        if !self.jobs.is_empty() {
            let passed = (now - self.now) as f64 * self.rate();
            self.each += passed;
            self.used += passed * self.jobs.len() as f64;
        }
        self.now = now;
    }

    /// Adds a job with its CPU-microseconds.
    pub(crate) fn run(&mut self, now: Micros, work: f64, job: J) -> Token {
        self.advance(now);
        self.nth += 1;
        let token = Token { ends: (self.each + work.max(0.0)).to_bits(), nth: self.nth };
        self.jobs.insert(token, job);
        token
    }

    /// Removes a job that has not ended.
    pub(crate) fn cancel(&mut self, now: Micros, token: Token) {
        self.advance(now);
        self.jobs.remove(&token);
    }

    /// Returns when the next job ends, if no other job starts before.
    pub(crate) fn next_at(&self) -> Option<Micros> {
        let (token, _) = self.jobs.first_key_value()?;
        let left = (f64::from_bits(token.ends) - self.each - ROUNDING).max(0.0);
        Some(self.now + (left / self.rate()).ceil() as Micros)
    }

    /// Removes and returns a job that has ended by now.
    pub(crate) fn take(&mut self, now: Micros) -> Option<J> {
        self.advance(now);
        let entry = self.jobs.first_entry()?;
        (f64::from_bits(entry.key().ends) <= self.each + ROUNDING).then(|| entry.remove())
    }

    /// Returns the CPU-seconds used so far.
    #[cfg(test)]
    pub(crate) fn used_s(&self) -> f64 {
        self.used / MICROS_PER_SECOND
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Micros = 1_000_000;

    /// Runs jobs (moment, CPU-microseconds) to their ends, in the order in which they end.
    fn ends(cores: f64, jobs: &[(Micros, Micros)]) -> (Vec<(usize, Micros)>, Cpu<usize>) {
        let (mut cpu, mut ends, mut begun) = (Cpu::new(cores), Vec::new(), 0);
        loop {
            let begins = jobs.get(begun).map_or(Micros::MAX, |(at, _)| *at);
            let done = cpu.next_at().unwrap_or(Micros::MAX);
            if begins == Micros::MAX && done == Micros::MAX {
                return (ends, cpu);
            }
            if done <= begins {
                ends.push((cpu.take(done).unwrap(), done));
            } else {
                cpu.run(begins, jobs[begun].1 as f64, begun);
                begun += 1;
            }
        }
    }

    #[test]
    fn a_job_alone_takes_its_own_time() {
        assert_eq!(ends(1.0, &[(5 * SECOND, 2 * SECOND)]).0, [(0, 7 * SECOND)]);
        assert_eq!(ends(8.0, &[(5 * SECOND, 2 * SECOND)]).0, [(0, 7 * SECOND)], "it has one thread");
        assert_eq!(ends(0.5, &[(5 * SECOND, 2 * SECOND)]).0, [(0, 9 * SECOND)]);
    }

    #[test]
    fn concurrent_jobs_share_one_core() {
        let jobs = [(0, SECOND); 10];
        let one: Vec<_> = ends(1.0, &jobs).0.iter().map(|(_, at)| *at).collect();
        assert_eq!(one, [10 * SECOND; 10]);
        assert!(ends(4.0, &jobs).0.iter().all(|(_, at)| *at == 2_500_000));
        assert!(ends(f64::INFINITY, &jobs).0.iter().all(|(_, at)| *at == SECOND));
    }

    #[test]
    fn a_later_job_slows_an_earlier_one() {
        // Alone for a second, then shared: the first has a second left, which takes two; the other ends alone.
        let jobs = [(0, 2 * SECOND), (SECOND, 3 * SECOND)];
        assert_eq!(ends(1.0, &jobs).0, [(0, 3 * SECOND), (1, 5 * SECOND)]);
    }

    #[test]
    fn a_cancelled_job_leaves_the_cpu_to_the_others() {
        let mut cpu = Cpu::new(1.0);
        cpu.run(0, 2e6, 'a');
        let b = cpu.run(0, 9e6, 'b');
        cpu.cancel(2 * SECOND, b);
        assert_eq!((cpu.next_at(), cpu.take(3 * SECOND), cpu.next_at()), (Some(3 * SECOND), Some('a'), None));
        assert!((cpu.used_s() - 3.0).abs() < 1e-9);
    }

    proptest! {
        #[test]
        fn cpu_is_conserved(
            jobs in prop::collection::vec((0u64..5_000_000, 1u64..2_000_000), 1..60), cores in 1u32..5,
        ) {
            let mut jobs = jobs;
            jobs.sort_unstable();
            let (ends, cpu) = ends(f64::from(cores), &jobs);
            prop_assert_eq!(ends.len(), jobs.len());
            // Work done is capacity × busy time: at each moment as many CPUs as there are jobs, up to all of them.
            let mut changes: Vec<_> = jobs.iter().map(|(at, _)| (*at, 1i64)).collect();
            changes.extend(ends.iter().map(|(_, at)| (*at, -1)));
            changes.sort_unstable();
            let (mut running, mut before, mut capacity) = (0i64, 0, 0.0);
            for (at, change) in changes {
                capacity += (at - before) as f64 * (running as f64).min(f64::from(cores));
                (running, before) = (running + change, at);
            }
            let work: u64 = jobs.iter().map(|(_, work)| *work).sum();
            // Ends are rounded up to a microsecond, during which all other jobs continue.
            let rounding = (jobs.len() * 5) as f64;
            prop_assert!((capacity - work as f64).abs() <= rounding, "{capacity} for {work}");
            prop_assert!((cpu.used_s() * 1e6 - work as f64).abs() <= rounding);
            // No job is faster than alone, or slower than if all jobs had shared the CPU all the time.
            for (nth, end) in &ends {
                let (at, work) = jobs[*nth];
                prop_assert!(*end >= at + work);
            }
        }
    }

    #[test]
    fn pods_are_created_in_growing_batches_at_a_rate() {
        let mut node = Node::new(Spec::default());
        assert!(node.request(30) && !node.request(10));
        let (mut now, mut made) = (0, Vec::new());
        while let (count, Some(next)) = node.create(now) {
            made.push((now / 1_000, count));
            now = next;
        }
        assert_eq!(made, [(0, 1), (50, 2), (150, 4), (350, 8), (750, 16), (1_550, 9)]);
        assert_eq!((now / 1_000, node.uncreated()), (2_000, 0), "40 at 20 per second");
        assert!(node.request(1), "the next sync starts with one pod again");
        assert_eq!((node.cancel_uncreated(5), node.uncreated()), (4, 0));
    }

    #[test]
    fn a_deleted_pod_keeps_its_capacity_until_its_deletion_is_complete() {
        let mut node = Node::new(Spec { capacity: 3, stop_cpu_s: 2.0, cores: 1.0, ..Spec::default() });
        assert!(node.fits(2) && !node.fits(3));
        node.stop(0, 2);
        assert!(node.fits(0) && !node.fits(1));
        assert_eq!((node.cpu.next_at(), node.cpu.take(4 * SECOND)), (Some(4 * SECOND), Some(Job::Stop)));
        node.complete_deletion();
        assert!(node.fits(1) && !node.fits(2));
    }

    #[test]
    fn an_image_is_pulled_once_or_for_every_pod() {
        let pulls = |pull| {
            let mut node = Node::new(Spec { pull, ..Spec::default() });
            [0, 4, 30].map(|second| node.image_ready_at(second * SECOND) / SECOND)
        };
        assert_eq!(pulls(Pull::Present), [0, 4, 30]);
        assert_eq!(pulls(Pull::First(20 * SECOND)), [20, 20, 30]);
        assert_eq!(pulls(Pull::Every(20 * SECOND)), [20, 24, 50]);
    }
}
