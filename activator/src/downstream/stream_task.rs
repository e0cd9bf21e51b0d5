//! The task of an HTTP/2 request, which ends when the client does not take the response.
//!
//! The HTTP library polls a response body only while the stream has window. A timer of the body would not fire for a
//! client that keeps the window closed, so the timer belongs to the task around the body.

use std::{
    cell::Cell,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::{task::futures::TaskLocalFuture, time::Instant};

use super::lazy_timer::LazyTimer;

tokio::task_local! {
    /// State of the request whose task is being polled.
    static STREAM: StreamState;
}

/// What the response body of a request reports to its task.
#[derive(Debug, Default)]
pub(crate) struct StreamState {
    /// Number of polls of the body.
    polls: Cell<u64>,
    /// Set while the library has data of the body that the client has not taken: how long it may keep that.
    held: Cell<Option<Duration>>,
}

/// Records a poll of a response body: whether the library got data, and the idle timeout of the response, if any.
/// Without effect on HTTP/1, where a client that does not read blocks the writes of its connection.
pub(crate) fn record_body_poll(has_data: bool, idle: Option<Duration>) {
    let recorded = STREAM.try_with(|stream| {
        stream.polls.set(stream.polls.get().wrapping_add(1));
        stream.held.set(has_data.then(|| idle.unwrap_or(Duration::MAX)));
    });
    // Not the task of an HTTP/2 request.
    recorded.ok();
}

pin_project! {
    /// The task of an HTTP/2 request. Ends early, which resets the stream, when the client takes no part of the
    /// response for the limit, or for the idle timeout of the response if that is shorter.
    #[derive(Debug)]
    pub(crate) struct StreamTask<F, G> {
        #[pin]
        stream: F,
        _guard: G,
        limit: Duration,
        // The poll of the body at which the current wait began, and when.
        since: Option<(u64, Instant)>,
        timer: LazyTimer,
    }
}

impl<F: Future<Output = ()>, G> StreamTask<F, G> {
    /// Wraps the future of a request. The guard is dropped when the task ends.
    pub(crate) fn new(stream: F, limit: Duration, guard: G) -> TaskLocalFuture<StreamState, Self> {
        let task = Self { stream, _guard: guard, limit, since: None, timer: LazyTimer::default() };
        STREAM.scope(StreamState::default(), task)
    }
}

impl<F: Future<Output = ()>, G> Future for StreamTask<F, G> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        if this.stream.poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let (polls, held) = STREAM.with(|stream| (stream.polls.get(), stream.held.get()));
        let Some(idle) = held else { return Poll::Pending };
        let since = match *this.since {
            Some((seen, since)) if seen == polls => since,
            _ => {
                let now = Instant::now();
                *this.since = Some((polls, now));
                now
            }
        };
        ready!(this.timer.poll_until(cx, since + idle.min(*this.limit)));
        tracing::debug!("Resetting an HTTP/2 stream whose client does not take the response");
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, poll_fn};

    use tokio::time::sleep;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    async fn seconds(stream: impl Future<Output = ()>) -> u64 {
        let began = Instant::now();
        StreamTask::new(stream, LIMIT, ()).await;
        began.elapsed().as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_ends_when_the_body_is_not_polled_for_the_limit() {
        let stalls_at_ten = async {
            sleep(Duration::from_secs(10)).await;
            record_body_poll(true, None);
            pending::<()>().await;
        };
        assert_eq!(seconds(stalls_at_ten).await, 70);
        let idles = async {
            record_body_poll(true, Some(Duration::from_secs(5)));
            pending::<()>().await;
        };
        assert_eq!(seconds(idles).await, 5);
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_whose_body_is_polled_goes_on() {
        let slow = async {
            for _ in 0..10 {
                record_body_poll(true, None);
                sleep(Duration::from_secs(50)).await;
            }
        };
        assert_eq!(seconds(slow).await, 500);
        // The pod is waited for, not the client.
        let waits = async {
            record_body_poll(true, None);
            record_body_poll(false, None);
            sleep(Duration::from_secs(900)).await;
        };
        assert_eq!(seconds(waits).await, 900);
        assert_eq!(seconds(poll_fn(|_| Poll::Ready(()))).await, 0);
    }
}
