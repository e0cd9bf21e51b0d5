//! Paths, methods and CORS: what is decided before anything is woken.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod rig;

use std::sync::atomic::Ordering;

use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use rig::{Answer, Client, FakePod, Rig, get, ok, warm};
use serde_json::{Value, json};

const HOST: &str = "hello.default.example.com";

async fn call(rig: &Rig, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = Request::builder().method(method).uri(path).header("host", HOST);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    Client::connect(rig.public).await.send(request.body(Full::default().boxed()).unwrap()).await
}

#[tokio::test]
async fn paths_of_one_host_route_to_different_functions() {
    let (cart, all) = (FakePod::saying("cart").await, FakePod::start(|r| async move { ok(r.uri().to_string()) }).await);
    let rig = Rig::start().await;
    let host = "shop.example.org";
    rig.function("cart", json!({"routes": [{"host": host, "path": "/cart"}]}));
    rig.function("all", json!({"routes": [{"host": host}]}));
    rig.function("api", json!({"routes": [{"path": "/v1"}]}));
    rig.start_pod("cart", &cart);
    rig.start_pod("all", &all);
    assert_eq!(get(rig.public, host, "/cart/1?x=/").await.text(), "cart");
    assert_eq!(get(rig.public, host, "/carts?x=/cart").await.text(), "/carts?x=/cart", "as it was sent");
    assert_eq!(get(rig.cluster, host, "/cart").await.text(), "cart");
    for path in ["/x/../cart", "/cart/%2e%2e/x", "/x%2f..%2Fcart", "//cart"] {
        let refused = get(rig.public, host, path).await;
        assert_eq!(
            (refused.status.as_u16(), refused.json()["type"].clone()),
            (400, json!("https://rouse.dev/problems/ambiguous-path")),
            "{path}"
        );
    }
    let nowhere = get(rig.public, "api.default.example.com", "/v2").await;
    assert_eq!(
        (nowhere.status.as_u16(), nowhere.json()["type"].clone()),
        (404, json!("https://rouse.dev/problems/unknown-path"))
    );
    assert_eq!(get(rig.cluster, "api.default", "/v2").await.status, 404, "by every name");
    assert_eq!(rig.scaler.count.load(Ordering::SeqCst), 0, "nothing was woken");
}

