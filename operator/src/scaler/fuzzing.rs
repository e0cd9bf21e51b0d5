//! Fuzzing of the demand stream, from bytes to decisions: for a fuzz target, and for the test that replays its seeds and
//! findings.
#![allow(
    clippy::panic,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a violated property is reported by a panic"
)]

use std::{collections::HashMap, net::Ipv4Addr, time::Duration};

use rouse_autoscaler::{Demand, Observed, Policy, State, decide};
use rouse_crds::demand::{Frame, MAX_LINE};

use super::{
    aggregate::{Aggregate, Source},
    stream::{FrameReader, Validator},
};
use crate::cluster::key::FunctionKey;

/// Checks the properties of a stream with these bytes: how it is split into frames, and the decisions that follow.
///
/// # Panics
///
/// If one is violated.
pub fn check(bytes: &[u8]) {
    let (frames, complete) = read(bytes, bytes.len().max(1));
    for step in [1, 3, 4096] {
        assert_eq!(read(bytes, step), (frames.clone(), complete), "in chunks of {step} bytes");
    }
    let lines: Vec<&[u8]> = bytes.split_inclusive(|b| *b == b'\n').filter(|l| l.ends_with(b"\n")).collect();
    let valid = lines.iter().take_while(|line| {
        line.trim_ascii().is_empty() || serde_json::from_slice::<Frame>(line).is_ok_and(|f| f.version == 1)
    });
    let valid: Vec<_> = valid.filter(|line| !line.trim_ascii().is_empty()).collect();
    assert_eq!(frames.len(), valid.len(), "every valid line before the first invalid one is a frame");
    check_decisions(frames);
}

/// Returns the frames of a stream whose bytes arrive in chunks of `step`, and whether all of it was valid.
fn read(bytes: &[u8], step: usize) -> (Vec<Frame>, bool) {
    let (mut reader, mut frames) = (FrameReader::default(), vec![]);
    for chunk in bytes.chunks(step) {
        if reader.read(chunk, |frame| frames.push(frame)).is_err() {
            return (frames, false);
        }
        assert!(reader.buffered() <= MAX_LINE.min(bytes.len()));
    }
    (frames, true)
}

/// Applies the frames as the scaler does, half a second apart. Checks that no counter decreases and that each decision is
/// within its bounds.
fn check_decisions(frames: Vec<Frame>) {
    let source = Source { address: (Ipv4Addr::LOCALHOST, 9090).into(), pod: None };
    let mut aggregate = Aggregate::default();
    aggregate.set_sources(&HashMap::from([(source.clone(), true)]), Duration::ZERO);
    let mut known: HashMap<(FunctionKey, String), (Demand, State)> = HashMap::new();
    let mut validator = Validator::default();
    let accepted = frames.into_iter().filter_map(|frame| validator.validate(frame, |_| {}));
    for (n, frame) in (1..).zip(accepted) {
        let now = Duration::from_millis(500 * n);
        let reported: Vec<_> =
            frame.revisions.iter().map(|r| (FunctionKey::new(&r.namespace, &r.function), r.revision.clone())).collect();
        assert!(aggregate.apply_frame(&source, frame, now).len() >= reported.len());
        for key in reported {
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
    fn every_seed_satisfies_the_properties() {
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
        assert!(read > 0, "no seeds at {}", seeds.display());
    }
}
