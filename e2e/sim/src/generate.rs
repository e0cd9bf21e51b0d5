//! Generator of the requests of synthetic functions.

use rand::Rng as _;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution as _, Exp1, Weibull};

use crate::{
    micros::{MICROS_PER_SECOND, Micros},
    profile::{ArrivalPattern, Day, Profile},
    random::{Purpose, log_normal, service, stream},
    request::{Arrival, Function},
};

/// A synthetic trace.
#[derive(Debug)]
pub(crate) struct Generated {
    functions: usize,
    hours: u32,
    seed: u64,
}

impl Generated {
    pub(crate) fn new(functions: usize, hours: u32, seed: u64) -> Self {
        Self { functions, hours, seed }
    }

    pub(crate) fn functions(&self) -> Vec<Function> {
        (0..self.functions).map(|index| Profile::draw(self.seed, index).function(index, self.hours)).collect()
    }

    pub(crate) fn requests(&self, function: &Function) -> Vec<Arrival> {
        let profile = Profile::draw(self.seed, function.index);
        let random = &mut stream(self.seed, function.index, Purpose::Requests);
        let end = f64::from(self.hours) * 3_600.0;
        let mut arrivals = Arrivals { requests: Vec::new(), service: profile.service, spread: profile.spread };
        // Mean requests per second.
        let rate = profile.rate / 86_400.0;
        match profile.pattern {
            ArrivalPattern::Timer { period, phase } => {
                let mut due = phase % period;
                while due < end {
                    // A scheduler is slightly late, and sometimes more.
                    let late = log_normal(random, 0.05, 1.0).min(period / 2.0);
                    arrivals.push(random, due + late, end);
                    due += period;
                }
            }
            ArrivalPattern::Steady { day } => gaps(&mut arrivals, random, rate, day, end, |r| Exp1.sample(r)),
            ArrivalPattern::Weibull { shape, day } => {
                // Scaled to a mean of 1.
                let scale = 1.0 / gamma(1.0 + 1.0 / shape);
                if let Ok(weibull) = Weibull::new(scale, shape) {
                    gaps(&mut arrivals, random, rate, day, end, |r| weibull.sample(r));
                }
            }
            ArrivalPattern::LogNormal { spread, day } => {
                let median = (-spread * spread / 2.0).exp();
                gaps(&mut arrivals, random, rate, day, end, |r| log_normal(r, median, spread));
            }
            ArrivalPattern::Bursts { on, off } => bursts(&mut arrivals, random, rate, (on, off), end),
            ArrivalPattern::Once { requests: count } => {
                let at = random.random_range(0.0..end);
                for _ in 0..count {
                    let after: f64 = Exp1.sample(random);
                    arrivals.push(random, at + after, end);
                }
            }
        }
        // A late timer may fire after the next one, and the requests of one burst are in any order.
        arrivals.requests.sort_by_key(|arrival| arrival.at);
        arrivals.requests
    }
}

/// Adds requests with random gaps: numbers with a mean of 1, scaled to the rate at that time of the day.
fn gaps(
    arrivals: &mut Arrivals,
    random: &mut ChaCha8Rng,
    rate: f64,
    day: Day,
    end: f64,
    gap: impl Fn(&mut ChaCha8Rng) -> f64,
) {
    // The trace starts within a gap and not with a request.
    let begun: f64 = random.random();
    let mut left = gap(random) * begun;
    let mut at = 0.0;
    loop {
        // In steps of at most ten minutes, within which the rate is constant.
        let pace = rate * day.factor(at);
        let step = left / pace;
        if step > 600.0 {
            at += 600.0;
            left -= 600.0 * pace;
            if at >= end {
                return;
            }
            continue;
        }
        at += step;
        if at >= end {
            return;
        }
        arrivals.push(random, at, end);
        left = gap(random);
    }
}

/// Adds independent requests during the on phases.
fn bursts(arrivals: &mut Arrivals, random: &mut ChaCha8Rng, rate: f64, (on, off): (f64, f64), end: f64) {
    let dense = rate * (on + off) / on;
    let first: f64 = Exp1.sample(random);
    let mut at = first * off * random.random::<f64>();
    while at < end {
        let long: f64 = Exp1.sample(random);
        let over = at + long * on;
        loop {
            let gap: f64 = Exp1.sample(random);
            at += gap / dense;
            if at >= over.min(end) {
                break;
            }
            arrivals.push(random, at, end);
        }
        let pause: f64 = Exp1.sample(random);
        at = over + pause * off;
    }
}

struct Arrivals {
    requests: Vec<Arrival>,
    service: f64,
    spread: f64,
}

impl Arrivals {
    fn push(&mut self, random: &mut ChaCha8Rng, at: f64, end: f64) {
        if at < end {
            let service = service(random, self.service, self.spread);
            self.requests.push(Arrival { at: (at * MICROS_PER_SECOND) as Micros, service });
        }
    }
}

