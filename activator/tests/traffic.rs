//! Traffic split, session affinity and mirroring.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::needless_pass_by_value, reason = "a test hands over a `json!` where it stands")]

mod rig;

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
};

use futures::future::join_all;
use http::Request;
use http_body::Frame;
use http_body_util::{BodyExt, Full};
use rig::{Answer, Client, FakePod, GENEROUS, Rig, by_hand, get, ok, pod_object, running};
use serde_json::{Value, json};
use tokio::{sync::mpsc, time::timeout};

const HOST: &str = "hello.default.example.com";

/// `hello` with these percentages; an entry without one has the tag `next`.
fn hello(spec: Value, shares: &[(&str, u32)]) -> Value {
    let mut function = rig::function("hello", "uid-1", spec, shares);
    for entry in function["status"]["traffic"].as_array_mut().unwrap() {
        if entry["percent"] == 0 {
            entry["tag"] = json!("next");
        }
    }
    function
}

fn show(rig: &Rig, revision: &str, pod: &FakePod) {
    let name = format!("{revision}-{}", pod.address.port());
    rig.show_pod(pod_object(&name, "hello", "uid-1", revision, running(), pod.address.port()));
}

/// Two revisions with even percentages that respond with their names.
async fn split(spec: Value) -> (Rig, [FakePod; 2]) {
    let rig = Rig::start().await;
    rig.apply(hello(spec, &[("hello-00001", 50), ("hello-00002", 50)]));
    let pods = [FakePod::saying("hello-00001").await, FakePod::saying("hello-00002").await];
    show(&rig, "hello-00001", &pods[0]);
    show(&rig, "hello-00002", &pods[1]);
    // Both serve: neither is waited for below.
    let mut seen = BTreeSet::new();
    let mut client = Client::connect(rig.public).await;
    timeout(GENEROUS, async {
        while seen.len() < 2 {
            seen.insert(client.get(HOST, "/").await.text());
        }
    })
    .await
    .unwrap();
    (rig, pods)
}

async fn with(rig: &Rig, name: &str, value: &str) -> Answer {
    let request = Request::get("/").header("host", HOST).header(name, value).body(Full::default().boxed()).unwrap();
    Client::connect(rig.public).await.send(request).await
}

fn cookies(answer: &Answer) -> Vec<&str> {
    answer.headers.get_all("set-cookie").iter().map(|v| v.to_str().unwrap()).collect()
}

#[tokio::test]
async fn a_cookie_keeps_a_client_at_the_revision_that_responded() {
    let spec = json!({"rollout": {"affinity": {"cookie": "rev"}}});
    let (rig, _pods) = split(spec.clone()).await;
    for _ in 0..10 {
        let first = get(rig.public, HOST, "/").await;
        let expected = format!("rev={}; Path=/; HttpOnly; SameSite=Lax", first.text());
        assert_eq!(cookies(&first), [expected]);
        for _ in 0..5 {
            let next = with(&rig, "cookie", &format!("a=b; rev={}", first.text())).await;
            assert_eq!((next.text(), cookies(&next).len()), (first.text(), 0), "it is known already");
        }
    }
    let stale = with(&rig, "cookie", "rev=hello-00000").await;
    assert!(cookies(&stale)[0].starts_with(&format!("rev={};", stale.text())));
    // All requests go to one.
    rig.apply(hello(spec, &[("hello-00001", 100), ("hello-00002", 0)]));
    let moved = with(&rig, "cookie", "rev=hello-00002").await;
    assert_eq!((moved.text().as_str(), cookies(&moved).len()), ("hello-00001", 0));
}

#[tokio::test]
async fn a_header_keeps_a_client_at_one_revision() {
    let (rig, _pods) = split(json!({"rollout": {"affinity": {"header": "X-User"}}})).await;
    let mut places = BTreeSet::new();
    for user in 0..20 {
        let user = format!("user-{user}");
        let first = with(&rig, "x-user", &user).await;
        assert!(cookies(&first).is_empty());
        for _ in 0..4 {
            assert_eq!(with(&rig, "x-user", &user).await.text(), first.text());
        }
        places.insert(first.text());
    }
    assert_eq!(places.len(), 2, "callers are spread");
}

