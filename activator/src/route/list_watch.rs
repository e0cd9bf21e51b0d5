//! List and watch of one kind: the reflector of client-go, with the age of what it reports.
//!
//! A list is a consistent read, so a relist never returns a state from before what was reported already. A list from any
//! version, which is cheaper for some API servers, may: an API server that lags would bring deleted pods back.
//!
//! A watch lasts 45 s and continues where the previous one has ended. Before each end the API server sends a bookmark,
//! and it authorizes each start. So a watch is heard at least that often, also while no object changes, and a watch that
//! is not heard for longer is broken.

use std::{fmt::Debug, sync::Arc, time::Duration};

use futures::{Stream, StreamExt as _, stream, stream::BoxStream};
use kube::{
    Api, Resource, ResourceExt as _,
    api::{ListParams, WatchEvent, WatchParams},
    runtime::watcher::Event,
};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use crate::{backoff::jitter, endpoints::WatchAge};

/// Duration of a watch.
const WATCH: Duration = Duration::from_secs(45);
/// Time in which the API server has to end a watch or send something.
const WATCH_TIMEOUT: Duration = Duration::from_secs(50);
/// Timeout of a list, and of the start of a watch. A list of many thousands of pods takes seconds.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// Delay after a failure, at first and at most.
const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(30);
/// Failures in a row after which a watch is replaced by a relist: the version that it starts from may be the cause.
const RELIST_AFTER: u32 = 5;

/// Returns the events of all objects of a kind, for ever. `age` is that of the state that the events add up to.
pub(super) fn events<K>(
    api: Api<K>,
    labels: Option<&'static str>,
    age: Arc<WatchAge>,
) -> impl Stream<Item = Event<K>> + Send
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let source = Source { api, labels, age, state: State::Start, failures: 0 };
    stream::unfold(source, |mut source| async move {
        let event = source.next().await;
        Some((event, source))
    })
}

struct Source<K> {
    api: Api<K>,
    labels: Option<&'static str>,
    age: Arc<WatchAge>,
    state: State<K>,
    /// Failures in a row.
    failures: u32,
}

enum State<K> {
    /// Nothing is known, or what is known is too old for a watch.
    Start,
    /// The list is requested.
    Listing,
    /// The list has returned these objects of this version.
    Listed(std::vec::IntoIter<K>, String),
    /// The watch is to be started from this version.
    Idle(String),
    /// The watch runs, and has reached this version.
    Watching(BoxStream<'static, kube::Result<WatchEvent<K>>>, String),
}

/// Why a request or a watch failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Api(#[from] kube::Error),
    #[error("{0}")]
    Event(String),
    #[error("timed out after {0:?}")]
    TimedOut(Duration),
    #[error("the list has no resourceVersion")]
    NoVersion,
}

impl<K> Source<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    /// Returns the next event. Not cancel-safe by itself; the stream keeps the future until it has completed.
    async fn next(&mut self) -> Event<K> {
        loop {
            match std::mem::replace(&mut self.state, State::Start) {
                State::Start => {
                    self.state = State::Listing;
                    return Event::Init;
                }
                State::Listing => match self.list().await {
                    Ok(listed) => {
                        self.heard();
                        self.state = listed;
                    }
                    Err(failure) => self.failed(&failure, State::Listing).await,
                },
                State::Listed(mut objects, version) => match objects.next() {
                    Some(object) => {
                        self.state = State::Listed(objects, version);
                        return Event::InitApply(object);
                    }
                    None => {
                        self.state = State::Idle(version);
                        return Event::InitDone;
                    }
                },
                State::Idle(version) => match self.watch(&version).await {
                    Ok(stream) => self.state = State::Watching(stream, version),
                    Err(Failure::Api(kube::Error::Api(status))) if status.code == 410 => {}
                    Err(failure) => self.failed(&failure, State::Idle(version)).await,
                },
                State::Watching(stream, version) => {
                    if let Some(event) = self.read(stream, version).await {
                        return event;
                    }
                }
            }
        }
    }

    async fn list(&mut self) -> Result<State<K>, Failure> {
        let params = ListParams { label_selector: self.labels.map(str::to_owned), ..ListParams::default() };
        let listing = timeout(REQUEST_TIMEOUT, self.api.list(&params));
        let list = listing.await.map_err(|_| Failure::TimedOut(REQUEST_TIMEOUT))??;
        let version = list.metadata.resource_version.filter(|v| !v.is_empty()).ok_or(Failure::NoVersion)?;
        Ok(State::Listed(list.items.into_iter(), version))
    }

    async fn watch(&mut self, version: &str) -> Result<BoxStream<'static, kube::Result<WatchEvent<K>>>, Failure> {
        let params = WatchParams {
            label_selector: self.labels.map(str::to_owned),
            timeout: u32::try_from(WATCH.as_secs()).ok(),
            ..WatchParams::default()
        };
        let starting = timeout(REQUEST_TIMEOUT, self.api.watch(&params, version));
        let stream = starting.await.map_err(|_| Failure::TimedOut(REQUEST_TIMEOUT))??;
        self.age.record();
        Ok(stream.boxed())
    }

    /// Reads the next message of a watch. Returns an event, unless there is none in it.
    async fn read(
        &mut self,
        mut stream: BoxStream<'static, kube::Result<WatchEvent<K>>>,
        version: String,
    ) -> Option<Event<K>> {
        let event = match timeout(WATCH_TIMEOUT, stream.next()).await {
            // The API server has ended the watch.
            Ok(None) => {
                self.state = State::Idle(version);
                return None;
            }
            Ok(Some(Ok(event))) => event,
            Ok(Some(Err(error))) => {
                self.failed(&error.into(), State::Idle(version)).await;
                return None;
            }
            Err(_) => {
                self.failed(&Failure::TimedOut(WATCH_TIMEOUT), State::Idle(version)).await;
                return None;
            }
        };
        let (version, event) = match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                (object.resource_version().unwrap_or(version), Some(Event::Apply(object)))
            }
            WatchEvent::Deleted(object) => (object.resource_version().unwrap_or(version), Some(Event::Delete(object))),
            WatchEvent::Bookmark(bookmark) => (bookmark.metadata.resource_version, None),
            // The version is too old: relist.
            WatchEvent::Error(status) if status.code == 410 => return None,
            WatchEvent::Error(status) => {
                self.failed(&Failure::Event(status.message), State::Idle(version)).await;
                return None;
            }
        };
        self.heard();
        self.state = State::Watching(stream, version);
        event
    }

    fn heard(&mut self) {
        self.age.record();
        self.failures = 0;
    }

    /// Waits before the next attempt, which continues in `state`.
    async fn failed(&mut self, failure: &Failure, state: State<K>) {
        tracing::warn!(kind = %K::kind(&()), error = %failure, "Watch failed; will restart it");
        self.failures = self.failures.saturating_add(1);
        let relist = matches!(state, State::Idle(_)) && self.failures.is_multiple_of(RELIST_AFTER);
        self.state = if relist { State::Start } else { state };
        tokio::time::sleep(jitter(FIRST, self.failures - 1, LONGEST)).await;
    }
}

#[cfg(test)]
mod tests;