/// Returns the gamma function of a number from 1 to 10, by Stirling's series at `x + 8`; exact to nine digits.
fn gamma(x: f64) -> f64 {
    let shifted = x + 8.0;
    let log = (shifted - 0.5) * shifted.ln() - shifted + 0.5 * std::f64::consts::TAU.ln() + 1.0 / (12.0 * shifted)
        - 1.0 / (360.0 * shifted.powi(3))
        + 1.0 / (1_260.0 * shifted.powi(5));
    log.exp() / (0..8).map(|i| x + f64::from(i)).product::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: f64 = 86_400.0;

    fn none() -> Day {
        Day { depth: 0.0, peak: 0.0 }
    }

    fn drawn(make: impl Fn(&mut Arrivals, &mut ChaCha8Rng)) -> Vec<f64> {
        let random = &mut stream(3, 0, Purpose::Requests);
        let mut arrivals = Arrivals { requests: Vec::new(), service: 0.1, spread: 0.5 };
        make(&mut arrivals, random);
        arrivals.requests.iter().map(|c| c.at as f64 / MICROS_PER_SECOND).collect()
    }

    /// Returns the mean of the gaps and their coefficient of variation.
    fn shape(at: &[f64]) -> (f64, f64) {
        let gaps: Vec<_> = at.windows(2).map(|w| w[1] - w[0]).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|g| (g - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        (mean, variance.sqrt() / mean)
    }

    #[test]
    fn the_gamma_function() {
        for (x, expected) in [(1.0, 1.0), (2.0, 1.0), (3.5, 3.323_350_970), (5.0, 24.0)] {
            assert!((gamma(x) / expected - 1.0).abs() < 1e-8, "{x}: {}", gamma(x));
        }
    }

    #[test]
    fn gaps_have_their_mean_and_their_variation() {
        let steady = drawn(|c, r| gaps(c, r, 1.0, none(), DAY, |r| Exp1.sample(r)));
        let (mean, variation) = shape(&steady);
        assert!((mean - 1.0).abs() < 0.02 && (variation - 1.0).abs() < 0.03, "{mean} {variation}");

        let weibull = Weibull::new(1.0 / gamma(3.0), 0.5).unwrap();
        let crowded = drawn(|c, r| gaps(c, r, 1.0, none(), DAY, |r| weibull.sample(r)));
        let (mean, variation) = shape(&crowded);
        // The coefficient of variation of a Weibull distribution of shape ½ is √5.
        assert!((mean - 1.0).abs() < 0.04 && (variation - 5f64.sqrt()).abs() < 0.15, "{mean} {variation}");

        let log = drawn(|c, r| gaps(c, r, 1.0, none(), DAY, |r| log_normal(r, (-0.5f64).exp(), 1.0)));
        let (mean, variation) = shape(&log);
        assert!((mean - 1.0).abs() < 0.03 && (variation - 1.311).abs() < 0.1, "{mean} {variation}");
    }

    #[test]
    fn a_day_has_a_peak_and_the_same_mean() {
        let day = Day { depth: 0.8, peak: 0.0 };
        let at = drawn(|c, r| gaps(c, r, 1.0, day, DAY, |r| Exp1.sample(r)));
        assert!((at.len() as f64 / DAY - 1.0).abs() < 0.02, "{}", at.len());
        let near = at.iter().filter(|t| **t < 3_600.0).count() as f64;
        let far = at.iter().filter(|t| (39_600.0..43_200.0).contains(*t)).count() as f64;
        assert!((7.5..9.5).contains(&(near / far)), "{near} {far}");
    }

    #[test]
    fn bursts_have_their_mean_and_their_pauses() {
        let at = drawn(|c, r| bursts(c, r, 0.1, (60.0, 1_200.0), 30.0 * DAY));
        assert!((at.len() as f64 / (3.0 * DAY) - 1.0).abs() < 0.1, "{}", at.len());
        let pauses = at.windows(2).filter(|w| w[1] - w[0] > 120.0).count();
        // One in 1,260 seconds, of which nine in ten are longer than two minutes.
        assert!((1_600..2_100).contains(&pauses), "{pauses}");
    }

    #[test]
    fn requests_are_ordered_within_the_hours_and_reproducible() {
        let trace = Generated::new(300, 3, 5);
        let mut kinds = std::collections::BTreeSet::new();
        for function in trace.functions().iter().filter(|f| f.expected < 100_000.0) {
            let requests = trace.requests(function);
            assert!(requests.is_sorted_by_key(|c| c.at));
            assert!(requests.iter().all(|c| c.at < 3 * 3_600 * 1_000_000 && c.service >= 1_000));
            assert_eq!(requests, trace.requests(function));
            kinds.insert(function.kind);
            if function.kind == "once" {
                assert!(requests.len() <= 5);
            }
        }
        assert_eq!(kinds.len(), 6, "{kinds:?}");
    }
}
