//! In paused time, against a script of responses.

use std::collections::VecDeque;

use axum::{
    Router,
    body::Body,
    http::{Response, StatusCode, Uri},
};
use kube::{Client, core::DeserializeGuard};
use parking_lot::Mutex;
use rouse_crds::pod::FunctionPod;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::*;

/// The response to a request: the messages of a body, and whether it ends after them.
#[derive(Clone, Debug)]
enum Reply {
    List(Vec<Value>, &'static str),
    /// A watch that the API server ends at its time.
    Watch(Vec<Value>),
    /// A watch on a connection that is dead.
    Silence,
    Status(u16),
}

/// The script, and the queries so far. The last reply is repeated.
#[derive(Clone, Debug, Default)]
struct Server {
    script: Arc<Mutex<VecDeque<Reply>>>,
    queries: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn new(script: impl IntoIterator<Item = Reply>) -> Self {
        Self { script: Arc::new(Mutex::new(script.into_iter().collect())), queries: Arc::default() }
    }

    fn reply(&self, uri: &Uri) -> Response<Body> {
        self.queries.lock().push(uri.query().unwrap_or_default().to_owned());
        let mut script = self.script.lock();
        let reply = if script.len() > 1 { script.pop_front() } else { script.front().cloned() };
        match reply.unwrap() {
            Reply::List(items, version) => {
                let list = json!({"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": version}, "items": items});
                Response::new(list.to_string().into())
            }
            Reply::Watch(messages) => {
                let lines: Vec<_> =
                    messages.iter().map(|m| Ok::<_, std::convert::Infallible>(format!("{m}\n"))).collect();
                let end = stream::once(async {
                    tokio::time::sleep(WATCH).await;
                    Ok("\n".to_owned())
                });
                Response::new(Body::from_stream(stream::iter(lines).chain(end)))
            }
            Reply::Silence => {
                Response::new(Body::from_stream(stream::pending::<Result<String, std::convert::Infallible>>()))
            }
            Reply::Status(code) => {
                let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code, "message": "no", "reason": ""});
                let mut response = Response::new(status.to_string().into());
                *response.status_mut() = StatusCode::from_u16(code).unwrap();
                response
            }
        }
    }

    fn events(&self, age: &Arc<WatchAge>) -> impl Stream<Item = Event<DeserializeGuard<FunctionPod>>> + use<> {
        let server = self.clone();
        let router = Router::new().fallback(move |uri: Uri| {
            let server = server.clone();
            async move { server.reply(&uri) }
        });
        events(Api::all(Client::new(router, "default")), Some("a"), age.clone())
    }
}

fn pod(name: &str, version: &str) -> Value {
    json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": name, "resourceVersion": version}})
}

fn message(kind: &str, object: &Value) -> Value {
    json!({"type": kind, "object": object})
}

fn bookmark(version: &str) -> Value {
    message("BOOKMARK", &json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"resourceVersion": version}}))
}

fn expired() -> Value {
    message(
        "ERROR",
        &json!({"kind": "Status", "metadata": {}, "status": "Failure", "code": 410, "message": "too old", "reason": "Expired"}),
    )
}

/// Reads events until there has been none for this long, as words.
async fn read(
    events: &mut (impl Stream<Item = Event<DeserializeGuard<FunctionPod>>> + Unpin),
    pause: Duration,
) -> String {
    let mut seen = vec![];
    while let Ok(Some(event)) = timeout(pause, events.next()).await {
        seen.push(match event {
            Event::Init => "init".to_owned(),
            Event::InitApply(object) => format!("lists {}", object.name_any()),
            Event::InitDone => "listed".to_owned(),
            Event::Apply(object) => format!("applies {}", object.name_any()),
            Event::Delete(object) => format!("deletes {}", object.name_any()),
        });
    }
    seen.join(", ")
}

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_relist_never_returns_an_older_state() {
    let server = Server::new([
        Reply::List(vec![pod("a", "1")], "5"),
        Reply::Watch(vec![message("ADDED", &pod("b", "6")), message("DELETED", &pod("a", "7")), expired()]),
        Reply::List(vec![pod("b", "6")], "9"),
        Reply::Watch(vec![]),
    ]);
    let mut events = Box::pin(server.events(&Arc::default()));
    assert_eq!(read(&mut events, SECOND).await, "init, lists a, listed, applies b, deletes a, init, lists b, listed");
    let queries = server.queries.lock().clone();
    let lists: Vec<_> = queries.iter().filter(|query| !query.contains("watch=true")).collect();
    assert_eq!(lists.len(), 2);
    assert!(lists.iter().all(|query| !query.contains("resourceVersion")), "consistent reads: {lists:?}");
    assert!(queries[3].contains("resourceVersion=9"), "{queries:?}");
}

#[tokio::test(start_paused = true)]
async fn a_watch_is_heard_while_no_object_changes() {
    let server = Server::new([Reply::List(vec![], "5"), Reply::Watch(vec![bookmark("8")])]);
    let age = Arc::<WatchAge>::default();
    let mut events = Box::pin(server.events(&age));
    let began = Instant::now();
    while began.elapsed() < 600 * SECOND {
        read(&mut events, SECOND).await;
        assert!(age.get().unwrap() <= WATCH + SECOND, "{:?}", age.get());
    }
    let queries = server.queries.lock().clone();
    let watches: Vec<_> = queries.iter().filter(|query| query.contains("watch=true")).collect();
    assert!(
        watches.len() >= 10 && watches.iter().all(|query| query.contains("allowWatchBookmarks=true")),
        "{watches:?}"
    );
    assert!(queries.last().unwrap().contains("resourceVersion=8"), "it continues from the bookmark: {queries:?}");
}

#[tokio::test(start_paused = true)]
async fn the_age_grows_while_the_watch_is_refused_or_silent() {
    for broken in [Reply::Status(403), Reply::Status(500), Reply::Silence] {
        let silent = matches!(broken, Reply::Silence);
        let server = Server::new([Reply::List(vec![], "5"), Reply::Watch(vec![]), broken.clone()]);
        let age = Arc::<WatchAge>::default();
        let mut events = Box::pin(server.events(&age));
        read(&mut events, 120 * SECOND).await;
        if silent {
            // Its start is heard each time, and nothing else.
            assert!(age.get().unwrap() <= WATCH_TIMEOUT + LONGEST, "{:?}", age.get());
            continue;
        }
        assert!(age.get().unwrap() >= 70 * SECOND, "{broken:?}: {:?}", age.get());
        // After some failures it lists again.
        *server.script.lock() = [Reply::List(vec![pod("b", "6")], "9"), Reply::Watch(vec![])].into();
        assert_eq!(read(&mut events, 2 * LONGEST).await, "lists b, listed");
        assert!(age.get().unwrap() <= WATCH, "{:?}", age.get());
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_fails_again_and_again_is_replaced_by_a_relist() {
    let server = Server::new([Reply::List(vec![], "5"), Reply::Status(400)]);
    let mut events = Box::pin(server.events(&Arc::default()));
    assert_eq!(read(&mut events, SECOND / 2).await, "init, listed");
    *server.script.lock() = (0..RELIST_AFTER)
        .map(|_| Reply::Status(400))
        .chain([Reply::List(vec![pod("b", "6")], "9"), Reply::Watch(vec![])])
        .collect();
    assert_eq!(read(&mut events, 2 * LONGEST).await, "init, lists b, listed");
}
