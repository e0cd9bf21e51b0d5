//! Choice of a pod, and requests whose pod fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod rig;

use std::sync::{Arc, atomic::Ordering};

use rig::{Client, FakePod, GENEROUS, Rig, function, get, ok, pod_object, running, warm};
use serde_json::{Value, json};
use tokio::{io::AsyncReadExt, net::TcpListener, sync::Notify, time::timeout};

const HOST: &str = "hello.default.example.com";

#[tokio::test]
async fn an_unreachable_pod_is_ejected_and_its_requests_go_to_others() {
    let rig = Rig::start().await;
    rig.function("hello", json!({"scaling": {"concurrencyLimit": 5}}));
    let dead = FakePod::saying("dead").await;
    rig.start_pod("hello", &dead);
    assert_eq!(get(rig.public, HOST, "/").await.text(), "dead");
    let alive = FakePod::saying("alive").await;
    rig.start_pod("hello", &alive);
    let port = dead.address.port();
    drop(dead);
    let mut client = Client::connect(rig.public).await;
    for _ in 0..20 {
        let answer = client.get(HOST, "/").await;
        assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "alive"));
    }
    rig.metric("rouse_activator_retries_total", 1).await;
    // It listens again and is used again.
    let _back = FakePod::on(TcpListener::bind(("127.0.0.1", port)).await.unwrap(), |_| async { ok("back") });
    timeout(GENEROUS, async { while client.get(HOST, "/").await.text() != "back" {} }).await.unwrap();
}

#[tokio::test]
async fn no_reachable_pod_is_a_502() {
    let rig = Rig::start().await;
    rig.function("hello", json!({"timeouts": {"coldStart": "1s"}}));
    let pod = FakePod::saying("hi").await;
    rig.start_pod("hello", &pod);
    assert_eq!(get(rig.public, HOST, "/").await.status, 200);
    drop(pod);
    let answer = get(rig.public, HOST, "/").await;
    assert_eq!(
        (answer.status.as_u16(), answer.json()["type"].as_str().unwrap()),
        (502, "https://rouse.dev/problems/pod-unreachable")
    );
}

#[tokio::test]
async fn a_request_that_a_pod_may_have_received_is_not_sent_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let seen = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    tokio::spawn({
        let seen = seen.clone();
        async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut buffer = [0; 4096];
                if stream.read(&mut buffer).await.is_ok_and(|n| n > 0) {
                    seen.fetch_add(1, Ordering::SeqCst);
                }
            }
        }
    });
    let rig = Rig::start().await;
    rig.function("hello", json!({}));
    rig.show_as("p", "hello", running(), port);
    let answer = get(rig.public, HOST, "/").await;
    assert_eq!(
        (answer.status.as_u16(), answer.json()["type"].as_str().unwrap()),
        (502, "https://rouse.dev/problems/bad-response")
    );
    assert_eq!(seen.load(Ordering::SeqCst), 1);
    rig.in_flight("hello", 0).await;
}

#[tokio::test]
async fn a_response_timeout_is_a_504() {
    let pod = FakePod::start(|_| std::future::pending()).await;
    let rig = warm(&pod, json!({"timeouts": {"response": "1s"}})).await;
    let answer = get(rig.public, HOST, "/").await;
    assert_eq!(
        (answer.status.as_u16(), answer.json()["type"].as_str().unwrap()),
        (504, "https://rouse.dev/problems/response-timeout")
    );
    rig.in_flight("hello", 0).await;
}

