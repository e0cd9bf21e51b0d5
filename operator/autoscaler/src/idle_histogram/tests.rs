use proptest::prelude::*;

use super::*;

const COLD_START_COST: Duration = Duration::from_secs(60);
const TIMEOUT: Duration = Duration::from_secs(30);

fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(60 * minutes)
}

fn of(idles: &[(u64, u32)]) -> IdleHistogram {
    let mut histogram = IdleHistogram::default();
    for (seconds, times) in idles {
        for _ in 0..*times {
            histogram.record(Duration::from_secs(*seconds));
        }
    }
    histogram
}

#[test]
fn a_request_every_ten_minutes_opens_a_window_shortly_before() {
    let histogram = of(&[(595, 20), (604, 5)]);
    assert_eq!(
        histogram.prewarm_window(COLD_START_COST, TIMEOUT),
        Some(Window { from: minutes(9) - LEAD, until: minutes(11) })
    );
}

#[test]
fn short_idle_times_keep_the_pod() {
    let window = of(&[(40, 20), (100, 2), (20_000, 6)]).prewarm_window(COLD_START_COST, TIMEOUT).unwrap();
    assert_eq!(window.from, Duration::ZERO);
    assert_eq!(window.until, minutes(1), "two of eight idle times are not worth two more minutes");
}

#[test]
fn no_window_without_benefit() {
    assert_eq!(of(&[]).prewarm_window(COLD_START_COST, TIMEOUT), None);
    assert_eq!(of(&[(600, 4)]).prewarm_window(COLD_START_COST, TIMEOUT), None, "too few");
    assert!(of(&[(600, 5)]).prewarm_window(COLD_START_COST, TIMEOUT).is_some());
    assert_eq!(of(&[(90_000, 50)]).prewarm_window(COLD_START_COST, TIMEOUT), None, "beyond the bins");
    let spread: Vec<_> = (1..240).map(|minute| (60 * minute, 1)).collect();
    assert_eq!(of(&spread[..200]).prewarm_window(COLD_START_COST, TIMEOUT), None, "a uniform distribution");
    assert_eq!(
        of(&[(600, 4), (90_000, 1)]).prewarm_window(COLD_START_COST, TIMEOUT),
        None,
        "enough in total, too few in the window"
    );
    assert_eq!(of(&[(600, 20)]).prewarm_window(Duration::from_secs(20), TIMEOUT), None, "half a bin costs more");
}

#[test]
fn chooses_the_better_of_two_windows() {
    let histogram = of(&[(60 * 5 + 1, 5), (60 * 100 + 1, 17)]);
    assert_eq!(
        histogram.prewarm_window(COLD_START_COST, TIMEOUT),
        Some(Window { from: minutes(100) - LEAD, until: minutes(101) })
    );
}

#[test]
fn time_within_the_idle_timeout_costs_nothing() {
    let histogram = of(&[(70, 10), (20_000, 12)]);
    let short = histogram.prewarm_window(COLD_START_COST, minutes(1));
    assert_eq!(short, None, "a minute for each of 22 idle times costs more than ten starts: {short:?}");
    let long = histogram.prewarm_window(COLD_START_COST, Duration::from_secs(110)).unwrap();
    assert_eq!(long.until, minutes(2), "ten seconds for each of 22 idle times cost less");
    assert_eq!(of(&[(30, 10)]).prewarm_window(COLD_START_COST, minutes(1)), None, "no gain within the idle timeout");
}

#[test]
fn recent_idle_times_replace_old_ones() {
    let mut histogram = of(&[(600, 900)]);
    for _ in 0..3000 {
        histogram.record(minutes(30));
    }
    assert!(histogram.total() <= MOST);
    assert_eq!(histogram.prewarm_window(COLD_START_COST, TIMEOUT).unwrap().until, minutes(31));
}

#[test]
fn a_thousand_idle_times_have_full_weight() {
    let thousand = of(&[(600, 1000)]);
    assert_eq!((thousand.total(), thousand.to_string().parse()), (1000, Ok(thousand)));
    assert_eq!(of(&[(600, 1000), (20_000, 1)]).total(), 500);
}

#[test]
fn text_is_short_and_round_trips() {
    assert_eq!(IdleHistogram::default().to_string(), "1:=0");
    let histogram = of(&[(250, 12), (310, 3), (60 * 26, 1), (20_000, 7)]);
    assert_eq!(
        (histogram.to_string().as_str(), format!("{histogram:?}").as_str()),
        ("1:4.12,3;20.1;=7", "IdleHistogram(1:4.12,3;20.1;=7)")
    );
    assert_eq!(histogram.to_string().parse(), Ok(histogram));
    let full: Vec<_> = (0..239).map(|minute| (60 * minute, 4)).collect();
    assert!(of(&full).to_string().len() < 2048);
    assert_eq!(of(&[(60 * 239, 1)]).to_string().parse(), Ok(of(&[(60 * 239, 1)])));
}

#[test]
fn invalid_text_is_rejected() {
    for text in ["", "1:", "2:=0", "1:=-1", "1:=70000", "1:240.1;=0", "1:1;=0", "1:1.x;=0", "1:999.1;=0", "1:0.1001;=0"]
    {
        assert_eq!(text.parse::<IdleHistogram>(), Err(ParseIdleHistogramError), "{text}");
    }
    assert_eq!(ParseIdleHistogramError.to_string(), "not an idle-time histogram");
}

proptest! {
    #[test]
    fn any_histogram_round_trips_and_any_text_is_parsed_or_rejected(
        idles in prop::collection::vec(0u64..20_000, 0..300), text in "1:[0-9.,;=]{0,40}",
    ) {
        let histogram = of(&idles.iter().map(|idle| (*idle, 1)).collect::<Vec<_>>());
        prop_assert_eq!(histogram.to_string().parse(), Ok(histogram.clone()));
        if let Ok(histogram) = text.parse::<IdleHistogram>() {
            prop_assert!(histogram.total() <= MOST);
        }
        if let Some(window) = histogram.prewarm_window(COLD_START_COST, TIMEOUT) {
            prop_assert!(window.from < window.until && window.until <= minutes(240));
        }
    }

    /// No other window has a larger gain than the chosen one.
    #[test]
    fn the_window_has_the_largest_gain(idles in prop::collection::vec(60u64..1200, 5..60), from in 1u64..20, length in 1u64..10) {
        let histogram = of(&idles.iter().map(|idle| (*idle, 1)).collect::<Vec<_>>());
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
        let Some(window) = histogram.prewarm_window(COLD_START_COST, minutes(1)) else { return Ok(()) };
        let chosen = Some(window).map_or(0.0, |w| gain((w.from + LEAD).as_secs() / 60, w.until.as_secs() / 60));
        prop_assert!(chosen + 1e-6 >= tried, "{} < {}", chosen, tried);
    }
}
