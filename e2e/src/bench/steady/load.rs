//! Open-loop load: requests at a constant rate, each sent when it is due, whether or not earlier ones have a response.
//!
//! Latency counts from the due time of a request, so a late client makes a figure worse, never better.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::Result;
use http::StatusCode;
use tokio::{
    sync::oneshot,
    task::{JoinError, JoinHandle, JoinSet},
    time::{Instant, sleep_until},
};

use crate::workspace::Workspace;

/// One request. Both times count from the start of the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sample {
    /// Due time.
    pub(super) due: Duration,
    /// End of its response, or its failure.
    pub(super) end: Duration,
    /// Whether the response was 200.
    pub(super) succeeded: bool,
}

impl Sample {
    /// Returns the time from its due time to its end.
    pub(super) fn took(&self) -> Duration {
        self.end.saturating_sub(self.due)
    }
}

/// Results of all requests.
#[derive(Debug, Default)]
pub(super) struct Requests {
    /// All requests that ended, by due time.
    pub(super) samples: Vec<Sample>,
    /// Number and first text of the failures by kind. Includes requests whose task panicked, which have no sample.
    failures: BTreeMap<String, (u32, String)>,
    /// Longest delay of the client in sending a request.
    pub(super) late: Duration,
}

/// A running load. Dropping it stops it.
#[derive(Debug)]
pub(super) struct Load {
    /// Due time of the first request.
    pub(super) started: Instant,
    /// Dropped to stop it.
    stop: oneshot::Sender<()>,
    pending: Arc<AtomicUsize>,
    task: JoinHandle<Requests>,
}

/// Result of one request: its sample, and kind and text of a failure.
type RequestResult = (Sample, Option<(String, String)>);

impl Load {
    /// Sends `GET path` to function `name` through the ingress, `rate` times a second, until [`Load::stop`].
    pub(super) fn start(workspace: &Workspace, name: &str, path: &str, rate: u32) -> Self {
        let ((stop, stopped), pending, started) = (oneshot::channel(), Arc::<AtomicUsize>::default(), Instant::now());
        let interval = Duration::from_secs(1) / rate;
        let (workspace, host, path) = (workspace.clone(), workspace.host(name), path.to_owned());
        let send = move || {
            let (workspace, host, path) = (workspace.clone(), host.clone(), path.clone());
            async move {
                match workspace.http_client.get(&host, &path).await {
                    Ok(response) if response.status == StatusCode::OK => None,
                    Ok(response) => Some((response.status.to_string(), response.text())),
                    Err(error) => Some(("no response".to_owned(), format!("{error:#}"))),
                }
            }
        };
        let task = tokio::spawn(send_at_rate(send, started, interval, stopped, Arc::clone(&pending)));
        Self { started, stop, pending, task }
    }

    /// Returns the number of requests without a response.
    pub(super) fn pending(&self) -> usize {
        self.pending.load(Ordering::Relaxed)
    }

    /// Stops the load and waits for the requests in flight, which the client's timeout bounds.
    pub(super) async fn stop(self) -> Result<Requests> {
        drop(self.stop);
        Ok(self.task.await?)
    }
}

async fn send_at_rate<F>(
    send: impl Fn() -> F,
    started: Instant,
    interval: Duration,
    mut stopped: oneshot::Receiver<()>,
    pending: Arc<AtomicUsize>,
) -> Requests
where
    F: Future<Output = Option<(String, String)>> + Send + 'static,
{
    let (mut requests, mut in_flight) = (Requests::default(), JoinSet::new());
    for number in 0.. {
        let due = interval * number;
        tokio::select! {
            biased;
            _ = &mut stopped => break,
            () = sleep_until(started + due) => {}
        }
        requests.late = requests.late.max(started.elapsed().saturating_sub(due));
        pending.fetch_add(1, Ordering::Relaxed);
        let (request, counter) = (send(), Arc::clone(&pending));
        in_flight.spawn(async move {
            let failure = request.await;
            counter.fetch_sub(1, Ordering::Relaxed);
            (Sample { due, end: started.elapsed(), succeeded: failure.is_none() }, failure)
        });
        while let Some(result) = in_flight.try_join_next() {
            requests.add(result);
        }
    }
    while let Some(result) = in_flight.join_next().await {
        requests.add(result);
    }
    requests.samples.sort_unstable_by_key(|sample| sample.due);
    requests
}

impl Requests {
    fn add(&mut self, result: Result<RequestResult, JoinError>) {
        let failure = match result {
            Ok((sample, failure)) => {
                self.samples.push(sample);
                failure
            }
            Err(error) => Some(("the client".to_owned(), error.to_string())),
        };
        if let Some((kind, text)) = failure {
            self.failures.entry(kind).or_insert((0, text)).0 += 1;
        }
    }

    /// Returns the number of requests without status 200.
    pub(super) fn failed(&self) -> u32 {
        self.failures.values().map(|(number, _)| number).sum()
    }

    /// Prints each kind of failure with its number and the first text.
    pub(super) fn print_failures(&self) {
        for (kind, (number, first)) in &self.failures {
            eprintln!("    {number} requests failed with {kind}, the first: {}", first.trim());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(20);

    /// Sends ten requests that take `took` and fail with `failure`.
    async fn ten(
        took: fn(usize) -> Duration,
        failure: fn(usize) -> Option<(String, String)>,
    ) -> (Requests, usize, usize) {
        let (stop, stopped) = oneshot::channel();
        let (number, pending) = (AtomicUsize::new(0), Arc::<AtomicUsize>::default());
        let send = move || {
            let number = number.fetch_add(1, Ordering::Relaxed);
            async move {
                tokio::time::sleep(took(number)).await;
                failure(number)
            }
        };
        let load = tokio::spawn(send_at_rate(send, Instant::now(), INTERVAL, stopped, Arc::clone(&pending)));
        tokio::time::sleep(INTERVAL * 9 + INTERVAL / 2).await;
        let open = pending.load(Ordering::Relaxed);
        stop.send(()).unwrap();
        (load.await.unwrap(), open, pending.load(Ordering::Relaxed))
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_response_delays_no_other_request_and_all_are_waited_for() {
        let slow_first = |number| Duration::from_secs(if number == 0 { 30 } else { 1 });
        let (requests, open, left) = ten(slow_first, |_| None).await;
        assert_eq!((open, left, requests.failed()), (10, 0, 0));
        let due: Vec<_> = requests.samples.iter().map(|s| s.due).collect();
        assert_eq!(due, (0..10).map(|n| INTERVAL * n).collect::<Vec<_>>());
        assert!(requests.samples[0].took() >= Duration::from_secs(30));
        assert!(requests.samples[1..].iter().all(|s| s.took() < Duration::from_secs(2)));
    }

    #[tokio::test(start_paused = true)]
    async fn every_failure_and_panic_is_counted() {
        let failure = |number| match number {
            3 => panic!("requested by the test"),
            7 | 8 => Some(("429 Too Many Requests".to_owned(), format!("number {number}"))),
            _ => None,
        };
        let (requests, ..) = ten(|_| Duration::ZERO, failure).await;
        assert_eq!((requests.samples.len(), requests.failed()), (9, 3));
        assert_eq!(requests.samples.iter().filter(|s| s.succeeded).count(), 7);
        assert_eq!(requests.failures["429 Too Many Requests"], (2, "number 7".to_owned()));
    }
}
