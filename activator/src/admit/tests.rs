//! Tests of the breaker: against a model, in paused time, and with many threads.

mod drain;
mod failure;
mod model;
mod panics;
mod pick;
mod ramp;
mod readiness;
mod threads;
mod traffic;
mod wake;
mod wake_rate;

use std::{sync::Arc, time::Duration};

use futures::future::BoxFuture;
use rouse_crds::{
    FunctionSpec,
    function::TrafficStatus,
    pod::{Ended, PodFailure},
};
use tokio::{sync::oneshot::error::TryRecvError, time::Instant};

use super::*;
use crate::{
    demand::Ledger,
    endpoints::{Dialer, Endpoint, PodFacts},
    function_id::{FunctionId, FunctionKey},
    metrics::Metrics,
    wake::{Scaler, WakeError},
};

/// A scaler that never completes.
#[derive(Debug)]
struct NoScaler;

impl Scaler for NoScaler {
    fn wake<'a>(&'a self, _: &'a str, _: &'a str, _: u32) -> BoxFuture<'a, Result<(), WakeError>> {
        Box::pin(std::future::pending())
    }
}

const REVISION: &str = "f-00001";
const NOTHING: Caps = Caps { requests: 0, bytes: 0 };

fn policy(limit: Option<u32>, queue: u32) -> Policy {
    Policy { limit, queue_requests: queue, ..Policy::from(&FunctionSpec::default()) }
}

fn context(bounds: Bounds) -> Arc<Context> {
    let ledger = Ledger::new();
    let metrics = Metrics::new(ledger.clone());
    Context::new(Arc::new(NoScaler), bounds, Dialer::new(true), metrics, ledger)
}

/// A status with these traffic percentages.
fn shares(of: &[(&str, u32)]) -> Vec<TrafficStatus> {
    let share = |(revision, percent): &(&str, u32)| TrafficStatus {
        revision: (*revision).to_owned(),
        percent: i32::try_from(*percent).unwrap(),
        ..TrafficStatus::default()
    };
    of.iter().map(share).collect()
}

/// A tag without traffic.
fn tag(name: &str, revision: &str) -> TrafficStatus {
    TrafficStatus { revision: revision.to_owned(), tag: Some(name.to_owned()), ..TrafficStatus::default() }
}

fn breaker_in(context: &Arc<Context>, namespace: &Arc<Namespace>, policy: Policy) -> Arc<Breaker> {
    let id = FunctionId { key: FunctionKey::new("ns", "f"), uid: "u".into() };
    let breaker = Breaker::new(id, policy, namespace.clone(), context.clone());
    breaker.set_traffic(&shares(&[(REVISION, 100)]));
    breaker
}

fn breaker(limit: Option<u32>, queue: u32) -> Arc<Breaker> {
    let context = context(Bounds::generous());
    let namespace = Namespace::new(context.bounds.namespace, context.bounds.namespace_wakes);
    breaker_in(&context, &namespace, policy(limit, queue))
}

fn facts(number: u16) -> PodFacts {
    PodFacts {
        id: number.to_string().into(),
        revision: REVISION.into(),
        ip: Some("127.0.0.1".parse().unwrap()),
        port: Some(number),
        protocol: None,
        readiness: None,
        scheduled: true,
        ready: false,
        draining: false,
        failure: None,
        ended: Ended::Never,
        restarts: 0,
    }
}

fn endpoint(breaker: &Breaker, number: u16) -> Option<Arc<Endpoint>> {
    let inner = breaker.lock();
    let trackers = &inner.revisions.iter().find(|r| *r.name == *REVISION)?.trackers;
    trackers.iter().find(|s| *s.id == *number.to_string())?.endpoint.clone()
}

/// Makes a pod serve, as a probe does.
fn serve(breaker: &Arc<Breaker>, number: u16) {
    breaker.pod_updated(&facts(number));
    breaker.endpoint_ready(&endpoint(breaker, number).unwrap());
}

/// Queued and granted requests, as their clients see them.
#[derive(Default)]
struct Callers {
    waiting: Vec<Ticket>,
    inside: Vec<Permit>,
    turned_away: usize,
}

impl Callers {
    fn enter(&mut self, admission: Result<Admission, Rejection>) {
        match admission {
            Ok(Admission::Granted(permit)) => self.inside.push(permit),
            Ok(Admission::Queued(ticket)) => self.waiting.push(ticket),
            Err(_) => self.turned_away += 1,
        }
    }

    /// Collects what was granted. Each grant arrived before everything that is still queued.
    fn collect(&mut self) {
        let mut granted = vec![];
        for mut ticket in std::mem::take(&mut self.waiting) {
            match ticket.receiver.try_recv() {
                Ok(Ok(permit)) => {
                    ticket.done = true;
                    granted.push(permit);
                }
                Ok(Err(_)) => {
                    ticket.done = true;
                    self.turned_away += 1;
                }
                Err(TryRecvError::Empty) => self.waiting.push(ticket),
                Err(TryRecvError::Closed) => panic!("a grant was lost"),
            }
        }
        if let Some(ticket) = self.waiting.first() {
            for revision in &ticket.breaker.lock().revisions {
                let of_it = granted.iter().filter(|permit| Arc::ptr_eq(&permit.account, &revision.account));
                let (latest, earliest) = (of_it.map(Permit::sequence).max(), revision.queue.keys().next().copied());
                if let (Some(latest), Some(earliest)) = (latest, earliest) {
                    assert!(latest < earliest, "{latest} was let in before {earliest}");
                }
            }
        }
        self.inside.append(&mut granted);
    }
}

/// Queues a request.
fn park(breaker: &Arc<Breaker>) -> Ticket {
    match breaker.admit(&Target::ANY, || 1) {
        Ok(Admission::Queued(ticket)) => ticket,
        other => panic!("{other:?}"),
    }
}

fn failing(reason: &str) -> Option<PodFailure> {
    Some(PodFailure { reason: reason.into(), message: "why".into() })
}

/// Returns the reason of a rejection because of failing pods.
fn reason(admission: Result<Admission, Rejection>) -> String {
    match admission {
        Err(Rejection::Failing { failure, .. }) => failure.reason,
        other => panic!("{other:?}"),
    }
}
