//! Which Function has which host and path, and what is to be said to those that do not have what they claim.
//!
//! The rules are in `rouse_crds::hosts::ownership`; activators follow the same ones.

mod names;

pub use names::{Names, Scheme};

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    sync::Arc,
};

use parking_lot::RwLock;
use rouse_crds::{
    Function,
    conditions::{GATEWAY_NOT_READY, HOST_CONFLICT, HOST_NOT_ALLOWED, INGRESS_CLASS_MISSING, ROUTABLE},
    function::Visibility,
    hosts::ownership::{Claim, Claimant, Form, Loss, Rules, claims},
};

use crate::cluster::key::FunctionKey;

/// Every claim to a host, kept by the ingress loop and read by the reconciler.
#[derive(Clone, Debug)]
pub struct Claims {
    rules: Arc<Rules>,
    known: Arc<RwLock<Known>>,
}

#[derive(Debug, Default)]
struct Known {
    /// What the rest was made from; `None` where that cannot be told.
    seen: Option<HashMap<FunctionKey, (String, i64)>>,
    /// Each in the order in which they win.
    by_host: HashMap<Box<str>, Vec<Claim>>,
    won: Arc<Won>,
    /// `None` until it has been looked for.
    way_in: Option<Result<(), LostHost>>,
}

/// The claims of each Function that have won.
pub type Won = HashMap<FunctionKey, Vec<Claim>>;

/// Why a host does not lead to a Function that claims it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostHost {
    /// The host; `None` if it is every public one.
    pub host: Option<Box<str>>,
    /// Reason of the condition `Routable=False`.
    pub reason: &'static str,
    /// What is wrong and how to mend it.
    pub message: String,
}

impl fmt::Display for LostHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl LostHost {
    fn new(claim: &Claim, loss: &Loss) -> Self {
        let Claim { host, path, claimant: Claimant { namespace, .. }, .. } = claim;
        let (reason, message) = match loss {
            Loss::Taken { owner: (owner_namespace, name), whole_host } => {
                let owner = format!("the Function {owner_namespace}/{name}");
                let message = match (claim.form, whole_host) {
                    (Form::Default, _) => format!(
                        "the default host {host} is also that of {owner}, which is older; give one of them another name"
                    ),
                    (Form::Tag, _) => {
                        let tag = claim.tag.as_deref().unwrap_or_default();
                        format!("the host {host} of the tag {tag} belongs to {owner}; choose another tag")
                    }
                    (Form::Custom, true) => format!(
                        "the host {host} belongs to {owner}; remove it from spec.hosts and spec.routes here or there"
                    ),
                    (Form::Custom, false) => format!(
                        "the path {path} of the host {host} belongs to {owner}; remove it from spec.routes, or the host from spec.hosts, here or there"
                    ),
                };
                (HOST_CONFLICT, message)
            }
            Loss::Reserved => (
                HOST_CONFLICT,
                format!(
                    "the host {host} has the form of a default host and is kept for the Function of that name; remove it from spec.hosts and spec.routes"
                ),
            ),
            Loss::NotAllowed(why) => {
                (HOST_NOT_ALLOWED, format!("the namespace {namespace} may not claim the host {host}: {why}"))
            }
        };
        Self { host: Some(host.clone()), reason, message }
    }
}

impl Claims {
    /// Nothing is claimed yet.
    pub fn new(rules: Rules) -> Self {
        Self { rules: Arc::new(rules), known: Arc::default() }
    }

