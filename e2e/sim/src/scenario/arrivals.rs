//! Arrivals of open-loop requests.

use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution as _, Exp1};

use crate::{
    micros::{MICROS_PER_SECOND, Micros},
    request::Arrival,
};

/// Returns evenly spaced requests between two seconds.
pub(super) fn even(seconds: (u32, u32), rps: u32, service: u32) -> Vec<Arrival> {
    let micros = MICROS_PER_SECOND as Micros;
    let (from, to) = (Micros::from(seconds.0) * micros, Micros::from(seconds.1) * micros);
    let gap = micros / Micros::from(rps);
    (from..to).step_by(gap as usize).map(|at| Arrival { at, service }).collect()
}

/// Returns independent requests, with a rate for each second.
pub(super) fn poisson(random: &mut ChaCha8Rng, rates: impl IntoIterator<Item = f64>, service: u32) -> Vec<Arrival> {
    let mut requests = Vec::new();
    for (second, rate) in rates.into_iter().enumerate() {
        let mut at = 0.0;
        loop {
            let gap: f64 = Exp1.sample(random);
            at += gap / rate;
            // At a rate of zero the first gap is infinite.
            if at >= 1.0 {
                break;
            }
            requests.push(Arrival { at: ((second as f64 + at) * MICROS_PER_SECOND) as Micros, service });
        }
    }
    requests
}

/// Merges requests by time.
pub(super) fn merged(mut requests: Vec<Arrival>, others: Vec<Arrival>) -> Vec<Arrival> {
    requests.extend(others);
    requests.sort_by_key(|arrival| arrival.at);
    requests
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Purpose, stream};

    #[test]
    fn evenly_spaced_requests_have_their_rate() {
        let requests = even((10, 12), 50, 7);
        assert_eq!(
            (requests.len(), requests[0].at, requests[99].at, requests[0].service),
            (100, 10_000_000, 11_980_000, 7)
        );
    }

    #[test]
    fn independent_requests_have_the_rate_of_their_second() {
        let rates = (0..1_000).map(|second| if second < 500 { 20.0 } else { 0.0 });
        let requests = poisson(&mut stream(1, 0, Purpose::Requests), rates, 7);
        assert!((9_500..10_500).contains(&requests.len()), "{}", requests.len());
        assert!(
            requests.is_sorted_by_key(|arrival| arrival.at) && requests.iter().all(|arrival| arrival.at < 500_000_000)
        );
    }
}
