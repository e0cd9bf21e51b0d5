//! The demand stream: what an activator tells the autoscaler.
//!
//! `GET /v1/demand` on an activator's admin port answers with an unending stream of lines, each a [`Frame`] in JSON. The
//! first frame holds every revision that has ever been called in this process; each later frame holds only those that
//! changed since, at most every [`FRAME_INTERVAL`], except that the first request of an idle revision is sent at once. A
//! frame without revisions is sent every [`HEARTBEAT`], so that a reader can tell silence from loss.
//!
//! All counters are monotonic from the start of the process, so a lost or late frame does no harm: the average
//! concurrency between two frames is the difference of `request_us` over the difference of time.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Version of the stream that this code writes.
pub const VERSION: u32 = 1;

/// Changed revisions are told at most this often.
pub const FRAME_INTERVAL: Duration = Duration::from_millis(250);

/// A frame is sent at least this often.
pub const HEARTBEAT: Duration = Duration::from_secs(2);

/// Longest line that a reader takes, in bytes; a longer one is garbage.
pub const MAX_LINE: usize = 4 << 20;

/// One line of the stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Frame {
    /// [`VERSION`].
    pub version: u32,
    /// Identity of the activator process: its pod's name and its start. Another one means that counters began anew.
    pub process: String,
    /// Counts the frames of this connection, from 0.
    pub sequence: u64,
    /// Microseconds since the process began, by a clock that never goes back. Every counter below is as of this moment.
    pub at_us: u64,
    /// What changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub revisions: Vec<RevisionDemand>,
}

/// Demand for one revision of a function.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RevisionDemand {
    /// Namespace of the Function.
    pub namespace: String,
    /// Name of the Function.
    pub function: String,
    /// Name of the revision.
    pub revision: String,
    /// Requests in pods of this revision now: from the moment one is sent on until the end of its response body.
    pub in_flight: u64,
    /// Requests that wait for a pod of this revision now.
    pub queued: u64,
    /// Requests that came, ever. One that was refused before it could wait is not counted.
    pub arrivals: u64,
    /// Requests that ended in a pod, ever, however they ended.
    pub completions: u64,
    /// Requests that left the queue without a pod, ever: the client gave up, the request was rejected, or it moved to the
    /// queue of another revision. Also requests that were returned to the queue because their pod could not be connected to.
    /// `arrivals - completions - abandoned` is `in_flight + queued`.
    #[serde(default)]
    pub abandoned: u64,
    /// Integral of `in_flight + queued` over time, in request-microseconds.
    pub request_us: u64,
    /// Integral of `in_flight` over time, in request-microseconds. Absent in frames of older activators.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub busy_us: Option<u64>,
    /// Sum of the in-pod times of the requests in `completions`, in microseconds: what `busy_us` holds of them. The in-pod
    /// time of a request is from the moment it is sent on until the end of its response body, without its time in the queue.
    #[serde(default)]
    pub served_us: u64,
    /// Pods of this revision with requests, and those that get nothing new. A pod that is not here has none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pods: Vec<PodDemand>,
    /// How its answers were. Told while the Function's spec asks for it to be judged (`rollout.abortOn`), else absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcomes: Option<Outcomes>,
}

/// What one pod has of one activator's requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodDemand {
    /// Name of the pod.
    pub pod: String,
    /// Requests in it now.
    pub in_flight: u64,
    /// Whether this activator sends it nothing new, because it is to go.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub draining: bool,
}

/// How requests ended, ever: monotonic from the start of the process, as all counters are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcomes {
    /// Requests that were given to a pod and ended there: with the head of an answer, or without one.
    pub answered: u64,
    /// Those among them that were answered with a status of 500 or more, or not at all.
    pub failed: u64,
    /// Times from the moment a request was given to a pod to the head of its answer: counts by bucket, and only the
    /// buckets that have some. See [`latency_bucket`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub latencies: Vec<(u16, u64)>,
}

/// Number of latency buckets.
pub const LATENCY_BUCKETS: u16 = 128;

/// Each bucket ends an eighth of a doubling above the one before it: nine percent.
const BUCKETS_PER_DOUBLING: f64 = 8.0;

/// The bucket of a time to the head of an answer: 0 holds all up to a millisecond, the last one all from a minute on.
#[must_use]
pub fn latency_bucket(latency: Duration) -> u16 {
    let millis = latency.as_secs_f64() * 1e3;
    if millis <= 1.0 {
        return 0;
    }
    // A float that does not fit saturates.
    ((millis.log2() * BUCKETS_PER_DOUBLING).ceil() as u16).min(LATENCY_BUCKETS - 1)
}

