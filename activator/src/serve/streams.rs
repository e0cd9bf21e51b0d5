//! Requests of one HTTP/2 connection: runs their tasks, and decides when the connection ends.

use std::{sync::Arc, time::Duration};

use hyper::rt::Executor;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

use crate::downstream::StreamTask;

/// Runs the tasks of one HTTP/2 connection.
#[derive(Clone, Debug)]
pub(super) struct Streams {
    activity: Arc<Mutex<Activity>>,
    limits: StreamLimits,
}

/// Timeouts of an HTTP/2 connection and its streams.
#[derive(Clone, Copy, Debug)]
pub(super) struct StreamLimits {
    /// Time until the first request.
    pub(super) first_request: Duration,
    /// Time without a request.
    pub(super) idle: Duration,
    /// Time in which a client has to take a part of a response.
    pub(super) send: Duration,
    /// Age at which the connection is closed, if any.
    pub(super) age: Option<Duration>,
}

/// Requests in progress.
#[derive(Debug)]
struct Activity {
    tasks: usize,
    /// When the connection began, or its last task ended.
    since: Instant,
    /// There has been a request.
    used: bool,
}

/// Counts a task until it ends.
struct Running(Arc<Mutex<Activity>>);

impl Running {
    fn new(activity: Arc<Mutex<Activity>>) -> Self {
        {
            let mut activity = activity.lock();
            activity.tasks += 1;
            activity.used = true;
        }
        Self(activity)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut activity = self.0.lock();
        activity.tasks -= 1;
        activity.since = Instant::now();
    }
}

impl Streams {
    pub(super) fn new(limits: StreamLimits) -> Self {
        let activity = Activity { tasks: 0, since: Instant::now(), used: false };
        Self { activity: Arc::new(Mutex::new(activity)), limits }
    }

    /// Whether there has been a request.
    pub(super) fn is_used(&self) -> bool {
        self.activity.lock().used
    }

    /// Completes when the connection is to be closed: without a request for too long, or too old. Cancel-safe.
    pub(super) async fn retired(&self) {
        let old = self.limits.age.map(|age| Instant::now() + age);
        loop {
            let now = Instant::now();
            let (tasks, since) = self.load();
            let idle = if self.is_used() { self.limits.idle } else { self.limits.first_request };
            let idle = if tasks > 0 { now } else { since } + idle;
            let due = old.map_or(idle, |old| old.min(idle));
            if due <= now {
                return;
            }
            sleep_until(due).await;
        }
    }

    /// Completes when there was no request for the send timeout: what the client has not taken by then, it will not
    /// take. Cancel-safe.
    pub(super) async fn drained(&self) {
        let began = Instant::now();
        loop {
            let now = Instant::now();
            let (tasks, since) = self.load();
            let due = if tasks > 0 { now } else { since.max(began) } + self.limits.send;
            if due <= now {
                return;
            }
            sleep_until(due).await;
        }
    }

    fn load(&self) -> (usize, Instant) {
        let activity = self.activity.lock();
        (activity.tasks, activity.since)
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, stream: F) {
        let running = Running::new(self.activity.clone());
        tokio::spawn(StreamTask::new(stream, self.limits.send, running));
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::{
        task::yield_now,
        time::{sleep, timeout},
    };

    use super::*;

    const LIMITS: StreamLimits = StreamLimits {
        first_request: Duration::from_secs(30),
        idle: Duration::from_secs(3600),
        send: Duration::from_secs(60),
        age: Some(Duration::from_secs(7200)),
    };

    async fn seconds(wait: impl Future<Output = ()>) -> u64 {
        let began = Instant::now();
        wait.await;
        began.elapsed().as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_a_request_ends_early_and_an_idle_one_late() {
        let streams = Streams::new(LIMITS);
        assert_eq!(seconds(streams.retired()).await, 30);
        assert!(!streams.is_used());
        streams.execute(sleep(Duration::from_secs(100)));
        assert_eq!(seconds(streams.retired()).await, 3700);
    }

    #[tokio::test(start_paused = true)]
    async fn an_old_connection_is_closed_after_its_requests() {
        let streams = Streams::new(LIMITS);
        streams.execute(sleep(Duration::from_secs(7300)));
        assert_eq!(seconds(streams.retired()).await, 7200);
        assert_eq!(seconds(streams.drained()).await, 160, "the rest of the request, and the send timeout");
        let streams = Streams::new(StreamLimits { age: None, ..LIMITS });
        streams.execute(pending());
        assert!(timeout(Duration::from_secs(1 << 20), streams.retired()).await.is_err());
        assert!(timeout(Duration::from_secs(1 << 20), streams.drained()).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_panics_has_ended() {
        let streams = Streams::new(LIMITS);
        streams.execute(async { panic!("on purpose") });
        yield_now().await;
        assert_eq!(streams.load().0, 0);
    }
}