    /// Takes in the Functions as they are now. Yields what each has won, and the Functions that may have to be told
    /// something else than before: those with a host to which another's claim has come, changed or gone.
    ///
    /// Not those whose losses are others than at the last call: what came and went between two calls was told already, by
    /// [`Self::lost`], to who claimed meanwhile.
    pub fn replace<'a>(
        &self,
        functions: impl Iterator<Item = &'a Function> + Clone,
    ) -> (Arc<Won>, BTreeSet<FunctionKey>) {
        // A status is written far more often than a spec, and says nothing about hosts.
        let seen = functions
            .clone()
            .map(|f| Some((key(f)?, (f.metadata.uid.clone()?, f.metadata.generation?))))
            .collect::<Option<HashMap<_, _>>>();
        let mut held = self.known.write();
        if seen.is_some() && held.seen == seen {
            return (Arc::clone(&held.won), BTreeSet::new());
        }
        let mut by_host: HashMap<Box<str>, Vec<Claim>> = HashMap::new();
        for claim in functions.flat_map(|f| claims(f, &self.rules.template)) {
            by_host.entry(claim.host.clone()).or_default().push(claim);
        }
        let mut won = Won::new();
        for here in by_host.values_mut() {
            here.sort_unstable();
            for claim in self.rules.settle(&*here).paths.into_values() {
                won.entry(claimant(claim)).or_default().push(claim.clone());
            }
        }
        let hosts = held.by_host.keys().chain(by_host.keys());
        let changed = hosts.flat_map(|host| disturbed(at(&held.by_host, host), at(&by_host, host))).collect();
        let won = Arc::new(won);
        *held = Known { seen, by_host, won: Arc::clone(&won), way_in: held.way_in.take() };
        (won, changed)
    }

    /// Sets what keeps every public host from leading to the activators; tells whether that is another than before.
    pub fn set_way_in(&self, trouble: Option<LostHost>) -> bool {
        let found = Some(trouble.map_or(Ok(()), Err));
        let mut held = self.known.write();
        let changed = held.way_in != found;
        held.way_in = found;
        changed
    }

    /// What keeps hosts of a Function, as it is now, from leading to it.
    pub fn lost(&self, key: &FunctionKey, function: &Function) -> Vec<LostHost> {
        let known = self.known.read();
        let own = claims(function, &self.rules.template);
        let hosts: BTreeSet<&str> = own.iter().map(|claim| &*claim.host).collect();
        let mut lost = Vec::new();
        for host in hosts {
            let others = at(&known.by_host, host).iter().filter(|claim| claimant(claim) != *key);
            let settled = self.rules.settle(others.chain(own.iter().filter(|claim| &*claim.host == host)));
            let mine = settled.lost.into_iter().filter(|(claim, _)| claimant(claim) == *key);
            lost.extend(mine.map(|(claim, loss)| (claim.clone(), loss)));
        }
        let mut lost = told(lost);
        if function.spec.visibility() == Visibility::Public {
            lost.extend(match &known.way_in {
                Some(found) => found.clone().err(),
                // Who leads since a moment knows no better than who led before.
                None => said(function),
            });
        }
        lost
    }
}

/// What the Function's status says of the way in, if that keeps its hosts from leading anywhere.
fn said(function: &Function) -> Option<LostHost> {
    let mut conditions = function.status.iter().flat_map(|status| &status.conditions);
    let routable = conditions.find(|c| c.type_ == ROUTABLE && c.status == "False")?;
    let reason = [INGRESS_CLASS_MISSING, GATEWAY_NOT_READY].into_iter().find(|reason| *reason == routable.reason)?;
    Some(LostHost { host: None, reason, message: routable.message.clone() })
}

/// In an order that does not depend on that of a map.
fn told(mut losses: Vec<(Claim, Loss)>) -> Vec<LostHost> {
    losses.sort_by(|(a, _), (b, _)| a.cmp(b));
    losses.iter().map(|(claim, loss)| LostHost::new(claim, loss)).collect()
}

fn at<'a>(by_host: &'a HashMap<Box<str>, Vec<Claim>>, host: &str) -> &'a [Claim] {
    by_host.get(host).map_or(&[], Vec::as_slice)
}

/// Who claims a host of which another's claims have changed.
fn disturbed(before: &[Claim], now: &[Claim]) -> BTreeSet<FunctionKey> {
    if before == now {
        return BTreeSet::new();
    }
    let all: BTreeSet<_> = before.iter().chain(now).map(claimant).collect();
    // A change of its own is looked at without this, and most hosts have one who claims them.
    if all.len() == 1 { BTreeSet::new() } else { now.iter().map(claimant).collect() }
}

