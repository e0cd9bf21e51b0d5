//! A demand stream from its bytes to what is decided from them: for a fuzz target, and for the test that replays what it
//! began with and what it has found.
#![allow(clippy::panic, clippy::expect_used, clippy::unwrap_used, reason = "a broken promise is told by panicking")]

use std::{collections::HashMap, net::Ipv4Addr, time::Duration};

use rouse_autoscaler::{Demand, Observed, Policy, State, decide};
use rouse_crds::demand::{Frame, MAX_LINE};

use super::{
    aggregate::{Aggregate, Source},
    stream::{Frames, Witness},
};
use crate::cluster::key::FunctionKey;

/// Checks every promise about what is read from a stream of these bytes.
///
/// # Panics
///
/// If one is broken.
pub fn check(bytes: &[u8]) {
    let (frames, whole) = read(bytes, bytes.len().max(1));
    for step in [1, 3, 4096] {
        assert_eq!(read(bytes, step), (frames.clone(), whole), "in pieces of {step}");
    }
    let lines: Vec<&[u8]> = bytes.split_inclusive(|b| *b == b'\n').filter(|l| l.ends_with(b"\n")).collect();
    let well = lines.iter().take_while(|line| {
        line.trim_ascii().is_empty() || serde_json::from_slice::<Frame>(line).is_ok_and(|f| f.version == 1)
    });
    let well: Vec<_> = well.filter(|line| !line.trim_ascii().is_empty()).collect();
    assert_eq!(frames.len(), well.len(), "every well-formed line up to the first other one is a frame");
    decided(frames);
}

/// The frames of a stream whose bytes come in pieces of `step`, and whether it was well to its end.
fn read(bytes: &[u8], step: usize) -> (Vec<Frame>, bool) {
    let (mut reader, mut heard) = (Frames::default(), vec![]);
    for part in bytes.chunks(step) {
        if reader.take(part, |frame| heard.push(frame)).is_err() {
            return (heard, false);
        }
        assert!(reader.held() <= MAX_LINE.min(bytes.len()));
    }
    (heard, true)
}

/// Hands the frames on as the scaler does, half a second apart: no counter goes back, and a decision is within its bounds.
fn decided(frames: Vec<Frame>) {
    let source = Source { address: (Ipv4Addr::LOCALHOST, 9090).into(), pod: None };
    let mut aggregate = Aggregate::default();
    aggregate.set_sources(&HashMap::from([(source.clone(), true)]), Duration::ZERO);
    let mut known: HashMap<(FunctionKey, String), (Demand, State)> = HashMap::new();
    let mut witness = Witness::default();
    let believed = frames.into_iter().filter_map(|frame| witness.check(frame, |_| {}));
    for (n, frame) in (1..).zip(believed) {
        let now = Duration::from_millis(500 * n);
        let named: Vec<_> =
            frame.revisions.iter().map(|r| (FunctionKey::new(&r.namespace, &r.function), r.revision.clone())).collect();
        assert!(aggregate.frame(&source, frame, now).len() >= named.len());
        for key in named {
            let demand = aggregate.demand(&key.0, &key.1, now);
            let policy = Policy { max: 100, ..Policy::default() };
            let observed = Observed { desired: 1, ready: 1 };
            let (former, state) = known.entry(key).or_insert_with(|| (demand, State::new(now)));
            assert!(demand.arrivals >= former.arrivals && demand.request_us >= former.request_us);
            *former = demand;
            let decision = decide(now, &demand, &observed, &policy, state);
            assert!(decision.replicas <= policy.max, "{decision:?}");
            assert!(demand.concurrency() == 0 || decision.replicas > 0, "{decision:?} for {demand:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_keep_every_promise() {
        let seeds = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../activator/fuzz/seeds/demand");
        let mut read = 0;
        for entry in std::fs::read_dir(&seeds).unwrap() {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap();
            check(&bytes);
            for at in 0..bytes.len() {
                let mut changed = bytes.clone();
                changed[at] = [b'\n', b'9', b'-', b'.', bytes[at] ^ 1][at % 5];
                check(&changed);
            }
            read += 1;
        }
        assert!(read > 0, "there are no seeds at {}", seeds.display());
    }
}
