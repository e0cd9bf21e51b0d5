//! Validation of demand frames. Pure.
//!
//! An impossible frame or revision is dropped, so that the last known demand stays, or reduced: a revision that may have
//! requests keeps a pod, and no more pods are requested than there can be requests.

use rouse_crds::demand::{Frame, PodDemand, RevisionDemand};

/// Most concurrent requests of one process.
const MAX_CONCURRENT: u64 = 1 << 24;

/// Highest value of a counter: 1,000 concurrent requests for a century are fewer request-microseconds.
const MAX_COUNTER: u64 = 1 << 62;

/// Most pods of a revision.
const MAX_PODS: usize = 10_000;

/// Longest name of a namespace or an object, in bytes.
const MAX_NAME: usize = 253;

/// What is invalid in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// A frame is missing. Harmless, since counters are monotonic, but unexpected.
    Gap,
    /// The frame is a duplicate, or older than its predecessor.
    Regression,
    /// The process changed on one connection.
    Process,
    /// The time of the process decreased.
    Time,
    /// A name is empty or too long, or the revision does not belong to the Function.
    Name,
    /// A number is out of range.
    Huge,
    /// There are more requests than have arrived and not ended.
    Excess,
}

impl Fault {
    /// Returns the value for the label of the metric.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Gap => "gap",
            Self::Regression => "regression",
            Self::Process => "process",
            Self::Time => "time",
            Self::Name => "name",
            Self::Huge => "huge",
            Self::Excess => "excess",
        }
    }
}

/// Validates the frames of one connection.
#[derive(Debug, Default)]
pub struct Validator {
    process: Option<String>,
    /// Expected sequence of the next frame.
    next: u64,
    /// Time of the last frame.
    at_us: u64,
}

impl Validator {
    /// Returns the valid part of a frame, or `None` if the whole frame is invalid. Passes each fault to `fault`.
    pub fn validate(&mut self, mut frame: Frame, mut fault: impl FnMut(Fault)) -> Option<Frame> {
        match &self.process {
            Some(process) if *process != frame.process => {
                fault(Fault::Process);
                return None;
            }
            Some(_) => {}
            None => self.process = Some(frame.process.clone()),
        }
        if frame.sequence < self.next {
            fault(Fault::Regression);
            return None;
        }
        if frame.at_us < self.at_us {
            fault(Fault::Time);
            return None;
        }
        if frame.at_us > MAX_COUNTER || frame.sequence > MAX_COUNTER {
            fault(Fault::Huge);
            return None;
        }
        if frame.sequence > self.next {
            fault(Fault::Gap);
        }
        (self.next, self.at_us) = (frame.sequence + 1, frame.at_us);
        let reported = frame.revisions.len();
        frame.revisions.retain_mut(|revision| match validate_revision(revision) {
            Ok(()) => true,
            Err((what, keep)) => {
                fault(what);
                keep
            }
        });
        if frame.revisions.len() < reported {
            // A dropped revision may have requests, so the report must not count as the first one of a connection, which
            // contains every revision: with the number of the next frame, this part of it is missing.
            frame.sequence += 1;
        }
        Some(frame)
    }
}

