//! Who owns a custom host that several Functions claim.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    sync::Arc,
};

use parking_lot::RwLock;
use rouse_crds::{
    Function,
    hosts::{DefaultHost, HostTemplate, claim_order},
};

use crate::key::FunctionKey;

/// The owner of every claimed custom host, kept by the ingress loop and read by the reconciler.
#[derive(Clone, Debug, Default)]
pub struct Claims(Arc<RwLock<Owners>>);

type Owners = HashMap<String, FunctionKey>;

/// A host that a Function claims and another one has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostHost {
    /// The host.
    pub host: String,
    /// Whose it is.
    pub owner: FunctionKey,
}

impl fmt::Display for LostHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, owner } = self;
        write!(f, "the host {host} belongs to the Function {owner}; remove it from spec.hosts here or there")
    }
}

/// The owner of each custom host: the oldest Function that claims it. A host that has the form of a default host is that of
/// the Function which it names and nobody else's, whether that Function exists or not.
pub fn owners<'a>(
    functions: impl Iterator<Item = &'a Function>,
    template: &HostTemplate,
) -> HashMap<String, FunctionKey> {
    let mut claims: HashMap<&str, Vec<_>> = HashMap::new();
    for function in functions {
        for host in function.spec.hosts.iter().flatten() {
            claims.entry(host).or_default().push(claim_order(function));
        }
    }
    let mut owners = HashMap::with_capacity(claims.len());
    for (host, claimants) in claims {
        let oldest = claimants.into_iter().min().map(|(_, namespace, name)| FunctionKey { namespace, name });
        let owner = match template.read(host) {
            DefaultHost::Of(name, namespace) => Some(FunctionKey::new(namespace, name)),
            DefaultHost::No | DefaultHost::Ambiguous => oldest,
        };
        if let Some(owner) = owner {
            owners.insert(host.to_owned(), owner);
        }
    }
    owners
}

impl Claims {
    /// Takes in the owners as they are now, and returns the hosts whose owner is another than before.
    pub fn replace(&self, owners: HashMap<String, FunctionKey>) -> BTreeSet<String> {
        let mut held = self.0.write();
        let changed =
            held.keys().chain(owners.keys()).filter(|host| held.get(*host) != owners.get(*host)).cloned().collect();
        *held = owners;
        changed
    }

    /// Who owns a custom host.
    pub fn owner(&self, host: &str) -> Option<FunctionKey> {
        self.0.read().get(host).cloned()
    }

    /// Hosts that a Function claims and another one has. A host that nobody is known to own yet counts as its own.
    pub fn lost(&self, key: &FunctionKey, function: &Function) -> Vec<LostHost> {
        let owners = self.0.read();
        let claimed = function.spec.hosts.iter().flatten();
        claimed
            .filter_map(|host| {
                let owner = owners.get(host).filter(|owner| *owner != key)?;
                Some(LostHost { host: host.clone(), owner: owner.clone() })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn function(name: &str, created: &str, hosts: &[&str]) -> Function {
        serde_json::from_value(json!({
            "apiVersion": "rouse.dev/v1alpha1", "kind": "Function",
            "metadata": {"name": name, "namespace": "ns", "creationTimestamp": created},
            "spec": {"image": "i", "hosts": hosts},
        }))
        .unwrap()
    }

    fn template() -> HostTemplate {
        HostTemplate::new(rouse_crds::hosts::DEFAULT_TEMPLATE, "example.com").unwrap()
    }

    #[test]
    fn the_oldest_has_it() {
        let (old, young) = (
            function("old", "2026-01-01T00:00:00Z", &["a.example.org"]),
            function("young", "2026-01-02T00:00:00Z", &["a.example.org", "b.example.org"]),
        );
        let claims = Claims::default();
        let key = FunctionKey::new("ns", "young");
        assert!(claims.lost(&key, &young).is_empty(), "nothing is known yet");
        let changed = claims.replace(owners([&young, &old].into_iter(), &template()));
        assert_eq!(changed, BTreeSet::from(["a.example.org".to_owned(), "b.example.org".to_owned()]));
        let lost = claims.lost(&key, &young);
        assert_eq!(lost, [LostHost { host: "a.example.org".into(), owner: FunctionKey::new("ns", "old") }]);
        assert!(claims.lost(&FunctionKey::new("ns", "old"), &old).is_empty());
        let changed = claims.replace(owners([&young].into_iter(), &template()));
        assert_eq!(changed, BTreeSet::from(["a.example.org".to_owned()]));
        assert!(claims.lost(&key, &young).is_empty());
    }

    #[test]
    fn a_default_host_cannot_be_taken() {
        let thief = function("thief", "2026-01-01T00:00:00Z", &["pay.shop.example.com", "x.y.z.example.com"]);
        let owners = owners([&thief].into_iter(), &template());
        assert_eq!(owners["pay.shop.example.com"], FunctionKey::new("shop", "pay"));
        assert_eq!(owners["x.y.z.example.com"], FunctionKey::new("ns", "thief"));
    }
}
