use proptest::prelude::*;

use super::*;

const PRICE: Duration = Duration::from_secs(60);
const TIMEOUT: Duration = Duration::from_secs(30);

fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(60 * minutes)
}

fn of(idles: &[(u64, u32)]) -> Habits {
    let mut habits = Habits::default();
    for (seconds, times) in idles {
        for _ in 0..*times {
            habits.record(Duration::from_secs(*seconds));
        }
    }
    habits
}

#[test]
fn a_call_every_ten_minutes_is_awaited_shortly_before() {
    let habits = of(&[(595, 20), (604, 5)]);
    assert_eq!(habits.paying(PRICE, TIMEOUT), Some(Window { from: minutes(9) - LEAD, until: minutes(11) }));
    let published = habits.published().unwrap();
    assert_eq!(published, Window { from: minutes(9) * 9 / 10, until: minutes(11) * 11 / 10 });
}

#[test]
fn short_idle_times_keep_the_pod() {
    let window = of(&[(40, 20), (100, 2), (20_000, 6)]).paying(PRICE, TIMEOUT).unwrap();
    assert_eq!(window.from, Duration::ZERO);
    assert_eq!(window.until, minutes(1), "two of eight are not worth two more minutes");
}

#[test]
fn what_never_pays_is_left_to_the_idle_timeout() {
    assert_eq!(of(&[]).paying(PRICE, TIMEOUT), None);
    assert_eq!(of(&[(600, 4)]).paying(PRICE, TIMEOUT), None, "too few");
    assert!(of(&[(600, 5)]).paying(PRICE, TIMEOUT).is_some());
    assert_eq!(of(&[(90_000, 50)]).paying(PRICE, TIMEOUT), None, "beyond the bins");
    let spread: Vec<_> = (1..240).map(|minute| (60 * minute, 1)).collect();
    assert_eq!(of(&spread[..200]).paying(PRICE, TIMEOUT), None, "any minute is as likely as any other");
    assert_eq!(of(&[(600, 4), (90_000, 1)]).paying(PRICE, TIMEOUT), None, "enough, but not of these");
    assert_eq!(of(&[(600, 20)]).paying(Duration::from_secs(20), TIMEOUT), None, "half a bin costs more");
}

#[test]
fn the_better_of_two_stretches_is_taken() {
    let habits = of(&[(60 * 5 + 1, 5), (60 * 100 + 1, 17)]);
    assert_eq!(habits.paying(PRICE, TIMEOUT), Some(Window { from: minutes(100) - LEAD, until: minutes(101) }));
}

#[test]
fn the_idle_timeout_costs_nothing_more() {
    let habits = of(&[(70, 10), (20_000, 12)]);
    let short = habits.paying(PRICE, minutes(1));
    assert_eq!(short, None, "a minute for each of 22 is more than ten starts: {short:?}");
    let long = habits.paying(PRICE, Duration::from_secs(110)).unwrap();
    assert_eq!(long.until, minutes(2), "ten seconds for each of 22 are less");
    assert_eq!(of(&[(30, 10)]).paying(PRICE, minutes(1)), None, "and it gains nothing that it would not");
}

#[test]
fn published_only_when_representative() {
    assert_eq!(of(&[(600, 4)]).published(), None, "too few");
    assert!(of(&[(600, 5)]).published().is_some());
    assert_eq!(of(&[(600, 5), (90_000, 5)]).published(), None, "half are beyond");
    // Evenly in so many of 240 bins, the coefficient of variation is the root of 240 / bins - 1.
    let in_bins = |bins: u64| of(&(0..bins).map(|minute| (60 * minute, 4)).collect::<Vec<_>>()).published();
    assert!(in_bins(47).is_some());
    assert_eq!([in_bins(48), in_bins(49)], [None, None]);
    assert!(of(&[(600, 6), (90_000, 5)]).published().is_some());
    let even: Vec<_> = (0..240).map(|minute| (60 * minute, 2)).collect();
    assert_eq!(of(&even).published(), None, "spread evenly");
    let short = of(&[(5, 99), (600, 1)]).published().unwrap();
    assert_eq!(short, Window { from: Duration::ZERO, until: minutes(1) * 11 / 10 }, "the head is in the first bin");
}

