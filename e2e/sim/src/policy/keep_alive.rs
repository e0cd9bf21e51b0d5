//! Fixed keep-alive, as most public clouds have it: a call that finds no free place starts a pod, and a pod goes when it
//! has had nothing to do for so long.

use crate::{
    Micros,
    scaler::{Hears, Order, Scaler, View},
};

pub(super) struct KeepAlive {
    idle: Micros,
}

impl KeepAlive {
    pub(super) fn new(idle: Micros) -> Self {
        Self { idle }
    }
}

impl Scaler for KeepAlive {
    fn hears(&self) -> Hears {
        Hears::Waiting
    }

    fn wake(&mut self, view: &View<'_>) -> Order {
        self.decide(view)
    }

    fn decide(&mut self, view: &View<'_>) -> Order {
        // Places that are about to be there count.
        let limit = u64::from(view.pods.limit());
        let coming = u64::from(view.pods.starting()) * limit;
        let missing = view.queued.saturating_sub(coming).div_ceil(limit) as u32;
        let (mut expired, mut first) = (0, None);
        for since in view.pods.idle_since() {
            if since + self.idle <= view.now {
                expired += 1;
            } else {
                first = Some(first.map_or(since, |f: Micros| f.min(since)));
            }
        }
        let pods = (view.pods.live() + missing).saturating_sub(expired);
        // Who is busy now cannot have been idle for so long any sooner.
        let again = (pods > 0).then(|| first.unwrap_or(view.now) + self.idle);
        Order { pods, again }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        trace::{Call, Function},
        world::run,
    };

    const SECOND: Micros = 1_000_000;

    #[test]
    fn a_pod_for_each_call_that_finds_none_and_gone_when_idle() {
        let function = Function { index: 0, kind: "test", limit: 1, start: 0.4, expected: 0.0 };
        let call = |at: Micros| Call { at, service: 1_000_000 };
        let calls = [call(0), call(0), call(60 * SECOND), call(150 * SECOND), call(300 * SECOND)];
        let outcome = run(&function, &calls, 1_000 * SECOND, 1, &mut KeepAlive { idle: 100 * SECOND });
        // The second pod went at 101, the first was used at 60 and 150 and went at 251.
        assert_eq!((outcome.cold, outcome.pods.starts), (3, 3));
        let wanted: Vec<_> = outcome.wanted.iter().map(|(at, count)| (at / SECOND, *count)).collect();
        assert_eq!(wanted, [(0, 0), (0, 1), (0, 2), (101, 1), (251, 0), (300, 1), (401, 0)]);
    }
}