#[tokio::test]
async fn at_zero_each_revision_is_woken_for_its_own_traffic() {
    let rig = Rig::start().await;
    rig.apply(hello(json!({}), &[("hello-00001", 90), ("hello-00002", 10)]));
    let calls: Vec<_> = (0..200).map(|_| tokio::spawn(get(rig.public, HOST, "/"))).collect();
    let mut woken = BTreeSet::new();
    while woken.len() < 2 {
        woken.insert(rig.wake().await.revision);
    }
    assert!(woken.iter().eq(["hello-00001", "hello-00002"]), "{woken:?}");
    let pods = [FakePod::saying("1").await, FakePod::saying("2").await];
    show(&rig, "hello-00001", &pods[0]);
    show(&rig, "hello-00002", &pods[1]);
    let answers = join_all(calls).await;
    assert!(answers.iter().all(|answer| answer.as_ref().unwrap().status == 200));
    let [first, second] = [0, 1].map(|n: usize| pods[n].requests.load(Ordering::SeqCst));
    assert!(first + second == 200 && (5..45).contains(&second), "{first} and {second}");
}

/// A pod that reports its requests: method, path, `rouse-mirror`, body.
async fn listening() -> (FakePod, mpsc::UnboundedReceiver<(String, String, String, String)>) {
    let (teller, told) = mpsc::unbounded_channel();
    let pod = FakePod::start(move |request| {
        let teller = teller.clone();
        async move {
            let (parts, body) = request.into_parts();
            let mirror = parts.headers.get("rouse-mirror").map_or("", |v| v.to_str().unwrap()).to_owned();
            // An aborted body is no request.
            let Ok(body) = body.collect().await else { return ok("broken") };
            let body = String::from_utf8_lossy(&body.to_bytes()).into_owned();
            teller.send((parts.method.to_string(), parts.uri.to_string(), mirror, body)).ok();
            ok("heard")
        }
    })
    .await;
    (pod, told)
}

async fn mirrored(spec: Value) -> (Rig, FakePod) {
    let rig = Rig::start().await;
    let mut whole = json!({"mirror": {"tag": "next"}});
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    rig.apply(hello(whole, &[("hello-00001", 100), ("hello-00002", 0)]));
    let pod = FakePod::start(|request| async move {
        let mirror = request.headers().contains_key("rouse-mirror");
        let Ok(body) = request.into_body().collect().await else { return ok("broken") };
        ok(format!("{mirror} {}", body.to_bytes().len()))
    })
    .await;
    show(&rig, "hello-00001", &pod);
    (rig, pod)
}

async fn post(rig: &Rig, path: &str, body: Vec<u8>) -> Answer {
    let request = Request::post(path).header("host", HOST).header("rouse-mirror", "forged");
    Client::connect(rig.public).await.send(request.body(Full::from(body).boxed()).unwrap()).await
}

