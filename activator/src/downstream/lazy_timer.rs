//! A timer that is seldom set.

use std::{
    future::Future as _,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::time::{Instant, Sleep, sleep_until};

/// A timer that is seldom set.
///
/// Setting a timer wakes the thread that sleeps until the next one is due, which is two system calls. A timer that is
/// already set and fires too early costs nothing: it is then set again.
#[derive(Debug, Default)]
pub(crate) struct LazyTimer(Option<Pin<Box<Sleep>>>);

impl LazyTimer {
    /// Completes at the deadline. The deadline of a later poll may be another one.
    pub(crate) fn poll_until(&mut self, cx: &mut Context<'_>, until: Instant) -> Poll<()> {
        let timer = self.0.get_or_insert_with(|| Box::pin(sleep_until(until)));
        if timer.deadline() > until {
            timer.as_mut().reset(until);
        }
        while timer.as_mut().poll(cx).is_ready() {
            if until <= Instant::now() {
                return Poll::Ready(());
            }
            timer.as_mut().reset(until);
        }
        Poll::Pending
    }

    /// Whether the timer is set, and for no later than this.
    pub(super) fn is_set_before(&self, until: Instant) -> bool {
        self.0.as_ref().is_some_and(|timer| timer.deadline() <= until)
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, time::Duration};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_deadline_may_move_in_both_directions() {
        let mut timer = LazyTimer::default();
        for seconds in [300, 10, 20, 1] {
            let until = Instant::now() + Duration::from_secs(seconds);
            poll_fn(|cx| timer.poll_until(cx, until)).await;
            let late = Instant::now().checked_duration_since(until);
            assert!(late.is_some_and(|late| late <= Duration::from_millis(2)), "{seconds} s: {late:?}");
            // Set again, and left alone.
            let far = Instant::now() + Duration::from_secs(seconds * 2);
            poll_fn(|cx| Poll::Ready(timer.poll_until(cx, far).is_pending())).await;
        }
    }
}