/// Checks one revision, and reduces its requests if there are too many.
///
/// # Errors
///
/// What is invalid, and whether to keep the revision.
fn validate_revision(revision: &mut RevisionDemand) -> Result<(), (Fault, bool)> {
    let RevisionDemand {
        namespace,
        function,
        revision: name,
        in_flight,
        queued,
        held,
        arrivals,
        completions,
        abandoned,
        request_us,
        busy_us,
        served_us,
        pods,
        ..
    } = revision;
    let valid = |name: &str| !name.is_empty() && name.len() <= MAX_NAME;
    let belongs = name.strip_prefix(function.as_str()).is_some_and(|rest| rest.len() > 1 && rest.starts_with('-'));
    if !valid(namespace) || !valid(function) || !valid(name) || !belongs || pods.iter().any(|p| !valid(&p.pod)) {
        return Err((Fault::Name, false));
    }
    let concurrent = in_flight.saturating_add(*queued);
    let counters = [*arrivals, *completions, *abandoned, *request_us, busy_us.unwrap_or(0), *served_us];
    let in_pods = pods.iter().fold(0u64, |sum, PodDemand { in_flight, .. }| sum.saturating_add(*in_flight));
    if concurrent > MAX_CONCURRENT
        || *held > MAX_CONCURRENT
        || in_pods > MAX_CONCURRENT
        || counters.iter().any(|n| *n > MAX_COUNTER)
        || pods.len() > MAX_PODS
    {
        return Err((Fault::Huge, false));
    }
    let open = arrivals.saturating_sub(completions.saturating_add(*abandoned));
    if concurrent > open {
        // At least one, since the revision may have requests.
        let limit = open.max(1);
        *in_flight = (*in_flight).min(limit);
        *queued = (*queued).min(limit - *in_flight);
        return Err((Fault::Excess, true));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rouse_crds::demand::VERSION;
    use rstest::rstest;

    fn demand() -> RevisionDemand {
        RevisionDemand {
            namespace: "ns".into(),
            function: "f".into(),
            revision: "f-00001".into(),
            in_flight: 2,
            queued: 1,
            arrivals: 10,
            completions: 7,
            request_us: 1000,
            pods: vec![PodDemand { pod: "p".into(), in_flight: 2, draining: false }],
            ..RevisionDemand::default()
        }
    }

    fn frame(process: &str, sequence: u64, at_us: u64) -> Frame {
        Frame { version: VERSION, process: process.into(), sequence, at_us, more: false, revisions: vec![demand()] }
    }

    fn validate(validator: &mut Validator, frame: Frame) -> (Option<Frame>, Vec<Fault>) {
        let mut faults = vec![];
        (validator.validate(frame, |fault| faults.push(fault)), faults)
    }

    #[test]
    fn a_valid_frame_is_unchanged() {
        let mut validator = Validator::default();
        for sequence in 0..3 {
            let valid = frame("a", sequence, sequence * 10);
            assert_eq!(validate(&mut validator, valid.clone()), (Some(valid), vec![]));
        }
    }

    #[rstest]
    #[case::duplicate(frame("a", 5, 50), Fault::Regression)]
    #[case::older(frame("a", 0, 60), Fault::Regression)]
    #[case::another_process(frame("b", 6, 60), Fault::Process)]
    #[case::time_decreased(frame("a", 6, 49), Fault::Time)]
    #[case::time_out_of_range(frame("a", 6, u64::MAX), Fault::Huge)]
    #[case::sequence_out_of_range(frame("a", u64::MAX, 60), Fault::Huge)]
    fn an_invalid_frame_is_dropped(#[case] invalid: Frame, #[case] fault: Fault) {
        let mut validator = Validator::default();
        for sequence in 0..=5 {
            validate(&mut validator, frame("a", sequence, sequence * 10));
        }
        assert_eq!(validate(&mut validator, invalid), (None, vec![fault]));
        let next = frame("a", 6, 60);
        assert_eq!(validate(&mut validator, next.clone()), (Some(next), vec![]), "the next frame is not affected");
    }

    #[test]
    fn a_partially_valid_first_frame_does_not_count_as_first() {
        let mut first = frame("a", 0, 0);
        first.revisions.push(RevisionDemand { request_us: u64::MAX, revision: "f-00002".into(), ..demand() });
        let (read, faults) = validate(&mut Validator::default(), first);
        assert_eq!(read.map(|read| (read.sequence, read.revisions.len())), Some((1, 1)));
        assert_eq!(faults, [Fault::Huge]);
    }

    #[test]
    fn a_part_from_which_a_revision_was_dropped_is_missing() {
        let mut validator = Validator::default();
        let part = |sequence| Frame { more: true, ..frame("a", sequence, sequence) };
        assert_eq!(validate(&mut validator, part(0)), (Some(part(0)), vec![]));
        let mut partial = part(1);
        partial.revisions.push(RevisionDemand { request_us: u64::MAX, ..demand() });
        let (read, faults) = validate(&mut validator, partial);
        assert_eq!((read.map(|read| read.sequence), faults), (Some(2), vec![Fault::Huge]), "1 is missing");
        assert_eq!(validate(&mut validator, part(2)), (Some(part(2)), vec![]));
    }

    #[test]
    fn a_gap_is_reported_and_the_frame_accepted() {
        let mut validator = Validator::default();
        validate(&mut validator, frame("a", 0, 0));
        let (read, faults) = validate(&mut validator, frame("a", 7, 70));
        assert_eq!((read.is_some(), faults), (true, vec![Fault::Gap]));
        assert_eq!(validate(&mut validator, frame("a", 8, 80)).1, []);
    }

    #[rstest]
    #[case::empty_name(RevisionDemand { function: String::new(), ..demand() }, Fault::Name)]
    #[case::revision_of_another_function(RevisionDemand { function: "g".into(), ..demand() }, Fault::Name)]
    #[case::empty_revision(RevisionDemand { revision: "f-".into(), ..demand() }, Fault::Name)]
    #[case::name_too_long(RevisionDemand { namespace: "n".repeat(254), ..demand() }, Fault::Name)]
    #[case::in_flight(RevisionDemand { in_flight: u64::MAX, ..demand() }, Fault::Huge)]
    #[case::queued(RevisionDemand { queued: 1 << 25, arrivals: 1 << 26, ..demand() }, Fault::Huge)]
    #[case::arrivals(RevisionDemand { arrivals: u64::MAX, ..demand() }, Fault::Huge)]
    #[case::held(RevisionDemand { held: 1 << 25, ..demand() }, Fault::Huge)]
    #[case::integral(RevisionDemand { request_us: u64::MAX, ..demand() }, Fault::Huge)]
    #[case::abandoned(RevisionDemand { abandoned: u64::MAX, ..demand() }, Fault::Huge)]
    #[case::busy(RevisionDemand { busy_us: Some(u64::MAX), ..demand() }, Fault::Huge)]
    #[case::served(RevisionDemand { served_us: u64::MAX, ..demand() }, Fault::Huge)]
    #[case::pods(RevisionDemand { pods: vec![PodDemand { pod: "p".into(), in_flight: u64::MAX, draining: true }], ..demand() }, Fault::Huge)]
    fn an_invalid_revision_is_dropped(#[case] invalid: RevisionDemand, #[case] fault: Fault) {
        let frame = Frame { revisions: vec![invalid, demand()], ..frame("a", 0, 0) };
        let (read, faults) = validate(&mut Validator::default(), frame);
        assert_eq!(faults, [fault]);
        assert_eq!(read.unwrap().revisions, [demand()], "the others are kept");
    }

    #[rstest]
    #[case::more_than_arrived((9, 9, 10, 7), (3, 0))]
    #[case::all_ended((5, 0, 7, 7), (1, 0))]
    #[case::all_ended_and_some_queued((0, 5, 7, 7), (0, 1))]
    #[case::more_ended_than_arrived((0, 5, 3, 7), (0, 1))]
    fn excess_requests_are_reduced_but_not_to_zero(
        #[case] (in_flight, queued, arrivals, completions): (u64, u64, u64, u64),
        #[case] expected: (u64, u64),
    ) {
        let invalid = RevisionDemand { in_flight, queued, arrivals, completions, ..demand() };
        let (read, faults) =
            validate(&mut Validator::default(), Frame { revisions: vec![invalid], ..frame("a", 0, 0) });
        let read = read.unwrap();
        assert_eq!((read.revisions[0].in_flight, read.revisions[0].queued), expected);
        assert_eq!(faults, [Fault::Excess]);
    }
}