#[tokio::test]
async fn an_unknown_host_is_a_404() {
    let rig = Rig::start().await;
    rig.apply(function("inside", "uid-2", json!({"visibility": "Cluster"}), &[("inside-00001", 100)]));
    for host in [
        "nobody.default.example.com",
        "inside.default.example.com",
        "inside.default",
        "inside.default.svc.cluster.local",
    ] {
        let answer = get(rig.public, host, "/").await;
        assert_eq!(
            (answer.status.as_u16(), answer.json()["type"].as_str().unwrap()),
            (404, "https://rouse.dev/problems/unknown-host")
        );
        assert_eq!(answer.header("content-type"), "application/problem+json");
    }
    rig.metric(r#"rouse_activator_unrouted_requests_total{reason="unknown-host"}"#, 4).await;
    assert_eq!(rig.scaler.count.load(Ordering::SeqCst), 0);
    let metrics = get(rig.admin, "admin", "/metrics").await.text();
    assert!(!metrics.contains("nobody"), "{metrics}");
    let pod = FakePod::saying("inside").await;
    rig.show_pod(pod_object("p", "inside", "uid-2", "inside-00001", running(), pod.address.port()));
    for host in ["inside.default", "inside.default.svc", "inside.default.svc.cluster.local:80"] {
        assert_eq!(get(rig.cluster, host, "/").await.text(), "inside");
    }
}

#[tokio::test]
async fn requests_are_split_by_percentage() {
    let rig = Rig::start().await;
    rig.apply(function("hello", "uid-1", json!({}), &[("hello-00001", 50), ("hello-00002", 50)]));
    let pods = [FakePod::saying("one").await, FakePod::saying("two").await];
    for (pod, revision) in pods.iter().zip(["hello-00001", "hello-00002"]) {
        rig.show_pod(pod_object(revision, "hello", "uid-1", revision, running(), pod.address.port()));
    }
    let mut client = Client::connect(rig.public).await;
    for _ in 0..200 {
        assert_eq!(client.get(HOST, "/").await.status, 200);
    }
    for pod in &pods {
        assert!(pod.requests.load(Ordering::SeqCst) > 50, "of 200 with even shares");
    }
}

#[tokio::test]
async fn a_draining_pod_gets_no_new_requests_and_finishes_its_own() {
    let rig = Rig::start().await;
    rig.function("hello", json!({}));
    let go = Arc::new(Notify::new());
    let old = FakePod::start({
        let go = go.clone();
        move |_| {
            let go = go.clone();
            async move {
                go.notified().await;
                ok("old")
            }
        }
    })
    .await;
    let name = rig.start_pod("hello", &old);
    let call = tokio::spawn(get(rig.public, HOST, "/"));
    rig.in_flight("hello", 1).await;
    let new = FakePod::saying("new").await;
    rig.start_pod("hello", &new);
    let mut marked = pod_object(&name, "hello", "uid-1", "hello-00001", running(), old.address.port());
    marked["metadata"]["annotations"] = json!({"controller.kubernetes.io/pod-deletion-cost": "-1"});
    rig.show_pod(marked.clone());
    for _ in 0..10 {
        assert_eq!(get(rig.public, HOST, "/").await.text(), "new");
    }
    rig.pod_deleted(marked);
    go.notify_one();
    assert_eq!(call.await.unwrap().text(), "old");
}

/// A pod object of `{function}-00001`.
fn pod_of(name: &str, function: &str, pod: &FakePod) -> Value {
    pod_object(name, function, "uid-1", &format!("{function}-00001"), running(), pod.address.port())
}

#[tokio::test]
async fn a_pod_that_only_has_the_labels_of_a_function_gets_no_requests() {
    let rig = Rig::start().await;
    rig.function("hello", json!({}));
    let copy = FakePod::saying("copy").await;
    let mut bare = pod_of("copy", "hello", &copy);
    bare["metadata"].as_object_mut().unwrap().remove("ownerReferences");
    let mut of_another = pod_of("copied-deployment", "hello", &copy);
    of_another["metadata"]["ownerReferences"] =
        json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "copied-5d9f", "uid": "u", "controller": true}]);
    rig.show_pod(bare);
    rig.show_pod(of_another);
    let call = tokio::spawn(get(rig.public, HOST, "/"));
    assert_eq!(rig.wake().await.revision, "hello-00001", "they are no pods of the function, so it is at zero");
    let own = FakePod::saying("own").await;
    rig.start_pod("hello", &own);
    assert_eq!(call.await.unwrap().text(), "own");
    assert_eq!(copy.requests.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_pod_on_the_network_of_its_node_gets_no_requests() {
    let rig = Rig::start().await;
    rig.function("hello", json!({"timeouts": {"coldStart": "1s"}}));
    let node = FakePod::saying("node").await;
    let mut pod = pod_of("p", "hello", &node);
    pod["spec"]["hostNetwork"] = json!(true);
    pod["status"]["conditions"].as_array_mut().unwrap().push(json!({"type": "Ready", "status": "True"}));
    rig.show_pod(pod);
    let answer = get(rig.public, HOST, "/").await;
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(answer.text().contains("HostNetwork"), "{}", answer.text());
    assert_eq!(node.requests.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn an_address_belongs_to_the_newest_pod_that_has_it() {
    let rig = Rig::start().await;
    for name in ["hello", "other"] {
        rig.function(name, json!({"timeouts": {"coldStart": "1s"}}));
    }
    let server = FakePod::saying("whose").await;
    let mut old = pod_of("old", "hello", &server);
    old["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
    rig.show_pod(old.clone());
    assert_eq!(get(rig.public, HOST, "/").await.text(), "whose");
    let mut new = pod_of("new", "other", &server);
    new["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:01Z");
    rig.show_pod(new.clone());
    assert_eq!(get(rig.public, "other.default.example.com", "/").await.text(), "whose");
    // The watch has not reported the end of the older pod yet.
    for _ in 0..2 {
        assert_eq!(get(rig.public, HOST, "/").await.status, 504, "it is the address of another pod by now");
        rig.show_pod(old.clone());
    }
    rig.pod_deleted(new);
    assert_eq!(get(rig.public, HOST, "/").await.text(), "whose", "the newer pod is deleted");
}

#[tokio::test]
async fn a_relabelled_pod_leaves_its_revision() {
    let rig = Rig::start().await;
    rig.function("hello", json!({}));
    rig.apply(function("other", "uid-2", json!({}), &[("other-00001", 100)]));
    let pod = FakePod::saying("one").await;
    let as_of = |revision: &str, function: &str, uid: &str| {
        pod_object("p", function, uid, revision, running(), pod.address.port())
    };
    for (revision, function, uid) in
        [("hello-00002", "hello", "uid-1"), ("hello-00001", "hello", "uid-0"), ("other-00001", "other", "uid-2")]
    {
        rig.show_pod(as_of("hello-00001", "hello", "uid-1"));
        assert_eq!(get(rig.public, HOST, "/").await.text(), "one");
        rig.show_pod(as_of(revision, function, uid));
        let call = tokio::spawn(get(rig.public, HOST, "/"));
        assert_eq!(rig.wake().await.revision, "hello-00001", "the pod is of {revision} by now");
        rig.show_pod(as_of("hello-00001", "hello", "uid-1"));
        assert_eq!(call.await.unwrap().text(), "one");
        assert!(rig.wakes.lock().await.try_recv().is_err());
    }
    rig.pod_deleted(as_of("hello-00001", "hello", "uid-1"));
    let call = tokio::spawn(get(rig.public, HOST, "/"));
    rig.wake().await;
    call.abort();
}
