//! The demand stream of one reader.
//!
//! A frame is taken when the reader is ready for it and not before: a slow reader gets what others got already, and
//! everything at once if it is too slow for that. Nothing is buffered for it.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use tokio::sync::watch;

use super::publisher::Publisher;

/// The frames of one connection.
#[derive(Debug)]
pub struct Frames {
    publisher: Arc<Publisher>,
    published: watch::Receiver<u64>,
    sequence: u64,
    /// Number of the last frame that this reader has got.
    seen: Option<u64>,
    /// Parts of every account that have not been returned.
    open: VecDeque<Bytes>,
}

impl Frames {
    /// Creates the frames of a new reader.
    #[must_use]
    pub fn new(publisher: Arc<Publisher>) -> Self {
        let published = publisher.join();
        Self { publisher, published, sequence: 0, seen: None, open: VecDeque::new() }
    }

    /// Waits for the next frame, and returns its line in two parts; `None` if nothing publishes any more.
    ///
    /// Cancel-safe: what was not returned is returned by the next call.
    pub async fn next(&mut self) -> Option<[Bytes; 2]> {
        loop {
            // Marked as seen first, so that a frame between the two is noticed.
            self.published.mark_unchanged();
            if self.open.is_empty()
                && let Some((number, lines)) = self.publisher.next(self.seen)
            {
                (self.seen, self.open) = (Some(number), lines);
            }
            if let Some(line) = self.open.pop_front() {
                let head = self.publisher.head(self.sequence);
                self.sequence += 1;
                return Some([head, line]);
            }
            self.published.changed().await.ok()?;
        }
    }
}

impl Drop for Frames {
    fn drop(&mut self) {
        self.publisher.leave();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rouse_crds::demand::{FRAME_INTERVAL, Frame, HEARTBEAT, MAX_PART};
    use tokio::time::Instant;

    use super::*;
    use crate::demand::Ledger;

    fn publishing(ledger: Arc<Ledger>, process: Arc<str>) -> Arc<Publisher> {
        let publisher = Publisher::new(ledger, process);
        let running = publisher.clone();
        tokio::spawn(async move { running.run().await });
        publisher
    }

    async fn next(frames: &mut Frames) -> Frame {
        serde_json::from_slice(&frames.next().await.unwrap().concat()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn first_everything_then_changes_then_heartbeats() {
        let ledger = Ledger::new();
        let account = ledger.account("ns", "f", "f-00001");
        account.enter();
        account.complete(Duration::ZERO);
        let mut frames = Frames::new(publishing(ledger.clone(), "p/1".into()));
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
        let mut frames = Frames::new(publishing(ledger.clone(), "p/1".into()));
        // The first report, and one of changes: all are busy.
        for first in [true, false] {
            let (mut told, mut last) = (std::collections::BTreeSet::new(), false);
            while !last {
                let line = frames.next().await.unwrap().concat();
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
        let mut frames = Frames::new(publishing(ledger.clone(), "p/1".into()));
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
    async fn all_readers_get_the_same_frames() {
        let ledger = Ledger::new();
        let publisher = publishing(ledger.clone(), "p/1".into());
        let account = ledger.account("ns", "f", "f-00001");
        account.enter();
        let (mut one, mut other) = (Frames::new(publisher.clone()), Frames::new(publisher.clone()));
        assert_eq!(next(&mut one).await, next(&mut other).await);
        let mut last = None;
        for arrivals in 2..10 {
            account.enter();
            let (a, b) = (one.next().await.unwrap(), other.next().await.unwrap());
            assert_eq!(a, b);
            assert_eq!(a[1].as_ptr(), b[1].as_ptr(), "encoded once");
            let frame: Frame = serde_json::from_slice(&a.concat()).unwrap();
            assert_eq!((frame.sequence, frame.revisions[0].arrivals), (arrivals - 1, arrivals));
            last = Some(frame);
        }
        // Another one gets everything first, with a sequence of its own, and then the same frames.
        let mut late = Frames::new(publisher.clone());
        let first = next(&mut late).await;
        assert_eq!((first.sequence, &first.revisions[0].arrivals), (0, &last.unwrap().revisions[0].arrivals));
        account.enter();
        let (a, b) = (next(&mut one).await, next(&mut late).await);
        assert_eq!((a.revisions, b.sequence), (b.revisions, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_lacks_nothing() {
        let ledger = Ledger::new();
        let accounts = ["f-00001", "f-00002"].map(|revision| ledger.account("ns", "f", revision));
        let publisher = publishing(ledger.clone(), "p/1".into());
        let (mut slow, mut slower) = (Frames::new(publisher.clone()), Frames::new(publisher.clone()));
        assert_eq!((next(&mut slow).await.sequence, next(&mut slower).await.sequence), (0, 0));
        accounts[0].enter();
        accounts[0].complete(Duration::ZERO);
        for frames in [10, 200] {
            for _ in 0..frames {
                accounts[1].enter();
                tokio::time::sleep(FRAME_INTERVAL * 2).await;
                accounts[1].complete(Duration::ZERO);
            }
            if frames > 10 {
                break;
            }
            let mut seen = std::collections::HashMap::new();
            for sequence in 1..=10 {
                let frame = next(&mut slow).await;
                assert_eq!(frame.sequence, sequence);
                seen.extend(frame.revisions.into_iter().map(|r| (r.revision, r.arrivals)));
            }
            assert_eq!(seen.get("f-00001"), Some(&1));
        }
        // So many frames are not kept: everything comes at once.
        let merged = next(&mut slower).await;
        let arrivals = |name: &str| merged.revisions.iter().find(|r| r.revision == name).map(|r| r.arrivals);
        assert_eq!((merged.sequence, arrivals("f-00001"), arrivals("f-00002")), (1, Some(1), Some(210)));
    }

    #[tokio::test(start_paused = true)]
    async fn without_readers_nothing_is_read() {
        let ledger = Ledger::new();
        let publisher = publishing(ledger.clone(), "p/1".into());
        let account = ledger.account("ns", "f", "f-00001");
        let mut frames = Frames::new(publisher.clone());
        next(&mut frames).await;
        let before = next(&mut frames).await;
        drop(frames);
        account.enter();
        account.complete(Duration::ZERO);
        tokio::time::sleep(HEARTBEAT * 10).await;
        let mut frames = Frames::new(publisher.clone());
        let first = next(&mut frames).await;
        assert_eq!((first.sequence, first.revisions[0].arrivals), (0, 1));
        let beat = next(&mut frames).await;
        assert_eq!((beat.sequence, beat.revisions.len()), (1, 0));
        assert!(first.at_us - before.at_us >= 20_000_000 && beat.at_us > first.at_us);
    }
}
