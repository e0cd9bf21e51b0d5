//! Work beside the main work of a task, which is polled only after it was woken.
//!
//! A connection waits for its requests and for rare events at once. Polling the wait for an event takes locks that all
//! connections share, so no request may do that.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use futures::task::AtomicWaker;

/// Polls work only after it was woken.
#[derive(Debug)]
pub(super) struct Beside {
    flag: Arc<Flag>,
    /// Wakes the flag.
    waker: Waker,
}

#[derive(Debug)]
struct Flag {
    woken: AtomicBool,
    task: AtomicWaker,
}

impl Beside {
    /// The work is polled for the first time in any case.
    pub(super) fn new() -> Self {
        let flag = Arc::new(Flag { woken: AtomicBool::new(true), task: AtomicWaker::new() });
        Self { waker: Waker::from(flag.clone()), flag }
    }

    /// Calls `poll` if what it polls was woken since the last call, or was ready then.
    pub(super) fn poll<T>(&self, cx: &mut Context<'_>, poll: impl FnOnce(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
        // Before the flag is read, so that a wake after that wakes the task.
        self.flag.task.register(cx.waker());
        if !self.flag.woken.load(Ordering::Acquire) {
            return Poll::Pending;
        }
        // Reads the last wake, so that `poll` sees what it was for.
        self.flag.woken.swap(false, Ordering::AcqRel);
        let polled = poll(&mut Context::from_waker(&self.waker));
        if polled.is_ready() {
            self.flag.woken.store(true, Ordering::Release);
        }
        polled
    }
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Before the task is woken, which reads it.
        self.woken.store(true, Ordering::Release);
        self.task.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, future::poll_fn, pin::pin, time::Duration};

    use tokio::{
        sync::Notify,
        time::{sleep, timeout},
    };

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn work_is_polled_only_when_it_was_woken() {
        let (beside, notify, polls) = (Beside::new(), Arc::new(Notify::new()), Cell::new(0));
        let mut work = pin!(notify.notified());
        let mut main = pin!(async {
            for _ in 0..10 {
                sleep(Duration::from_millis(1)).await;
            }
            notify.notify_one();
            std::future::pending::<()>().await;
        });
        let done = poll_fn(|cx| {
            assert!(main.as_mut().poll(cx).is_pending());
            beside.poll(cx, |cx| {
                polls.set(polls.get() + 1);
                work.as_mut().poll(cx)
            })
        });
        timeout(Duration::from_secs(10), done).await.unwrap();
        assert_eq!(polls.get(), 2, "once to begin with, and once after the notification");
    }

    #[tokio::test]
    async fn a_wake_from_another_thread_is_not_lost() {
        let (beside, notify) = (Beside::new(), Arc::new(Notify::new()));
        for _ in 0..1000 {
            let mut work = pin!(notify.notified());
            let notifies = notify.clone();
            let thread = tokio::task::spawn_blocking(move || notifies.notify_one());
            let done = poll_fn(|cx| beside.poll(cx, |cx| work.as_mut().poll(cx)));
            timeout(Duration::from_secs(30), done).await.unwrap();
            thread.await.unwrap();
        }
    }
}
