//! Client behaviour: how requests are repeated.

use crate::{Micros, trace::Call};

/// One try of a client's request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    /// When this try arrives.
    pub(crate) at: Micros,
    /// When the first try arrived.
    pub(crate) first: Micros,
    /// How long a pod works on it, in microseconds.
    pub(crate) service: u32,
    /// Tries before this one.
    pub(crate) tries: u32,
}

impl Request {
    /// Returns the first try of a request.
    pub(crate) fn first(call: Call) -> Self {
        Self { at: call.at, first: call.at, service: call.service, tries: 0 }
    }
}

/// What the clients of a function do.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum Clients {
    /// Open loop: each request arrives at its time and waits for ever.
    #[default]
    Open,
    /// Open loop, and each try leaves the queue after `timeout`. It is repeated `retries` times, first after `backoff` and
    /// then after twice as long each time.
    Patient { timeout: Micros, retries: u32, backoff: Micros },
    /// Closed loop: from each moment on so many clients, of which each sends its next request with the response to the one
    /// before. A pod works on each for `service` microseconds.
    Closed { counts: Vec<(Micros, u32)>, service: u32 },
}

impl Clients {
    /// Returns the next try of a request that has timed out; none if the client gives up.
    pub(crate) fn again(&self, request: &Request, now: Micros) -> Option<Request> {
        let Self::Patient { retries, backoff, .. } = *self else { return None };
        let at = now + (backoff << request.tries);
        (request.tries < retries).then_some(Request { at, tries: request.tries + 1, ..*request })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_repeated_after_growing_pauses_and_then_given_up() {
        let clients = Clients::Patient { timeout: 1_000, retries: 2, backoff: 100 };
        let first = Request::first(Call { at: 5, service: 7 });
        let second = clients.again(&first, 1_005).unwrap();
        assert_eq!(second, Request { at: 1_105, first: 5, service: 7, tries: 1 });
        let third = clients.again(&second, 2_105).unwrap();
        assert_eq!((third.at, third.tries, clients.again(&third, 3_305)), (2_305, 2, None));
        assert_eq!(Clients::Open.again(&first, 1_005), None);
    }
}