fn claimant(claim: &Claim) -> FunctionKey {
    FunctionKey::new(&*claim.claimant.namespace, &*claim.claimant.name)
}

fn key(function: &Function) -> Option<FunctionKey> {
    Some(FunctionKey::new(function.metadata.namespace.as_deref()?, function.metadata.name.as_deref()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rouse_crds::hosts::{DEFAULT_TEMPLATE, HostTemplate};
    use serde_json::{Value, json};

    fn function(id: &str, created: &str, generation: Option<i64>, spec: Value) -> Function {
        let (namespace, name) = id.split_once('/').unwrap();
        let mut whole = json!({
            "apiVersion": "rouse.dev/v1alpha1", "kind": "Function",
            "metadata": {
                "name": name, "namespace": namespace, "uid": id, "generation": generation, "creationTimestamp": created,
            },
        });
        whole["spec"] = spec;
        whole["spec"]["image"] = json!("i");
        serde_json::from_value(whole).unwrap()
    }

    fn hosts(id: &str, created: &str, hosts: &[&str]) -> Function {
        function(id, created, None, json!({"hosts": hosts}))
    }

    fn new(template: &str, allowed: &str) -> Claims {
        let template = HostTemplate::new(template, "example.com").unwrap();
        Claims::new(Rules { template, allowed: allowed.parse().unwrap() })
    }

    fn key_of(id: &str) -> FunctionKey {
        let (namespace, name) = id.split_once('/').unwrap();
        FunctionKey::new(namespace, name)
    }

    const FIRST: &str = "2026-01-01T00:00:00Z";
    const SECOND: &str = "2026-01-02T00:00:00Z";

    #[test]
    fn the_oldest_has_it_and_the_other_is_told() {
        let old = hosts("ns/old", FIRST, &["a.example.org"]);
        let young = hosts("other/young", SECOND, &["a.example.org", "b.example.org"]);
        let (claims, key) = (new(DEFAULT_TEMPLATE, ""), key_of("other/young"));
        assert_eq!(claims.lost(&key, &young), [], "nothing is known yet");
        let (won, changed) = claims.replace([&young, &old].into_iter());
        assert_eq!(changed, [key_of("ns/old"), key.clone()].into());
        let won_by = |id: &str| -> Vec<_> { won[&key_of(id)].iter().map(ToString::to_string).collect() };
        assert!(won_by("ns/old").contains(&"a.example.org".to_owned()));
        assert!(!won_by("other/young").contains(&"a.example.org".to_owned()));
        let lost = claims.lost(&key, &young);
        assert_eq!((lost.len(), lost[0].reason), (1, HOST_CONFLICT));
        assert!(lost[0].message.contains("the host a.example.org belongs to the Function ns/old"), "{lost:?}");
        assert_eq!(claims.lost(&key_of("ns/old"), &old), []);
        // What the spec says now counts, also before the next look at all Functions.
        assert_eq!(claims.lost(&key, &hosts("other/young", SECOND, &["b.example.org"])), []);
        let (_, changed) = claims.replace([&young].into_iter());
        assert_eq!(changed, [key.clone()].into());
        assert_eq!(claims.lost(&key, &young), []);
    }

    #[test]
    fn in_a_namespace_the_path_is_named() {
        let route = json!({"routes": [{"host": "shop.example.org", "path": "/api"}]});
        let old = function("ns/old", FIRST, None, route.clone());
        let young = function("ns/young", SECOND, None, route);
        let claims = new(DEFAULT_TEMPLATE, "");
        claims.replace([&young, &old].into_iter());
        let lost = claims.lost(&key_of("ns/young"), &young);
        assert!(
            lost[0].message.starts_with("the path /api of the host shop.example.org belongs to the Function ns/old")
        );
    }

    #[test]
    fn what_the_platform_does_not_allow_is_another_reason() {
        let claims = new(DEFAULT_TEMPLATE, r#"[{"domains": ["*.example.org"], "namespaces": ["shop"]}]"#);
        let function = hosts("ns/f", FIRST, &["a.example.org"]);
        let lost = claims.lost(&key_of("ns/f"), &function);
        assert_eq!((lost.len(), lost[0].reason), (1, HOST_NOT_ALLOWED), "even before the first look at all");
        assert!(lost[0].message.contains("namespace ns") && lost[0].message.contains("rule 1 "), "{lost:?}");
        let (won, changed) = claims.replace([&function].into_iter());
        assert_eq!(won[&key_of("ns/f")].len(), 1, "the default host alone");
        assert_eq!(changed, [].into(), "no other claims what it claims");
    }

    #[test]
    fn two_functions_of_one_default_host() {
        let claims = new("{name}-{namespace}.{domain}", "");
        let (old, young) = (hosts("c/a-b", FIRST, &[]), hosts("b-c/a", SECOND, &[]));
        claims.replace([&old, &young].into_iter());
        assert_eq!(claims.lost(&key_of("c/a-b"), &old), []);
        let lost = claims.lost(&key_of("b-c/a"), &young);
        assert!(lost[0].message.contains("a-b-c.example.com is also that of the Function c/a-b"), "{lost:?}");
    }

    #[test]
    fn a_status_changes_nothing_and_a_spec_does() {
        let claims = new(DEFAULT_TEMPLATE, "");
        let old = function("ns/old", FIRST, Some(1), json!({"hosts": ["a.example.org"]}));
        let mut young = function("ns/young", SECOND, Some(1), json!({}));
        let (first, _) = claims.replace([&old, &young].into_iter());
        young.metadata.resource_version = Some("2".into());
        assert!(Arc::ptr_eq(&first, &claims.replace([&old, &young].into_iter()).0));
        young.metadata.generation = Some(2);
        young.spec.hosts = Some(vec!["a.example.org".into()]);
        assert_eq!(claims.replace([&old, &young].into_iter()).1, [key_of("ns/old"), key_of("ns/young")].into());
    }

    #[test]
    fn one_that_came_and_lost_between_two_looks_hears_when_the_host_is_free() {
        let claims = new(DEFAULT_TEMPLATE, "");
        let (old, young) = (hosts("ns/old", FIRST, &["a.example.org"]), hosts("ns/young", SECOND, &["a.example.org"]));
        claims.replace([&old].into_iter());
        assert_eq!(claims.lost(&key_of("ns/young"), &young).len(), 1, "so much is told before the next look");
        let (_, changed) = claims.replace([&young].into_iter());
        assert_eq!(changed, [key_of("ns/young")].into());
        assert_eq!(claims.lost(&key_of("ns/young"), &young), []);
    }

    #[test]
    fn without_a_way_in_public_functions_are_told() {
        let claims = new(DEFAULT_TEMPLATE, "");
        let public = hosts("ns/public", FIRST, &[]);
        let hidden = function("ns/hidden", FIRST, None, json!({"visibility": "Cluster"}));
        let trouble = LostHost { host: None, reason: "GatewayNotReady", message: "no Gateway".into() };
        let mut told = public.clone();
        let condition = json!({"type": "Routable", "status": "False", "reason": "GatewayNotReady", "message": "no Gateway",
            "lastTransitionTime": FIRST});
        told.status = Some(serde_json::from_value(json!({"conditions": [condition]})).unwrap());
        assert_eq!(
            claims.lost(&key_of("ns/public"), &told),
            std::slice::from_ref(&trouble),
            "as long as nobody has looked"
        );
        assert_eq!(claims.lost(&key_of("ns/public"), &public), []);
        assert!(claims.set_way_in(Some(trouble.clone())) && !claims.set_way_in(Some(trouble.clone())));
        claims.replace([&public, &hidden].into_iter());
        assert_eq!(claims.lost(&key_of("ns/public"), &public), [trouble]);
        assert_eq!(claims.lost(&key_of("ns/hidden"), &hidden), []);
        assert!(claims.set_way_in(None));
        assert_eq!(claims.lost(&key_of("ns/public"), &told), []);
    }
}
