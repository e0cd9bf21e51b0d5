//! Wire format of the demand stream from an activator to the autoscaler.
//!
//! The response to `GET /v1/demand` on an activator's admin port is an endless stream of lines, each a [`Frame`] in JSON.
//! The first frame contains every revision that has received a request through this process. Each later frame contains only
//! those that changed since, at most every [`FRAME_INTERVAL`]; the first request of an idle revision is reported at once. A
//! frame without revisions is sent every [`HEARTBEAT`], so that a reader can tell an idle activator from a lost one.
//!
//! All counters are monotonic from the start of the process, so a lost or late frame does no harm: the average
//! concurrency between two frames is the difference of `request_us` divided by the difference of time.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Version of the stream that this code writes.
pub const VERSION: u32 = 1;

/// Shortest time between two frames with changed revisions.
pub const FRAME_INTERVAL: Duration = Duration::from_millis(250);

/// Longest time between two frames.
pub const HEARTBEAT: Duration = Duration::from_secs(2);

/// Longest line that a reader accepts, in bytes.
pub const MAX_LINE: usize = 4 << 20;

/// One line of the stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Frame {
    /// Version of the stream; see [`VERSION`].
    pub version: u32,
    /// Identity of the activator process: its pod's name and its start time. A new identity means that all counters
    /// restarted.
    pub process: String,
    /// Number of the frame on this connection, from 0.
    pub sequence: u64,
    /// Microseconds since the start of the process, by a monotonic clock. Every counter below is as of this time.
    pub at_us: u64,
    /// Changed revisions.
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
    /// Requests in pods of this revision now: from the forwarding of a request until the end of its response body.
    pub in_flight: u64,
    /// Requests that are queued for a pod of this revision now.
    pub queued: u64,
    /// Requests since the start of the process, without those that were rejected before they were queued.
    pub arrivals: u64,
    /// Requests that ended in a pod since the start of the process, with or without an error.
    pub completions: u64,
    /// Requests that left the queue without a pod since the start of the process: the client disconnected, the request
    /// was rejected, or it moved to the queue of another revision. Also requests that were returned to the queue
    /// because their pod could not be connected to. `arrivals - completions - abandoned` is `in_flight + queued`.
    #[serde(default)]
    pub abandoned: u64,
    /// Integral of `in_flight + queued` over time, in request-microseconds.
    pub request_us: u64,
    /// Integral of `in_flight` over time, in request-microseconds. Absent in frames of older activators.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub busy_us: Option<u64>,
    /// Sum of the in-pod times of the requests in `completions`, in microseconds: their part of `busy_us`. The in-pod
    /// time of a request lasts from its forwarding until the end of its response body, without its time in the queue.
    #[serde(default)]
    pub served_us: u64,
    /// Pods of this revision with requests, and draining pods. A pod that is not listed has no request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pods: Vec<PodDemand>,
    /// Results of its requests. Present while the Function's spec sets `rollout.abortOn`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcomes: Option<Outcomes>,
}

/// Requests of one activator in one pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodDemand {
    /// Name of the pod.
    pub pod: String,
    /// Requests in the pod now.
    pub in_flight: u64,
    /// Whether this activator sends it no new requests, because the pod is a victim of a scale-down or is being deleted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub draining: bool,
}

/// Results of requests: monotonic counters from the start of the process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcomes {
    /// Requests that were forwarded to a pod and ended there, with response headers or without.
    pub answered: u64,
    /// Requests among them whose response has a status of 500 or higher, or that got no response.
    pub failed: u64,
    /// Histogram of the times from the forwarding of a request to its response headers: bucket and count, without empty
    /// buckets. See [`latency_bucket`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub latencies: Vec<(u16, u64)>,
}

/// Number of latency buckets.
pub const LATENCY_BUCKETS: u16 = 128;

/// The bound of each bucket is 2^(1/8), or 9 %, above the previous one.
const BUCKETS_PER_DOUBLING: f64 = 8.0;

/// Returns the bucket of a time to the response headers. Bucket 0 contains all up to 1 ms, the last one all from one minute.
#[must_use]
pub fn latency_bucket(latency: Duration) -> u16 {
    let millis = latency.as_secs_f64() * 1e3;
    if millis <= 1.0 {
        return 0;
    }
    // A float that does not fit saturates.
    ((millis.log2() * BUCKETS_PER_DOUBLING).ceil() as u16).min(LATENCY_BUCKETS - 1)
}

/// Returns the upper bound of a bucket, or the lower bound of the last one, which has no upper bound.
#[must_use]
pub fn latency_bound(bucket: u16) -> Duration {
    let bucket = bucket.min(LATENCY_BUCKETS - 1);
    Duration::from_secs_f64((f64::from(bucket) / BUCKETS_PER_DOUBLING).exp2() / 1e3)
}

impl RevisionDemand {
    /// Returns the number of requests, queued or in pods.
    #[must_use]
    pub fn concurrency(&self) -> u64 {
        self.in_flight.saturating_add(self.queued)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wire_format_is_stable() {
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
    fn the_wire_format_of_pods_and_outcomes_is_stable() {
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
    fn bucket_bounds_match_the_buckets() {
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
    fn a_negative_counter_is_rejected() {
        let line = r#"{"version":1,"process":"a","sequence":0,"atUs":0,"revisions":[{"namespace":"a","function":"b","revision":"c","inFlight":-1,"queued":0,"arrivals":0,"completions":0,"requestUs":0}]}"#;
        assert!(serde_json::from_str::<Frame>(line).is_err());
    }
}
