//! Local cache of one kind of objects, indexed by the Function that they belong to.
//!
//! The reflector of `kube` keeps one flat map. Here every lookup is by Function, and with ten thousand Functions a scan
//! for each would be quadratic. A relist is compared with the previous content, so an object whose deletion was missed
//! still triggers its Function.

use std::{
    collections::{HashMap, HashSet},
    fmt::Debug,
    sync::Arc,
};

use futures::StreamExt as _;
use kube::{
    Api, Resource, ResourceExt as _,
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event, watcher},
    },
};
use parking_lot::RwLock;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::key::FunctionKey;

/// An object that can be cached.
pub trait Cached: Resource<DynamicType = ()> + Clone + Debug + Send + Sync + 'static {
    /// Returns the Function that the object belongs to; `None` if it lacks the label for it.
    fn function_key(&self) -> Option<FunctionKey>;
    /// Removes the fields that are never read.
    fn prune(&mut self);
}

/// Cache of one kind of objects. Bounded by the objects in the API server.
#[derive(Debug)]
pub struct Cache<K> {
    inner: RwLock<Inner<K>>,
    synced: watch::Sender<bool>,
}

/// Objects by Function, sorted by name. A vector, because most Functions have one object of a kind.
type Objects<K> = HashMap<FunctionKey, Vec<Arc<K>>>;

#[derive(Debug)]
struct Inner<K> {
    objects: Objects<K>,
    /// Function under which each object (namespace, name) is indexed, to find it after its label changed.
    index: HashMap<(String, String), FunctionKey>,
    /// Objects of a relist that is in progress.
    relist: Option<Vec<K>>,
}

impl<K> Default for Cache<K> {
    fn default() -> Self {
        let inner = Inner { objects: HashMap::new(), index: HashMap::new(), relist: None };
        Self { inner: RwLock::new(inner), synced: watch::Sender::new(false) }
    }
}

impl<K: Cached> Cache<K> {
    /// Returns all objects of a Function, sorted by name.
    pub fn of(&self, function: &FunctionKey) -> Vec<Arc<K>> {
        self.inner.read().objects.get(function).cloned().unwrap_or_default()
    }

    /// Returns one object of a Function.
    pub fn get(&self, function: &FunctionKey, name: &str) -> Option<Arc<K>> {
        self.inner.read().objects.get(function)?.iter().find(|o| name_of(&***o) == name).cloned()
    }

    /// Returns all objects.
    pub fn all(&self) -> Vec<Arc<K>> {
        self.inner.read().objects.values().flatten().cloned().collect()
    }

    /// Returns every Function with at least one object.
    pub fn keys(&self) -> Vec<FunctionKey> {
        self.inner.read().objects.keys().cloned().collect()
    }

    /// Returns whether the initial list is complete.
    pub fn is_synced(&self) -> bool {
        *self.synced.borrow()
    }

    /// Waits until the initial list is complete.
    pub async fn synced(&self) {
        // The sender lives as long as `self`, so the wait cannot fail.
        drop(self.synced.subscribe().wait_for(|synced| *synced).await);
    }

    /// Applies a watch event and returns the affected Functions.
    pub fn apply(&self, event: Event<K>) -> HashSet<FunctionKey> {
        let mut inner = self.inner.write();
        match event {
            Event::Init => {
                inner.relist = Some(Vec::new());
                HashSet::new()
            }
            Event::InitApply(mut object) => {
                // Pruned now and not at the end. Otherwise a relist would hold all objects in full.
                object.prune();
                inner.relist.get_or_insert_default().push(object);
                HashSet::new()
            }
            Event::InitDone => {
                let fresh = inner.relist.take().unwrap_or_default();
                let mut touched: HashSet<_> = inner.objects.keys().cloned().collect();
                inner.objects.clear();
                inner.index.clear();
                for object in fresh {
                    touched.extend(inner.put(object));
                }
                drop(inner);
                self.synced.send_replace(true);
                touched
            }
            Event::Apply(object) => inner.put(object),
            Event::Delete(object) => inner.remove(&identity(&object)).into_iter().collect(),
        }
    }
}

fn identity<K: Cached>(object: &K) -> (String, String) {
    (object.namespace().unwrap_or_default(), object.name_any())
}

fn name_of<K: Cached>(object: &K) -> &str {
    object.meta().name.as_deref().unwrap_or_default()
}

