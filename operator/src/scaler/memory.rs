//! What the scaler remembers of a Function between two looks.

use std::time::Duration;

use rouse_autoscaler::{Decision, Learned, Reason, State};
use tokio::time::Instant;

use super::{drain::Drain, habits::Kept, journal::Journal};
use crate::{cluster::children::DeploymentObject, spec::schedules::Timetable};

/// After a write the cache has the new state within so long; else it is read as it is.
pub(super) const CATCH_UP: Duration = Duration::from_secs(2);

/// Of one Function.
#[derive(Debug, Default)]
pub(super) struct Memories {
    /// Mostly one, so no map.
    pub(super) revisions: Vec<(String, Memory)>,
    /// Nothing for a Function without schedules.
    pub(super) timetable: Option<Box<Timetable>>,
    /// What was kept of its habits.
    pub(super) kept: Kept,
}

impl Memories {
    /// What is remembered of `revision`; a new memory if there is none.
    pub(super) fn of(&mut self, revision: &str, new: impl FnOnce() -> Memory) -> &mut Memory {
        let at = self.revisions.iter().position(|(name, _)| name == revision).unwrap_or_else(|| {
            self.revisions.reserve_exact(1);
            self.revisions.push((revision.to_owned(), new()));
            self.revisions.len() - 1
        });
        &mut self.revisions[at].1
    }

    /// What was learned of the newest revision of which something was.
    pub(super) fn learned(&self) -> Learned {
        let learned = |(_, memory): &(String, Memory)| Some(memory.state.learned()).filter(|l| l.service.is_some());
        self.revisions.iter().rev().find_map(learned).unwrap_or_default()
    }

    /// What is remembered of `revision`, if anything is.
    pub(super) fn get(&self, revision: &str) -> Option<&Memory> {
        self.revisions.iter().find(|(name, _)| name == revision).map(|(_, memory)| memory)
    }
}

/// Of one revision.
#[derive(Debug)]
pub(super) struct Memory {
    /// `uid` of its Deployment.
    pub(super) uid: Option<String>,
    pub(super) state: State,
    /// The last decision, if there was one.
    pub(super) last: Option<Decision>,
    pub(super) journal: Journal,
    pub(super) drain: Drain,
    /// The `resourceVersion` that the last write was decided from, until the cache has a newer one or has had its time.
    pub(super) written: Option<(Option<String>, Instant)>,
    /// Writes that failed in a row.
    pub(super) failures: u32,
    pub(super) counts: Counts,
}

impl Memory {
    /// Nothing is known yet but `state`.
    pub(super) fn new(uid: Option<String>, state: State) -> Self {
        Self {
            uid,
            state,
            last: None,
            journal: Journal::default(),
            drain: Drain::default(),
            written: None,
            failures: 0,
            counts: Counts::default(),
        }
    }

    /// After a write: until when to wait for the cache to have it.
    pub(super) fn catching_up(&mut self, deployment: &DeploymentObject) -> Option<Instant> {
        let (version, at) = self.written.as_ref()?;
        let until = *at + CATCH_UP;
        if *version == deployment.metadata.resource_version && Instant::now() < until {
            return Some(until);
        }
        self.written = None;
        None
    }
}

/// Tells whose doing a count is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    /// As it was seen last.
    seen: Option<u32>,
    /// What was asked for last, whatever came of it.
    asked: Option<u32>,
    /// What somebody else has changed it from and to.
    foreign: Option<(u32, u32)>,
}

impl Counts {
    /// Takes in the count that there is. One that leaves zero is taken for an activator's wake: a human's looks the same, and
    /// is treated as a call.
    pub(super) fn see(&mut self, desired: u32) {
        let Some(before) = self.seen.replace(desired).filter(|before| *before != desired) else { return };
        let foreign = before > 0 && self.asked != Some(desired);
        self.foreign = foreign.then_some((before, desired));
    }

    /// Takes in what is decided. A count that is as wanted, or left alone, needs no correction.
    pub(super) fn decided(&mut self, replicas: u32, reason: Reason) {
        if reason == Reason::Paused || self.foreign.is_some_and(|(_, to)| to == replicas) {
            self.foreign = None;
        }
    }

    /// Takes in that a count is asked for.
    pub(super) fn ask(&mut self, count: u32) {
        self.asked = Some(count);
    }

    /// What somebody else has set that is corrected now.
    pub(super) fn foreign(&self) -> Option<(u32, u32)> {
        self.foreign
    }

    /// Takes in that the count was written, and what was to be told is told.
    pub(super) fn wrote(&mut self) {
        self.foreign = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(counts: &[u32]) -> Counts {
        let mut all = Counts::default();
        for count in counts {
            all.see(*count);
        }
        all
    }

    #[test]
    fn tells_whose_doing_a_count_is() {
        assert_eq!(seen(&[3]).foreign(), None, "it was so when we came");
        assert_eq!(seen(&[3, 3]).foreign(), None);
        assert_eq!(seen(&[3, 5]).foreign(), Some((3, 5)));
        assert_eq!(seen(&[0, 5]).foreign(), None, "an activator's wake");
        assert_eq!(seen(&[3, 0]).foreign(), Some((3, 0)));
        let mut ours = seen(&[3]);
        ours.ask(5);
        ours.see(5);
        assert_eq!(ours.foreign(), None);
        ours.see(3);
        assert_eq!(ours.foreign(), Some((5, 3)));
    }

    #[test]
    fn is_corrected_once_and_only_if_it_is_not_wanted() {
        let mut counts = seen(&[3, 5]);
        counts.decided(4, Reason::Load);
        assert!(counts.foreign().is_some());
        counts.wrote();
        assert_eq!(counts.foreign(), None);
        let mut counts = seen(&[3, 5]);
        counts.decided(5, Reason::Load);
        assert_eq!(counts.foreign(), None);
        let mut counts = seen(&[3, 5]);
        counts.decided(5, Reason::Paused);
        counts.decided(4, Reason::Load);
        assert_eq!(counts.foreign(), None, "whoever pauses may set it");
    }
}
