//! What was learned of a Function's idle times outlives the process, in `status.habits`.

use std::time::Duration;

use kube::{
    Api, Resource as _, ResourceExt as _,
    api::{Patch, PatchParams},
};
use rouse_autoscaler::{Habits, State};
use rouse_crds::{
    Function,
    function::{Prewarm, TrafficStatus},
    names::AUTOSCALER_FIELD_MANAGER,
};
use serde_json::json;
use tokio::time::Instant;

use super::{
    Memories, Scaler,
    write::{Error, paced},
};
use crate::cluster::key::FunctionKey;

/// It is written no more often: a restart forgets what was learned in so long.
const EVERY: Duration = Duration::from_secs(600);

/// Longest text that the status takes, in bytes. What is written is half of it at the most.
const LONGEST: usize = 4096;

/// What was kept of a Function's habits.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Kept {
    /// When they were last compared with the status.
    at: Option<Instant>,
    /// How many idle times were counted in them then.
    total: u32,
}

/// What is to be written; `None` takes the field away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Write(pub(super) Option<String>);

/// A state that begins `now` with what was kept.
pub(super) fn restored(function: &Function, now: Duration) -> State {
    let kept = function.status.as_ref().and_then(|s| s.habits.as_deref());
    match kept.filter(|_| learns(function)).map(str::parse::<Habits>) {
        Some(Ok(habits)) => State::restored(now, habits, None),
        Some(Err(error)) => {
            tracing::warn!(function = function.name_any(), namespace = function.namespace(), %error, "What was kept of idle times cannot be read; they are learned anew");
            State::new(now)
        }
        None => State::new(now),
    }
}

fn learns(function: &Function) -> bool {
    function.spec.scaling.as_ref().is_some_and(|s| s.prewarm() == Prewarm::Auto)
}

impl Memories {
    /// What is to be written of the habits now, and when to look again for their sake.
    pub(super) fn keep_habits(&mut self, function: &Function) -> (Option<Write>, Option<Instant>) {
        let status = function.status.as_ref();
        let former = status.and_then(|s| s.habits.as_deref());
        let learns = learns(function);
        if !learns && former.is_none() {
            return (None, None);
        }
        let due = self.kept.at.map(|at| at + EVERY).filter(|due| *due > Instant::now());
        let traffic = status.map_or(&[][..], |s| &s.traffic[..]);
        let habits = if learns { self.habits_of(traffic) } else { None };
        let total = habits.map_or(0, Habits::total);
        if let Some(due) = due {
            // Old idle times are given less weight, so the number is another one whenever one was added.
            return (None, (total != self.kept.total).then_some(due));
        }
        let wanted = if learns {
            // Nothing is learned yet: what is kept is of more use.
            let Some(habits) = habits else { return (None, None) };
            Some(habits.to_string()).filter(|text| text.len() <= LONGEST)
        } else {
            None
        };
        self.kept = Kept { at: Some(Instant::now()), total };
        ((wanted.as_deref() != former).then_some(Write(wanted)), None)
    }

    /// Those of the revision that gets most of the calls.
    fn habits_of(&self, traffic: &[TrafficStatus]) -> Option<&Habits> {
        let share = |name: &str| traffic.iter().filter(|t| t.revision == name).map(|t| t.percent).sum::<i32>();
        let known = self.revisions.iter().filter_map(|(name, memory)| Some((name, memory.state.habits()?)));
        known.max_by_key(|(name, _)| (share(name), name.as_str())).map(|(_, habits)| habits)
    }

    /// Takes in that they could not be written: then later, as if they had been.
    pub(super) fn habits_lost(&mut self) {
        self.kept.total = u32::MAX;
    }
}

/// Writes the one field of the status that is the autoscaler's.
pub(super) async fn write(scaler: &Scaler, key: &FunctionKey, function: &Function, write: &Write) -> Result<(), Error> {
    let status = write.0.as_ref().map_or_else(|| json!({}), |text| json!({"habits": text}));
    let body = json!({
        "apiVersion": Function::api_version(&()),
        "kind": Function::kind(&()),
        // With the uid, so that a Function that was made anew under this name does not get its forerunner's.
        "metadata": {"name": key.name, "namespace": key.namespace, "uid": function.uid()},
        "status": status,
    });
    let api: Api<Function> = Api::namespaced(scaler.client.clone(), &key.namespace);
    let params = PatchParams::apply(AUTOSCALER_FIELD_MANAGER).force();
    match paced(scaler, api.patch_status(&key.name, &params, &Patch::Apply(body))).await {
        Err(Error::Api(kube::Error::Api(refused))) if refused.is_not_found() || refused.is_conflict() => Ok(()),
        other => other.map(drop),
    }
}
