use proptest::prelude::*;

use super::*;

const STABLE: Duration = Duration::from_secs(60);
const PANIC: Duration = Duration::from_secs(6);

/// Creates a history of concurrency `levels` of one second each.
fn of(levels: &[u64]) -> History {
    let mut history = History::default();
    let mut demand = Demand::default();
    history.record(Duration::ZERO, &demand, STABLE, PANIC);
    for (second, level) in (1..).zip(levels) {
        demand.request_us += level * 1_000_000;
        demand.arrivals += level;
        history.record(Duration::from_secs(second), &demand, STABLE, PANIC);
    }
    history
}

#[test]
fn averages_over_the_window() {
    let mut levels = vec![0; 54];
    levels.extend([10; 6]);
    let history = of(&levels);
    assert!((history.average(PANIC).concurrency - 10.0).abs() < 1e-9);
    assert!((history.average(STABLE).concurrency - 1.0).abs() < 1e-9);
    assert!((history.average(PANIC).rps - 10.0).abs() < 1e-9);
}

#[test]
fn finds_the_first_point_after_a_time() {
    for length in 2..40u64 {
        // Some times twice, as from a clock that stood still; close together, far apart, or both.
        for at in [|n: u64| n / 3 * 4 + n % 3 * 2, |n| n * n, |n| 80 * u64::from(n > 3) + n, |n| n * 2] {
            let mut history = History::default();
            for n in 0..length {
                history.points.push_back(Point { at: at(n), request_us: 0, busy_us: 0, work: 0, completions: 0 });
            }
            for moment in 0..at(length - 1) {
                let plain = (0..length).filter(|n| at(*n) <= moment).count();
                assert_eq!(history.after(moment), plain, "{length} points, {moment}");
            }
        }
    }
}

#[test]
fn evenly_spaced_points_are_at_the_expected_index() {
    // Of the last sixty seconds.
    let history = of(&[1; 150]);
    for second in 0..60 {
        assert_eq!(history.expected(nanos(Duration::from_secs(90 + second))), second as usize);
        assert_eq!(history.expected(nanos(Duration::from_millis(90_000 + 1000 * second + 499))), second as usize);
    }
}

#[test]
fn a_short_history_is_averaged_over_its_length() {
    assert!((of(&[4, 4]).average(STABLE).concurrency - 4.0).abs() < 1e-9);
    assert_eq!(History::default().average(STABLE), Average::default());
}

#[test]
fn old_points_are_dropped_and_the_number_is_bounded() {
    let mut history = History::default();
    let mut demand = Demand::default();
    for step in 0..100_000u64 {
        demand.request_us += 3 * 10_000;
        history.record(Duration::from_millis(step * 10), &demand, Duration::from_secs(3600), Duration::from_secs(1));
        assert!(history.points.len() <= MAX_POINTS);
    }
    assert!((history.average(Duration::from_secs(600)).concurrency - 3.0).abs() < 0.01);
    assert!((history.average(Duration::from_secs(1)).concurrency - 3.0).abs() < 0.01);
}

#[test]
fn no_point_is_dropped_up_to_the_maximum() {
    let (mut history, mut demand) = (History::default(), Demand::default());
    for second in 0..MAX_POINTS as u64 {
        history.record(Duration::from_secs(second), &demand, Duration::from_secs(3600), PANIC);
        demand.request_us += 10_000_000 * (second % 2);
    }
    // Without the point between these two seconds, half of the second before would count.
    assert_eq!(history.average(Duration::from_secs(2)).concurrency, 5.0);
}

#[test]
fn the_point_before_the_newest_is_kept_for_any_window() {
    let mut history = History::default();
    for second in 0..3 {
        let demand = Demand { arrivals: 4 * second, ..Demand::default() };
        history.record(Duration::from_secs(second), &demand, Duration::ZERO, PANIC);
    }
    assert_eq!(history.average(PANIC).rps, 4.0);
}

#[test]
fn a_clock_that_goes_backwards_is_tolerated() {
    let mut history = of(&[5, 5, 5]);
    history.record(
        Duration::from_secs(1),
        &Demand { request_us: 15_000_000, arrivals: 15, ..Demand::default() },
        STABLE,
        PANIC,
    );
    assert!(history.average(PANIC).concurrency <= 5.0);
}

/// A plain reference implementation, with a linear search in a list.
#[derive(Default)]
struct Plain(Vec<(Duration, Demand)>);

impl Plain {
    fn record(&mut self, now: Duration, demand: &Demand, stable: Duration, panic: Duration) {
        let newest = self.0.last().map_or(now, |last| last.0.max(now));
        if let [.., (before, _), (last, _)] = self.0[..]
            && last - before < (panic / 16).min(FRAME)
        {
            self.0.pop();
        }
        self.0.push((newest, *demand));
        while self.0.len() > 2 && now.saturating_sub(self.0[1].0) >= stable {
            self.0.remove(0);
        }
        if self.0.len() > MAX_POINTS {
            let newest = self.0.len() - 1;
            let every_second = self.0.iter().enumerate().filter(|(n, _)| n % 2 == 0 || *n == newest);
            self.0 = every_second.map(|(_, point)| *point).collect();
        }
    }

