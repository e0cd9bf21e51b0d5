//! Versions of all ConfigMaps and Secrets, and the Functions that use them.
//!
//! The watch requests metadata only and keeps only the version, never the content. It runs if the chart value
//! `operator.watchConfig` is true. A change triggers only the Functions that have subscribed to the object.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fmt,
    fmt::Debug,
    sync::Arc,
};

use kube::{
    Api, Client, Resource, ResourceExt as _,
    core::PartialObjectMeta,
    runtime::watcher::{self, Event},
};
use parking_lot::RwLock;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::{cache::watch_forever, key::FunctionKey};

/// Kind of a configuration object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A ConfigMap.
    ConfigMap,
    /// A Secret.
    Secret,
}

/// Reference to an object in the namespace of the Function. Formatted as `ConfigMap/name`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    /// Kind.
    pub kind: Kind,
    /// Name.
    pub name: String,
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}/{}", self.kind, self.name)
    }
}

/// Namespace and object.
type Id = (String, Reference);

/// Versions and subscriptions. Bounded by the objects in the API server.
#[derive(Debug)]
pub struct ConfigVersions {
    inner: RwLock<Inner>,
    synced: watch::Sender<BTreeSet<Kind>>,
}

#[derive(Debug, Default)]
struct Inner {
    versions: HashMap<Id, Box<str>>,
    /// Objects of relists that are in progress.
    relists: HashMap<Kind, HashMap<Id, Box<str>>>,
    users: HashMap<Id, HashSet<FunctionKey>>,
    /// Subscriptions of each Function. Functions without subscriptions have no entry.
    uses: HashMap<FunctionKey, Vec<Reference>>,
}

impl Default for ConfigVersions {
    fn default() -> Self {
        Self { inner: RwLock::default(), synced: watch::Sender::new(BTreeSet::new()) }
    }
}

impl ConfigVersions {
    /// Sets the subscriptions of a Function. An empty list ends them.
    pub fn subscribe(&self, function: &FunctionKey, references: impl IntoIterator<Item = Reference>) {
        let references: Vec<_> = references.into_iter().collect();
        {
            let inner = self.inner.read();
            if inner.uses.get(function).map_or(&[][..], Vec::as_slice) == references {
                return;
            }
        }
        let mut inner = self.inner.write();
        let of = |reference: &Reference| (function.namespace.clone(), reference.clone());
        for reference in inner.uses.remove(function).unwrap_or_default() {
            let id = of(&reference);
            if let Some(users) = inner.users.get_mut(&id) {
                users.remove(function);
                if users.is_empty() {
                    inner.users.remove(&id);
                }
            }
        }
        for reference in &references {
            inner.users.entry(of(reference)).or_default().insert(function.clone());
        }
        if !references.is_empty() {
            inner.uses.insert(function.clone(), references);
        }
    }

    /// Returns the version of an object; `None` if it does not exist.
    #[must_use]
    pub fn version(&self, namespace: &str, reference: &Reference) -> Option<String> {
        self.inner.read().versions.get(&(namespace.to_owned(), reference.clone())).map(ToString::to_string)
    }

    /// Returns the kinds whose initial list is not complete.
    #[must_use]
    pub fn unsynced(&self) -> Vec<&'static str> {
        let synced = self.synced.borrow();
        let kinds = [("configmaps", Kind::ConfigMap), ("secrets", Kind::Secret)];
        kinds.into_iter().filter(|(_, kind)| !synced.contains(kind)).map(|(name, _)| name).collect()
    }

    /// Waits until the initial lists are complete.
    pub async fn synced(&self) {
        // The sender lives as long as `self`, so the wait cannot fail.
        drop(self.synced.subscribe().wait_for(|synced| synced.len() == 2).await);
    }

    /// Sets a version, as a watch event would.
    #[cfg(test)]
    pub(crate) fn set_version(&self, namespace: &str, reference: Reference, version: &str) {
        self.inner.write().versions.insert((namespace.to_owned(), reference), version.into());
    }

    /// Applies a watch event and returns the affected Functions.
    fn apply<K: Resource<DynamicType = ()>>(
        &self,
        kind: Kind,
        event: Event<PartialObjectMeta<K>>,
    ) -> HashSet<FunctionKey> {
        let entry = |object: &PartialObjectMeta<K>| -> (Id, Box<str>) {
            let reference = Reference { kind, name: object.name_any() };
            ((object.namespace().unwrap_or_default(), reference), object.resource_version().unwrap_or_default().into())
        };
        let mut inner = self.inner.write();
        let changed: Vec<Id> = match event {
            Event::Init => {
                inner.relists.insert(kind, HashMap::new());
                Vec::new()
            }
            Event::InitApply(object) => {
                let (id, version) = entry(&object);
                inner.relists.entry(kind).or_default().insert(id, version);
                Vec::new()
            }
            Event::InitDone => {
                let fresh = inner.relists.remove(&kind).unwrap_or_default();
                let of_kind = |id: &&Id| id.1.kind == kind;
                let deleted: Vec<_> =
                    inner.versions.keys().filter(of_kind).filter(|id| !fresh.contains_key(id)).cloned().collect();
                let new = fresh.iter().filter(|(id, version)| inner.versions.get(*id) != Some(*version));
                let changed = new.map(|(id, _)| id.clone()).chain(deleted).collect();
                inner.versions.retain(|id, _| id.1.kind != kind);
                inner.versions.extend(fresh);
                self.synced.send_modify(|synced| {
                    synced.insert(kind);
                });
                changed
            }
            Event::Apply(object) => {
                let (id, version) = entry(&object);
                inner.versions.insert(id.clone(), version);
                vec![id]
            }
            Event::Delete(object) => {
                let (id, _) = entry(&object);
                inner.versions.remove(&id);
                vec![id]
            }
        };
        changed.iter().filter_map(|id| inner.users.get(id)).flatten().cloned().collect()
    }

    /// Keeps the versions of one kind up to date, and calls `touch` for every Function that a change affects. Never
    /// returns.
    pub async fn follow<K>(self: Arc<Self>, client: Client, kind: Kind, touch: impl Fn(&FunctionKey) + Send)
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
    {
        let api = Api::<PartialObjectMeta<K>>::all(client);
        let config = watcher::Config::default().page_size(PAGE);
        watch_forever(&K::kind(&()), api, config, move |event| self.apply(kind, event).iter().for_each(&touch)).await;
    }
}

