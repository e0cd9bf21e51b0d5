//! The demand stream of one reader.
//!
//! A frame is made when the reader is ready for it and not before: a slow reader gets fewer and larger frames, and
//! nothing is buffered for it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use rouse_crds::demand::{FRAME_INTERVAL, Frame, HEARTBEAT, MAX_PART, VERSION};
use tokio::{sync::watch, time::Instant};

use super::ledger::{Ledger, Reading, Report};

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
    /// The report of which parts have not been sent.
    open: Option<Report>,
    /// When the last frame was made.
    sent: Instant,
}

impl Frames {
    /// Creates the frames of a new connection, sent by the process of this identity.
    #[must_use]
    pub fn new(ledger: Arc<Ledger>, process: Arc<str>) -> Self {
        let urgent = ledger.urgent();
        Self { ledger, urgent, process, sequence: 0, mark: None, open: None, sent: Instant::now() }
    }

    /// Waits until there is something to report, and returns it as one line. The further parts of a long report are there
    /// at once.
    ///
    /// Cancel-safe: what was not returned is part of the next frame.
    pub async fn next(&mut self) -> Result<Bytes, serde_json::Error> {
        if let Some(mut report) = self.open.take() {
            let part = self.next_part(&mut report);
            return self.line(report, part);
        }
        let Some(mark) = self.mark else {
            let mut report = self.ledger.report(None);
            let part = self.next_part(&mut report);
            return self.line(report, part);
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
            let mut report = self.ledger.report(Some(mark));
            let part = self.next_part(&mut report);
            if !part.revisions.is_empty() || Instant::now() >= heartbeat {
                return self.line(report, part);
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

    fn next_part(&self, report: &mut Report) -> Reading {
        report.next_part(MAX_PART - Frame::base_bytes(&self.process))
    }

    fn line(&mut self, report: Report, part: Reading) -> Result<Bytes, serde_json::Error> {
        self.mark = Some(part.mark);
        self.open = part.more.then_some(report);
        self.sent = Instant::now();
        let frame = Frame {
            version: VERSION,
            process: self.process.to_string(),
            sequence: self.sequence,
            at_us: part.at_us,
            more: part.more,
            revisions: part.revisions,
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
    async fn a_long_report_is_sent_in_parts() {
        let ledger = Ledger::new();
        let names: Vec<_> = (0..100_000).map(|n| format!("function-{n:05}")).collect();
        let accounts: Vec<_> = names.iter().map(|f| ledger.account("ns", f, &format!("{f}-00001"))).collect();
        for account in &accounts {
            account.enter();
        }
        let mut frames = Frames::new(ledger.clone(), "p/1".into());
        // The first report, and one of changes: all are busy.
        for first in [true, false] {
            let (mut told, mut last) = (std::collections::BTreeSet::new(), false);
            while !last {
                let line = frames.next().await.unwrap();
                assert!(line.len() <= MAX_PART, "{} bytes", line.len());
                let frame: Frame = serde_json::from_slice(&line).unwrap();
                assert_eq!(frame.sequence == 0, first && told.is_empty());
                assert!(!frame.revisions.is_empty());
                last = !frame.more;
                told.extend(frame.revisions.into_iter().map(|r| r.function));
            }
            assert!(told.iter().eq(&names), "{} of {}", told.len(), names.len());
        }
        accounts.iter().for_each(|account| account.complete(Duration::ZERO));
        while next(&mut frames).await.more {}
        assert!(next(&mut frames).await.revisions.is_empty(), "a heartbeat");
    }

    #[tokio::test(start_paused = true)]
    async fn changes_between_the_parts_of_a_report_are_not_lost() {
        let ledger = Ledger::new();
        let accounts: Vec<_> = (0..2_000).map(|n| ledger.account("ns", "f", &format!("f-{n:05}"))).collect();
        for account in &accounts {
            account.enter();
        }
        let mut frames = Frames::new(ledger.clone(), "p/1".into());
        let mut in_flight = std::collections::BTreeMap::new();
        let mut take = |frame: Frame| {
            let more = frame.more;
            in_flight.extend(frame.revisions.into_iter().map(|r| (r.revision, r.in_flight)));
            (more, in_flight.len(), in_flight.values().sum::<u64>())
        };
        assert!(take(next(&mut frames).await).0);
        // Some have been told, others not.
        accounts.iter().for_each(|account| account.complete(Duration::ZERO));
        let mut after = (true, 0, 0);
        while after.0 {
            after = take(next(&mut frames).await);
        }
        assert!(after.1 == 2_000 && after.2 > 0, "{after:?}");
        after.0 = true;
        while after.0 {
            after = take(next(&mut frames).await);
        }
        assert_eq!(after, (false, 2_000, 0));
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
