use proptest::prelude::*;

use super::*;

const HOUR: i64 = 3600;

/// Returns the Unix time of a UTC time in 2026; `day` is the day of the year from 0.
fn at(day: i64, hour: i64, minute: i64) -> i64 {
    (20_454 + day) * DAY + hour * HOUR + minute * 60
}

/// The daylight saving time changes of Berlin in 2026, at 01:00 UTC: the 29th of March and the 25th of October.
const SPRING: i64 = 87;
const AUTUMN: i64 = 297;

/// Offset of Europe/Berlin in 2026.
fn berlin(unix: i64) -> i32 {
    if (at(SPRING, 1, 0)..at(AUTUMN, 1, 0)).contains(&unix) { 7200 } else { 3600 }
}

fn schedule<Z>(cron: &str, zone: Z, minutes: u64, min: u32) -> Schedule<Z> {
    Schedule { cron: cron.parse().unwrap(), zone, duration: Duration::from_secs(60 * minutes), min }
}

/// Returns the windows of a schedule in a time span, found from change to change.
fn windows<Z: Zone + Copy>(schedule: Schedule<Z>, from: i64, to: i64) -> Vec<(i64, i64)> {
    let (mut windows, mut now, mut begun) = (Vec::new(), from, None);
    while now < to {
        let active = active(&[schedule], now);
        assert!(active.until > now && active.until <= now + DAY);
        match (begun, active.min) {
            (None, 1..) => begun = Some(now),
            (Some(since), 0) => {
                windows.push((since, now));
                begun = None;
            }
            _ => {}
        }
        now = active.until;
    }
    windows
}

#[test]
fn a_window_begins_and_ends() {
    // The first of January 2026 was a Thursday.
    let schedules = [schedule("30 8 * * 1-5", Utc, 90, 4)];
    let active = |unix| active(&schedules, unix);
    assert_eq!(active(at(0, 8, 29)), Active { min: 0, until: at(0, 8, 30) });
    assert_eq!(active(at(0, 8, 30) - 1), Active { min: 0, until: at(0, 8, 30) });
    assert_eq!(active(at(0, 8, 30)), Active { min: 4, until: at(0, 10, 0) });
    assert_eq!(active(at(0, 10, 0) - 1), Active { min: 4, until: at(0, 10, 0) });
    assert_eq!(active(at(0, 10, 0)), Active { min: 0, until: at(1, 8, 30) });
    assert_eq!(active(at(1, 20, 0)), Active { min: 0, until: at(2, 20, 0) }, "no more than a day ahead");
    assert_eq!(super::active::<Utc>(&[], 5), Active { min: 0, until: 5 + DAY });
}

#[test]
fn the_maximum_of_the_active_schedules() {
    let schedules = [schedule("0 8 * * *", Utc, 240, 2), schedule("0 9 * * *", Utc, 60, 7)];
    let steps = [(at(0, 8, 0), 2), (at(0, 9, 0), 7), (at(0, 10, 0), 2), (at(0, 12, 0), 0), (at(1, 8, 0), 2)];
    for pair in steps.windows(2) {
        assert_eq!(active(&schedules, pair[0].0), Active { min: pair[0].1, until: pair[1].0 });
    }
}

#[test]
fn overlapping_windows_merge() {
    let hourly = schedule("0 * * * *", Utc, 90, 1);
    assert_eq!(windows(hourly, at(0, 0, 0), at(30, 0, 0)), []);
    assert_eq!(active(&[hourly], at(0, 0, 5)).min, 1);
    let touching = schedule("0 8,9 * * *", Utc, 60, 1);
    assert_eq!(windows(touching, at(0, 0, 0), at(1, 0, 0)), [(at(0, 8, 0), at(0, 10, 0))]);
}

#[test]
fn a_day_in_summer_and_one_in_winter() {
    let office = schedule("0 9 * * *", berlin, 60, 1);
    assert_eq!(windows(office, at(10, 0, 0), at(11, 0, 0)), [(at(10, 8, 0), at(10, 9, 0))]);
    assert_eq!(windows(office, at(200, 0, 0), at(201, 0, 0)), [(at(200, 7, 0), at(200, 8, 0))]);
}

#[test]
fn a_skipped_minute_starts_at_the_clock_change() {
    for cron in ["0 2 * * *", "30 2 * * *", "59 2 * * *"] {
        let found = windows(schedule(cron, berlin, 60, 1), at(SPRING, 0, 0), at(SPRING, 12, 0));
        assert_eq!(found, [(at(SPRING, 1, 0), at(SPRING, 2, 0))], "{cron}");
    }
    for (cron, begin) in
        [("59 1 * * *", at(SPRING, 0, 59)), ("0 3 * * *", at(SPRING, 1, 0)), ("1 3 * * *", at(SPRING, 1, 1))]
    {
        let found = windows(schedule(cron, berlin, 60, 1), at(SPRING, 0, 0), at(SPRING, 12, 0));
        assert_eq!(found, [(begin, begin + HOUR)], "{cron}");
    }
}

#[test]
fn a_repeated_minute_starts_two_windows() {
    let found = windows(schedule("30 2 * * *", berlin, 10, 1), at(AUTUMN, 0, 0), at(AUTUMN, 12, 0));
    let begins = [at(AUTUMN, 0, 30), at(AUTUMN, 1, 30)];
    assert_eq!(found, begins.map(|begin| (begin, begin + 600)));
    let covered = windows(schedule("0 2 * * *", berlin, 60, 1), at(AUTUMN, -1, 0), at(AUTUMN, 12, 0));
    assert_eq!(covered, [(at(AUTUMN, 0, 0), at(AUTUMN, 2, 0))], "all that the wall shows from two to three");
    let before = windows(schedule("59 1 * * *", berlin, 1, 1), at(AUTUMN, -1, 0), at(AUTUMN, 12, 0));
    assert_eq!(before, [(at(AUTUMN, -1, 59), at(AUTUMN, 0, 0))]);
}