#[test]
fn a_new_habit_replaces_an_old_one() {
    let mut habits = of(&[(600, 900)]);
    for _ in 0..3000 {
        habits.record(minutes(30));
    }
    assert!(habits.total() <= MOST);
    assert_eq!(habits.paying(PRICE, TIMEOUT).unwrap().until, minutes(31));
}

#[test]
fn a_thousand_count_in_full() {
    let thousand = of(&[(600, 1000)]);
    assert_eq!((thousand.total(), thousand.to_string().parse()), (1000, Ok(thousand)));
    assert_eq!(of(&[(600, 1000), (20_000, 1)]).total(), 500);
}

#[test]
fn its_text_is_short_and_read_back() {
    assert_eq!(Habits::default().to_string(), "1:=0");
    let habits = of(&[(250, 12), (310, 3), (60 * 26, 1), (20_000, 7)]);
    assert_eq!(
        (habits.to_string().as_str(), format!("{habits:?}").as_str()),
        ("1:4.12,3;20.1;=7", "Habits(1:4.12,3;20.1;=7)")
    );
    assert_eq!(habits.to_string().parse(), Ok(habits));
    let full: Vec<_> = (0..239).map(|minute| (60 * minute, 4)).collect();
    assert!(of(&full).to_string().len() < 2048);
    assert_eq!(of(&[(60 * 239, 1)]).to_string().parse(), Ok(of(&[(60 * 239, 1)])));
}

#[test]
fn what_is_no_record_is_refused() {
    for text in ["", "1:", "2:=0", "1:=-1", "1:=70000", "1:240.1;=0", "1:1;=0", "1:1.x;=0", "1:999.1;=0", "1:0.1001;=0"]
    {
        assert_eq!(text.parse::<Habits>(), Err(NotHabits), "{text}");
    }
    assert_eq!(NotHabits.to_string(), "not a record of idle times");
}

proptest! {
    #[test]
    fn any_record_is_read_back_and_any_text_is_read_or_refused(
        idles in prop::collection::vec(0u64..20_000, 0..300), text in "1:[0-9.,;=]{0,40}",
    ) {
        let habits = of(&idles.iter().map(|idle| (*idle, 1)).collect::<Vec<_>>());
        prop_assert_eq!(habits.to_string().parse(), Ok(habits.clone()));
        if let Ok(habits) = text.parse::<Habits>() {
            prop_assert!(habits.total() <= MOST);
        }
        for window in [habits.published(), habits.paying(PRICE, TIMEOUT)].into_iter().flatten() {
            prop_assert!(window.from < window.until && window.until <= minutes(240) * 11 / 10);
        }
    }

    /// No window that is tried by hand gains more than the one that is chosen.
    #[test]
    fn the_window_is_the_best(idles in prop::collection::vec(60u64..1200, 5..60), from in 1u64..20, length in 1u64..10) {
        let habits = of(&idles.iter().map(|idle| (*idle, 1)).collect::<Vec<_>>());
        let gain = |from: u64, until: u64| {
            let mut gain = 0.0;
            for bin in from..until {
                let ended = idles.iter().filter(|idle| **idle / 60 == bin).count() as f64;
                let left = idles.iter().filter(|idle| **idle / 60 >= bin).count() as f64;
                gain += 60.0 * ended - 60.0 * (left - ended / 2.0);
            }
            gain
        };
        let tried = gain(from, from + length);
        let Some(window) = habits.paying(PRICE, minutes(1)) else { return Ok(()) };
        let chosen = Some(window).map_or(0.0, |w| gain((w.from + LEAD).as_secs() / 60, w.until.as_secs() / 60));
        prop_assert!(chosen + 1e-6 >= tried, "{} < {}", chosen, tried);
    }
}