    fn average(&self, window: Duration) -> Average {
        let (Some(first), Some(last)) = (self.0.first(), self.0.last()) else { return Average::default() };
        let from = last.0.saturating_sub(window).max(first.0);
        if last.0 == from {
            return Average::default();
        }
        let seconds = (last.0 - from).as_secs_f64().max(window.as_secs_f64().min(1.0));
        let (mut base, mut after, mut part) = (first.1, first.1, 0.0);
        for pair in self.0.windows(2) {
            if pair[0].0 <= from && from < pair[1].0 && from > first.0 {
                part = (from - pair[0].0).as_nanos() as f64 / (pair[1].0 - pair[0].0).as_nanos() as f64;
                (base, after) = (pair[0].1, pair[1].1);
            }
        }
        let rate = |unit: f64, of: &dyn Fn(&Demand) -> u64| {
            let then = of(&base) as f64 + (of(&after) as f64 - of(&base) as f64) * part;
            ((of(&last.1) as f64 - then) / unit / seconds).max(0.0)
        };
        let concurrency = rate(1e6, &|d| d.request_us);
        Average {
            concurrency,
            busy: rate(1e6, &|d| d.busy_us).min(concurrency),
            rps: rate(1.0, &|d| d.arrivals - d.abandoned),
            completions: rate(1.0, &|d| d.completions),
        }
    }
}

proptest! {
    /// Equal to the last bit: an average next to a threshold must lead to the same decision.
    #[test]
    fn averages_equal_those_of_a_plain_implementation(
        steps in prop::collection::vec((prop_oneof![8 => -50i64..400, 2 => 0i64..5_000, 1 => -20_000i64..90_000], 0u64..100), 1..700),
        even in any::<bool>(), stable in 1u64..120, panic in 1u64..20, rests in prop::option::of(0usize..700),
    ) {
        let (stable, panic) = (Duration::from_secs(stable), Duration::from_secs(panic.min(stable)));
        let (mut history, mut plain, mut demand, mut now) = (History::default(), Plain::default(), Demand::default(), 0i64);
        for (step, (millis, level)) in steps.into_iter().enumerate() {
            // At the interval of frames, or with jumps, gaps, and a clock that goes backwards.
            now = (now + if even { 250 } else { millis }).max(0);
            demand.request_us += level * 250_000;
            demand.busy_us += level / 2 * 250_000;
            demand.arrivals += level / 3;
            demand.abandoned += level / 9;
            demand.completions += level / 5;
            let at = Duration::from_millis(now.unsigned_abs());
            history.record(at, &demand, stable, panic);
            plain.record(at, &demand, stable, panic);
            if rests == Some(step) {
                history.keep_newest();
                plain.0.drain(..plain.0.len() - 1);
            }
            // Checking each step takes long, and an earlier error persists.
            let windows = [stable, panic, Duration::from_secs(1), Duration::from_millis(7 * level), Duration::MAX];
            for window in windows.into_iter().filter(|_| step % 8 == 0) {
                prop_assert_eq!(history.average(window), plain.average(window), "{:?} in {:?}", window, history);
            }
        }
    }

    #[test]
    fn beyond_the_maximum_averages_equal_those_of_a_plain_implementation(
        millis in prop::collection::vec(60u64..400, 1200), level in 1u64..50,
    ) {
        let (stable, panic) = (Duration::from_secs(3600), Duration::from_secs(1));
        let (mut history, mut plain, mut demand, mut now) = (History::default(), Plain::default(), Demand::default(), 0);
        for (step, millis) in (0..).zip(millis) {
            now += millis;
            demand.request_us += millis * (level + step % 7);
            let at = Duration::from_millis(now);
            history.record(at, &demand, stable, panic);
            plain.record(at, &demand, stable, panic);
            if step % 8 == 0 {
                let window = Duration::from_millis(now * (step % 11) / 10);
                prop_assert_eq!(history.average(window), plain.average(window));
            }
        }
    }
}

#[test]
fn arrivals_within_milliseconds_are_averaged_over_a_second() {
    let mut history = History::default();
    let note = |history: &mut History, millis, request_us, arrivals| {
        let demand = Demand { arrivals, request_us, ..Demand::default() };
        history.record(Duration::from_millis(millis), &demand, STABLE, PANIC);
    };
    note(&mut history, 0, 0, 0);
    note(&mut history, 5, 2_000_000, 4);
    let average = history.average(PANIC);
    assert!((average.concurrency - 2.0).abs() < 1e-9 && (average.rps - 4.0).abs() < 1e-9, "{average:?}");
    let asked = history.average(Duration::from_millis(5));
    assert!((asked.concurrency - 400.0).abs() < 1e-6, "a window that is shorter is meant to be: {asked:?}");
    note(&mut history, 2000, 4_000_000, 4);
    let average = history.average(PANIC);
    assert!((average.concurrency - 2.0).abs() < 1e-9 && (average.rps - 2.0).abs() < 1e-9, "{average:?}");
}
