//! A local copy of what the API server has, arranged by the Function it belongs to.
//!
//! kube's own reflector keeps one flat map; here every question is "what belongs to this Function?", and with ten
//! thousand Functions a scan for each would be quadratic. A relist is compared with what was there before, so that an
//! object whose deletion was missed still touches its Function.

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

/// What can be cached: it knows its Function, and can be made smaller.
pub trait Cached: Resource<DynamicType = ()> + Clone + Debug + Send + Sync + 'static {
    /// The Function it belongs to; `None` if it has lost the label that says so.
    fn function_key(&self) -> Option<FunctionKey>;
    /// Takes away what is never read.
    fn prune(&mut self);
}

/// See the module. Bounded by what the API server has.
#[derive(Debug)]
pub struct Cache<K> {
    inner: RwLock<Inner<K>>,
    synced: watch::Sender<bool>,
}

/// By Function, sorted by name. A vector, for a Function mostly has one object of a kind, and a tree is made for eleven.
type Objects<K> = HashMap<FunctionKey, Vec<Arc<K>>>;

#[derive(Debug)]
struct Inner<K> {
    objects: Objects<K>,
    /// Which Function each object (namespace, name) is filed under, to find it again when its label has changed.
    filed: HashMap<(String, String), FunctionKey>,
    /// A relist in the making.
    relist: Option<Vec<K>>,
}

impl<K> Default for Cache<K> {
    fn default() -> Self {
        let inner = Inner { objects: HashMap::new(), filed: HashMap::new(), relist: None };
        Self { inner: RwLock::new(inner), synced: watch::Sender::new(false) }
    }
}

impl<K: Cached> Cache<K> {
    /// Everything of one Function, by name.
    pub fn of(&self, function: &FunctionKey) -> Vec<Arc<K>> {
        self.inner.read().objects.get(function).cloned().unwrap_or_default()
    }

    /// One object of a Function.
    pub fn get(&self, function: &FunctionKey, name: &str) -> Option<Arc<K>> {
        self.inner.read().objects.get(function)?.iter().find(|o| name_of(&***o) == name).cloned()
    }

    /// Everything.
    pub fn all(&self) -> Vec<Arc<K>> {
        self.inner.read().objects.values().flatten().cloned().collect()
    }

    /// Every Function that has something here.
    pub fn keys(&self) -> Vec<FunctionKey> {
        self.inner.read().objects.keys().cloned().collect()
    }

    /// Whether the first list is complete.
    pub fn is_synced(&self) -> bool {
        *self.synced.borrow()
    }

    /// Waits until the first list is complete.
    pub async fn synced(&self) {
        // The sender lives as long as `self`, so the wait cannot fail.
        drop(self.synced.subscribe().wait_for(|synced| *synced).await);
    }

    /// Takes in an event and returns the Functions that it touches.
    pub fn apply(&self, event: Event<K>) -> HashSet<FunctionKey> {
        let mut inner = self.inner.write();
        match event {
            Event::Init => {
                inner.relist = Some(Vec::new());
                HashSet::new()
            }
            Event::InitApply(mut object) => {
                // Now and not at the end, or a relist would hold everything in full for a moment.
                object.prune();
                inner.relist.get_or_insert_default().push(object);
                HashSet::new()
            }
            Event::InitDone => {
                let fresh = inner.relist.take().unwrap_or_default();
                let mut touched: HashSet<_> = inner.objects.keys().cloned().collect();
                inner.objects.clear();
                inner.filed.clear();
                for object in fresh {
                    touched.extend(inner.put(object));
                }
                drop(inner);
                self.synced.send_replace(true);
                touched
            }
            Event::Apply(object) => inner.put(object),
            Event::Delete(object) => inner.take(&identity(&object)).into_iter().collect(),
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
        if self.filed.get(&id) != now.as_ref() {
            touched.extend(self.take(&id));
        }
        if let Some(key) = now {
            let objects = self.objects.entry(key.clone()).or_default();
            let object = Arc::new(object);
            match objects.binary_search_by(|o| name_of(&**o).cmp(&id.1)) {
                Ok(there) => objects[there] = object,
                Err(place) => {
                    objects.reserve_exact(1);
                    objects.insert(place, object);
                }
            }
            self.filed.insert(id, key.clone());
            touched.insert(key);
        }
        touched
    }

    fn take(&mut self, id: &(String, String)) -> Option<FunctionKey> {
        let key = self.filed.remove(id)?;
        if let Some(objects) = self.objects.get_mut(&key) {
            objects.retain(|o| name_of(&**o) != id.1);
            if objects.is_empty() {
                self.objects.remove(&key);
            }
        }
        Some(key)
    }
}

/// Keeps `cache` up to date until it is dropped, and calls `touch` for every Function that an event concerns. Never ends:
/// a watch that fails is begun anew with a back-off.
pub async fn follow<K>(api: Api<K>, config: watcher::Config, cache: Arc<Cache<K>>, touch: impl Fn(&FunctionKey) + Send)
where
    K: Cached + DeserializeOwned,
{
    let kind = K::kind(&()).into_owned();
    let mut events = std::pin::pin!(watcher(api, config).default_backoff());
    loop {
        match events.next().await {
            Some(Ok(event)) => cache.apply(event).iter().for_each(&touch),
            Some(Err(error)) => tracing::warn!(kind, %error, "A watch failed and is begun anew"),
            // A watcher has no end. Should it have one, going on without it would be to act on stale knowledge.
            None => {
                tracing::error!(kind, "A watch ended");
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
    fn files_by_function_and_follows_a_label() {
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
    fn a_relist_touches_what_vanished_and_is_seen_only_when_complete() {
        let cache = Cache::default();
        cache.apply(Event::Apply(pod("p1", "a")));
        cache.apply(Event::Init);
        cache.apply(Event::InitApply(pod("p2", "b")));
        assert_eq!(names(&cache, "a"), ["p1"], "half a list is no list");
        assert!(!cache.is_synced());
        assert_eq!(cache.apply(Event::InitDone), HashSet::from([key("a"), key("b")]));
        assert!(cache.is_synced());
        assert!(names(&cache, "a").is_empty());
    }
}
