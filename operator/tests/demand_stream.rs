//! The demand stream from the activator's writer to the operator's aggregate: the two ends of one wire format.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::{collections::HashMap, net::Ipv4Addr, sync::Arc, time::Duration};

use rouse_activator::demand::{Frames, Ledger, Publisher};
use rouse_crds::demand::{MAX_LINE, MAX_PART};
use rouse_operator::{
    cluster::key::FunctionKey,
    scaler::{
        aggregate::{Aggregate, Source},
        stream::{FrameReader, Validator},
    },
};

/// The reading end of one connection.
struct Reader {
    frames: FrameReader,
    validator: Validator,
    longest: usize,
}

/// Reads one report, and returns its number of frames.
async fn read(writer: &mut Frames, reader: &mut Reader, aggregate: &mut Aggregate, source: &Source) -> usize {
    for frame in 1.. {
        let line = writer.next().await.unwrap().concat();
        reader.longest = reader.longest.max(line.len());
        let mut more = false;
        let Reader { frames, validator, .. } = reader;
        frames
            .read(&line, |frame| {
                more = frame.more;
                let valid = validator.validate(frame, |fault| panic!("{fault:?}")).unwrap();
                aggregate.apply_frame(source, valid, Duration::from_secs(1));
            })
            .unwrap();
        assert_eq!(frames.buffered(), 0);
        assert_eq!(aggregate.complete(Duration::from_secs(1)), !more);
        if !more {
            return frame;
        }
    }
    unreachable!()
}

/// Returns a reader of the frames of an activator with this ledger.
fn publishing(ledger: Arc<Ledger>) -> Frames {
    let publisher = Publisher::new(ledger, "activator/1".into());
    let running = publisher.clone();
    tokio::spawn(async move { running.run().await });
    Frames::new(publisher)
}

fn connected() -> (Reader, Aggregate, Source) {
    let source = Source { address: (Ipv4Addr::LOCALHOST, 9090).into(), pod: None };
    let mut aggregate = Aggregate::default();
    aggregate.set_sources(&HashMap::from([(source.clone(), true)]), Duration::ZERO);
    (Reader { frames: FrameReader::default(), validator: Validator::default(), longest: 0 }, aggregate, source)
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_revisions_with_outcomes_are_read() {
    let ledger = Ledger::new();
    let name = |n: u32| format!("a-function-with-a-name-of-usual-length-{n:05}");
    let accounts: Vec<_> = (0..10_000)
        .map(|n| {
            let account = ledger.account("a-namespace", &name(n), &format!("{}-00001", name(n)));
            account.set_outcome_counting(true);
            for latency in 0..40 {
                account.enter();
                account.record_outcome(false, Some(Duration::from_millis(1 << (latency % 16)) * latency));
                account.complete(Duration::from_millis(5));
            }
            account.enter();
            account
        })
        .collect();
    let mut writer = publishing(ledger);
    let (mut reader, mut aggregate, source) = connected();
    let first = read(&mut writer, &mut reader, &mut aggregate, &source).await;
    assert!(first > 10 && reader.longest <= MAX_PART, "{first} frames, the longest of {} bytes", reader.longest);
    let total = |aggregate: &mut Aggregate| {
        let of = |n| FunctionKey::new("a-namespace", name(n));
        (0..10_000)
            .map(|n| aggregate.demand(&of(n), &format!("{}-00001", name(n)), Duration::from_secs(1)).in_flight)
            .sum()
    };
    let requests: u64 = total(&mut aggregate);
    assert_eq!(requests, 10_000);
    accounts.iter().for_each(|account| account.complete(Duration::ZERO));
    read(&mut writer, &mut reader, &mut aggregate, &source).await;
    let requests: u64 = total(&mut aggregate);
    assert_eq!(requests, 0);
}

#[tokio::test(start_paused = true)]
async fn a_hundred_thousand_revisions_take_bounded_memory() {
    let ledger = Ledger::new();
    for n in 0..100_000 {
        let account = ledger.account("ns", &format!("f{n}"), &format!("f{n}-00001"));
        account.enter();
        account.complete(Duration::ZERO);
    }
    let mut writer = publishing(ledger);
    let (mut reader, mut aggregate, source) = connected();
    read(&mut writer, &mut reader, &mut aggregate, &source).await;
    // The reading end never held more than one part.
    assert!(reader.longest <= MAX_PART && MAX_PART < MAX_LINE);
    assert_eq!(aggregate.activators(Duration::from_secs(1))[0].revisions, 100_000);
}
