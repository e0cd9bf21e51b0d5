//! Arrivals of open-loop requests.

use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution as _, Exp1};

use crate::{MICROS_PER_SECOND, Micros, trace::Call};

/// Requests at even gaps, from a second to another.
pub(super) fn even(seconds: (u32, u32), rps: u32, service: u32) -> Vec<Call> {
    let micros = MICROS_PER_SECOND as Micros;
    let (from, to) = (Micros::from(seconds.0) * micros, Micros::from(seconds.1) * micros);
    let gap = micros / Micros::from(rps);
    (from..to).step_by(gap as usize).map(|at| Call { at, service }).collect()
}

/// Independent requests, at a rate for each second.
pub(super) fn poisson(random: &mut ChaCha8Rng, rates: impl IntoIterator<Item = f64>, service: u32) -> Vec<Call> {
    let mut calls = Vec::new();
    for (second, rate) in rates.into_iter().enumerate() {
        let mut at = 0.0;
        loop {
            let gap: f64 = Exp1.sample(random);
            at += gap / rate;
            // At a rate of zero the first gap is infinite.
            if at >= 1.0 {
                break;
            }
            calls.push(Call { at: ((second as f64 + at) * MICROS_PER_SECOND) as Micros, service });
        }
    }
    calls
}

/// Both, in the order of time.
pub(super) fn merged(mut calls: Vec<Call>, others: Vec<Call>) -> Vec<Call> {
    calls.extend(others);
    calls.sort_by_key(|call| call.at);
    calls
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Purpose, stream};

    #[test]
    fn even_requests_have_their_rate() {
        let calls = even((10, 12), 50, 7);
        assert_eq!((calls.len(), calls[0].at, calls[99].at, calls[0].service), (100, 10_000_000, 11_980_000, 7));
    }

    #[test]
    fn independent_requests_have_the_rate_of_their_second() {
        let rates = (0..1_000).map(|second| if second < 500 { 20.0 } else { 0.0 });
        let calls = poisson(&mut stream(1, 0, Purpose::Calls), rates, 7);
        assert!((9_500..10_500).contains(&calls.len()), "{}", calls.len());
        assert!(calls.is_sorted_by_key(|call| call.at) && calls.iter().all(|call| call.at < 500_000_000));
    }
}
