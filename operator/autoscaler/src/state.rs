//! State of a revision between two decisions.

use std::time::Duration;

use crate::{
    Reason, history::History, idle_histogram::IdleHistogram, pod_starts::PodStarts, service_time::ServiceTime,
    throughput::Throughput, window_max::WindowMax,
};

/// A review that is later than due by more than this means that the machine was suspended or that the clock jumped. The
/// demand in between is not known.
const LATE: Duration = Duration::from_secs(10);

/// Start of the internal time, so that the time of the last request can lie before it.
const ORIGIN: Duration = Duration::from_secs(366 * 86_400);

/// State of a revision between two decisions. The operator keeps one per revision; a new one means that nothing is known
/// yet, as after a restart.
///
/// All times are in an internal, monotonic time, which advances by as much as the external clock advances.
#[derive(Clone, Debug)]
pub struct State {
    /// Last time of the external clock.
    external_time: Duration,
    /// The internal time.
    pub(crate) clock: Duration,
    /// When the next review of a load is due. `None` without load: a time without requests of any length is fully known.
    pub(crate) review: Option<Duration>,
    /// When observation started.
    pub(crate) observed_since: Duration,
    /// When a request was last queued, in a pod, or received and completed between two decisions. The start of observation
    /// while not known.
    pub(crate) last_active: Duration,
    /// Whether `last_active` is the time of a request.
    pub(crate) active_known: bool,
    /// Arrivals at the previous decision.
    pub(crate) arrivals: Option<u64>,
    /// Since when requests are queued while no pod serves.
    pub(crate) waiting_since: Option<Duration>,
    /// When requests were last queued.
    pub(crate) queued_at: Option<Duration>,
    pub(crate) service: ServiceTime,
    /// Pending pods and the pod start time.
    pub(crate) starts: PodStarts,
    /// Pods that were requested for the present queue.
    pub(crate) backlogged: Option<Backlog>,
    /// Throughput by number of pods.
    pub(crate) throughput: Throughput,
    /// The observed and the decided count of the previous decision.
    pub(crate) desired: Option<(u32, u32)>,
    pub(crate) history: History,
    /// Demand before this time is ignored by the stable window: it precedes a rise.
    pub(crate) evidence_from: Duration,
    /// When demand was last above the threshold of a sudden rise; `None` without a rise.
    pub(crate) rise: Option<Duration>,
    /// Maximum count for a rise, a backlog, or requests that wait for a first pod.
    pub(crate) peaks: WindowMax,
    /// Reason of the maximum in `peaks`.
    pub(crate) peak_reason: Reason,
    /// Maximum of the arrivals beyond the completions in one service time, while requests are queued.
    pub(crate) bursts: WindowMax,
    /// Maximum of the arrivals in one service time, while requests are queued.
    pub(crate) arrived: WindowMax,
    /// Maximum count for the stable average within the last stable window.
    pub(crate) stable_max: WindowMax,
    /// Maximum count within the last `scale_down_delay`.
    pub(crate) delayed_max: WindowMax,
    /// Whether a pod was starting at the previous decision, and none had served since the count was zero.
    pub(crate) starting: bool,
    /// Whether a pod was ready since the count was zero.
    pub(crate) was_ready: bool,
    /// `None` while no idle time is recorded.
    pub(crate) idle_histogram: Option<Box<IdleHistogram>>,
}

/// Pods that were requested for the present queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backlog {
    /// Time of the first request for pods, or of the last one before the service time was known.
    pub(crate) since: Duration,
    /// Maximum requested count.
    pub(crate) most: u32,
}

/// Measured pod start time and service time of a revision.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Learned {
    /// Time until a requested pod is ready.
    pub start: Option<Duration>,
    /// Service time: the seconds that a request spends in a pod.
    pub service: Option<f64>,
}

impl State {
    /// Creates an empty state; observation starts at `now`.
    #[must_use]
    pub fn new(now: Duration) -> Self {
        Self {
            external_time: now,
            clock: ORIGIN,
            review: None,
            observed_since: ORIGIN,
            last_active: ORIGIN,
            active_known: false,
            arrivals: None,
            waiting_since: None,
            queued_at: None,
            service: ServiceTime::default(),
            starts: PodStarts::default(),
            throughput: Throughput::default(),
            backlogged: None,
            desired: None,
            history: History::default(),
            evidence_from: Duration::ZERO,
            rise: None,
            peaks: WindowMax::default(),
            peak_reason: Reason::Panic,
            bursts: WindowMax::default(),
            arrived: WindowMax::default(),
            stable_max: WindowMax::default(),
            delayed_max: WindowMax::default(),
            starting: false,
            was_ready: false,
            idle_histogram: None,
        }
    }

    /// Creates a state from data that survived a restart: the idle-time histogram and, if known, the time since the last
    /// request.
    #[must_use]
    pub fn restored(now: Duration, histogram: IdleHistogram, idle: Option<Duration>) -> Self {
        let mut state = Self { idle_histogram: Some(Box::new(histogram)), ..Self::new(now) };
        if let Some(idle) = idle {
            state.last_active = state.clock.saturating_sub(idle);
            state.active_known = true;
        }
        state
    }

    /// Returns the time since the last request, as of the last decision.
    #[must_use]
    pub fn idle(&self) -> Duration {
        self.clock.saturating_sub(self.last_active)
    }

