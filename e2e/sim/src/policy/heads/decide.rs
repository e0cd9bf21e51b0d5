//! The decision: averages of concurrency over three windows, divided by the target.

use std::time::Duration;

use super::{history::History, peaks::Peaks};
use crate::scaler::View;

/// Fraction of a pod that is ignored when rounding up.
const SLACK: f64 = 0.01;

/// The shortest window.
const SWIFT: Duration = Duration::from_secs(1);

/// Time between two decisions while nothing but time changes the averages.
const REVIEW: Duration = Duration::from_secs(1);

/// The same while concurrency exceeds the pods.
const HURRY: Duration = Duration::from_millis(250);

/// Threshold of the one-second average: a multiple of the ready pods, and a multiple of the random variation above them.
const SWIFT_THRESHOLD: (f64, f64) = (2.0, 3.0);

/// The same for a panic window.
const PANIC_THRESHOLD: (f64, f64) = (1.4, 1.0);

/// How long the one-second average is followed after demand exceeded a threshold.
const FOLLOW: Duration = SWIFT.saturating_mul(2);

/// A standing queue adds one pod, or one per this number of pods.
const QUEUE_PART: u32 = 8;

/// Margin by which a lower average is clearly lower, in pods, for one pod.
const MARGIN: f64 = 0.1;

/// Start of the internal time, so that there is a past before the first request.
const BEGINNING: Duration = Duration::from_secs(366 * 86_400);

/// Scaling settings of the Function.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setting {
    pub(super) max: u32,
    /// Target per pod, more than 0.
    pub(super) target: f64,
    pub(super) idle_timeout: Duration,
    pub(super) stable_window: Duration,
    pub(super) panic_window: Duration,
}

impl Setting {
    /// How long the count of a rise is held.
    fn hold(&self) -> Duration {
        self.idle_timeout.min(self.stable_window).max(self.panic_window)
    }
}

/// State between two decisions.
#[derive(Clone, Debug)]
pub(super) struct State {
    clock: Duration,
    last_active: Duration,
    arrivals: Option<u64>,
    queued_since: Option<Duration>,
    /// The observed and the decided count of the previous decision.
    desired: Option<(u32, u32)>,
    history: History,
    /// Demand before this time is ignored.
    evidence_from: Duration,
    /// When demand was last above the threshold; `None` without a rise.
    rise: Option<Duration>,
    peaks: Peaks,
    /// Counts for the stable average within the last stable window.
    lasting: Peaks,
    /// Count for the load at the previous decision.
    served: u32,
}

impl State {
    pub(super) fn new() -> Self {
        Self {
            clock: BEGINNING,
            last_active: BEGINNING,
            arrivals: None,
            queued_since: None,
            desired: None,
            history: History::default(),
            evidence_from: Duration::ZERO,
            rise: None,
            peaks: Peaks::default(),
            lasting: Peaks::default(),
            served: 0,
        }
    }

    pub(super) fn wrote(&mut self, replicas: u32) {
        self.desired = Some((replicas, replicas));
    }

    fn idle(&self) -> Duration {
        self.clock.saturating_sub(self.last_active)
    }

    fn rest(&mut self) {
        self.rise = None;
        self.evidence_from = Duration::ZERO;
        self.peaks.forget();
        self.lasting.forget();
        self.served = 0;
        self.history.keep_newest();
    }
}

/// Demand in pods.
#[derive(Clone, Copy, Debug)]
struct Loads {
    stable: f64,
    panic: f64,
    swift: f64,
    at_once: f64,
}

impl Loads {
    fn of(view: &View<'_>, setting: &Setting, state: &State) -> Self {
        let telling = state.clock.saturating_sub(state.evidence_from).max(setting.panic_window);
        let over = |window| state.history.average(window) / setting.target;
        Self {
            stable: over(setting.stable_window.min(telling)),
            panic: over(setting.panic_window),
            swift: over(SWIFT.min(setting.panic_window)),
            at_once: view.concurrency() as f64 / setting.target,
        }
    }
}