#[test]
fn a_start_after_a_clock_change_is_found_from_before_it() {
    let early = schedule("30 1 * * *", berlin, 10, 1);
    assert_eq!(active(&[early], at(SPRING, 0, 45)), Active { min: 0, until: at(SPRING, 23, 30) });
}

#[test]
fn a_minute_after_a_backward_change_starts_at_its_second_occurrence() {
    let late = schedule("0 3 * * *", berlin, 10, 1);
    assert_eq!(active(&[late], at(AUTUMN, 0, 30)), Active { min: 0, until: at(AUTUMN, 2, 0) });
}

#[test]
fn a_duration_is_elapsed_time() {
    // Eight hours from 22:00: an offset change in between moves the end in local time.
    let night = schedule("0 22 * * *", berlin, 480, 1);
    let found = windows(night, at(SPRING - 1, 12, 0), at(SPRING, 12, 0));
    assert_eq!(found, [(at(SPRING - 1, 21, 0), at(SPRING, 5, 0))]);
    let found = windows(night, at(AUTUMN - 1, 12, 0), at(AUTUMN, 12, 0));
    assert_eq!(found, [(at(AUTUMN - 1, 20, 0), at(AUTUMN, 4, 0))]);
}

#[test]
fn a_window_that_started_at_or_before_a_change_is_found_much_later() {
    // 400 hours, across the change.
    let long = schedule("0 12 20 3 *", berlin, 24_000, 1);
    let begin = at(78, 11, 0);
    for unix in [begin, at(SPRING, 0, 59), at(SPRING, 1, 0), begin + 400 * HOUR - 1] {
        assert_eq!(active(&[long], unix).min, 1, "{unix}");
    }
    assert_eq!(active(&[long], begin - 1).min + active(&[long], begin + 400 * HOUR).min, 0);
    // Started by the change itself, evaluated at its last second.
    let skipped = schedule("30 2 29 3 *", berlin, 120, 1);
    assert_eq!(active(&[skipped], at(SPRING, 3, 0) - 1), Active { min: 1, until: at(SPRING, 3, 0) });
    assert_eq!(active(&[skipped], at(SPRING, 3, 0)).min, 0);
}

#[test]
fn a_zone_may_skip_a_day() {
    // As in Samoa: from UTC-10 to UTC+14, which skips one calendar day.
    let zone = |unix: i64| if unix < at(10, 10, 0) { -36_000 } else { 50_400 };
    let found = windows(schedule("0 12 * * *", zone, 60, 1), at(9, 0, 0), at(13, 0, 0));
    // Noon of the skipped day is the time of the change; noon of the days around it is noon.
    let begins = [at(9, 22, 0), at(10, 10, 0), at(10, 22, 0), at(11, 22, 0), at(12, 22, 0)];
    assert_eq!(found, begins.map(|begin| (begin, begin + HOUR)));
}

#[test]
fn odd_durations() {
    assert_eq!(active(&[schedule("* * * * *", Utc, 0, 3)], at(0, 0, 0)).min, 0);
    let second = Schedule { duration: Duration::from_millis(1999), ..schedule("0 0 * * *", Utc, 0, 3) };
    assert_eq!(windows(second, at(0, 0, 0), at(0, 5, 0)), [(at(0, 0, 0), at(0, 0, 0) + 1)]);
    let ever = Schedule { duration: Duration::MAX, ..schedule("0 0 29 2 *", Utc, 0, 3) };
    // The 29th of February 2024, and the first of March 2025.
    let leap = 19_782 * DAY;
    assert_eq!(active(&[ever], leap + 366 * DAY - 1), Active { min: 3, until: leap + 366 * DAY });
    assert_eq!(active(&[ever], leap + 366 * DAY).min, 0);
    for unix in [i64::MIN, i64::MAX] {
        assert_eq!(active(&[schedule("0 0 1 1 *", berlin, 5, 3)], unix).until, unix.signum() * FARTHEST + DAY);
    }
}

proptest! {
    /// Evaluation from change to change agrees with evaluation of every minute, in a zone with two offset changes.
    #[test]
    fn the_result_is_constant_until_the_reported_time(
        minute in 0u32..60, hours in "([0-9]|1[0-9]|2[0-3])|\\*|\\*/[1-9]", minutes in 1u64..3000,
        there in 0i64..2000, back in 4000i64..6000, shift in prop::sample::select(vec![-7200, -3600, -1800, 1800, 3600, 7200]),
    ) {
        let begin = at(100, 0, 0);
        let zone = |unix: i64| if (begin + there * 60..begin + back * 60).contains(&unix) { 3600 + shift } else { 3600 };
        let schedules = [schedule(&format!("{minute} {hours} * * *"), zone, minutes, 1)];
        let mut now = begin - DAY;
        while now < begin + 5 * DAY {
            let Active { min, until } = active(&schedules, now);
            let mut between = now;
            while between < until {
                prop_assert_eq!(active(&schedules, between).min, min, "at {} from {}", between, now);
                between += 3540;
            }
            prop_assert_eq!(active(&schedules, until - 1).min, min, "before {} from {}", until, now);
            now = until;
        }
    }
}