    /// Returns the idle-time histogram, to be persisted.
    #[must_use]
    pub fn idle_histogram(&self) -> Option<&IdleHistogram> {
        self.idle_histogram.as_deref()
    }

    /// Records that the decided count was written. If the observed count differs afterwards, another client changed it. A
    /// count above zero after a written zero is a wake from zero by an activator.
    pub fn wrote(&mut self, replicas: u32) {
        self.desired = Some((replicas, replicas));
    }

    /// Returns the measured start time and service time.
    #[must_use]
    pub fn learned(&self) -> Learned {
        Learned { start: self.starts.time(), service: self.service.mean() }
    }

    /// Assumes the measurements of another revision of the same Function where this revision has none.
    pub fn assume(&mut self, learned: Learned) {
        learned.start.into_iter().for_each(|time| self.starts.assume(time));
        learned.service.into_iter().for_each(|seconds| self.service.assume(seconds));
    }

    /// Records pods for expected requests, which are held like those of a rise.
    pub(crate) fn record_expected(&mut self, count: u32, span: Duration) {
        if count > self.peaks.max() {
            // The reason of an earlier maximum does not apply.
            self.peak_reason = Reason::Panic;
        }
        self.peaks.record(self.clock, count, span);
    }

    /// Records the count for a rise or a queue, and returns its maximum within `span`; `None` if there was none.
    pub(crate) fn record_peak(&mut self, count: u32, span: Duration) -> Option<u32> {
        if count == 0 && self.rise.is_none() {
            return None;
        }
        // Pods for a queue did not exceed a threshold, so they are held but not followed as a rise.
        self.rise.get_or_insert(Duration::ZERO);
        let max = self.peaks.record(self.clock, count, span);
        if max == 0 {
            self.rise = None;
            self.peaks.clear();
            return None;
        }
        Some(max)
    }

    /// Advances the internal time to `now` of the external clock. A clock that goes backwards does not change it.
    pub(crate) fn advance(&mut self, now: Duration) {
        self.clock = self.clock.saturating_add(now.saturating_sub(self.external_time));
        self.external_time = now;
        if self.review.is_some_and(|due| self.clock > due.saturating_add(LATE)) {
            // As after a restart: the present count is the minimum until a full window has been observed again.
            self.observed_since = self.clock;
            self.last_active = self.clock;
            self.active_known = false;
            (self.waiting_since, self.backlogged) = (None, None);
            self.rise = None;
            self.history = History::default();
            self.reset_demand();
        }
    }

    /// Converts an internal time to the external clock.
    pub(crate) fn to_external_time(&self, moment: Duration) -> Duration {
        self.external_time.saturating_add(moment.saturating_sub(self.clock))
    }

    /// Resets the demand of an idle revision and frees its memory. The newest sample is kept, which shows that there was no
    /// demand since.
    pub(crate) fn reset_demand(&mut self) {
        self.rise = None;
        self.evidence_from = Duration::ZERO;
        self.peaks.clear();
        self.bursts.clear();
        self.arrived.clear();
        self.throughput = Throughput::default();
        self.service.limit_weight();
        self.stable_max.clear();
        self.delayed_max.clear();
        self.history.keep_newest();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn internal_time_never_goes_backwards() {
        let mut state = State::new(at(100));
        state.advance(at(103));
        state.advance(at(3));
        assert_eq!(state.clock, ORIGIN + at(3));
        state.advance(at(5));
        assert_eq!(state.clock, ORIGIN + at(5));
        assert_eq!(state.to_external_time(state.clock + at(7)), at(12));
        assert_eq!(state.to_external_time(ORIGIN), at(5), "a past time is now");
        state.advance(Duration::MAX);
        assert_eq!(state.to_external_time(Duration::MAX), Duration::MAX);
    }

    #[test]
    fn a_review_that_is_much_too_late_restarts_observation() {
        let mut state = State::new(at(0));
        state.review = Some(ORIGIN + at(1));
        state.advance(at(11));
        assert_eq!((state.observed_since, state.last_active), (ORIGIN, ORIGIN));
        state.advance(Duration::from_millis(11_001));
        assert_eq!((state.observed_since, state.last_active), (state.clock, state.clock));
        let mut state = State::new(at(0));
        state.advance(at(100_000));
        assert_eq!(state.observed_since, ORIGIN, "no earlier review was due");
    }

    #[test]
    fn the_first_assumption_is_kept() {
        let mut state = State::new(at(0));
        assert_eq!(state.learned(), Learned::default());
        let learned = Learned { start: Some(at(20)), service: Some(0.5) };
        state.assume(learned);
        state.assume(Learned { start: Some(at(1)), service: Some(9.0) });
        assert_eq!(state.learned(), learned);
    }

    #[test]
    fn restores_the_histogram_and_the_idle_time() {
        let state = State::restored(at(1), IdleHistogram::default(), Some(at(4000)));
        assert_eq!((state.idle(), state.active_known), (at(4000), true));
        assert!(state.idle_histogram().is_some());
        let days = State::restored(at(1), IdleHistogram::default(), Some(at(300 * 86_400)));
        assert_eq!(days.idle(), at(300 * 86_400), "an idle time of 300 days is kept in full");
        let state = State::restored(at(1), IdleHistogram::default(), None);
        assert_eq!((state.idle(), state.active_known), (at(0), false));
        assert!(State::new(at(1)).idle_histogram().is_none());
    }
}