/// Returns how many pods are wanted and when to decide again.
pub(super) fn decide(view: &View<'_>, setting: &Setting, state: &mut State) -> (u32, Option<Duration>) {
    let at = BEGINNING + Duration::from_micros(view.now);
    state.clock = at;
    let busy = view.concurrency() > 0;
    let active = record_activity(view, setting, state);
    state.history.record(at, view.request_us, setting.stable_window, setting.panic_window);
    let loads = Loads::of(view, setting, state);

    let idle = !busy && state.idle() >= setting.idle_timeout;
    let mut replicas = if idle {
        state.rest();
        0
    } else {
        serve(view, setting, state, &loads)
    };
    // The idle timeout keeps the last pod; from zero, only a request starts one.
    if !idle && replicas <= 1 && !busy {
        replicas = u32::from(active || view.desired > 0);
    }
    if replicas == 0 && active {
        replicas = 1;
    }
    replicas = replicas.min(setting.max);

    let quiet = view.desired <= 1 && state.rise.is_none() && pods(loads.stable) <= 1 && state.served <= 1;
    let review = if idle || (!busy && quiet) {
        None
    } else {
        let short = busy && loads.at_once > f64::from(view.desired) && replicas < setting.max;
        Some(at + if short { HURRY } else { REVIEW })
    };
    let idle_at = state.last_active + setting.idle_timeout;
    let due = if busy || idle { review } else { Some(review.map_or(idle_at, |review| review.min(idle_at))) };
    state.desired = Some((view.desired, replicas));
    (replicas, due.map(|due| due.saturating_sub(BEGINNING)))
}

/// Records activity. Returns whether there is a request, or was one since the previous decision.
fn record_activity(view: &View<'_>, setting: &Setting, state: &mut State) -> bool {
    let at = state.clock;
    let active = view.concurrency() > 0 || state.arrivals.is_some_and(|before| before != view.arrivals);
    let woken = view.desired > 0 && state.desired == Some((0, 0));
    if active || woken {
        state.last_active = at;
    }
    if woken {
        state.rise = Some(at);
        state.peaks.note(at, view.desired, setting.hold());
    }
    state.arrivals = Some(view.arrivals);
    if view.queued > 0 {
        state.queued_since.get_or_insert(at);
    } else {
        state.queued_since = None;
    }
    active
}

fn serve(view: &View<'_>, setting: &Setting, state: &mut State, loads: &Loads) -> u32 {
    let mut replicas = steady(view, setting, state, loads);
    if let Some(count) = rise(view, setting, replicas, state, loads) {
        replicas = replicas.max(count);
    }
    state.served = replicas;
    // Until a full window has been observed, the present count is the minimum.
    if state.clock - BEGINNING < setting.stable_window { replicas.max(view.desired) } else { replicas }
}

/// Pods for the stable average: up at once, down only if it is clearly lower or was for a whole window.
fn steady(view: &View<'_>, setting: &Setting, state: &mut State, loads: &Loads) -> u32 {
    let plain = pods(loads.stable);
    let lasting = state.lasting.note(state.clock, plain, setting.stable_window);
    if plain >= view.desired {
        return plain;
    }
    let clear = pods(loads.stable + MARGIN * loads.stable.max(1.0).sqrt());
    clear.min(lasting).min(view.desired).max(plain)
}

/// Pods for a rise in progress, if any: the count of the short windows, held for a limited time.
fn rise(view: &View<'_>, setting: &Setting, steady: u32, state: &mut State, loads: &Loads) -> Option<u32> {
    let at = state.clock;
    let waiting = view.pods.ready() == 0 && view.concurrency() > 0;
    let ready = f64::from(view.pods.ready().max(1));
    let chance = (ready / setting.target).sqrt();
    let beyond = |load: f64, (times, chances): (f64, f64)| load >= times * ready && load >= ready + chances * chance;
    if waiting || beyond(loads.swift, SWIFT_THRESHOLD) || beyond(loads.panic, PANIC_THRESHOLD) {
        state.rise = Some(at);
    }
    let mut count = 0;
    if state.rise.is_some_and(|last| at.saturating_sub(last) <= FOLLOW) {
        let at_once = if waiting { loads.at_once } else { 0.0 };
        count = pods(loads.swift.max(loads.panic).max(at_once));
        if count > state.peaks.most() {
            state.evidence_from = at.saturating_sub(SWIFT);
        }
    }
    count = count.max(queue(view, steady, state, loads));
    if count == 0 && state.rise.is_none() {
        return None;
    }
    state.rise.get_or_insert(Duration::ZERO);
    let most = state.peaks.note(at, count, setting.hold());
    if most == 0 {
        state.rise = None;
        state.peaks.forget();
        return None;
    }
    Some(most)
}

/// Pods for a standing queue, added each second that it stands.
fn queue(view: &View<'_>, steady: u32, state: &mut State, loads: &Loads) -> u32 {
    let stays = state.queued_since.is_some_and(|since| state.clock.saturating_sub(since) >= SWIFT);
    let wanted = pods(loads.swift);
    if !stays || wanted <= view.desired.min(steady) {
        return 0;
    }
    state.queued_since = Some(state.clock);
    wanted.min(view.desired.saturating_add((view.desired / QUEUE_PART).max(1)))
}

/// Whole pods for a load.
fn pods(load: f64) -> u32 {
    (load - SLACK).ceil() as u32
}
