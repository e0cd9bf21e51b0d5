//! Watches and the scale patch against a server that implements the Kubernetes API over a real socket.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod rig;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use clap::Parser;
use http::{Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use parking_lot::Mutex;
use rig::{FakePod, GENEROUS, PodBody, by_hand, function, get, ok, pod_object, running};
use rouse_activator::{
    args::Args,
    route::{self, Synced},
    run::Activator,
    wake::{ApiScaler, Scaler, WakeError},
};
use serde_json::{Value, json};
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};

/// A list, then events as the test sends them.
#[derive(Default)]
struct Kind {
    items: Vec<Value>,
    watchers: Vec<mpsc::Sender<Frame<Bytes>>>,
    lists: usize,
}

#[derive(Default)]
struct Api {
    functions: Mutex<Kind>,
    pods: Mutex<Kind>,
    /// Bodies of the patches received, with their path.
    patches: Mutex<Vec<(String, Value)>>,
    /// Responses to the next patches, the last one first.
    refusals: Mutex<Vec<(u16, &'static str)>>,
}

impl Api {
    async fn serve(self: Arc<Self>) -> FakePod {
        FakePod::start(move |request| {
            let api = self.clone();
            async move { api.answer(request).await }
        })
        .await
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<PodBody> {
        let path = request.uri().path().to_owned();
        let query = request.uri().query().unwrap_or_default().to_owned();
        if request.method() == Method::PATCH {
            assert_eq!(request.headers()["content-type"], "application/json-patch+json");
            let body = request.into_body().collect().await.unwrap().to_bytes();
            self.patches.lock().push((path, serde_json::from_slice(&body).unwrap()));
            return match self.refusals.lock().pop() {
                None => ok(json!({"kind": "Scale", "apiVersion": "autoscaling/v1"}).to_string()),
                Some((code, message)) => {
                    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": message, "reason": if code == 422 { "Invalid" } else { "" }});
                    let mut response = ok(status.to_string());
                    *response.status_mut() = StatusCode::from_u16(code).unwrap();
                    response
                }
            };
        }
        let (kind, name) = match path.as_str() {
            "/apis/rouse.dev/v1alpha1/functions" => (&self.functions, "Function"),
            "/api/v1/pods" => {
                assert!(query.contains("labelSelector=rouse.dev%2Ffunction"), "{query}");
                (&self.pods, "Pod")
            }
            _ => panic!("nobody asks for {path}"),
        };
        let mut kind = kind.lock();
        if query.contains("watch=true") {
            let (sender, body) = by_hand();
            kind.watchers.push(sender);
            return Response::new(body);
        }
        kind.lists += 1;
        ok(json!({"kind": format!("{name}List"), "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": kind.items}).to_string())
    }

    /// Sends an event to the open watch, waiting for one.
    async fn event(kind: &Mutex<Kind>, event: &str, object: Value) {
        let line = format!("{}\n", json!({"type": event, "object": object}));
        timeout(GENEROUS, async {
            loop {
                let watcher = kind.lock().watchers.last().cloned();
                if let Some(watcher) = watcher
                    && watcher.send(Frame::data(line.clone().into())).await.is_ok()
                {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
        .await
        .expect("nobody watches");
    }
}

fn client(api: &FakePod) -> kube::Client {
    rustls::crypto::ring::default_provider().install_default().ok();
    kube::Client::try_from(kube::Config::new(format!("http://{}", api.address).parse().unwrap())).unwrap()
}

fn versioned(mut object: Value, kind: &str, version: &str) -> Value {
    object["kind"] = json!(kind);
    object["metadata"]["resourceVersion"] = json!(version);
    if kind == "Pod" {
        object["apiVersion"] = json!("v1");
    }
    object
}

#[tokio::test]
async fn watch_events_are_applied() {
    let api = Arc::new(Api::default());
    let mut broken = function("broken", "uid-0", json!({}), &[]);
    broken["spec"] = json!({"image": ["not", "a", "string"]});
    api.functions.lock().items = vec![broken, function("hello", "uid-1", json!({}), &[("hello-00001", 100)])];
    let server = api.clone().serve().await;
    let client = client(&server);
    let flags = [
        "x",
        "--allow-local-pods",
        "--public-addr=127.0.0.1:0",
        "--cluster-addr=127.0.0.1:0",
        "--admin-addr=127.0.0.1:0",
    ];
    let activator =
        Activator::bind(Args::try_parse_from(flags).unwrap(), Arc::new(ApiScaler::new(client.clone()))).await.unwrap();
    let [public, _, admin] = activator.addresses().unwrap();
    let (synced, mut is_synced) = watch::channel(Synced::default());
    let serving = tokio::spawn(activator_serve(activator, is_synced.clone(), client, synced));
    timeout(GENEROUS, is_synced.wait_for(|s| s.all())).await.expect("the caches do not fill").unwrap();
    assert_eq!(get(admin, "admin", "/readyz").await.status, 200);

    // An unreadable object affects itself only.
    assert_eq!(get(public, "broken.default.example.com", "/").await.status, 404);
    let call = tokio::spawn(get(public, "hello.default.example.com", "/"));
    timeout(GENEROUS, async {
        while api.patches.lock().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await
    .unwrap();
    let (path, patch) = api.patches.lock()[0].clone();
    assert_eq!(path, "/apis/apps/v1/namespaces/default/deployments/hello-00001/scale");
    assert_eq!(
        patch,
        json!([{"op": "test", "path": "/spec", "value": {}}, {"op": "add", "path": "/spec/replicas", "value": 1}])
    );
    let pod = FakePod::saying("hi").await;
    let object = pod_object("p", "hello", "uid-1", "hello-00001", running(), pod.address.port());
    Api::event(&api.pods, "ADDED", versioned(object.clone(), "Pod", "2")).await;
    assert_eq!(call.await.unwrap().text(), "hi");

    // A watch with an expired resourceVersion lists again; what the list does not return is deleted.
    api.functions.lock().items.clear();
    let expired = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 410, "reason": "Expired", "message": "too old"});
    Api::event(&api.functions, "ERROR", expired).await;
    timeout(GENEROUS, async { while get(public, "hello.default.example.com", "/").await.status != 404 {} })
        .await
        .unwrap();
    assert!(api.functions.lock().lists >= 2);
    serving.abort();
}

#[tokio::test]
async fn the_deletion_of_an_unreadable_pod_is_applied() {
    let api = Arc::new(Api::default());
    api.functions.lock().items = vec![function("hello", "uid-1", json!({}), &[("hello-00001", 100)])];
    let pod = FakePod::saying("hi").await;
    let object = pod_object("p", "hello", "uid-1", "hello-00001", running(), pod.address.port());
    api.pods.lock().items = vec![versioned(object.clone(), "Pod", "2")];
    let server = api.clone().serve().await;
    let client = client(&server);
    let flags = [
        "x",
        "--allow-local-pods",
        "--public-addr=127.0.0.1:0",
        "--cluster-addr=127.0.0.1:0",
        "--admin-addr=127.0.0.1:0",
    ];
    let activator =
        Activator::bind(Args::try_parse_from(flags).unwrap(), Arc::new(ApiScaler::new(client.clone()))).await.unwrap();
    let [public, _, admin] = activator.addresses().unwrap();
    let (synced, mut is_synced) = watch::channel(Synced::default());
    let serving = tokio::spawn(activator_serve(activator, is_synced.clone(), client, synced));
    timeout(GENEROUS, is_synced.wait_for(|s| s.all())).await.expect("the caches do not fill").unwrap();
    assert_eq!(get(public, "hello.default.example.com", "/").await.text(), "hi");
    let metrics = get(admin, "admin", "/metrics").await.text();
    for kind in ["pods", "functions"] {
        let name = format!(r#"rouse_activator_watch_age_seconds{{kind="{kind}"}} "#);
        assert!(metrics.contains(&name), "{name} is not in\n{metrics}");
    }

    let mut unreadable = object;
    unreadable["status"]["podIP"] = json!({"not": "a string"});
    Api::event(&api.pods, "MODIFIED", versioned(unreadable.clone(), "Pod", "3")).await;
    Api::event(&api.pods, "DELETED", versioned(unreadable, "Pod", "4")).await;
    let deleted = async {
        while api.patches.lock().is_empty() {
            // Requests are answered until the deletion is applied, and then one wakes the function.
            timeout(Duration::from_millis(50), get(public, "hello.default.example.com", "/")).await.ok();
        }
    };
    timeout(GENEROUS, deleted).await.expect("the pod is still used");
    serving.abort();
}

async fn activator_serve(
    activator: Activator,
    is_synced: watch::Receiver<Synced>,
    client: kube::Client,
    synced: watch::Sender<Synced>,
) {
    let following = route::follow(client, activator.directory(), synced);
    tokio::select! {
        () = following => {}
        ended = activator.serve(is_synced, std::future::pending()) => ended.unwrap(),
    }
}

#[tokio::test]
async fn rejections_of_the_api_server_are_classified() {
    let api = Arc::new(Api::default());
    let server = api.clone().serve().await;
    let scaler = ApiScaler::new(client(&server));
    for (code, message, expected) in [
        (422, "the server rejected our request due to an error in our request", WakeError::Awake),
        (404, "deployments.apps \"x\" not found", WakeError::Missing),
        (409, "conflict", WakeError::Busy { after: None, message: "conflict".into() }),
    ] {
        api.refusals.lock().push((code, message));
        assert_eq!(scaler.wake("ns", "x", 1).await, Err(expected));
    }
    api.refusals.lock().push((403, "exceeded quota"));
    assert!(
        matches!(scaler.wake("ns", "x", 1).await, Err(WakeError::Denied { message, .. }) if message == "exceeded quota")
    );
    assert_eq!(scaler.wake("ns", "x", 1).await, Ok(()));
    drop(server);
    assert!(matches!(scaler.wake("ns", "x", 1).await, Err(WakeError::Busy { .. })));
}
