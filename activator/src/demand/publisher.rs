//! Publisher of demand frames: encodes each frame once, for all readers.
//!
//! A frame is made when something changed, and only while there are readers. The accounts are walked once per frame,
//! and once more for a reader that needs everything: a new one, or one that was so slow that frames it lacks are gone.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;
use parking_lot::Mutex;
use rouse_crds::demand::{FRAME_INTERVAL, Frame, HEARTBEAT, MAX_PART, RevisionDemand, VERSION};
use serde::Serialize;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use super::ledger::{Ledger, Reading, Report};

/// Minimum time between two frames, however urgent.
const URGENT_INTERVAL: Duration = Duration::from_millis(5);

/// Frames that are kept for slow readers, and their bytes; a reader that lacks older ones gets everything instead.
const KEPT: usize = 64;
const KEPT_BYTES: usize = 4 << 20;

/// Publishes frames.
#[derive(Debug)]
pub struct Publisher {
    ledger: Arc<Ledger>,
    process: Arc<str>,
    published: Mutex<Published>,
    /// Number of the last frame.
    number: watch::Sender<u64>,
    first_reader: Notify,
}

#[derive(Debug, Default)]
struct Published {
    readers: usize,
    mark: Option<u64>,
    number: u64,
    /// The last frames, in order; the last one has the number above.
    changes: VecDeque<Bytes>,
    bytes: usize,
    whole: Option<Whole>,
}

/// Every account, as of the frame with this number.
#[derive(Clone, Debug)]
struct Whole {
    number: u64,
    made: Instant,
    lines: VecDeque<Bytes>,
}

/// The part of a frame that is the same for all readers.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Content {
    at_us: u64,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    more: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    revisions: Vec<RevisionDemand>,
}

/// The next frames of a reader, and the number of the last one.
pub(super) type Next = (u64, VecDeque<Bytes>);

impl Publisher {
    /// Creates the publisher of a process of this identity.
    #[must_use]
    pub fn new(ledger: Arc<Ledger>, process: Arc<str>) -> Arc<Self> {
        Arc::new(Self {
            ledger,
            process,
            published: Mutex::default(),
            number: watch::Sender::default(),
            first_reader: Notify::new(),
        })
    }

    /// Makes frames while there are readers, until it is dropped.
    pub async fn run(&self) {
        let mut urgent = self.ledger.urgent();
        loop {
            while self.published.lock().readers == 0 {
                self.first_reader.notified().await;
            }
            let mut sent = Instant::now();
            while self.published.lock().readers > 0 {
                self.publish_next(&mut urgent, &mut sent).await;
            }
        }
    }

    /// Waits until there is something to report, and publishes it.
    async fn publish_next(&self, urgent: &mut watch::Receiver<u64>, sent: &mut Instant) {
        let heartbeat = *sent + HEARTBEAT;
        let regular = (*sent + FRAME_INTERVAL).max(Instant::now() + Duration::from_millis(1));
        let is_urgent = tokio::select! {
            biased;
            changed = urgent.changed() => changed.is_ok(),
            () = tokio::time::sleep_until(regular.min(heartbeat)) => false,
        };
        if is_urgent {
            tokio::time::sleep_until(*sent + URGENT_INTERVAL).await;
        }
        if self.publish(Instant::now() >= heartbeat) {
            *sent = Instant::now();
        } else if !is_urgent {
            // Nothing changed in a whole interval: the next change is either urgent or part of the next regular frame.
            tokio::select! {
                changed = urgent.changed() => if changed.is_ok() { urgent.mark_changed() },
                () = tokio::time::sleep_until((Instant::now() + FRAME_INTERVAL).min(heartbeat)) => {},
            }
        }
    }

    /// Publishes what changed since the last frame. Returns whether there was anything, or it had to be.
    fn publish(&self, required: bool) -> bool {
        let mut published = self.published.lock();
        let mut report = self.ledger.report(published.mark);
        let first = self.next_part(&mut report);
        if first.revisions.is_empty() && !required {
            return false;
        }
        published.mark = Some(first.mark);
        let lines = self.encode(first, report);
        let newest = lines.len();
        published.number += newest as u64;
        published.bytes += lines.iter().map(Bytes::len).sum::<usize>();
        published.changes.extend(lines);
        // The last report is kept whole, however long it is.
        while published.changes.len() > newest && (published.changes.len() > KEPT || published.bytes > KEPT_BYTES) {
            let oldest = published.changes.pop_front();
            published.bytes -= oldest.map_or(0, |line| line.len());
        }
        self.number.send_replace(published.number);
        true
    }

    /// Returns the next frame of a reader that has had those up to `seen`; `None` if there is none yet. A reader that has
    /// had none, or lacks frames that are gone, gets every account.
    pub(super) fn next(&self, seen: Option<u64>) -> Option<Next> {
        let mut published = self.published.lock();
        let oldest = published.number + 1 - published.changes.len() as u64;
        match seen {
            Some(seen) if seen == published.number => return None,
            Some(seen) if seen + 1 >= oldest && seen < published.number => {
                let index = usize::try_from(seen + 1 - oldest).ok()?;
                return Some((seen + 1, [published.changes.get(index)?.clone()].into()));
            }
            _ => {}
        }
        let fresh = published.whole.as_ref().filter(|whole| {
            whole.number + 1 >= oldest && whole.made.elapsed() < FRAME_INTERVAL && seen.is_none_or(|s| s < whole.number)
        });
        if let Some(whole) = fresh {
            return Some((whole.number, whole.lines.clone()));
        }
        let mut report = self.ledger.report(None);
        let first = self.next_part(&mut report);
        let whole = Whole { number: published.number, made: Instant::now(), lines: self.encode(first, report) };
        published.whole = Some(whole.clone());
        Some((whole.number, whole.lines))
    }

    /// Adds a reader; its receiver is notified of each frame.
    pub(super) fn join(&self) -> watch::Receiver<u64> {
        let mut published = self.published.lock();
        if published.readers == 0 {
            // What changed without readers is in what this one gets first, which is read after this.
            let mark = Some(self.ledger.read(None).mark);
            *published = Published { mark, number: published.number, ..Published::default() };
            self.first_reader.notify_one();
        }
        published.readers += 1;
        self.number.subscribe()
    }

    pub(super) fn leave(&self) {
        self.published.lock().readers -= 1;
    }

    /// Returns the part of a frame that is a reader's own.
    pub(super) fn head(&self, sequence: u64) -> Bytes {
        let process = serde_json::Value::from(&*self.process);
        format!("{{\"version\":{VERSION},\"process\":{process},\"sequence\":{sequence},").into()
    }

    fn next_part(&self, report: &mut Report) -> Reading {
        report.next_part(MAX_PART - Frame::base_bytes(&self.process))
    }

    /// Returns the frames of a report, each from after its [`Publisher::head`] on.
    fn encode(&self, first: Reading, mut report: Report) -> VecDeque<Bytes> {
        let (mut lines, mut part) = (VecDeque::new(), first);
        loop {
            let more = part.more;
            let content = Content { at_us: part.at_us, more, revisions: part.revisions };
            match serde_json::to_vec(&content) {
                Ok(mut line) => {
                    line.push(b'\n');
                    // Without the brace that the head has.
                    lines.push_back(Bytes::from(line).slice(1..));
                }
                Err(error) => tracing::error!(%error, "Failed to encode a demand frame"),
            }
            if !more {
                return lines;
            }
            part = self.next_part(&mut report);
        }
    }
}
