//! Wire format of the demand stream from an activator to the autoscaler.
//!
//! The response to `GET /v1/demand` on an activator's admin port is an endless stream of lines, each a [`Frame`] in JSON.
//! The first report contains every revision that has received a request through this process. Each later report contains
//! only those that changed since, at most every [`FRAME_INTERVAL`]; the first request of an idle revision is reported at once.
//! A frame without revisions is sent every [`HEARTBEAT`], so that a reader can tell an idle activator from a lost one.
//!
//! A report of more than [`MAX_PART`] bytes is sent in parts: frames one right after the other, of which all but the last
//! have [`Frame::more`]. The frame of sequence 0 begins the first report. A reader that does not know `more` takes each part
//! for a report: between the parts of the first one it misses revisions, and counts of before the connection may seem new to
//! it. A writer that does not know `more` sends each report as one frame.
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

/// Longest line that a reader accepts, in bytes. Longer than [`MAX_PART`], because older activators send each report as one
/// frame, and a revision with very many pods is not divided.
pub const MAX_LINE: usize = 4 << 20;

/// Longest line that a writer makes of several revisions, in bytes.
pub const MAX_PART: usize = 256 << 10;

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
    /// Whether the report goes on in the next frame.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
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
    /// Requests that are queued for a pod of this revision now, without those in `held`.
    pub queued: u64,
    /// Requests that are queued while the rate limits of wakes do not allow a wake of this revision yet. They are in no other
    /// number: they count as arrivals when the wake is due, so that nobody else starts pods for them before. Older activators
    /// count them in `queued`, older readers do not see them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub held: u64,
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

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Bytes of a frame without revisions, without the identity of its process.
const FRAME_BYTES: usize = 128;

impl Frame {
    /// Returns an upper bound of the bytes of a frame without revisions.
    #[must_use]
    pub fn base_bytes(process: &str) -> usize {
        FRAME_BYTES + text_bytes(process)
    }
}

/// Returns an upper bound of the bytes of a text in JSON: every character of it may be escaped.
fn text_bytes(text: &str) -> usize {
    let escaped = text.bytes().filter(|b| *b < b' ' || *b == b'"' || *b == b'\\').count();
    text.len() + 5 * escaped + 2
}

impl RevisionDemand {
    /// Returns an upper bound of its bytes in a frame.
    #[must_use]
    pub fn max_bytes(&self) -> usize {
        // Keys and punctuation; a number has at most 20 digits.
        let pods: usize = self.pods.iter().map(|pod| 64 + text_bytes(&pod.pod)).sum();
        let outcomes = self.outcomes.as_ref().map_or(0, |outcomes| 96 + 29 * outcomes.latencies.len());
        512 + text_bytes(&self.namespace) + text_bytes(&self.function) + text_bytes(&self.revision) + pods + outcomes
    }

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
            more: false,
            revisions: vec![RevisionDemand {
                namespace: "default".into(),
                function: "hello".into(),
                revision: "hello-00001".into(),
                in_flight: 1,
                queued: 2,
                held: 0,
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
    fn the_wire_format_of_parts_and_held_requests_is_additive() {
        let held = RevisionDemand { held: 3, ..RevisionDemand::default() };
        assert_eq!(serde_json::to_value(&held).unwrap()["held"], 3);
        let frame =
            Frame { version: VERSION, process: "a".into(), sequence: 0, at_us: 0, more: true, revisions: vec![held] };
        let line = serde_json::to_string(&frame).unwrap();
        assert!(line.contains(r#""atUs":0,"more":true,"revisions""#), "{line}");
        assert_eq!(serde_json::from_str::<Frame>(&line).unwrap(), frame);
        // An older reader ignores both, and an older writer writes neither.
        let last = Frame { more: false, revisions: vec![], ..frame };
        assert_eq!(serde_json::to_string(&last).unwrap(), r#"{"version":1,"process":"a","sequence":0,"atUs":0}"#);
    }

    #[test]
    fn no_revision_is_longer_than_its_bound() {
        let names = ["", "a", "\u{1}\"\\", "\u{fffd}x\u{7f}", &"n".repeat(253)];
        let most = PodDemand { pod: names[2].into(), in_flight: u64::MAX, draining: true };
        let outcomes = Outcomes {
            answered: u64::MAX,
            failed: u64::MAX,
            latencies: (0..LATENCY_BUCKETS).map(|bucket| (bucket, u64::MAX)).collect(),
        };
        for name in names {
            for (pods, outcomes) in [(0, None), (1, Some(outcomes.clone())), (10_000, Some(Outcomes::default()))] {
                let revision = RevisionDemand {
                    namespace: name.into(),
                    function: name.into(),
                    revision: name.into(),
                    in_flight: u64::MAX,
                    queued: u64::MAX,
                    held: u64::MAX,
                    arrivals: u64::MAX,
                    completions: u64::MAX,
                    abandoned: u64::MAX,
                    request_us: u64::MAX,
                    busy_us: Some(u64::MAX),
                    served_us: u64::MAX,
                    pods: vec![most.clone(); pods],
                    outcomes,
                };
                let bytes = serde_json::to_vec(&revision).unwrap().len();
                // With the comma after it.
                assert!(bytes < revision.max_bytes(), "{bytes} of {}", revision.max_bytes());
            }
            let frame = Frame {
                version: u32::MAX,
                process: name.into(),
                sequence: u64::MAX,
                at_us: u64::MAX,
                more: true,
                revisions: vec![],
            };
            assert!(serde_json::to_vec(&frame).unwrap().len() + 20 < Frame::base_bytes(name));
        }
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
