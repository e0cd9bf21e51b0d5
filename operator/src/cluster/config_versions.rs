//! The versions of all ConfigMaps and Secrets, and which Functions take something from them.
//!
//! Only metadata is asked for and only the version is kept: never what is in them. They are followed where the installation
//! allows it (the chart's `operator.watchConfig`), and a change touches none but the Functions that asked to be told.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fmt,
    fmt::Debug,
    sync::Arc,
};

use futures::StreamExt as _;
use kube::{
    Api, Client, Resource, ResourceExt as _,
    core::PartialObjectMeta,
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event, watcher},
    },
};
use parking_lot::RwLock;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::key::FunctionKey;

/// Kinds of objects that configure containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A ConfigMap.
    ConfigMap,
    /// A Secret.
    Secret,
}

/// An object in the namespace of the Function that names it. Written `ConfigMap/name`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: String,
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}/{}", self.kind, self.name)
    }
}

/// Namespace and object.
type Id = (String, Reference);

/// See the module. Bounded by what the API server has.
#[derive(Debug)]
pub struct Configs {
    inner: RwLock<Inner>,
    synced: watch::Sender<BTreeSet<Kind>>,
}

#[derive(Debug, Default)]
struct Inner {
    versions: HashMap<Id, Box<str>>,
    /// Relists in the making.
    relists: HashMap<Kind, HashMap<Id, Box<str>>>,
    users: HashMap<Id, HashSet<FunctionKey>>,
    /// What each Function uses; those that use nothing are not here.
    uses: HashMap<FunctionKey, Vec<Reference>>,
}

impl Default for Configs {
    fn default() -> Self {
        Self { inner: RwLock::default(), synced: watch::Sender::new(BTreeSet::new()) }
    }
}

impl Configs {
    /// Takes note of what a Function is to be told of; nothing ends it.
    pub fn watch(&self, function: &FunctionKey, references: impl IntoIterator<Item = Reference>) {
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

    /// The version of an object; `None` if it is not there.
    #[must_use]
    pub fn version(&self, namespace: &str, reference: &Reference) -> Option<String> {
        self.inner.read().versions.get(&(namespace.to_owned(), reference.clone())).map(ToString::to_string)
    }

    /// Kinds whose first list is not complete.
    #[must_use]
    pub fn unsynced(&self) -> Vec<&'static str> {
        let synced = self.synced.borrow();
        let kinds = [("configmaps", Kind::ConfigMap), ("secrets", Kind::Secret)];
        kinds.into_iter().filter(|(_, kind)| !synced.contains(kind)).map(|(name, _)| name).collect()
    }

    /// Waits until the first lists are complete.
    pub async fn synced(&self) {
        // The sender lives as long as `self`, so the wait cannot fail.
        drop(self.synced.subscribe().wait_for(|synced| synced.len() == 2).await);
    }

    /// Sets a version, as an event would.
    #[cfg(test)]
    pub(crate) fn set_version(&self, namespace: &str, reference: Reference, version: &str) {
        self.inner.write().versions.insert((namespace.to_owned(), reference), version.into());
    }

    /// Takes in an event and returns the Functions that it touches.
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
                let gone: Vec<_> =
                    inner.versions.keys().filter(of_kind).filter(|id| !fresh.contains_key(id)).cloned().collect();
                let new = fresh.iter().filter(|(id, version)| inner.versions.get(*id) != Some(*version));
                let changed = new.map(|(id, _)| id.clone()).chain(gone).collect();
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

    /// Keeps the versions of one kind up to date until it is dropped, and calls `touch` for every Function that a change
    /// concerns. Never ends: a watch that fails is begun anew with a back-off.
    pub async fn follow<K>(self: Arc<Self>, client: Client, kind: Kind, touch: impl Fn(&FunctionKey) + Send)
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
    {
        let config = watcher::Config::default().page_size(PAGE);
        let mut events = std::pin::pin!(watcher(Api::<PartialObjectMeta<K>>::all(client), config).default_backoff());
        loop {
            match events.next().await {
                Some(Ok(event)) => self.apply(kind, event).iter().for_each(&touch),
                Some(Err(error)) => tracing::warn!(?kind, %error, "A watch failed and is begun anew"),
                // A watcher has no end. Should it have one, going on without it would be to act on stale knowledge.
                None => {
                    tracing::error!(?kind, "A watch ended");
                    std::future::pending::<()>().await;
                }
            }
        }
    }
}

/// Objects in one page of a list; only their metadata is sent.
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

    fn apply(configs: &Configs, event: Event<PartialObjectMeta<ConfigMap>>) -> Vec<String> {
        let mut touched: Vec<_> = configs.apply(Kind::ConfigMap, event).into_iter().map(|key| key.name).collect();
        touched.sort();
        touched
    }

    #[test]
    fn touches_those_that_use_it() {
        let configs = Configs::default();
        configs.watch(&FunctionKey::new("ns", "f"), [map("a"), map("b")]);
        configs.watch(&FunctionKey::new("ns", "g"), [map("a")]);
        configs.watch(&FunctionKey::new("other", "h"), [map("a")]);
        assert_eq!(apply(&configs, Event::Apply(object("a", "1"))), ["f", "g"]);
        assert_eq!(configs.version("ns", &map("a")).as_deref(), Some("1"));
        assert_eq!(configs.version("ns", &Reference { kind: Kind::Secret, name: "a".into() }), None);
        assert_eq!(apply(&configs, Event::Apply(object("c", "1"))), Vec::<String>::new());
        assert_eq!(apply(&configs, Event::Delete(object("a", "2"))), ["f", "g"]);
        assert_eq!(configs.version("ns", &map("a")), None);
        configs.watch(&FunctionKey::new("ns", "f"), []);
        configs.watch(&FunctionKey::new("ns", "g"), [map("b")]);
        assert_eq!(apply(&configs, Event::Apply(object("a", "3"))), Vec::<String>::new());
        assert_eq!(apply(&configs, Event::Apply(object("b", "3"))), ["g"]);
        let inner = configs.inner.read();
        assert_eq!((inner.users.len(), inner.uses.len()), (2, 2), "nothing is left behind");
    }

    #[test]
    fn a_relist_touches_what_changed_or_is_gone() {
        let configs = Configs::default();
        for name in ["a", "b", "c", "d"] {
            configs.watch(&FunctionKey::new("ns", format!("of-{name}")), [map(name)]);
        }
        for name in ["a", "b", "c"] {
            apply(&configs, Event::Apply(object(name, "1")));
        }
        assert_eq!(configs.unsynced(), ["configmaps", "secrets"]);
        apply(&configs, Event::Init);
        for (name, version) in [("a", "1"), ("b", "2"), ("d", "1")] {
            apply(&configs, Event::InitApply(object(name, version)));
        }
        assert_eq!(configs.version("ns", &map("b")).as_deref(), Some("1"), "half a list is no list");
        assert_eq!(apply(&configs, Event::InitDone), ["of-b", "of-c", "of-d"]);
        assert_eq!(configs.unsynced(), ["secrets"]);
        assert_eq!(configs.version("ns", &map("c")), None);
    }
}
