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
    /// Requests that are refused.
    refusals: Vec<Refusal>,
    /// Refuses the write with this number.
    refused_write: Option<(usize, u16)>,
    /// Messages of the refusals so far.
    refused: Vec<String>,
}

/// Writes that the API server refuses, and its response.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    /// `None` matches every verb.
    pub(crate) method: Option<Method>,
    /// Plural, with the subresource: `functions/status`. Empty matches every resource.
    pub(crate) resource: &'static str,
    /// Name of the object. Empty matches every name.
    pub(crate) name: &'static str,
    /// Status code; 0 for a request without a response.
    pub(crate) code: u16,
    /// `reason` of the response.
    pub(crate) reason: &'static str,
    /// `message` of the response.
    pub(crate) message: String,
    /// `details.causes[].reason` of the response.
    pub(crate) causes: Vec<&'static str>,
}

impl Refusal {
    /// Refuses all writes of `resource`, as an admission webhook does, which responds with 400.
    pub(crate) fn of(resource: &'static str, code: u16, message: &str) -> Self {
        let (method, name, reason) = (None, "", "");
        Self { method, resource, name, code, reason, message: message.to_owned(), causes: vec![] }
    }

    fn matches(&self, method: &Method, resource: &str, name: &str) -> bool {
        self.method.as_ref().is_none_or(|only| only == method)
            && (self.resource.is_empty() || self.resource == resource)
            && (self.name.is_empty() || self.name == name)
    }

    fn response(&self) -> (u16, Value) {
        let causes: Vec<_> = self.causes.iter().map(|reason| json!({"reason": reason, "message": "m"})).collect();
        let details = if causes.is_empty() { json!({}) } else { json!({"causes": causes}) };
        let body = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": self.code,
            "reason": self.reason, "message": self.message, "details": details});
        (self.code, body)
    }
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

    /// Refuses writes, as an admission webhook or policy, a quota or an overloaded API server.
    pub(crate) fn refuse(&self, refusal: Refusal) {
        self.store.lock().refusals.push(refusal);
    }

    /// Refuses the write with this number, counted from 1.
    pub(crate) fn refuse_write(&self, number: usize, code: u16) {
        self.store.lock().refused_write = Some((number, code));
    }

    /// Refuses nothing any more.
    pub(crate) fn accept(&self) {
        let mut store = self.store.lock();
        store.refusals.clear();
        store.refused_write = None;
    }

    /// Returns whether the chosen write is refused with this status code.
    pub(crate) fn refused_with(&self, code: u16) -> bool {
        self.store.lock().refused_write.is_some_and(|(_, with)| with == code)
    }

    /// Returns the messages of all refusals since the last call.
    pub(crate) fn take_refusals(&self) -> Vec<String> {
        std::mem::take(&mut self.store.lock().refused)
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
            let refused = if write { store.refuse(&method, &path, &body) } else { None };
            let (code, reply) = refused.unwrap_or_else(|| store.handle(&method, &path, body));
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
        if code == 0 {
            return std::future::pending().await;
        }
        let reply = Body::from(reply.to_string().into_bytes());
        Ok(Response::builder().status(code).body(reply).unwrap())
    }
}

/// Returns the resource with its subresource, and the name of the object.
fn target(path: &str, body: &Value) -> (String, String) {
    let parts: Vec<_> = path.split('/').skip_while(|part| *part != "namespaces").skip(2).collect();
    match parts[..] {
        [plural] => (plural.to_owned(), body["metadata"]["name"].as_str().unwrap_or_default().to_owned()),
        [plural, name] => (plural.to_owned(), name.to_owned()),
        [plural, name, subresource] => (format!("{plural}/{subresource}"), name.to_owned()),
        _ => panic!("{path}"),
    }
}

fn refused(code: u16, reason: &str) -> (u16, Value) {
    (
        code,
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code, "reason": reason, "message": reason}),
    )
}

impl Store {
    /// Returns the response to a write that is refused.
    fn refuse(&mut self, method: &Method, path: &str, body: &Value) -> Option<(u16, Value)> {
        let (resource, name) = target(path, body);
        if resource == "events" {
            return None;
        }
        let nth = self.refused_write.filter(|(number, _)| *number == self.writes + 1);
        let nth = nth.map(|(number, code)| Refusal::of("", code, &format!("write {number} was refused")));
        let refusal = nth.or_else(|| self.refusals.iter().find(|r| r.matches(method, &resource, &name)).cloned())?;
        // A refused status cannot be reported in the status.
        if resource != "functions/status" {
            self.refused.push(refusal.message.clone());
        }
        Some(refusal.response())
    }

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
                for field in ["uid", "resourceVersion"] {
                    let wanted = &body["metadata"][field];
                    if !wanted.is_null() && *wanted != object["metadata"][field] {
                        return refused(409, "Conflict");
                    }
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
                    ("deployments", None) if body.is_array() => {
                        if let Err(refusal) = patch_json(&mut object, &body) {
                            return refusal;
                        }
                    }
                    ("deployments" | "services", None) => {
                        object["spec"].as_object_mut().unwrap().extend(fields(&body["spec"]));
                        if object["metadata"]["labels"].is_null() {
                            object["metadata"]["labels"] = json!({});
                        }
                        let labels = fields(&body["metadata"]["labels"]);
                        object["metadata"]["labels"].as_object_mut().unwrap().extend(labels);
                    }
                    _ => panic!("unexpected patch of {path}: {body}"),
                }
                (200, self.put(plural, &name, object))
            }
            (method, _) => panic!("{method} {path}"),
        }
    }
}

fn fields(of: &Value) -> serde_json::Map<String, Value> {
    of.as_object().cloned().unwrap_or_default()
}

/// Applies the operations of a JSON patch that the reconciler uses.
fn patch_json(object: &mut Value, operations: &Value) -> Result<(), (u16, Value)> {
    for operation in operations.as_array().unwrap() {
        let (path, value) = (operation["path"].as_str().unwrap(), operation["value"].clone());
        let (parent, field) = path.rsplit_once('/').unwrap();
        match operation["op"].as_str().unwrap() {
            // A version in the patch is a precondition.
            "replace" if path == "/metadata/resourceVersion" => {
                if object.pointer(path) != Some(&value) {
                    return Err(refused(409, "Conflict"));
                }
            }
            "test" if object.pointer(path) != Some(&value) => return Err(refused(422, "Invalid")),
            "test" => {}
            "add" | "replace" => object.pointer_mut(parent).unwrap()[field] = value,
            other => panic!("{other}"),
        }
    }
    Ok(())
}
