use super::*;

/// The config of the published tests.
fn config(target: f64) -> Config {
    Config { target, max_scale_up_rate: 10.0, max_scale_down_rate: 10.0, ..Config::default() }
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn averages(stable: f64, panic: f64) -> Averages {
    Averages { stable, panic }
}

/// One tick of a new revision: stable and panic average, ready pods, and the published count.
#[test]
fn published_single_ticks() {
    let panicking = |most| State { panic: Some(at(95)), most, ..State::new(at(0), 1) };
    let rate = |up, down| Config { max_scale_up_rate: up, max_scale_down_rate: down, ..config(10.0) };
    let calm = || State::new(at(0), 1);
    let cases = [
        ("nothing", config(10.0), calm(), averages(0.0, 0.0), 1, 0),
        ("a part of a pod", config(181.0), calm(), averages(21.0, 26.0), 1, 1),
        ("stable", config(10.0), calm(), averages(50.0, 49.0), 1, 5),
        ("already there", config(10.0), calm(), averages(50.0, 50.0), 5, 5),
        ("stable above panic in a panic", config(1.0), panicking(5), averages(50.0, 30.0), 5, 50),
        ("stable below panic in a panic", config(1.0), panicking(5), averages(20.0, 30.0), 5, 30),
        ("a small rate up still adds one", Config { target: 1.0, ..rate(1.1, 10.0) }, calm(), averages(3.0, 3.1), 2, 3),
        ("a small rate down still takes some", rate(10.0, 1.1), calm(), averages(1.0, 1.0), 100, 90),
        ("no traffic, no rate", Config { reachable: false, ..rate(10.0, 1.1) }, calm(), averages(1.0, 1.0), 100, 1),
        ("panic takes precedence", config(10.0), calm(), averages(50.0, 100.0), 1, 10),
        ("whole pods are over the threshold", config(10.0), calm(), averages(10.0, 11.0), 1, 2),
        ("up is limited", config(10.0), calm(), averages(1000.0, 1001.0), 1, 10),
        ("up is limited from ten", config(10.0), calm(), averages(1000.0, 1001.0), 10, 100),
        ("down is limited", config(10.0), calm(), averages(1.0, 1.0), 100, 10),
        ("down is limited from ten", config(10.0), calm(), averages(1.0, 1.0), 10, 1),
        ("no ready pod counts as one", config(10.0), calm(), averages(1000.0, 888.0), 0, 10),
        ("up from calm", config(10.0), calm(), averages(100.0, 10.0), 1, 10),
        ("down", config(10.0), calm(), averages(50.0, 50.0), 8, 5),
        ("the last of a load", config(10.0), calm(), averages(1.0, 0.0), 1, 1),
        ("no activation of nothing", Config { activation_scale: 2, ..config(10.0) }, calm(), averages(0.0, 0.0), 1, 0),
        ("activation", Config { activation_scale: 2, ..config(10.0) }, calm(), averages(1.0, 0.0), 1, 2),
    ];
    for (name, config, mut state, seen, ready, expected) in cases {
        assert_eq!(scale(at(100), seen, ready, &config, &mut state), expected, "{name}");
    }
}

/// The documented rates: at 2.0, from N to 2N or N/2 in a tick.
#[test]
fn documented_rates() {
    let config = Config { max_scale_up_rate: 2.0, max_scale_down_rate: 2.0, target: 1.0, ..Config::default() };
    assert_eq!(scale(at(0), averages(1000.0, 1000.0), 7, &config, &mut State::new(at(0), 1)), 14);
    assert_eq!(scale(at(0), averages(1.0, 1.0), 7, &config, &mut State::new(at(0), 1)), 3);
}

#[test]
fn panic_mode_ends_after_a_slow_rise() {
    let (config, mut state) = (config(1.0), State::new(at(0), 1));
    assert_eq!(scale(at(0), averages(11.0, 25.0), 10, &config, &mut state), 25);
    assert_eq!(scale(at(30), averages(30.0, 41.0), 40, &config, &mut state), 41);
    assert_eq!(state.panic, Some(at(0)));
    assert_eq!(scale(at(60), averages(50.0, 56.0), 55, &config, &mut state), 56, "not before the window is over");
    assert_eq!(scale(at(62), averages(50.0, 56.0), 55, &config, &mut state), 50);
    assert!(!state.panics());
}

#[test]
fn a_continued_surge_extends_panic_mode() {
    let (config, mut state) = (config(1.0), State::new(at(0), 1));
    assert_eq!(scale(at(0), averages(11.0, 25.0), 10, &config, &mut state), 25);
    assert_eq!(scale(at(30), averages(30.0, 80.0), 40, &config, &mut state), 80);
    assert_eq!(state.panic, Some(at(30)));
}

#[test]
fn an_exponential_rise_is_followed_and_settles() {
    let (config, mut state) = (config(1.0), State::new(at(0), 1));
    for (second, load, ready) in [(0, 6.0, 1), (0, 36.0, 6), (1, 216.0, 36), (1, 1296.0, 216), (2, 1296.0, 1296)] {
        assert_eq!(scale(at(second), averages(load, load), ready, &config, &mut state), load as u32);
        assert!(state.panics());
    }
    assert_eq!(state.panic, Some(at(1)), "at 1,296 of 1,296 it is no longer over the threshold");
}

#[test]
fn no_scale_down_in_panic_mode() {
    let (config, mut state) = (config(10.0), State::new(at(0), 1));
    assert_eq!(scale(at(0), averages(100.0, 100.0), 1, &config, &mut state), 10);
    assert_eq!(scale(at(0), averages(100.0, 1000.0), 10, &config, &mut state), 100);
    assert_eq!(scale(at(30), averages(1.0, 1.0), 10, &config, &mut state), 100);
    assert_eq!(scale(at(61), averages(1.0, 1.0), 10, &config, &mut state), 1);
}

#[test]
fn the_delay_is_counted_in_ticks() {
    let config = Config { panic_threshold: 100.0, scale_down_delay: at(300), ..config(10.0) };
    let mut state = State::new(at(0), 0);
    let mut scaled = |minutes: u64, seconds: u64, load: f64| {
        scale(at(60 * minutes + seconds), averages(load, load), 0, &config, &mut state)
    };
    assert_eq!(scaled(0, 2, 40.0), 4);
    assert_eq!(scaled(5, 0, 0.0), 4);
    assert_eq!(scaled(5, 2, 0.0), 0);
    assert_eq!([scaled(9, 0, 40.0), scaled(10, 0, 30.0), scaled(11, 0, 0.0)], [4, 4, 4]);
    assert_eq!([scaled(14, 0, 0.0), scaled(15, 0, 0.0)], [3, 0]);
}

#[test]
fn without_a_delay_scales_down_at_once() {
    let (config, mut state) = (Config { panic_threshold: 100.0, ..config(10.0) }, State::new(at(0), 0));
    assert_eq!(scale(at(0), averages(40.0, 40.0), 0, &config, &mut state), 4);
    assert_eq!(scale(Duration::from_millis(500), averages(20.0, 20.0), 0, &config, &mut state), 2);
}

#[test]
fn starts_in_panic_mode_above_one_pod() {
    for (ready, panics) in [(0, false), (1, false), (2, true)] {
        let state = State::new(at(0), ready);
        assert_eq!((state.panics(), state.most), (panics, ready));
    }
    let mut state = State::new(at(0), 8);
    let config = Config::default();
    assert_eq!(scale(at(0), averages(0.0, 0.0), 8, &config, &mut state), 8, "the present pods are kept for a window");
    assert_eq!(scale(at(60), averages(0.0, 0.0), 8, &config, &mut state), 8);
    assert_eq!(scale(at(61), averages(0.0, 0.0), 8, &config, &mut state), 4);
}
