//! Backoff of repairs that another client undoes: an admission webhook, a controller that owns the same fields, or another
//! installation of Rouse.
//!
//! Each repair of a pod template restarts the pods of the user. So a repair that does not last is repeated ever more slowly, and
//! the condition `Synced` names the other client.

use std::{collections::HashMap, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{
    cluster::{children::CompactJson, key::FunctionKey},
    runtime::backoff::Backoff,
};

/// Backoff between two repairs of one object.
const BACKOFF: Backoff = Backoff { base: Duration::from_secs(2), cap: Duration::from_secs(300) };

/// After this number of repairs in a row, the object is repaired once per [`PAUSE`] only.
const GIVE_UP: u32 = 8;

/// See [`GIVE_UP`].
const PAUSE: Duration = Duration::from_secs(3600);

/// A repair that has lasted for this time after its backoff starts over.
const LASTING: Duration = Duration::from_secs(600);

/// After this number of repairs in a row, the condition `Synced` reports the object.
pub(super) const REPORTED: u32 = 3;

/// Repairs by Function and by kind and name of the object. Bounded by the objects of existing Functions.
#[derive(Debug, Default)]
pub struct Repairs(Mutex<HashMap<FunctionKey, HashMap<String, Repaired>>>);

#[derive(Clone, Debug, Default)]
struct Repaired {
    /// Repairs in a row.
    count: u32,
    /// No repair before this time.
    due: Option<Instant>,
    /// State after the last repair. If the API server itself restores another state, as an admission webhook does, another
    /// repair has no effect.
    after: Option<CompactJson>,
    /// Field manager that undoes the repairs.
    manager: Option<String>,
}

/// What to do about an object that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Repair it.
    Repair,
    /// Wait until then; `None` if a repair has no effect.
    Wait(Option<Instant>),
}

impl Repairs {
    /// Decides whether to repair an object in the state `seen`.
    pub(super) fn next(&self, key: &FunctionKey, object: &str, seen: &CompactJson, now: Instant) -> Next {
        let mut all = self.0.lock();
        let Some(repaired) = all.get_mut(key).and_then(|objects| objects.get_mut(object)) else {
            return Next::Repair;
        };
        if repaired.after.as_ref() == Some(seen) {
            return Next::Wait(None);
        }
        match repaired.due {
            Some(due) if due > now => Next::Wait(Some(due)),
            Some(due) if now.duration_since(due) > LASTING => {
                *repaired = Repaired::default();
                Next::Repair
            }
            _ => Next::Repair,
        }
    }

    /// Records a repair, and the state after it.
    pub(super) fn repaired(&self, key: &FunctionKey, object: &str, after: Option<CompactJson>, now: Instant) {
        let mut all = self.0.lock();
        let repaired = all.entry(key.clone()).or_default().entry(object.to_owned()).or_default();
        repaired.count = repaired.count.saturating_add(1);
        repaired.after = after;
        let wait = if repaired.count >= GIVE_UP { PAUSE } else { BACKOFF.after(repaired.count) };
        repaired.due = Some(now + wait);
    }

    /// Returns the number of repairs in a row, and the field manager that undoes them.
    pub(super) fn undone(&self, key: &FunctionKey, object: &str) -> (u32, Option<String>) {
        let all = self.0.lock();
        let repaired = all.get(key).and_then(|objects| objects.get(object));
        repaired.map_or((0, None), |repaired| (repaired.count, repaired.manager.clone()))
    }

    /// Records the field manager that undoes the repairs of an object.
    pub(super) fn set_manager(&self, key: &FunctionKey, object: &str, manager: String) {
        let mut all = self.0.lock();
        if let Some(repaired) = all.get_mut(key).and_then(|objects| objects.get_mut(object)) {
            repaired.manager = Some(manager);
        }
    }

    /// Forgets a Function that was deleted.
    pub fn forget(&self, key: &FunctionKey) {
        self.0.lock().remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn repairs_that_are_undone_are_repeated_ever_more_slowly() {
        let (repairs, key, start) = (Repairs::default(), FunctionKey::new("a", "f"), Instant::now());
        let seen = CompactJson::from(&json!({"by": "others"}));
        let mut times = vec![];
        for second in 0..24 * 3600 {
            let now = start + Duration::from_secs(second);
            if repairs.next(&key, "Deployment d", &seen, now) == Next::Repair {
                repairs.repaired(&key, "Deployment d", None, now);
                times.push(second);
            }
        }
        assert!((28..=33).contains(&times.len()), "{} repairs a day: {times:?}", times.len());
        assert!(times[GIVE_UP as usize - 1] < 900, "{times:?}");
        assert_eq!(repairs.undone(&key, "Deployment d").0 as usize, times.len());
        assert_eq!(repairs.next(&key, "Service d", &seen, start), Next::Repair, "each object has its own backoff");
        repairs.forget(&key);
        assert_eq!(repairs.next(&key, "Deployment d", &seen, start), Next::Repair);
    }

    #[test]
    fn a_repair_without_effect_is_not_repeated_and_a_lasting_one_starts_over() {
        let (repairs, key, start) = (Repairs::default(), FunctionKey::new("a", "f"), Instant::now());
        let (seen, other) = (CompactJson::from(&json!({"a": 1})), CompactJson::from(&json!({"a": 2})));
        repairs.repaired(&key, "Deployment d", Some(seen.clone()), start);
        let day = start + Duration::from_secs(86_400);
        assert_eq!(repairs.next(&key, "Deployment d", &seen, day), Next::Wait(None));
        assert_eq!(repairs.next(&key, "Deployment d", &other, day), Next::Repair);
        assert_eq!(repairs.undone(&key, "Deployment d").0, 0);
    }
}