impl<K: Cached> Inner<K> {
    fn put(&mut self, mut object: K) -> HashSet<FunctionKey> {
        object.prune();
        let id = identity(&object);
        let mut touched = HashSet::new();
        let now = object.function_key();
        if self.index.get(&id) != now.as_ref() {
            touched.extend(self.remove(&id));
        }
        if let Some(key) = now {
            let objects = self.objects.entry(key.clone()).or_default();
            let object = Arc::new(object);
            match objects.binary_search_by(|o| name_of(&**o).cmp(&id.1)) {
                Ok(position) => objects[position] = object,
                Err(position) => {
                    objects.reserve_exact(1);
                    objects.insert(position, object);
                }
            }
            self.index.insert(id, key.clone());
            touched.insert(key);
        }
        touched
    }

    fn remove(&mut self, id: &(String, String)) -> Option<FunctionKey> {
        let key = self.index.remove(id)?;
        if let Some(objects) = self.objects.get_mut(&key) {
            objects.retain(|o| name_of(&**o) != id.1);
            if objects.is_empty() {
                self.objects.remove(&key);
            }
        }
        Some(key)
    }
}

/// Keeps `cache` up to date, and calls `touch` for every Function that an event affects. Never returns.
pub async fn follow<K>(api: Api<K>, config: watcher::Config, cache: Arc<Cache<K>>, touch: impl Fn(&FunctionKey) + Send)
where
    K: Cached + DeserializeOwned,
{
    watch_forever(&K::kind(&()), api, config, move |event| cache.apply(event).iter().for_each(&touch)).await;
}

/// Watches objects of one kind and calls `on_event` for each event. Never returns: a failed watch restarts with
/// backoff.
pub(super) async fn watch_forever<K>(
    kind: &str,
    api: Api<K>,
    config: watcher::Config,
    on_event: impl Fn(Event<K>) + Send,
) where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut events = std::pin::pin!(watcher(api, config).default_backoff());
    loop {
        match events.next().await {
            Some(Ok(event)) => on_event(event),
            Some(Err(error)) => tracing::warn!(kind, %error, "Watch failed; will retry"),
            // A watcher never ends. If one did, continuing without it would mean to act on a stale cache.
            None => {
                tracing::error!(kind, "Watch ended unexpectedly");
                std::future::pending::<()>().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rouse_crds::{names::FUNCTION_LABEL, pod::FunctionPod};
    use serde_json::json;

    fn pod(name: &str, function: &str) -> FunctionPod {
        serde_json::from_value(
            json!({"metadata": {"namespace": "ns", "name": name, "labels": {FUNCTION_LABEL: function}}}),
        )
        .unwrap()
    }

    fn key(name: &str) -> FunctionKey {
        FunctionKey::new("ns", name)
    }

    fn names(cache: &Cache<FunctionPod>, function: &str) -> Vec<String> {
        cache.of(&key(function)).iter().map(|p| p.name_any()).collect()
    }

    #[test]
    fn indexes_by_function_and_follows_its_label() {
        let cache = Cache::default();
        assert_eq!(cache.apply(Event::Apply(pod("p1", "a"))), HashSet::from([key("a")]));
        cache.apply(Event::Apply(pod("p2", "a")));
        assert_eq!(names(&cache, "a"), ["p1", "p2"]);
        assert_eq!(cache.apply(Event::Apply(pod("p2", "b"))), HashSet::from([key("a"), key("b")]));
        assert_eq!((names(&cache, "a"), names(&cache, "b")), (vec!["p1".to_owned()], vec!["p2".to_owned()]));
        assert_eq!(cache.apply(Event::Delete(pod("p1", "a"))), HashSet::from([key("a")]));
        assert_eq!(cache.keys(), [key("b")]);
    }

    #[test]
    fn a_relist_reports_deleted_objects_and_becomes_visible_when_complete() {
        let cache = Cache::default();
        cache.apply(Event::Apply(pod("p1", "a")));
        cache.apply(Event::Init);
        cache.apply(Event::InitApply(pod("p2", "b")));
        assert_eq!(names(&cache, "a"), ["p1"], "an incomplete list is not visible");
        assert!(!cache.is_synced());
        assert_eq!(cache.apply(Event::InitDone), HashSet::from([key("a"), key("b")]));
        assert!(cache.is_synced());
        assert!(names(&cache, "a").is_empty());
    }
}
