//! Host ownership: which Function owns which host and path, and why other claims are lost.
//!
//! The rules are in `rouse_crds::hosts::ownership`, which activators use as well.

mod lost;
mod names;

pub use lost::LostHost;
pub use names::{Names, Scheme};

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use parking_lot::RwLock;
use rouse_crds::{
    Function,
    conditions::{GATEWAY_NOT_READY, INGRESS_CLASS_MISSING, INGRESS_REJECTED, ROUTABLE},
    function::Visibility,
    hosts::ownership::{Claim, Loss, Rules, claims},
};

use crate::cluster::key::FunctionKey;

/// All claims to hosts. The ingress loop updates them, and the reconciler reads them.
#[derive(Clone, Debug)]
pub struct Claims {
    rules: Arc<Rules>,
    state: Arc<RwLock<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// `uid` and generation of the Functions that the state was computed from; `None` if unknown.
    seen: Option<HashMap<FunctionKey, (String, i64)>>,
    /// Claims to each host, sorted by precedence.
    by_host: HashMap<Box<str>, Vec<Claim>>,
    won: Arc<Won>,
    /// Problem of the ingress that affects every public host; `None` until it was checked.
    ingress: Option<Result<(), LostHost>>,
    /// Functions whose hosts the API server rejects; `None` until they were written.
    rejected: Option<BTreeMap<FunctionKey, LostHost>>,
}

/// Claims of each Function that have won.
pub type Won = HashMap<FunctionKey, Vec<Claim>>;

impl Claims {
    /// Creates an empty set of claims.
    pub fn new(rules: Rules) -> Self {
        Self { rules: Arc::new(rules), state: Arc::default() }
    }

    /// Replaces the claims by those of `functions`. Returns the winning claims of each Function, and the Functions
    /// whose lost hosts may have changed: those with a host for which a claim of another Function was added, changed or
    /// removed.
    ///
    /// A change of a Function's own claims does not count, because it triggers a reconcile, which calls [`Self::lost`].
    pub fn replace<'a>(
        &self,
        functions: impl Iterator<Item = &'a Function> + Clone,
    ) -> (Arc<Won>, BTreeSet<FunctionKey>) {
        // Statuses change far more often than specs, and do not affect hosts.
        let seen = functions
            .clone()
            .map(|f| Some((FunctionKey::of(f)?, (f.metadata.uid.clone()?, f.metadata.generation?))))
            .collect::<Option<HashMap<_, _>>>();
        let mut state = self.state.write();
        if seen.is_some() && state.seen == seen {
            return (Arc::clone(&state.won), BTreeSet::new());
        }
        let mut by_host: HashMap<Box<str>, Vec<Claim>> = HashMap::new();
        for claim in functions.flat_map(|f| claims(f, &self.rules.template)) {
            by_host.entry(claim.host.clone()).or_default().push(claim);
        }
        let mut won = Won::new();
        for claims in by_host.values_mut() {
            claims.sort_unstable();
            for claim in self.rules.settle(&*claims).paths.into_values() {
                won.entry(claimant(claim)).or_default().push(claim.clone());
            }
        }
        let hosts = state.by_host.keys().chain(by_host.keys());
        let changed = hosts.flat_map(|host| affected(at(&state.by_host, host), at(&by_host, host))).collect();
        let won = Arc::new(won);
        state.seen = seen;
        state.by_host = by_host;
        state.won = Arc::clone(&won);
        (won, changed)
    }

    /// Sets the problem of the ingress that affects every public host. Returns whether it changed.
    pub fn set_ingress_problem(&self, problem: Option<LostHost>) -> bool {
        let ingress = Some(problem.map_or(Ok(()), Err));
        let mut state = self.state.write();
        let changed = state.ingress != ingress;
        state.ingress = ingress;
        changed
    }

    /// Sets the Functions whose hosts the API server rejects. Returns those for which that changed.
    pub fn set_rejected(&self, rejected: BTreeMap<FunctionKey, LostHost>) -> BTreeSet<FunctionKey> {
        let mut state = self.state.write();
        // What a previous leader has reported is reviewed once.
        let mut changed: BTreeSet<_> =
            if state.rejected.is_none() { state.won.keys().cloned().collect() } else { BTreeSet::new() };
        let former = state.rejected.take().unwrap_or_default();
        let keys = former.keys().chain(rejected.keys()).filter(|key| former.get(key) != rejected.get(key));
        changed.extend(keys.cloned());
        state.rejected = Some(rejected);
        changed
    }

    /// Returns the hosts that a Function claims but that are not routed to it.
    pub fn lost(&self, key: &FunctionKey, function: &Function) -> Vec<LostHost> {
        let state = self.state.read();
        let own = claims(function, &self.rules.template);
        let hosts: BTreeSet<&str> = own.iter().map(|claim| &*claim.host).collect();
        let mut lost = Vec::new();
        for host in hosts {
            let others = at(&state.by_host, host).iter().filter(|claim| claimant(claim) != *key);
            let settled = self.rules.settle(others.chain(own.iter().filter(|claim| &*claim.host == host)));
            let mine = settled.lost.into_iter().filter(|(claim, _)| claimant(claim) == *key);
            lost.extend(mine.map(|(claim, loss)| (claim.clone(), loss)));
        }
        let mut lost = sorted(lost);
        if function.spec.visibility() == Visibility::Public {
            lost.extend(match &state.ingress {
                Some(checked) => checked.clone().err(),
                // A new leader keeps the result of the previous one until its first check.
                None => problem_in_status(function, &[INGRESS_CLASS_MISSING, GATEWAY_NOT_READY]),
            });
            lost.extend(match &state.rejected {
                Some(rejected) => rejected.get(key).cloned(),
                None => problem_in_status(function, &[INGRESS_REJECTED]),
            });
        }
        lost
    }
}

/// Returns the problem of the ingress with one of these reasons in the Function's status.
fn problem_in_status(function: &Function, reasons: &[&'static str]) -> Option<LostHost> {
    let mut conditions = function.status.iter().flat_map(|status| &status.conditions);
    let routable = conditions.find(|c| c.type_ == ROUTABLE && c.status == "False")?;
    let reason = reasons.iter().find(|reason| **reason == routable.reason)?;
    Some(LostHost { host: None, reason, message: routable.message.clone() })
}

/// Sorts lost claims, so that their order does not depend on that of a map.
fn sorted(mut losses: Vec<(Claim, Loss)>) -> Vec<LostHost> {
    losses.sort_by(|(a, _), (b, _)| a.cmp(b));
    losses.iter().map(|(claim, loss)| LostHost::new(claim, loss)).collect()
}

fn at<'a>(by_host: &'a HashMap<Box<str>, Vec<Claim>>, host: &str) -> &'a [Claim] {
    by_host.get(host).map_or(&[], Vec::as_slice)
}

/// Returns the claimants of a host if claims of other Functions to it changed.
fn affected(before: &[Claim], now: &[Claim]) -> BTreeSet<FunctionKey> {
    if before == now {
        return BTreeSet::new();
    }
    let all: BTreeSet<_> = before.iter().chain(now).map(claimant).collect();
    // A Function's own change triggers a reconcile anyway, and most hosts have a single claimant.
    if all.len() == 1 { BTreeSet::new() } else { now.iter().map(claimant).collect() }
}

fn claimant(claim: &Claim) -> FunctionKey {
    FunctionKey::new(&*claim.claimant.namespace, &*claim.claimant.name)
}

#[cfg(test)]
mod tests;