/// Objects per page of a list, which contains their metadata only.
const PAGE: u32 = 500;

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;
    use serde_json::json;

    fn object(name: &str, version: &str) -> PartialObjectMeta<ConfigMap> {
        let metadata = json!({"namespace": "ns", "name": name, "resourceVersion": version});
        serde_json::from_value(json!({"metadata": metadata})).unwrap()
    }

    fn map(name: &str) -> Reference {
        Reference { kind: Kind::ConfigMap, name: name.into() }
    }

    fn apply(configs: &ConfigVersions, event: Event<PartialObjectMeta<ConfigMap>>) -> Vec<String> {
        let mut touched: Vec<_> = configs.apply(Kind::ConfigMap, event).into_iter().map(|key| key.name).collect();
        touched.sort();
        touched
    }

    #[test]
    fn a_change_affects_the_subscribed_functions() {
        let configs = ConfigVersions::default();
        configs.subscribe(&FunctionKey::new("ns", "f"), [map("a"), map("b")]);
        configs.subscribe(&FunctionKey::new("ns", "g"), [map("a")]);
        configs.subscribe(&FunctionKey::new("other", "h"), [map("a")]);
        assert_eq!(apply(&configs, Event::Apply(object("a", "1"))), ["f", "g"]);
        assert_eq!(configs.version("ns", &map("a")).as_deref(), Some("1"));
        assert_eq!(configs.version("ns", &Reference { kind: Kind::Secret, name: "a".into() }), None);
        assert_eq!(apply(&configs, Event::Apply(object("c", "1"))), Vec::<String>::new());
        assert_eq!(apply(&configs, Event::Delete(object("a", "2"))), ["f", "g"]);
        assert_eq!(configs.version("ns", &map("a")), None);
        configs.subscribe(&FunctionKey::new("ns", "f"), []);
        configs.subscribe(&FunctionKey::new("ns", "g"), [map("b")]);
        assert_eq!(apply(&configs, Event::Apply(object("a", "3"))), Vec::<String>::new());
        assert_eq!(apply(&configs, Event::Apply(object("b", "3"))), ["g"]);
        let inner = configs.inner.read();
        assert_eq!((inner.users.len(), inner.uses.len()), (2, 2), "ended subscriptions leave no entries");
    }

    #[test]
    fn a_relist_affects_changed_and_deleted_objects() {
        let configs = ConfigVersions::default();
        for name in ["a", "b", "c", "d"] {
            configs.subscribe(&FunctionKey::new("ns", format!("of-{name}")), [map(name)]);
        }
        for name in ["a", "b", "c"] {
            apply(&configs, Event::Apply(object(name, "1")));
        }
        assert_eq!(configs.unsynced(), ["configmaps", "secrets"]);
        apply(&configs, Event::Init);
        for (name, version) in [("a", "1"), ("b", "2"), ("d", "1")] {
            apply(&configs, Event::InitApply(object(name, version)));
        }
        assert_eq!(configs.version("ns", &map("b")).as_deref(), Some("1"), "an incomplete list is not visible");
        assert_eq!(apply(&configs, Event::InitDone), ["of-b", "of-c", "of-d"]);
        assert_eq!(configs.unsynced(), ["secrets"]);
        assert_eq!(configs.version("ns", &map("c")), None);
    }
}
