//! Following Functions and pods by the Kubernetes API.

use futures::StreamExt;
use kube::{
    Api, Client, ResourceExt,
    core::DeserializeGuard,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use rouse_crds::{
    Function,
    names::FUNCTION_LABEL,
    pod::{self, FunctionPod},
};
use tokio::sync::watch;

use super::Directory;
use crate::supervise;

/// Whether both caches have been filled once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Synced {
    /// Functions.
    pub functions: bool,
    /// Pods.
    pub pods: bool,
}

impl Synced {
    /// Both.
    #[must_use]
    pub fn all(self) -> bool {
        self.functions && self.pods
    }
}

/// Follows both until the process ends. A watch that breaks is taken up again with a growing, jittered delay; what is known
/// stands meanwhile.
pub async fn follow(client: Client, mut directory: Directory, synced: watch::Sender<Synced>) {
    let metrics = directory.metrics();
    let functions = Api::<DeserializeGuard<Function>>::all(client.clone());
    let mut functions = std::pin::pin!(
        watcher(functions, watcher::Config::default().any_semantic())
            .default_backoff()
            .filter_map(healthy::<_, Function>)
    );
    let pods = Api::<DeserializeGuard<FunctionPod>>::all(client);
    let only_ours = watcher::Config::default().any_semantic().labels(FUNCTION_LABEL);
    let mut pods = std::pin::pin!(watcher(pods, only_ours).default_backoff().filter_map(healthy::<_, FunctionPod>));
    loop {
        tokio::select! {
            // An object that a defect here cannot cope with must not blind this process to all others.
            Some(event) = functions.next() => {
                supervise::catch_panic("functions", &metrics, || on_function(&mut directory, event, &synced));
            }
            Some(event) = pods.next() => {
                supervise::catch_panic("pods", &metrics, || on_pod(&mut directory, event, &synced));
            }
            else => return,
        }
    }
}

async fn healthy<T, K: kube::Resource<DynamicType = ()>>(event: Result<Event<T>, watcher::Error>) -> Option<Event<T>> {
    match event {
        Ok(event) => Some(event),
        Err(error) => {
            tracing::warn!(kind = %K::kind(&()), %error, "A watch broke and is taken up again");
            None
        }
    }
}

fn on_function(directory: &mut Directory, event: Event<DeserializeGuard<Function>>, synced: &watch::Sender<Synced>) {
    match event {
        Event::Init => directory.functions_listing(),
        Event::InitApply(object) | Event::Apply(object) => {
            let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
            match object.0 {
                Ok(function) => directory.function_seen(&function),
                Err(error) => {
                    tracing::warn!(namespace, function = name, error = error.error, "A Function cannot be read");
                    directory.function_unreadable(&namespace, &name);
                }
            }
        }
        Event::Delete(object) => directory.function_gone(&object.namespace().unwrap_or_default(), &object.name_any()),
        Event::InitDone => {
            directory.functions_listed();
            synced.send_if_modified(|s| !std::mem::replace(&mut s.functions, true));
        }
    }
}

fn on_pod(directory: &mut Directory, event: Event<DeserializeGuard<FunctionPod>>, synced: &watch::Sender<Synced>) {
    match event {
        Event::Init => directory.pods_listing(),
        Event::InitApply(object) | Event::Apply(object) => match object.0 {
            Ok(mut pod) => {
                pod::prune(&mut pod);
                directory.pod_seen(&pod);
            }
            Err(error) => tracing::warn!(error = error.error, "A pod cannot be read"),
        },
        Event::Delete(object) => {
            if let Ok(pod) = object.0 {
                directory.pod_gone(&pod);
            }
        }
        Event::InitDone => {
            directory.pods_listed();
            synced.send_if_modified(|s| !std::mem::replace(&mut s.pods, true));
        }
    }
}
