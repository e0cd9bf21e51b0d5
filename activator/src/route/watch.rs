//! Watches of Functions and pods.

use std::sync::Arc;

use futures::StreamExt;
use kube::{Api, Client, Resource as _, ResourceExt as _, core::DeserializeGuard, runtime::watcher::Event};
use rouse_crds::{
    Function,
    names::FUNCTION_LABEL,
    pod::{self, FunctionPod},
};
use tokio::sync::watch;

use super::{Directory, list_watch};
use crate::{endpoints::WatchAge, supervise};

/// Whether the caches have been filled once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Synced {
    /// Functions.
    pub functions: bool,
    /// Pods.
    pub pods: bool,
}

impl Synced {
    /// Whether both have been filled.
    #[must_use]
    pub fn all(self) -> bool {
        self.functions && self.pods
    }
}

/// Runs both watches until the process ends. A watch that fails is restarted with backoff; the previous state stays
/// meanwhile, and its age is a metric.
pub async fn follow(client: Client, mut directory: Directory, synced: watch::Sender<Synced>) {
    let metrics = directory.metrics();
    let functions_age = Arc::<WatchAge>::default();
    metrics.watch_age("functions", {
        let age = functions_age.clone();
        move || age.get()
    });
    let functions = Api::<DeserializeGuard<Function>>::all(client.clone());
    let mut functions = std::pin::pin!(list_watch::events(functions, None, functions_age));
    let pods = Api::<DeserializeGuard<FunctionPod>>::all(client);
    let mut pods = std::pin::pin!(list_watch::events(pods, Some(FUNCTION_LABEL), directory.pods_watch()));
    loop {
        tokio::select! {
            // An object that triggers a panic must not stop the watch of all others.
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

fn on_function(directory: &mut Directory, event: Event<DeserializeGuard<Function>>, synced: &watch::Sender<Synced>) {
    match event {
        Event::Init => directory.functions_relist_started(),
        Event::InitApply(object) | Event::Apply(object) => {
            let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
            match object.0 {
                Ok(function) => directory.function_updated(&function),
                Err(error) => {
                    tracing::warn!(
                        namespace,
                        function = name,
                        error = error.error,
                        "Failed to deserialize a Function; keeping its previous state"
                    );
                    directory.function_unreadable(&namespace, &name);
                }
            }
        }
        Event::Delete(object) => {
            directory.function_deleted(&object.namespace().unwrap_or_default(), &object.name_any());
        }
        Event::InitDone => {
            directory.functions_relist_finished();
            synced.send_if_modified(|s| !std::mem::replace(&mut s.functions, true));
        }
    }
}

fn on_pod(directory: &mut Directory, event: Event<DeserializeGuard<FunctionPod>>, synced: &watch::Sender<Synced>) {
    match event {
        Event::Init => directory.pods_relist_started(),
        Event::InitApply(object) | Event::Apply(object) => match object.0 {
            Ok(mut pod) => {
                pod::prune(&mut pod);
                directory.pod_updated(&pod);
            }
            Err(error) => {
                let (namespace, pod) = (&error.metadata.namespace, &error.metadata.name);
                tracing::warn!(
                    namespace,
                    pod,
                    error = error.error,
                    "Failed to deserialize a pod; keeping its previous state"
                );
                directory.pod_unreadable(&error.metadata);
            }
        },
        Event::Delete(object) => directory.pod_deleted(object.meta()),
        Event::InitDone => {
            directory.pods_relist_finished();
            synced.send_if_modified(|s| !std::mem::replace(&mut s.pods, true));
        }
    }
}
