//! API server in memory, for tests: the requests of the reconciler with versions and preconditions, and a crash after
//! any write.

use std::{collections::BTreeMap, sync::Arc};

use http::{Method, Request, Response};
use k8s_openapi::jiff::Timestamp;
use kube::{Client, client::Body};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Notify;

/// API server in memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct FakeApi {
    store: Arc<Mutex<Store>>,
    /// Notified when the client has crashed.
    pub(crate) dead: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Store {
    /// Objects by plural and name.
    objects: BTreeMap<(String, String), Value>,
    version: u64,
    second: i64,
    writes: usize,
    /// Writes until the client crashes. Later requests are ignored.
    left: Option<usize>,
    /// Whether deletions are refused.
    refuses_deletion: bool,
}

impl FakeApi {
    pub(crate) fn client(&self) -> Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move { api.respond(request).await }
        });
        Client::new(service, "default")
    }

    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + self.store.lock().second).unwrap()
    }

    pub(crate) fn pass(&self, seconds: i64) {
        self.store.lock().second += seconds;
    }

    /// Lets the client crash after this number of writes.
    pub(crate) fn die_after(&self, writes: Option<usize>) {
        self.store.lock().left = writes;
    }

    /// Refuses all deletions, as an admission policy may.
    pub(crate) fn refuse_deletion(&self) {
        self.store.lock().refuses_deletion = true;
    }

    pub(crate) fn writes(&self) -> usize {
        self.store.lock().writes
    }

    /// Returns whether the client has crashed.
    pub(crate) fn is_dead(&self) -> bool {
        self.store.lock().left == Some(0)
    }

    /// Returns all objects of a kind.
    pub(crate) fn all(&self, plural: &str) -> Vec<Value> {
        let store = self.store.lock();
        store.objects.iter().filter(|((kind, _), _)| kind == plural).map(|(_, object)| object.clone()).collect()
    }

    pub(crate) fn get(&self, plural: &str, name: &str) -> Option<Value> {
        self.store.lock().objects.get(&(plural.to_owned(), name.to_owned())).cloned()
    }

    /// Updates or creates an object, as another client.
    pub(crate) fn edit(&self, plural: &str, name: &str, edit: impl FnOnce(&mut Value)) {
        let mut store = self.store.lock();
        let id = (plural.to_owned(), name.to_owned());
        let mut object = store.objects.get(&id).cloned().unwrap_or_else(|| json!({"metadata": {"name": name}}));
        edit(&mut object);
        store.put(plural, name, object);
    }

    pub(crate) fn remove(&self, plural: &str, name: &str) {
        self.store.lock().objects.remove(&(plural.to_owned(), name.to_owned()));
    }

    async fn respond(&self, request: Request<Body>) -> Result<Response<Body>, kube::Error> {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let body = request.into_body().collect_bytes().await?;
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let write = method != Method::GET;
        if write && self.is_dead() {
            return std::future::pending().await;
        }
        let (code, reply, last) = {
            let mut store = self.store.lock();
            let (code, reply) = store.handle(&method, &path, body);
            let mut last = false;
            if write {
                store.writes += 1;
                store.left = store.left.map(|left| left - 1);
                last = store.left == Some(0);
            }
            (code, reply, last)
        };
        if last {
            // The write took effect, but the client never receives the response.
            self.dead.notify_one();
            return std::future::pending().await;
        }
        let reply = Body::from(reply.to_string().into_bytes());
        Ok(Response::builder().status(code).body(reply).unwrap())
    }
}

fn refused(code: u16, reason: &str) -> (u16, Value) {
    (
        code,
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code, "reason": reason, "message": reason}),
    )
}

impl Store {
    fn put(&mut self, plural: &str, name: &str, mut object: Value) -> Value {
        self.version += 1;
        let metadata = &mut object["metadata"];
        metadata["namespace"] = json!("default");
        metadata["resourceVersion"] = json!(self.version.to_string());
        if metadata["uid"].is_null() {
            metadata["uid"] = json!(format!("uid-{}", self.version));
            let created = Timestamp::from_second(1_800_000_000 + self.second).unwrap();
            metadata["creationTimestamp"] = json!(created.to_string());
        }
        self.objects.insert((plural.to_owned(), name.to_owned()), object.clone());
        object
    }

    fn handle(&mut self, method: &Method, path: &str, body: Value) -> (u16, Value) {
        let parts: Vec<_> = path.split('/').skip_while(|part| *part != "namespaces").skip(2).collect();
        let [plural, rest @ ..] = &parts[..] else { panic!("{path}") };
        if *plural == "events" {
            return (200, body);
        }
        let name =
            rest.first().map_or_else(|| body["metadata"]["name"].as_str().unwrap().to_owned(), ToString::to_string);
        let id = ((*plural).to_owned(), name.clone());
        let there = self.objects.get(&id).cloned();
        match (method, there) {
            (&Method::POST, None) => (201, self.put(plural, &name, body)),
            (&Method::POST, Some(_)) => refused(409, "AlreadyExists"),
            (_, None) => refused(404, "NotFound"),
            (&Method::GET, Some(object)) => (200, object),
            (&Method::DELETE, Some(_)) if self.refuses_deletion => refused(403, "Forbidden"),
            (&Method::DELETE, Some(object)) => {
                for field in ["uid", "resourceVersion"] {
                    let wanted = &body["preconditions"][field];
                    if !wanted.is_null() && *wanted != object["metadata"][field] {
                        return refused(409, "Conflict");
                    }
                }
                self.objects.remove(&id);
                (200, json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 200}))
            }
            (&Method::PATCH, Some(mut object)) => {
                let uid = &body["metadata"]["uid"];
                if !uid.is_null() && *uid != object["metadata"]["uid"] {
                    return refused(409, "Conflict");
                }
                match (*plural, rest.get(1)) {
                    ("functions", Some(&"status")) => {
                        let histogram = object["status"]["idleHistogram"].take();
                        object["status"] = body["status"].clone();
                        if !histogram.is_null() {
                            object["status"]["idleHistogram"] = histogram;
                        }
                    }
                    ("controllerrevisions", None) => {
                        for (name, value) in body["metadata"]["annotations"].as_object().unwrap() {
                            object["metadata"]["annotations"][name] = value.clone();
                        }
                    }
                    _ => panic!("unexpected patch of {path}: {body}"),
                }
                (200, self.put(plural, &name, object))
            }
            (method, _) => panic!("{method} {path}"),
        }
    }
}
