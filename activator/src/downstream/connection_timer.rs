//! One timer for all requests of a connection.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    task::{Poll, ready},
};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::lazy_timer::LazyTimer;

/// One timer for all requests of a connection, which is seldom set.
#[derive(Debug, Default)]
pub(crate) struct ConnectionTimer(Mutex<LazyTimer>);

impl ConnectionTimer {
    /// Takes the timer, to poll it until this time or a later one. Another request of the same connection may have
    /// taken it, as HTTP/2 has many at once; then this is a new one.
    pub(crate) fn take(&self, until: Instant) -> LazyTimer {
        let timer = std::mem::take(&mut *self.0.lock());
        if timer.is_set_before(until) { timer } else { LazyTimer::default() }
    }

    /// Returns the timer for the next request.
    pub(crate) fn put(&self, timer: LazyTimer) {
        *self.0.lock() = timer;
    }

    /// Runs `work` until it completes or the deadline has passed. `until` returns the deadline; it is called again at
    /// that time, and may then return a later one.
    ///
    /// Cancel-safe if the work is.
    pub(crate) async fn run_until<W: Future>(
        &self,
        mut work: Pin<&mut W>,
        until: impl Fn() -> Instant,
    ) -> Option<W::Output> {
        let mut due = until();
        let mut timer = self.take(due);
        let done = poll_fn(|cx| {
            if let Poll::Ready(done) = work.as_mut().poll(cx) {
                return Poll::Ready(Some(done));
            }
            loop {
                ready!(timer.poll_until(cx, due));
                due = until();
                if due <= Instant::now() {
                    return Poll::Ready(None);
                }
            }
        })
        .await;
        self.put(timer);
        done
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, future::pending, pin::pin, time::Duration};

    use tokio::time::sleep;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_timer_fires_at_its_deadline_whatever_it_was_set_to_before() {
        let shared = ConnectionTimer::default();
        for seconds in [300, 10, 10, 1, 300, 2] {
            let began = Instant::now();
            let until = began + Duration::from_secs(seconds);
            assert_eq!(shared.run_until(pin!(async { 7 }), || until).await, Some(7), "at once");
            sleep(Duration::from_millis(1500)).await;
            let began = began + Duration::from_millis(1500);
            let until = began + Duration::from_secs(seconds);
            assert_eq!(shared.run_until(pin!(pending::<()>()), || until).await, None);
            let late = began.elapsed().saturating_sub(Duration::from_secs(seconds));
            assert!(Instant::now() >= until && late <= Duration::from_millis(2), "{seconds} s: {late:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_deadline_may_be_extended() {
        let shared = ConnectionTimer::default();
        let began = Instant::now();
        let asked = Cell::new(0);
        let until = || {
            asked.set(asked.get() + 1);
            began + Duration::from_secs(asked.get().min(3))
        };
        assert_eq!(shared.run_until(pin!(pending::<()>()), until).await, None);
        assert_eq!(began.elapsed().as_secs(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn concurrent_requests_have_their_own_deadlines() {
        let shared = ConnectionTimer::default();
        let began = Instant::now();
        let until = |seconds| move || began + Duration::from_secs(seconds);
        let (late, early, never) =
            (pin!(sleep(Duration::from_secs(5))), pin!(sleep(Duration::from_secs(5))), pin!(pending::<()>()));
        let (a, b, c) = tokio::join!(
            shared.run_until(late, until(4)),
            shared.run_until(early, until(6)),
            shared.run_until(never, until(9))
        );
        assert_eq!((a, b, c), (None, Some(()), None));
        assert_eq!(began.elapsed().as_secs(), 9);
    }
}