#[tokio::test]
async fn a_disallowed_method_wakes_nothing() {
    let rig = Rig::start().await;
    rig.function("hello", json!({"routes": [{"methods": ["GET", "POST"]}]}));
    let refused = call(&rig, "DELETE", "/", &[]).await;
    assert_eq!((refused.status.as_u16(), refused.header("allow")), (405, "GET, POST"));
    assert_eq!(refused.json()["type"], "https://rouse.dev/problems/method-not-allowed");
    assert_eq!(refused.json()["function"], "hello");
    assert_eq!(rig.scaler.count.load(Ordering::SeqCst), 0);
    rig.metric(r#"rouse_activator_requests_total{namespace="default",function="hello",code="4xx"}"#, 1).await;
}

fn cors() -> Value {
    json!({"routes": [{"cors": {
        "allowOrigins": ["https://*.example.org"], "exposeHeaders": ["x-total"], "allowCredentials": true,
    }}], "queue": {"maxRequests": 1}})
}

#[tokio::test]
async fn a_preflight_wakes_nothing() {
    let rig = Rig::start().await;
    rig.function("hello", cors());
    let asks = [("origin", "https://app.example.org"), ("access-control-request-method", "PUT")];
    let told = call(&rig, "OPTIONS", "/x", &asks).await;
    assert_eq!((told.status.as_u16(), told.body.len()), (204, 0));
    assert_eq!(told.header("access-control-allow-origin"), "https://app.example.org");
    assert_eq!(told.header("access-control-allow-methods"), "GET, HEAD, POST, PUT, PATCH, DELETE");
    let told = call(&rig, "OPTIONS", "/x", &[("origin", "https://evil.example"), asks[1]]).await;
    assert_eq!((told.status.as_u16(), told.headers.contains_key("access-control-allow-origin")), (204, false));
    assert_eq!(rig.scaler.count.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn every_response_has_cors_headers() {
    let pod = FakePod::start(|_| async {
        let mut answer: Response<_> = ok("hi");
        answer.headers_mut().insert("access-control-allow-origin", "*".parse().unwrap());
        answer
    })
    .await;
    let rig = warm(&pod, cors()).await;
    let fine = call(&rig, "GET", "/", &[("origin", "https://app.example.org")]).await;
    assert_eq!((fine.text().as_str(), fine.header("access-control-allow-origin")), ("hi", "https://app.example.org"));
    assert_eq!((fine.header("access-control-allow-credentials"), fine.header("vary")), ("true", "Origin"));
    let other = call(&rig, "GET", "/", &[("origin", "https://evil.example")]).await;
    assert_eq!((other.text().as_str(), other.headers.contains_key("access-control-allow-origin")), ("hi", false));
    // Without the headers a page could not even read the status.
    rig.function("broken", json!({"routes": [{"cors": {"allowOrigins": ["*"]}}], "timeouts": {"coldStart": "10ms"}}));
    let request = Request::get("/").header("host", "broken.default.example.com").header("origin", "https://a.example");
    let late = Client::connect(rig.public).await.send(request.body(Full::default().boxed()).unwrap()).await;
    assert_eq!((late.status.as_u16(), late.header("access-control-allow-origin")), (504, "*"));
}

#[tokio::test]
async fn a_tag_has_its_own_host() {
    let (new, old) = (FakePod::saying("new").await, FakePod::saying("old").await);
    let rig = Rig::start().await;
    let mut function = rig::function(
        "hello",
        "uid-1",
        json!({"traffic": [{"revision": "hello-00002", "percent": 100}, {"revision": "hello-00001", "percent": 0, "tag": "old"}]}),
        &[("hello-00002", 100), ("hello-00001", 0)],
    );
    function["status"]["traffic"][1]["tag"] = json!("old");
    rig.apply(function.clone());
    for (pod, revision) in [(&new, "hello-00002"), (&old, "hello-00001")] {
        rig.show_pod(rig::pod_object(revision, "hello", "uid-1", revision, rig::running(), pod.address.port()));
    }
    for (to, host, said) in [
        (rig.public, HOST, "new"),
        (rig.public, "old-hello.default.example.com", "old"),
        (rig.cluster, "old-hello.default.svc.cluster.local", "old"),
        (rig.cluster, "hello.default", "new"),
    ] {
        assert_eq!(get(to, host, "/").await.text(), said, "{host}");
    }
    // Without its tag nobody has the host.
    function["spec"]["traffic"] = json!([{"revision": "hello-00002", "percent": 100}]);
    function["status"]["traffic"] = json!([{"revision": "hello-00002", "percent": 100}]);
    rig.apply(function);
    assert_eq!(get(rig.public, "old-hello.default.example.com", "/").await.status, 404);
    assert_eq!(get(rig.cluster, "old-hello.default", "/").await.status, 404);
}

#[tokio::test]
async fn a_request_to_a_tag_wakes_its_revision() {
    let rig = Rig::start().await;
    let mut function = rig::function(
        "hello",
        "uid-1",
        json!({"traffic": [{"revision": "hello-00002", "percent": 100}, {"revision": "hello-00001", "percent": 0, "tag": "old"}]}),
        &[("hello-00002", 100), ("hello-00001", 0)],
    );
    function["status"]["traffic"][1]["tag"] = json!("old");
    rig.apply(function);
    let call = tokio::spawn(get(rig.public, "old-hello.default.example.com", "/"));
    assert_eq!(rig.wake().await.revision, "hello-00001");
    let pod = FakePod::saying("old").await;
    rig.show_pod(rig::pod_object("p", "hello", "uid-1", "hello-00001", rig::running(), pod.address.port()));
    assert_eq!(call.await.unwrap().text(), "old");
}
