//! Properties of a synthetic function: request rate and arrival pattern, service time, concurrency limit and pod start time.
//!
//! The numbers are those of "Serverless in the Wild" (Shahrad et al., 2020; Azure Functions in July 2019): 45 % of
//! applications are invoked at most once an hour, 81 % at most once a minute, and the rates span eight decades. The few that
//! are invoked more often receive more than 99 % of all requests. Average durations are log-normal. Arrival patterns follow
//! the same paper and Huawei's published traces ("How does it function?", Joosen et al., 2023): timers, days with a peak,
//! bursts, and functions that are used only once.

use rand::Rng as _;
use rand_chacha::ChaCha8Rng;

use crate::{
    random::{Purpose, log_normal, stream},
    request::Function,
};

/// Cumulative distribution of requests per day, log-uniform between the points. The two points above one request per minute
/// are read off a figure of the paper. The ends are its eight decades, without the rates that a hundred pods cannot serve.
const RATES: [(f64, f64); 6] =
    [(0.0, 0.1), (0.45, 24.0), (0.81, 1_440.0), (0.97, 86_400.0), (0.995, 1_000_000.0), (1.0, 10_000_000.0)];

/// Usual timer periods in seconds.
const PERIODS: [f64; 10] = [60.0, 120.0, 300.0, 600.0, 900.0, 1_800.0, 3_600.0, 21_600.0, 43_200.0, 86_400.0];

/// Maximum mean concurrency of a function. With its peaks the load has to fit into a hundred pods, or the figures would
/// measure its queue.
const MOST_LOAD: f64 = 300.0;

/// Arrival pattern.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum ArrivalPattern {
    /// A timer with small jitter, in seconds.
    Timer { period: f64, phase: f64 },
    /// Independent requests.
    Steady { day: Day },
    /// Weibull gaps: clusters with long pauses.
    Weibull { shape: f64, day: Day },
    /// Log-normal gaps: clusters of another shape.
    LogNormal { spread: f64, day: Day },
    /// On and off phases, with their mean durations in seconds.
    Bursts { on: f64, off: f64 },
    /// A few requests at one time of the whole trace.
    Once { requests: u32 },
}

/// Variation of the rate over the day: a sine around the mean. `depth` 0 is none.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Day {
    pub(crate) depth: f64,
    pub(crate) peak: f64,
}

impl Day {
    /// Returns the factor of the mean rate at a second.
    pub(crate) fn factor(self, second: f64) -> f64 {
        1.0 + self.depth * ((second - self.peak) / 86_400.0 * std::f64::consts::TAU).cos()
    }
}

/// A synthetic function.
#[derive(Clone, Debug)]
pub(crate) struct Profile {
    /// Mean requests per day.
    pub(crate) rate: f64,
    pub(crate) pattern: ArrivalPattern,
    /// Median service time in seconds and the standard deviation of its logarithm.
    pub(crate) service: f64,
    pub(crate) spread: f64,
    limit: u32,
    start: f64,
}

impl Profile {
    pub(crate) fn draw(seed: u64, index: usize) -> Self {
        let random = &mut stream(seed, index, Purpose::Profile);
        let rate = rate(random.random());
        let pattern = pattern(random, rate);
        let spread = 0.5;
        // The paper's fit of average durations: the logarithm of seconds has mean -0.38 and standard deviation 2.36.
        let mut service = log_normal(random, (-0.38f64).exp(), 2.36).clamp(0.005, 120.0);
        let peak = if let ArrivalPattern::Bursts { on, off } = pattern { (on + off) / on } else { 2.0 };
        let load = rate / 86_400.0 * service * peak;
        // The most frequently invoked functions do not run for minutes.
        if load > MOST_LOAD {
            service *= MOST_LOAD / load;
        }
        let limit = [1, 10, 100][random.random_range(0..3)];
        let limit = if load.min(MOST_LOAD) > 30.0 * f64::from(limit) { 100 } else { limit };
        let start = log_normal(random, 0.4, 0.6).clamp(0.15, 30.0);
        Self { rate, pattern, service, spread, limit, start }
    }

