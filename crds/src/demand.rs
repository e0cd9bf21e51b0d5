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
    /// Requests that ended, ever, however they ended.
    pub completions: u64,
    /// Integral of `in_flight + queued` over time, in request-microseconds.
    pub request_us: u64,
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
                request_us: 42,
            }],
        };
        let line = serde_json::to_string(&frame).unwrap();
        assert_eq!(
            line,
            r#"{"version":1,"process":"rouse-activator-abc/1","sequence":7,"atUs":1000000,"revisions":[{"namespace":"default","function":"hello","revision":"hello-00001","inFlight":1,"queued":2,"arrivals":5,"completions":2,"requestUs":42}]}"#
        );
        assert_eq!(serde_json::from_str::<Frame>(&line).unwrap(), frame);
    }

    #[test]
    fn a_negative_counter_is_refused() {
        let line = r#"{"version":1,"process":"a","sequence":0,"atUs":0,"revisions":[{"namespace":"a","function":"b","revision":"c","inFlight":-1,"queued":0,"arrivals":0,"completions":0,"requestUs":0}]}"#;
        assert!(serde_json::from_str::<Frame>(line).is_err());
    }
}