/// The longest time that is counted in a bucket (the last one has no end; what is given is where it begins).
#[must_use]
pub fn latency_bound(bucket: u16) -> Duration {
    let bucket = bucket.min(LATENCY_BUCKETS - 1);
    Duration::from_secs_f64((f64::from(bucket) / BUCKETS_PER_DOUBLING).exp2() / 1e3)
}

impl RevisionDemand {
    /// Requests that want a pod now, waiting or in one.
    #[must_use]
    pub fn concurrency(&self) -> u64 {
        self.in_flight.saturating_add(self.queued)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wire_form_is_stable() {
        let frame = Frame {
            version: VERSION,
            process: "rouse-activator-abc/1".into(),
            sequence: 7,
            at_us: 1_000_000,
            revisions: vec![RevisionDemand {
                namespace: "default".into(),
                function: "hello".into(),
                revision: "hello-00001".into(),
                in_flight: 1,
                queued: 2,
                arrivals: 5,
                completions: 2,
                abandoned: 1,
                request_us: 42,
                busy_us: Some(40),
                served_us: 30,
                pods: vec![],
                outcomes: None,
            }],
        };
        let line = serde_json::to_string(&frame).unwrap();
        assert_eq!(
            line,
            r#"{"version":1,"process":"rouse-activator-abc/1","sequence":7,"atUs":1000000,"revisions":[{"namespace":"default","function":"hello","revision":"hello-00001","inFlight":1,"queued":2,"arrivals":5,"completions":2,"abandoned":1,"requestUs":42,"busyUs":40,"servedUs":30}]}"#
        );
        assert_eq!(serde_json::from_str::<Frame>(&line).unwrap(), frame);
    }

    #[test]
    fn a_frame_of_an_older_activator_is_read() {
        let line = r#"{"version":1,"process":"a","sequence":0,"atUs":0,"revisions":[{"namespace":"a","function":"b","revision":"c","inFlight":1,"queued":0,"arrivals":3,"completions":2,"requestUs":9}]}"#;
        let read = serde_json::from_str::<Frame>(line).unwrap().revisions.remove(0);
        assert_eq!((read.abandoned, read.busy_us, read.served_us), (0, None, 0));
    }

    #[test]
    fn pods_and_outcomes_have_a_form_too() {
        let revision = RevisionDemand {
            pods: vec![
                PodDemand { pod: "a".into(), in_flight: 3, draining: false },
                PodDemand { pod: "b".into(), in_flight: 0, draining: true },
            ],
            outcomes: Some(Outcomes { answered: 9, failed: 1, latencies: vec![(0, 8), (40, 1)] }),
            ..RevisionDemand::default()
        };
        let value = serde_json::to_value(&revision).unwrap();
        assert_eq!(
            value["pods"],
            serde_json::json!([{"pod": "a", "inFlight": 3}, {"pod": "b", "inFlight": 0, "draining": true}])
        );
        assert_eq!(value["outcomes"], serde_json::json!({"answered": 9, "failed": 1, "latencies": [[0, 8], [40, 1]]}));
        assert_eq!(serde_json::from_value::<RevisionDemand>(value).unwrap(), revision);
    }

    #[test]
    fn buckets_hold_what_they_say() {
        let bounds: Vec<_> = (0..LATENCY_BUCKETS).map(latency_bound).collect();
        assert!(bounds.is_sorted() && bounds[0] == Duration::from_millis(1) && bounds[127] > Duration::from_secs(59));
        for bucket in 1..LATENCY_BUCKETS - 1 {
            let bound = latency_bound(bucket);
            assert_eq!(latency_bucket(bound.mul_f64(0.999)), bucket);
            assert_eq!(latency_bucket(bound.mul_f64(1.001)), bucket + 1);
        }
        assert_eq!((latency_bucket(Duration::ZERO), latency_bucket(Duration::MAX)), (0, LATENCY_BUCKETS - 1));
    }

    #[test]
    fn a_negative_counter_is_refused() {
        let line = r#"{"version":1,"process":"a","sequence":0,"atUs":0,"revisions":[{"namespace":"a","function":"b","revision":"c","inFlight":-1,"queued":0,"arrivals":0,"completions":0,"requestUs":0}]}"#;
        assert!(serde_json::from_str::<Frame>(line).is_err());
    }
}
