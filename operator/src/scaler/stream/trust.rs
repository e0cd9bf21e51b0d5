//! What an activator says is checked before it is believed. Pure.
//!
//! A frame that cannot be as it is, is left out or cut down to what does no harm: what was last known stands, a function
//! that may have requests keeps a pod, and no more pods are asked for than there can be requests.

use rouse_crds::demand::{Frame, PodDemand, RevisionDemand};

/// More requests than one process can have at once.
const MOST_AT_ONCE: u64 = 1 << 24;

/// More than is ever counted: a million requests at once for a century are fewer request-microseconds.
const MOST_EVER: u64 = 1 << 62;

/// More pods than a Function can have.
const MOST_PODS: usize = 10_000;

/// Longest name of a namespace or an object, in bytes.
const LONGEST_NAME: usize = 253;

/// What is wrong with what an activator says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// A frame is missing. Counters are monotonic, so that loses nothing, but it should not be.
    Gap,
    /// A frame that was there already, or is older than one that was.
    Regression,
    /// Another process speaks on the same connection.
    Process,
    /// Its time goes back.
    Time,
    /// Names that are none, or a revision that is not one of the function.
    Name,
    /// Numbers that cannot be.
    Huge,
    /// More requests are there than have come and not ended.
    Excess,
}

impl Fault {
    /// One lower-case word, for the label of a metric.
    #[must_use]
    pub fn word(self) -> &'static str {
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

/// What one connection has said so far.
#[derive(Debug, Default)]
pub struct Witness {
    process: Option<String>,
    /// The sequence that comes next, and the time that was last.
    next: u64,
    at_us: u64,
}

impl Witness {
    /// The frame, as far as it can be believed. Each fault is told to `fault`. `None`: nothing of it can.
    pub fn check(&mut self, mut frame: Frame, mut fault: impl FnMut(Fault)) -> Option<Frame> {
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
        if frame.at_us > MOST_EVER || frame.sequence > MOST_EVER {
            fault(Fault::Huge);
            return None;
        }
        if frame.sequence > self.next {
            fault(Fault::Gap);
        }
        (self.next, self.at_us) = (frame.sequence + 1, frame.at_us);
        let told = frame.revisions.len();
        frame.revisions.retain_mut(|revision| match believe(revision) {
            Ok(()) => true,
            Err((what, stays)) => {
                fault(what);
                stays
            }
        });
        if frame.revisions.len() < told {
            // What was left out may be there, so this is not the first frame of a connection, which tells all that there is.
            frame.sequence = frame.sequence.max(1);
        }
        Some(frame)
    }
}

/// Whether an account can be; if not, what is wrong and whether it is of use still.
fn believe(revision: &mut RevisionDemand) -> Result<(), (Fault, bool)> {
    let RevisionDemand {
        namespace,
        function,
        revision: name,
        in_flight,
        queued,
        arrivals,
        completions,
        abandoned,
        request_us,
        busy_us,
        served_us,
        pods,
        ..
    } = revision;
    let named = |name: &str| !name.is_empty() && name.len() <= LONGEST_NAME;
    let own = name.strip_prefix(function.as_str()).is_some_and(|rest| rest.len() > 1 && rest.starts_with('-'));
    if !named(namespace) || !named(function) || !named(name) || !own || pods.iter().any(|p| !named(&p.pod)) {
        return Err((Fault::Name, false));
    }
    let at_once = in_flight.saturating_add(*queued);
    let ever = [*arrivals, *completions, *abandoned, *request_us, busy_us.unwrap_or(0), *served_us];
    let in_pods = pods.iter().fold(0u64, |sum, PodDemand { in_flight, .. }| sum.saturating_add(*in_flight));
    if at_once > MOST_AT_ONCE || in_pods > MOST_AT_ONCE || ever.iter().any(|n| *n > MOST_EVER) || pods.len() > MOST_PODS
    {
        return Err((Fault::Huge, false));
    }
    let open = arrivals.saturating_sub(completions.saturating_add(*abandoned));
    if at_once > open {
        // Something may be there, so it is not read as nothing; but no more than what came.
        let most = open.max(1);
        *in_flight = (*in_flight).min(most);
        *queued = (*queued).min(most - *in_flight);
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
        Frame { version: VERSION, process: process.into(), sequence, at_us, revisions: vec![demand()] }
    }

    fn checked(witness: &mut Witness, frame: Frame) -> (Option<Frame>, Vec<Fault>) {
        let mut faults = vec![];
        (witness.check(frame, |fault| faults.push(fault)), faults)
    }

    #[test]
    fn what_is_well_passes_as_it_is() {
        let mut witness = Witness::default();
        for sequence in 0..3 {
            let well = frame("a", sequence, sequence * 10);
            assert_eq!(checked(&mut witness, well.clone()), (Some(well), vec![]));
        }
    }

    #[rstest]
    #[case::again(frame("a", 5, 50), Fault::Regression)]
    #[case::older(frame("a", 0, 60), Fault::Regression)]
    #[case::another_process(frame("b", 6, 60), Fault::Process)]
    #[case::time_goes_back(frame("a", 6, 49), Fault::Time)]
    #[case::a_time_that_never_comes(frame("a", 6, u64::MAX), Fault::Huge)]
    #[case::the_last_sequence_there_is(frame("a", u64::MAX, 60), Fault::Huge)]
    fn a_frame_that_cannot_be_is_left_out(#[case] wrong: Frame, #[case] fault: Fault) {
        let mut witness = Witness::default();
        for sequence in 0..=5 {
            checked(&mut witness, frame("a", sequence, sequence * 10));
        }
        assert_eq!(checked(&mut witness, wrong), (None, vec![fault]));
        let next = frame("a", 6, 60);
        assert_eq!(
            checked(&mut witness, next.clone()),
            (Some(next), vec![]),
            "and the next one is read as if it had not been"
        );
    }

    #[test]
    fn a_first_frame_that_is_not_believed_whole_is_not_taken_for_all_that_there_is() {
        let mut first = frame("a", 0, 0);
        first.revisions.push(RevisionDemand { request_us: u64::MAX, revision: "f-00002".into(), ..demand() });
        let (read, faults) = checked(&mut Witness::default(), first);
        assert_eq!(read.map(|read| (read.sequence, read.revisions.len())), Some((1, 1)));
        assert_eq!(faults, [Fault::Huge]);
    }

    #[test]
    fn a_gap_is_told_and_does_no_harm() {
        let mut witness = Witness::default();
        checked(&mut witness, frame("a", 0, 0));
        let (read, faults) = checked(&mut witness, frame("a", 7, 70));
        assert_eq!((read.is_some(), faults), (true, vec![Fault::Gap]));
        assert_eq!(checked(&mut witness, frame("a", 8, 80)).1, []);
    }

    #[rstest]
    #[case::nameless(RevisionDemand { function: String::new(), ..demand() }, Fault::Name)]
    #[case::wrong_function(RevisionDemand { function: "g".into(), ..demand() }, Fault::Name)]
    #[case::no_revision(RevisionDemand { revision: "f-".into(), ..demand() }, Fault::Name)]
    #[case::endless_name(RevisionDemand { namespace: "n".repeat(254), ..demand() }, Fault::Name)]
    #[case::requests(RevisionDemand { in_flight: u64::MAX, ..demand() }, Fault::Huge)]
    #[case::waiting(RevisionDemand { queued: 1 << 25, arrivals: 1 << 26, ..demand() }, Fault::Huge)]
    #[case::arrivals(RevisionDemand { arrivals: u64::MAX, ..demand() }, Fault::Huge)]
    #[case::integral(RevisionDemand { request_us: u64::MAX, ..demand() }, Fault::Huge)]
    #[case::abandoned(RevisionDemand { abandoned: u64::MAX, ..demand() }, Fault::Huge)]
    #[case::busy(RevisionDemand { busy_us: Some(u64::MAX), ..demand() }, Fault::Huge)]
    #[case::served(RevisionDemand { served_us: u64::MAX, ..demand() }, Fault::Huge)]
    #[case::pods(RevisionDemand { pods: vec![PodDemand { pod: "p".into(), in_flight: u64::MAX, draining: true }], ..demand() }, Fault::Huge)]
    fn an_account_that_cannot_be_is_left_out(#[case] wrong: RevisionDemand, #[case] fault: Fault) {
        let frame = Frame { revisions: vec![wrong, demand()], ..frame("a", 0, 0) };
        let (read, faults) = checked(&mut Witness::default(), frame);
        assert_eq!(faults, [fault]);
        assert_eq!(read.unwrap().revisions, [demand()], "the others stand");
    }

    #[rstest]
    #[case::more_than_came((9, 9, 10, 7), (3, 0))]
    #[case::all_have_ended((5, 0, 7, 7), (1, 0))]
    #[case::all_have_ended_and_some_wait((0, 5, 7, 7), (0, 1))]
    #[case::more_have_ended_than_came((0, 5, 3, 7), (0, 1))]
    fn more_than_can_be_there_is_cut_down_and_never_to_nothing(
        #[case] (in_flight, queued, arrivals, completions): (u64, u64, u64, u64),
        #[case] expected: (u64, u64),
    ) {
        let wrong = RevisionDemand { in_flight, queued, arrivals, completions, ..demand() };
        let (read, faults) = checked(&mut Witness::default(), Frame { revisions: vec![wrong], ..frame("a", 0, 0) });
        let read = read.unwrap();
        assert_eq!((read.revisions[0].in_flight, read.revisions[0].queued), expected);
        assert_eq!(faults, [Fault::Excess]);
    }
}
