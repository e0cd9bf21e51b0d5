//! What is remembered of a revision between two decisions.

use std::time::Duration;

use crate::{
    Reason,
    decide::{Backlog, Throughput},
    habits::Habits,
    history::History,
    peaks::Peaks,
    service::ServiceTime,
    starts::Starts,
};

/// A review of a load that comes so much later than it was asked for was not made by somebody who watched: the machine
/// slept, or a clock jumped. How long the load was there meanwhile is not known.
const LATE: Duration = Duration::from_secs(10);

/// Where time begins in here, so that there is a past to put a last request into.
const BEGINNING: Duration = Duration::from_secs(366 * 86_400);

/// What is remembered of a revision between two decisions. Kept by the caller, one for each revision; a fresh one means
/// that nothing is known yet, as after a restart.
///
/// Time in here is its own and only goes forward, by what the caller's clock has moved on. All other moments are of this
/// time.
#[derive(Clone, Debug)]
pub struct State {
    /// What the caller's clock said last.
    heard: Duration,
    /// The time in here.
    pub(crate) clock: Duration,
    /// When a load is to be looked at again. None while there is none: of a time without a call, however long, all is known.
    pub(crate) review: Option<Duration>,
    /// When this memory began.
    pub(crate) since: Duration,
    /// When a request was last there, waiting, in a pod, or come and gone since the decision before. At the beginning it
    /// is not known, so the beginning counts.
    pub(crate) last_active: Duration,
    /// Whether `last_active` is a request's and not a beginning's.
    pub(crate) active_known: bool,
    /// Arrivals at the decision before; none before the first.
    pub(crate) arrivals: Option<u64>,
    /// Since when requests have been waiting at each decision while no pod served.
    pub(crate) waiting_since: Option<Duration>,
    /// When requests were last queued.
    pub(crate) queued_at: Option<Duration>,
    /// How long a request spends in a pod.
    pub(crate) service: ServiceTime,
    /// Pods that are on their way, and how long they take.
    pub(crate) starts: Starts,
    /// Pods that were asked for because of the present queue.
    pub(crate) backlogged: Option<Backlog>,
    /// What more pods have brought.
    pub(crate) throughput: Throughput,
    /// Pods that were asked for at the decision before, and that it decided.
    pub(crate) desired: Option<(u32, u32)>,
    pub(crate) history: History,
    /// What was before this moment says nothing about now: demand has left it behind.
    pub(crate) evidence_from: Duration,
    /// While a sudden rise is on: when demand was last above the threshold.
    pub(crate) rise: Option<Duration>,
    /// What the rise wanted, or the backlog, or those that waited for a first pod.
    pub(crate) peaks: Peaks,
    /// Why the most of it was wanted.
    pub(crate) why: Reason,
    /// Requests beyond those that ended within one service time, while requests wait.
    pub(crate) bursts: Peaks,
    /// Requests that arrived within one, too.
    pub(crate) arrived: Peaks,
    /// What the average over the stable window wanted within the last such window.
    pub(crate) lasting: Peaks,
    /// What was wanted within the last `scale_down_delay`.
    pub(crate) delayed: Peaks,
    /// How long idle times were, if they are learned.
    pub(crate) habits: Option<Box<Habits>>,
}

/// What a revision's pods and requests have shown.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Learned {
    /// How long a pod takes to start.
    pub start: Option<Duration>,
    /// Seconds that a request spends in a pod.
    pub service: Option<f64>,
}

impl State {
    /// Nothing known, beginning `now`.
    #[must_use]
    pub fn new(now: Duration) -> Self {
        Self {
            heard: now,
            clock: BEGINNING,
            review: None,
            since: BEGINNING,
            last_active: BEGINNING,
            active_known: false,
            arrivals: None,
            waiting_since: None,
            queued_at: None,
            service: ServiceTime::default(),
            starts: Starts::default(),
            throughput: Throughput::default(),
            backlogged: None,
            desired: None,
            history: History::default(),
            evidence_from: Duration::ZERO,
            rise: None,
            peaks: Peaks::default(),
            why: Reason::Panic,
            bursts: Peaks::default(),
            arrived: Peaks::default(),
            lasting: Peaks::default(),
            delayed: Peaks::default(),
            habits: None,
        }
    }

    /// As [`State::new`], with what was kept over a restart: the habits, and how long ago the last request was, where that
    /// is known.
    #[must_use]
    pub fn restored(now: Duration, habits: Habits, idle: Option<Duration>) -> Self {
        let mut state = Self { habits: Some(Box::new(habits)), ..Self::new(now) };
        if let Some(idle) = idle {
            state.last_active = state.clock.saturating_sub(idle);
            state.active_known = true;
        }
        state
    }

    /// How long ago a request was last there, as of the last decision.
    #[must_use]
    pub fn idle(&self) -> Duration {
        self.clock.saturating_sub(self.last_active)
    }

    /// What was learned of idle times, to be kept over a restart.
    #[must_use]
    pub fn habits(&self) -> Option<&Habits> {
        self.habits.as_deref()
    }

