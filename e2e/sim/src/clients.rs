//! Client behaviour: how requests are repeated.

use crate::{micros::Micros, request::Arrival};

/// One try of a client's request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    /// When this try arrives.
    pub(crate) at: Micros,
    /// When the first try arrived.
    pub(crate) first: Micros,
    /// Service time in microseconds.
    pub(crate) service: u32,
    /// Tries before this one.
    pub(crate) tries: u32,
}

impl Request {
    /// Returns the first try of a request.
    pub(crate) fn first(arrival: Arrival) -> Self {
        Self { at: arrival.at, first: arrival.at, service: arrival.service, tries: 0 }
    }
}

/// Behaviour of the clients of a function.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum Clients {
    /// Open loop: each request arrives at its time and waits without a timeout.
    #[default]
    Open,
    /// Open loop: each try leaves the queue after `timeout`, and is retried up to `retries` times with exponential backoff.
    Patient { timeout: Micros, retries: u32, backoff: Micros },
    /// Closed loop: from each time on a number of clients, which send the next request on the response to the previous one,
    /// with a service time of `service` microseconds.
    Closed { counts: Vec<(Micros, u32)>, service: u32 },
}

impl Clients {
    /// Returns the next try of a request that has timed out; none if the client gives up.
    pub(crate) fn retry(&self, request: &Request, now: Micros) -> Option<Request> {
        let Self::Patient { retries, backoff, .. } = *self else { return None };
        let at = now + (backoff << request.tries);
        (request.tries < retries).then_some(Request { at, tries: request.tries + 1, ..*request })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_retried_with_backoff_and_then_given_up() {
        let clients = Clients::Patient { timeout: 1_000, retries: 2, backoff: 100 };
        let first = Request::first(Arrival { at: 5, service: 7 });
        let second = clients.retry(&first, 1_005).unwrap();
        assert_eq!(second, Request { at: 1_105, first: 5, service: 7, tries: 1 });
        let third = clients.retry(&second, 2_105).unwrap();
        assert_eq!((third.at, third.tries, clients.retry(&third, 3_305)), (2_305, 2, None));
        assert_eq!(Clients::Open.retry(&first, 1_005), None);
    }
}
