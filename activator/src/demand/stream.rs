//! The demand stream of one reader.
//!
//! A frame is made when the reader is ready for it and not before: a slow reader gets fewer and larger frames, and
//! nothing is buffered for it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use rouse_crds::demand::{FRAME_INTERVAL, Frame, HEARTBEAT, VERSION};
use tokio::{sync::watch, time::Instant};

use super::ledger::{Ledger, Reading};

/// Minimum time between two frames, however urgent.
const URGENT_INTERVAL: Duration = Duration::from_millis(5);

/// The frames of one connection.
#[derive(Debug)]
pub struct Frames {
    ledger: Arc<Ledger>,
    urgent: watch::Receiver<u64>,
    process: Arc<str>,
    sequence: u64,
    mark: Option<u64>,
    /// When the last frame was made.
    sent: Instant,
}

impl Frames {
    /// Creates the frames of a new connection, sent by the process of this identity.
    #[must_use]
    pub fn new(ledger: Arc<Ledger>, process: Arc<str>) -> Self {
        let urgent = ledger.urgent();
        Self { ledger, urgent, process, sequence: 0, mark: None, sent: Instant::now() }
    }

    /// Waits until there is something to report, and returns it as one line.
    ///
    /// Cancel-safe: what was not returned is part of the next frame.
    pub async fn next(&mut self) -> Result<Bytes, serde_json::Error> {
        let Some(mark) = self.mark else {
            return self.line(self.ledger.read(None));
        };
        let heartbeat = self.sent + HEARTBEAT;
        loop {
            let regular = (self.sent + FRAME_INTERVAL).max(Instant::now() + Duration::from_millis(1));
            let urgent = tokio::select! {
                biased;
                changed = self.urgent.changed() => changed.is_ok(),
                () = tokio::time::sleep_until(regular.min(heartbeat)) => false,
            };
            if urgent {
                tokio::time::sleep_until(self.sent + URGENT_INTERVAL).await;
            }
            let reading = self.ledger.read(Some(mark));
            if !reading.revisions.is_empty() || Instant::now() >= heartbeat {
                return self.line(reading);
            }
            if !urgent {
                // Nothing changed in a whole interval: the next change is either urgent or part of the next regular
                // frame.
                tokio::select! {
                    changed = self.urgent.changed() => if changed.is_ok() { self.urgent.mark_changed() },
                    () = tokio::time::sleep_until((Instant::now() + FRAME_INTERVAL).min(heartbeat)) => {},
                }
            }
        }
    }

    fn line(&mut self, reading: Reading) -> Result<Bytes, serde_json::Error> {
        self.mark = Some(reading.mark);
        self.sent = Instant::now();
        let frame = Frame {
            version: VERSION,
            process: self.process.to_string(),
            sequence: self.sequence,
            at_us: reading.at_us,
            revisions: reading.revisions,
        };
        self.sequence += 1;
        let mut line = serde_json::to_vec(&frame)?;
        line.push(b'\n');
        Ok(line.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn next(frames: &mut Frames) -> Frame {
        serde_json::from_slice(&frames.next().await.unwrap()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn first_everything_then_changes_then_heartbeats() {
        let ledger = Ledger::new();
        let account = ledger.account("ns", "f", "f-00001");
        account.enter();
        account.complete(Duration::ZERO);
        let mut frames = Frames::new(ledger.clone(), "p/1".into());
        let first = next(&mut frames).await;
        assert_eq!((first.sequence, first.revisions.len(), first.process.as_str()), (0, 1, "p/1"));

        let before = Instant::now();
        let beat = next(&mut frames).await;
        assert_eq!((beat.sequence, beat.revisions.len()), (1, 0));
        assert!(
            before.elapsed() >= HEARTBEAT && before.elapsed() < HEARTBEAT + FRAME_INTERVAL,
            "{:?}",
            before.elapsed()
        );

        let before = Instant::now();
        account.queue();
        let urgent = next(&mut frames).await;
        assert_eq!(urgent.revisions[0].queued, 1);
        assert!(before.elapsed() <= Duration::from_millis(6), "{:?}", before.elapsed());

        let before = Instant::now();
        account.grant();
        let busy = next(&mut frames).await;
        assert_eq!((busy.revisions[0].queued, busy.revisions[0].in_flight), (0, 1));
        assert!(before.elapsed() >= FRAME_INTERVAL - Duration::from_millis(6), "{:?}", before.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_gets_one_merged_frame() {
        let ledger = Ledger::new();
        let account = ledger.account("ns", "f", "f-00001");
        let mut frames = Frames::new(ledger.clone(), "p/1".into());
        next(&mut frames).await;
        for _ in 0..1000 {
            account.enter();
            tokio::time::advance(Duration::from_millis(10)).await;
            account.complete(Duration::ZERO);
        }
        let merged = next(&mut frames).await;
        assert_eq!(
            (merged.sequence, merged.revisions[0].arrivals, merged.revisions[0].request_us),
            (1, 1000, 10_000_000)
        );
    }
}