    /// Takes in that `replicas` were written as they were decided. A count that is observed to differ from it afterwards is
    /// another's doing: one above zero after a zero is an activator's wake.
    pub fn wrote(&mut self, replicas: u32) {
        self.desired = Some((replicas, replicas));
    }

    /// What was learned of the revision's pods and requests.
    #[must_use]
    pub fn learned(&self) -> Learned {
        Learned { start: self.starts.time(), service: self.service.mean() }
    }

    /// Takes what was learned of another revision of the same Function for what is not known of this one yet.
    pub fn assume(&mut self, learned: Learned) {
        learned.start.into_iter().for_each(|time| self.starts.assume(time));
        learned.service.into_iter().for_each(|seconds| self.service.assume(seconds));
    }

    /// Takes in pods that are wanted for what is about to come, which is held as a rise.
    pub(crate) fn ask_for(&mut self, count: u32, span: Duration) {
        if count > self.peaks.most() {
            // Why others were wanted before says nothing of these.
            self.why = Reason::Panic;
        }
        self.peaks.note(self.clock, count, span);
    }

    /// Takes in what a rise or a queue wants now, and yields the most that either wanted within `span`; `None` if neither has
    /// wanted anything.
    pub(crate) fn hold(&mut self, count: u32, span: Duration) -> Option<u32> {
        if count == 0 && self.rise.is_none() {
            return None;
        }
        // What a queue adds was never over a threshold: it is not followed but only held.
        self.rise.get_or_insert(Duration::ZERO);
        let most = self.peaks.note(self.clock, count, span);
        if most == 0 {
            self.rise = None;
            self.peaks.forget();
            return None;
        }
        Some(most)
    }

    /// Moves time on to what the caller's clock says `now`. A clock that goes back does not move it.
    pub(crate) fn advance(&mut self, now: Duration) {
        self.clock = self.clock.saturating_add(now.saturating_sub(self.heard));
        self.heard = now;
        if self.review.is_some_and(|due| self.clock > due.saturating_add(LATE)) {
            // As after a restart: the present count is the floor until a window has been seen again.
            self.since = self.clock;
            self.last_active = self.clock;
            self.active_known = false;
            (self.waiting_since, self.backlogged) = (None, None);
            self.rise = None;
            self.history = History::default();
            self.rest();
        }
    }

    /// A moment of the time in here, by the caller's clock.
    pub(crate) fn by_caller(&self, moment: Duration) -> Duration {
        self.heard.saturating_add(moment.saturating_sub(self.clock))
    }

    /// Nobody calls: what was wanted is of no use any more, and takes no room. Of the counters the newest stays, so that it
    /// is known that there was nothing.
    pub(crate) fn rest(&mut self) {
        self.rise = None;
        self.evidence_from = Duration::ZERO;
        self.peaks.forget();
        self.bursts.forget();
        self.arrived.forget();
        self.throughput = Throughput::default();
        self.service.rest();
        self.lasting.forget();
        self.delayed.forget();
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
    fn time_in_here_never_goes_back() {
        let mut state = State::new(at(100));
        state.advance(at(103));
        state.advance(at(3));
        assert_eq!(state.clock, BEGINNING + at(3));
        state.advance(at(5));
        assert_eq!(state.clock, BEGINNING + at(5));
        assert_eq!(state.by_caller(state.clock + at(7)), at(12));
        assert_eq!(state.by_caller(BEGINNING), at(5), "what is over is now");
        state.advance(Duration::MAX);
        assert_eq!(state.by_caller(Duration::MAX), Duration::MAX);
    }

    #[test]
    fn who_comes_much_too_late_begins_anew() {
        let mut state = State::new(at(0));
        state.review = Some(BEGINNING + at(1));
        state.advance(at(11));
        assert_eq!((state.since, state.last_active), (BEGINNING, BEGINNING));
        state.advance(Duration::from_millis(11_001));
        assert_eq!((state.since, state.last_active), (state.clock, state.clock));
        let mut state = State::new(at(0));
        state.advance(at(100_000));
        assert_eq!(state.since, BEGINNING, "nobody asked it to come earlier");
    }

    #[test]
    fn what_is_assumed_gives_way_to_what_is_seen() {
        let mut state = State::new(at(0));
        assert_eq!(state.learned(), Learned::default());
        let learned = Learned { start: Some(at(20)), service: Some(0.5) };
        state.assume(learned);
        state.assume(Learned { start: Some(at(1)), service: Some(9.0) });
        assert_eq!(state.learned(), learned);
    }

    #[test]
    fn what_was_kept_over_a_restart() {
        let state = State::restored(at(1), Habits::default(), Some(at(4000)));
        assert_eq!((state.idle(), state.active_known), (at(4000), true));
        assert!(state.habits().is_some());
        let days = State::restored(at(1), Habits::default(), Some(at(300 * 86_400)));
        assert_eq!(days.idle(), at(300 * 86_400), "an idle time of most of a year is known in full");
        let state = State::restored(at(1), Habits::default(), None);
        assert_eq!((state.idle(), state.active_known), (at(0), false));
        assert!(State::new(at(1)).habits().is_none());
    }
}