async fn results(rig: &Rig, result: &str, count: u64) {
    rig.metric(&format!(r#"rouse_activator_mirrored_requests_total{{result="{result}"}}"#), count).await;
}

#[tokio::test]
async fn a_mirrored_request_goes_to_the_tag_and_its_response_is_dropped() {
    let (rig, _pod) = mirrored(json!({})).await;
    let (shadow, mut told) = listening().await;
    // The tag's revision is at zero, and nothing waits for it.
    assert_eq!(post(&rig, "/a?b", b"body".to_vec()).await.text(), "false 4");
    assert_eq!(rig.wake().await.revision, "hello-00002");
    show(&rig, "hello-00002", &shadow);
    let heard = timeout(GENEROUS, told.recv()).await.expect("no copy came").unwrap();
    assert_eq!(heard, ("POST".into(), "/a?b".into(), "true".into(), "body".into()));
    assert_eq!(get(rig.public, HOST, "/get").await.text(), "false 0");
    let heard = timeout(GENEROUS, told.recv()).await.unwrap().unwrap();
    assert_eq!(heard, ("GET".into(), "/get".into(), "true".into(), String::new()));
    results(&rig, "responded", 2).await;
    rig.in_flight("hello", 0).await;
}

#[tokio::test]
async fn a_long_body_is_not_mirrored_and_passes_unchanged() {
    let (rig, _pod) = mirrored(json!({})).await;
    let (shadow, mut told) = listening().await;
    show(&rig, "hello-00002", &shadow);
    assert_eq!(post(&rig, "/", vec![b'x'; 64 << 10]).await.text(), format!("false {}", 64 << 10));
    assert_eq!(timeout(GENEROUS, told.recv()).await.unwrap().unwrap().3.len(), 64 << 10);
    assert_eq!(post(&rig, "/", vec![b'x'; (64 << 10) + 1]).await.text(), format!("false {}", (64 << 10) + 1));
    results(&rig, "too-long", 1).await;
    // The same without a length that is known in advance.
    let (frames, body) = by_hand();
    let request = Request::post("/").header("host", HOST).body(body).unwrap();
    let call = tokio::spawn(async move { Client::connect(rig.public).await.send(request).await.text() });
    for _ in 0..5 {
        frames.send(Frame::data(vec![b'x'; 16 << 10].into())).await.unwrap();
    }
    drop(frames);
    assert_eq!(call.await.unwrap(), format!("false {}", 80 << 10));
    assert!(told.try_recv().is_err(), "no part of a body is sent");
}

#[tokio::test]
async fn an_aborted_request_is_not_mirrored() {
    let (rig, pod) = mirrored(json!({})).await;
    let (shadow, mut told) = listening().await;
    show(&rig, "hello-00002", &shadow);
    let (frames, body) = by_hand();
    let request = Request::post("/").header("host", HOST).body(body).unwrap();
    let public = rig.public;
    let call = tokio::spawn(async move { Client::connect(public).await.send(request).await.status });
    frames.send(Frame::data("begun".into())).await.unwrap();
    timeout(GENEROUS, async {
        while pod.requests.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    call.abort();
    results(&rig, "aborted", 1).await;
    assert!(told.try_recv().is_err());
}

#[tokio::test]
async fn mirrored_requests_that_hang_or_fail_do_not_affect_the_client() {
    let spec = json!({"scaling": {"concurrencyLimit": 1}, "queue": {"maxRequests": 1}});
    let (rig, pod) = mirrored(spec).await;
    let shadow = FakePod::start(|_| std::future::pending()).await;
    show(&rig, "hello-00002", &shadow);
    let mut client = Client::connect(rig.public).await;
    for _ in 0..40 {
        // One at a time, as the pod takes them; the mirrored ones are queued for their own pod, 32 at most.
        assert_eq!(client.get(HOST, "/").await.text(), "false 0");
    }
    results(&rig, "busy", 8).await;
    assert_eq!((pod.requests.load(Ordering::SeqCst), shadow.most.load(Ordering::SeqCst)), (40, 1));
    // The pod of the tag is deleted: queued requests find none.
    drop(shadow);
    assert_eq!(client.get(HOST, "/").await.text(), "false 0");
}

#[tokio::test]
async fn a_request_routed_to_the_mirrors_revision_goes_there_once() {
    let rig = Rig::start().await;
    let mut function = hello(json!({"mirror": {"tag": "next"}}), &[("hello-00001", 50), ("hello-00002", 50)]);
    function["status"]["traffic"][1]["tag"] = json!("next");
    rig.apply(function);
    let pods = [FakePod::saying("1").await, FakePod::saying("2").await];
    show(&rig, "hello-00001", &pods[0]);
    show(&rig, "hello-00002", &pods[1]);
    let mut client = Client::connect(rig.public).await;
    for _ in 0..100 {
        client.get(HOST, "/").await;
    }
    rig.in_flight("hello", 0).await;
    let of_first = pods[0].requests.load(Ordering::SeqCst) as u64;
    results(&rig, "responded", of_first).await;
    assert_eq!(pods[1].requests.load(Ordering::SeqCst), 100, "either it or its copy");
}

#[tokio::test]
async fn a_request_without_a_pod_is_not_mirrored() {
    let rig = Rig::start().await;
    let spec = json!({"mirror": {"tag": "next"}, "timeouts": {"coldStart": "1s"}});
    let mut function = hello(spec, &[("hello-00001", 50), ("hello-00002", 50)]);
    function["status"]["traffic"][1]["tag"] = json!("next");
    rig.apply(function);
    let (first, second) = (FakePod::saying("1").await, FakePod::saying("2").await);
    show(&rig, "hello-00001", &first);
    show(&rig, "hello-00002", &second);
    for _ in 0..20 {
        assert_eq!(get(rig.public, HOST, "/").await.status, 200);
    }
    let of_first = first.requests.load(Ordering::SeqCst);
    assert!(of_first > 0, "it serves");
    results(&rig, "responded", of_first as u64).await;
    // Its pod is gone before that is known: requests granted to it find no pod, or go to the other revision.
    drop(first);
    let calls: Vec<_> = (0..40).map(|_| tokio::spawn(get(rig.public, HOST, "/"))).collect();
    let answers = join_all(calls).await;
    let by_second = answers.iter().filter(|answer| answer.as_ref().unwrap().text() == "2").count();
    assert!(by_second < 40, "some found no pod");
    rig.in_flight("hello", 0).await;
    assert_eq!(second.requests.load(Ordering::SeqCst), 20 + by_second, "no copy came");
}

#[tokio::test]
async fn only_a_percentage_is_mirrored() {
    let (rig, _pod) = mirrored(json!({"mirror": {"tag": "next", "percent": 30}})).await;
    let shadow = FakePod::saying("x").await;
    show(&rig, "hello-00002", &shadow);
    let mut client = Client::connect(rig.public).await;
    for _ in 0..300 {
        client.get(HOST, "/").await;
    }
    rig.in_flight("hello", 0).await;
    let copied = shadow.requests.load(Ordering::SeqCst);
    assert!((50..130).contains(&copied), "{copied} of 300 at 30 %");
}

#[tokio::test]
async fn functions_that_call_each_other_wait_for_their_own_start_only() {
    const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
    let rig = Arc::new(Rig::start().await);
    // Pods of other functions that never listen are probed all the while.
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    rig.function("dead", json!({}));
    for pod in 0..300 {
        rig.show_as(&format!("dead-{pod}"), "dead", running(), nobody);
    }
    for name in NAMES {
        rig.function(name, json!({}));
    }
    let call = tokio::spawn(get(rig.cluster, "a.default", "/"));
    let mut pods = vec![];
    for (place, name) in NAMES.iter().enumerate() {
        // The function before it in the chain calls it, and responds only after this one has.
        assert_eq!(rig.wake().await.revision, format!("{name}-00001"));
        let (cluster, next) = (rig.cluster, NAMES.get(place + 1));
        let pod = FakePod::start(move |_| async move {
            let rest = match next {
                Some(next) => get(cluster, &format!("{next}.default.svc.cluster.local"), "/").await.text(),
                None => String::new(),
            };
            ok(format!("{name}{rest}"))
        })
        .await;
        rig.start_pod(name, &pod);
        pods.push(pod);
    }
    let answer = timeout(GENEROUS, call).await.expect("the chain is stuck").unwrap();
    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "abcde"));
    // One wake each, and no request timed out and was retried while another was probed.
    assert!(pods.iter().all(|pod| pod.requests.load(Ordering::SeqCst) == 1));
}

#[tokio::test]
async fn a_request_to_a_tag_waits_for_its_revision_only() {
    let rig = Rig::start().await;
    let spec = json!({"traffic": [{"latest": true, "percent": 100}, {"revision": "hello-00002", "tag": "next"}]});
    rig.apply(hello(spec.clone(), &[("hello-00001", 100), ("hello-00002", 0)]));
    let first = FakePod::saying("1").await;
    show(&rig, "hello-00001", &first);
    assert_eq!(get(rig.public, HOST, "/").await.text(), "1");
    let call = tokio::spawn(get(rig.public, "next-hello.default.example.com", "/"));
    assert_eq!(rig.wake().await.revision, "hello-00002");
    rig.queued("hello", 1).await;
    // The percentages change, and it stays where it is.
    rig.apply(hello(spec, &[("hello-00001", 100), ("hello-00002", 0)]));
    let second = FakePod::saying("2").await;
    show(&rig, "hello-00002", &second);
    assert_eq!(call.await.unwrap().text(), "2");
    assert_eq!((first.requests.load(Ordering::SeqCst), get(rig.public, HOST, "/").await.text()), (1, "1".into()));
}