    pub(crate) fn function(&self, index: usize, hours: u32) -> Function {
        let kind = match self.pattern {
            ArrivalPattern::Timer { .. } => "timer",
            ArrivalPattern::Steady { .. } => "steady",
            ArrivalPattern::Weibull { .. } => "weibull",
            ArrivalPattern::LogNormal { .. } => "log-normal",
            ArrivalPattern::Bursts { .. } => "bursts",
            ArrivalPattern::Once { .. } => "once",
        };
        Function { index, kind, limit: self.limit, start: self.start, expected: self.rate * f64::from(hours) / 24.0 }
    }
}

/// Returns the quantile `part` of the rates.
fn rate(part: f64) -> f64 {
    let next = RATES.iter().position(|(p, _)| *p >= part).unwrap_or(RATES.len() - 1).max(1);
    let ((p, a), (q, b)) = (RATES[next - 1], RATES[next]);
    (a.ln() + (b.ln() - a.ln()) * (part - p) / (q - p)).exp()
}

fn pattern(random: &mut ChaCha8Rng, rate: f64) -> ArrivalPattern {
    let day = Day { depth: random.random_range(0.0..0.9), peak: random.random_range(0.0..86_400.0) };
    let gap = 86_400.0 / rate;
    match random.random_range(0..100) {
        // A rate above that of the shortest timer is not a timer.
        0..16 if gap >= 30.0 => {
            let near = |p: &&f64| (gap / **p).ln().abs();
            let period = PERIODS.iter().min_by(|a, b| near(a).total_cmp(&near(b))).copied().unwrap_or(60.0);
            ArrivalPattern::Timer { period, phase: random.random_range(0.0..period) }
        }
        0..25 => ArrivalPattern::Steady { day },
        25..40 => ArrivalPattern::Weibull { shape: random.random_range(0.4..0.8), day },
        40..55 => ArrivalPattern::LogNormal { spread: random.random_range(1.0..2.0), day },
        55..95 => {
            let on = random.random_range(20.0..300.0);
            // Each burst has some requests.
            let requests = f64::exp(random.random_range(2f64.ln()..50f64.ln()));
            let off = (on * random.random_range(5.0..30.0_f64)).max(gap * requests - on);
            ArrivalPattern::Bursts { on, off }
        }
        _ => ArrivalPattern::Once { requests: random.random_range(1..6) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_go_through_the_published_points() {
        for (part, expected) in RATES {
            assert!((rate(part) / expected - 1.0).abs() < 1e-9, "{part}");
        }
        assert!((0..1000).all(|i| rate(f64::from(i) / 1000.0) < rate(f64::from(i + 1) / 1000.0)));
        let decades = (rate(1.0) / rate(0.0)).log10();
        assert!((decades - 8.0).abs() < 1e-9, "{decades}");
    }

    #[test]
    fn random_functions_follow_the_published_distribution() {
        let natures: Vec<_> = (0..20_000).map(|i| Profile::draw(1, i)).collect();
        let part = |is: &dyn Fn(&Profile) -> bool| natures.iter().filter(|n| is(n)).count() as f64 / 20_000.0;
        assert!((part(&|n| n.rate <= 24.0) - 0.45).abs() < 0.02);
        assert!((part(&|n| n.rate <= 1_440.0) - 0.81).abs() < 0.02);
        let all: f64 = natures.iter().map(|n| n.rate).sum();
        let often: f64 = natures.iter().map(|n| n.rate).filter(|r| *r > 1_440.0).sum();
        assert!(often / all > 0.99, "{}", often / all);
        assert!((part(&|n| n.service < 0.68) - 0.5).abs() < 0.05);
        assert!((part(&|n| matches!(n.pattern, ArrivalPattern::Timer { .. })) - 0.15).abs() < 0.02);
        assert!((part(&|n| matches!(n.pattern, ArrivalPattern::Once { .. })) - 0.05).abs() < 0.01);
        assert!((part(&|n| n.start < 0.4) - 0.5).abs() < 0.02);
    }

    #[test]
    fn a_day_has_its_mean_and_its_peak() {
        let day = Day { depth: 0.8, peak: 3_600.0 };
        let mean = (0..86_400).map(|s| day.factor(f64::from(s))).sum::<f64>() / 86_400.0;
        assert!((mean - 1.0).abs() < 1e-6);
        assert!((day.factor(3_600.0) - 1.8).abs() < 1e-9);
        assert!((day.factor(3_600.0 + 43_200.0) - 0.2).abs() < 1e-9);
    }
}
