//! Cold starts and request queueing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod rig;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::future::join_all;
use http::Request;
use http_body_util::{BodyExt, Full};
use rig::{Answer, Client, FakePod, GENEROUS, Rig, Wake, function, get, no_image, ok, pod_object, raw, running};
use rouse_activator::wake::WakeError;
use serde_json::json;
use tokio::{
    net::TcpListener,
    time::{Instant, timeout},
};

const HOST: &str = "hello.default.example.com";

#[tokio::test]
async fn a_request_wakes_its_function_and_gets_the_response_of_its_pod() {
    let rig = Rig::start().await;
    rig.function("hello", json!({}));
    let call = tokio::spawn(get(rig.public, HOST, "/"));
    assert_eq!(rig.wake().await, Wake { namespace: "default".into(), revision: "hello-00001".into(), replicas: 1 });
    rig.queued("hello", 1).await;
    let pod = FakePod::saying("hi").await;
    rig.start_pod("hello", &pod);
    let answer = call.await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "hi"));
    assert_eq!(answer.header("rouse-cold-start"), "true");
    let timing = answer.header("server-timing").to_owned();
    for phase in ["wake;dur=", "schedule;dur=", "start;dur=", "probe;dur=", "queue;dur="] {
        assert!(timing.contains(phase), "{timing}");
    }
    // The next request is warm.
    let answer = get(rig.public, HOST, "/").await;
    assert_eq!((answer.status.as_u16(), answer.header("rouse-cold-start")), (200, ""));
    assert_eq!(rig.scaler.count.load(Ordering::SeqCst), 1);
    rig.in_flight("hello", 0).await;
}

#[tokio::test]
async fn a_thousand_queued_requests_are_one_patch_and_all_are_served() {
    let rig = Arc::new(Rig::start().await);
    rig.function("hello", json!({}));
    let began = Instant::now();
    let calls: Vec<_> = (0..1000).map(|_| tokio::spawn(get(rig.cluster, "hello.default", "/"))).collect();
    rig.queued("hello", 1000).await;
    rig.wake().await;
    let pod = FakePod::start(|_| async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        ok("hi")
    })
    .await;
    rig.start_pod("hello", &pod);
    for answer in join_all(calls).await {
        assert_eq!(answer.unwrap().status, 200);
    }
    // One patch, and one more for each half second without a pod.
    let patches = rig.scaler.count.load(Ordering::SeqCst) as u128;
    assert!(patches <= 1 + began.elapsed().as_millis() / 500, "{patches} in {:?}", began.elapsed());
    assert!(pod.most.load(Ordering::SeqCst) < 1000, "the pod was handed the whole crowd at once");
}

#[tokio::test]
async fn slow_responses_do_not_block_the_queue() {
    let rig = Rig::start().await;
    rig.function("hello", json!({}));
    let calls: Vec<_> = (0..400).map(|_| tokio::spawn(get(rig.cluster, "hello.default", "/"))).collect();
    rig.queued("hello", 400).await;
    let all_in = Arc::new(tokio::sync::Barrier::new(400));
    // No request ends before all are in flight: only time can grant them.
    let pod = FakePod::start(move |_| {
        let all_in = all_in.clone();
        async move {
            all_in.wait().await;
            ok("hi")
        }
    })
    .await;
    rig.start_pod("hello", &pod);
    for answer in timeout(GENEROUS, join_all(calls)).await.expect("the crowd is stuck") {
        assert_eq!(answer.unwrap().status, 200);
    }
}

#[tokio::test]
async fn the_concurrency_limit_holds_cold_and_warm() {
    let rig = Rig::start().await;
    rig.function("hello", json!({"scaling": {"concurrencyLimit": 3}}));
    let calls: Vec<_> = (0..60).map(|_| tokio::spawn(get(rig.public, HOST, "/"))).collect();
    rig.queued("hello", 60).await;
    let busy = |_| async {
        tokio::time::sleep(Duration::from_millis(5)).await;
        ok("hi")
    };
    let pods = [FakePod::start(busy).await, FakePod::start(busy).await];
    rig.start_pod("hello", &pods[0]);
    rig.start_pod("hello", &pods[1]);
    let more: Vec<_> = (0..60).map(|_| tokio::spawn(get(rig.public, HOST, "/"))).collect();
    for answer in join_all(calls.into_iter().chain(more)).await {
        assert_eq!(answer.unwrap().status, 200);
    }
    for pod in &pods {
        assert_eq!(pod.most.load(Ordering::SeqCst), 3);
    }
}

#[tokio::test]
async fn requests_past_the_queue_limit_are_rejected_and_the_others_served() {
    let rig = Rig::start().await;
    rig.function("hello", json!({"queue": {"maxRequests": 5}}));
    let calls: Vec<_> = (0..5).map(|_| tokio::spawn(get(rig.public, HOST, "/"))).collect();
    rig.queued("hello", 5).await;
    let refused = get(rig.public, HOST, "/").await;
    assert_eq!((refused.status.as_u16(), refused.header("retry-after")), (429, "1"));
    assert_eq!(refused.json()["type"], "https://rouse.dev/problems/queue-full");
    assert_eq!(refused.json()["function"], "hello");
    let pod = FakePod::saying("hi").await;
    rig.start_pod("hello", &pod);
    for answer in join_all(calls).await {
        assert_eq!(answer.unwrap().status, 200);
    }
}

#[tokio::test]
async fn queued_bytes_are_bounded() {
    let rig = Rig::start().await;
    rig.function("hello", json!({"queue": {"maxBytes": "10Ki"}}));
    let post = |to| async move {
        let request = Request::post("/").header("host", HOST).body(Full::from(vec![b'x'; 100_000]).boxed()).unwrap();
        Client::connect(to).await.send(request).await
    };
    let first = tokio::spawn(post(rig.public));
    rig.queued("hello", 1).await;
    assert_eq!(post(rig.public).await.status, 429);
    let small = tokio::spawn(get(rig.public, HOST, "/"));
    rig.queued("hello", 2).await;
    let pod = FakePod::start(|request| async {
        ok(request.into_body().collect().await.unwrap().to_bytes().len().to_string())
    })
    .await;
    rig.start_pod("hello", &pod);
    assert_eq!(first.await.unwrap().text(), "100000");
    assert_eq!(small.await.unwrap().text(), "0");
}

#[tokio::test]
async fn a_client_that_disconnects_leaves_the_queue() {
    let rig = Rig::start().await;
    rig.function("hello", json!({"queue": {"maxRequests": 2}}));
    let without_body = raw(rig.public, &format!("GET / HTTP/1.1\r\nhost: {HOST}\r\n\r\n")).await;
    // The body is not read while it is queued, so reading does not detect the disconnect either.
    let body = "x".repeat(50_000);
    let with_body =
        raw(rig.public, &format!("POST / HTTP/1.1\r\nhost: {HOST}\r\ncontent-length: 50000\r\n\r\n{body}")).await;
    rig.queued("hello", 2).await;
    drop(without_body);
    rig.queued("hello", 1).await;
    drop(with_body);
    rig.queued("hello", 0).await;
    let call = tokio::spawn(get(rig.public, HOST, "/"));
    rig.queued("hello", 1).await;
    let pod = FakePod::saying("hi").await;
    rig.start_pod("hello", &pod);
    assert_eq!(call.await.unwrap().status, 200);
    assert_eq!(pod.requests.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn requests_of_a_deleted_function_are_rejected() {
    let rig = Rig::start().await;
    rig.function("hello", json!({}));
    let call = tokio::spawn(get(rig.public, HOST, "/"));
    rig.queued("hello", 1).await;
    rig.delete("hello");
    let answer = call.await.unwrap();
    assert_eq!(
        (answer.status.as_u16(), answer.json()["type"].as_str().unwrap()),
        (404, "https://rouse.dev/problems/function-deleted")
    );
    assert_eq!(get(rig.public, HOST, "/").await.json()["type"], "https://rouse.dev/problems/unknown-host");
}

#[tokio::test]
async fn a_recreated_function_does_not_use_the_previous_pods() {
    let rig = Rig::start().await;
    rig.function("hello", json!({}));
    let old = FakePod::saying("old").await;
    rig.start_pod("hello", &old);
    assert_eq!(get(rig.public, HOST, "/").await.text(), "old");
    rig.apply(function("hello", "uid-2", json!({}), &[("hello-00001", 100)]));
    let call = tokio::spawn(get(rig.public, HOST, "/"));
    rig.queued("hello", 1).await;
    let new = FakePod::saying("new").await;
    rig.show_pod(pod_object("p", "hello", "uid-2", "hello-00001", running(), new.address.port()));
    assert_eq!(call.await.unwrap().text(), "new");
}

#[tokio::test]
async fn requests_are_queued_for_a_function_without_a_revision() {
    let rig = Rig::start().await;
    rig.apply(function("hello", "uid-1", json!({}), &[]));
    let call = tokio::spawn(get(rig.public, HOST, "/"));
    rig.queued("hello", 1).await;
    assert_eq!(rig.scaler.count.load(Ordering::SeqCst), 0, "there is nothing to wake yet");
    rig.function("hello", json!({}));
    assert_eq!(rig.wake().await.revision, "hello-00001");
    let pod = FakePod::saying("hi").await;
    rig.start_pod("hello", &pod);
    assert_eq!(call.await.unwrap().text(), "hi");
}

#[tokio::test]
async fn queued_requests_move_with_the_traffic() {
    let rig = Rig::start().await;
    rig.function("hello", json!({}));
    let call = tokio::spawn(get(rig.public, HOST, "/"));
    assert_eq!(rig.wake().await.revision, "hello-00001");
    rig.apply(function("hello", "uid-1", json!({}), &[("hello-00002", 100)]));
    assert_eq!(rig.wake().await.revision, "hello-00002");
    let pod = FakePod::saying("second").await;
    rig.show_pod(pod_object("p", "hello", "uid-1", "hello-00002", running(), pod.address.port()));
    assert_eq!(call.await.unwrap().text(), "second");
}

/// Whether only the client inside the cluster gets the sentence of the kubelet or the API server.
fn disclosed_inside_only(public: &Answer, inside: &Answer, sentence: &str) {
    let inside = inside.json()["detail"].as_str().unwrap().to_owned();
    assert!(inside.contains(sentence), "{inside}");
    let text = public.json().to_string();
    let secret = serde_json::to_string(sentence).unwrap();
    assert!(
        !text.contains(secret.trim_matches('"')) && !public.json()["detail"].as_str().unwrap().is_empty(),
        "{text}"
    );
}

#[tokio::test]
async fn a_failure_is_reported_at_once_and_delays_the_next_wake() {
    let rig = Rig::start().await;
    rig.function("hello", json!({}));
    let call = tokio::spawn(get(rig.public, HOST, "/"));
    let inside = tokio::spawn(get(rig.cluster, "hello.default", "/"));
    rig.wake().await;
    rig.queued("hello", 2).await;
    let pod = rig.show("hello", no_image());
    let answer = call.await.unwrap();
    assert_eq!(answer.status, 503);
    assert_eq!(answer.json()["reason"], "ErrImagePull");
    disclosed_inside_only(&answer, &inside.await.unwrap(), "container function: not found");
    assert!(answer.header("retry-after").parse::<u64>().unwrap() >= 1);
    // While the pod fails, and for a while after its deletion, nothing is queued and nothing is woken.
    assert_eq!(get(rig.public, HOST, "/").await.status, 503);
    rig.pod_deleted(pod_object(&pod, "hello", "uid-1", "hello-00001", no_image(), 0));
    let held_back = get(rig.public, HOST, "/").await;
    assert_eq!((held_back.status.as_u16(), held_back.json()["reason"].as_str().unwrap()), (503, "ErrImagePull"));
    assert_eq!(rig.scaler.count.load(Ordering::SeqCst), 1);
    // Then the next request is tried again, and a pod that works serves it.
    let began = Instant::now();
    let working = FakePod::saying("hi").await;
    loop {
        let call = tokio::spawn(get(rig.public, HOST, "/"));
        tokio::select! {
            answer = call => assert_eq!(answer.unwrap().status, 503),
            _ = rig.wake() => break,
        }
        assert!(began.elapsed() < GENEROUS, "it is never tried again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    rig.start_pod("hello", &working);
    timeout(GENEROUS, async { while get(rig.public, HOST, "/").await.status != 200 {} }).await.unwrap();
}

#[tokio::test]
async fn a_pod_creation_failure_is_reported_until_pods_can_be_created() {
    let rig = Rig::start().await;
    let mut hello = function("hello", "uid-1", json!({}), &[("hello-00001", 100)]);
    let idle = json!([{"type": "Active", "status": "False", "reason": "Idle", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
    let quota =
        r#"pods "hello-00001-5b7-x" is forbidden: exceeded quota: q, requested: pods=1, used: pods=0, limited: pods=0"#;
    let refused = json!([
        {"type": "RevisionReady", "status": "False", "reason": "PodCreationFailed", "message": quota, "lastTransitionTime": "2026-01-01T00:00:00Z"},
        {"type": "Active", "status": "False", "reason": "PodCreationFailed", "message": quota, "lastTransitionTime": "2026-01-01T00:00:00Z"},
    ]);
    hello["status"]["conditions"] = idle.clone();
    rig.apply(hello.clone());
    let call = tokio::spawn(get(rig.public, HOST, "/"));
    let inside = tokio::spawn(get(rig.cluster, "hello.default", "/"));
    rig.wake().await;
    rig.queued("hello", 2).await;
    // A condition reported during the wake could be out of date. The next one is not.
    timeout(GENEROUS, async {
        while !call.is_finished() {
            hello["status"]["conditions"] = refused.clone();
            rig.apply(hello.clone());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await
    .expect("the caller is not told");
    let answer = call.await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.json()["reason"].as_str().unwrap()), (503, "PodCreationFailed"));
    disclosed_inside_only(&answer, &inside.await.unwrap(), quota);
    assert!(answer.header("retry-after").parse::<u64>().unwrap() >= 1);
    // At zero again, and with capacity: the revision's previous condition does not count.
    hello["status"]["conditions"] = json!([refused[0], idle[0]]);
    rig.apply(hello.clone());
    let retry_after = Duration::from_secs(answer.header("retry-after").parse().unwrap());
    tokio::time::sleep(retry_after).await;
    let call = tokio::spawn(get(rig.public, HOST, "/"));
    rig.wake().await;
    rig.apply(hello);
    let pod = FakePod::saying("hi").await;
    rig.start_pod("hello", &pod);
    assert_eq!(call.await.unwrap().status, 200);
}

#[tokio::test]
async fn a_cold_start_timeout_reports_the_known_failure() {
    let rig = Rig::start().await;
    rig.function("hello", json!({"timeouts": {"coldStart": "1s"}}));
    let call = tokio::spawn(get(rig.public, HOST, "/"));
    let inside = tokio::spawn(get(rig.cluster, "hello.default", "/"));
    rig.wake().await;
    rig.show("hello", json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available: 3 Insufficient cpu."}]}));
    let answer = call.await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.json()["reason"].as_str().unwrap()), (504, "Unschedulable"));
    let detail = answer.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("spec.timeouts.coldStart"), "{detail}");
    disclosed_inside_only(&answer, &inside.await.unwrap(), "3 Insufficient cpu");
}

#[tokio::test]
async fn a_failing_pod_beside_a_ready_one_rejects_nothing() {
    let rig = Rig::start().await;
    rig.function("hello", json!({}));
    let pod = FakePod::saying("hi").await;
    rig.start_pod("hello", &pod);
    assert_eq!(get(rig.public, HOST, "/").await.status, 200);
    rig.show("hello", no_image());
    assert_eq!(get(rig.public, HOST, "/").await.status, 200);
}

#[tokio::test]
async fn a_pod_that_recovers_serves_at_once() {
    let rig = Rig::start().await;
    rig.function("hello", json!({}));
    let call = tokio::spawn(get(rig.public, HOST, "/"));
    rig.wake().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let crashed = json!({"phase": "Running", "podIP": "127.0.0.1", "containerStatuses": [{"name": "function", "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": {"exitCode": 1}}}]});
    rig.show_as("p", "hello", crashed, port);
    assert_eq!(call.await.unwrap().json()["reason"], "CrashLoopBackOff");
    let _pod = FakePod::on(TcpListener::bind(("127.0.0.1", port)).await.unwrap(), |_| async { ok("hi") });
    timeout(GENEROUS, async { while get(rig.public, HOST, "/").await.status != 200 {} }).await.unwrap();
}

#[tokio::test]
async fn a_cold_start_timeout_is_a_504() {
    let rig = Rig::start().await;
    rig.function("hello", json!({"timeouts": {"coldStart": "1s"}}));
    let began = Instant::now();
    let answer = get(rig.public, HOST, "/").await;
    assert_eq!(
        (answer.status.as_u16(), answer.json()["type"].as_str().unwrap()),
        (504, "https://rouse.dev/problems/cold-start-timeout")
    );
    assert!(began.elapsed() >= Duration::from_secs(1));
    rig.queued("hello", 0).await;
}

#[tokio::test]
async fn a_wake_is_retried_when_the_api_server_is_busy() {
    let rig = Rig::start().await;
    let busy = || Err(WakeError::Busy { after: None, message: "down".into() });
    rig.scaler.answer([Ok(()), Err(WakeError::Missing), busy(), busy()]);
    rig.function("hello", json!({}));
    let call = tokio::spawn(get(rig.public, HOST, "/"));
    for _ in 0..4 {
        rig.wake().await;
    }
    let pod = FakePod::saying("hi").await;
    rig.start_pod("hello", &pod);
    assert_eq!(call.await.unwrap().status, 200);
}

#[tokio::test]
async fn a_denied_wake_is_reported() {
    let rig = Rig::start().await;
    rig.scaler.answer([Err(WakeError::Denied { reason: "WakeDenied".into(), message: "exceeded quota".into() })]);
    rig.function("hello", json!({}));
    let answer = get(rig.public, HOST, "/").await;
    assert_eq!((answer.status.as_u16(), answer.json()["reason"].as_str().unwrap()), (503, "WakeDenied"));
    let inside = get(rig.cluster, "hello.default", "/").await;
    assert_eq!(inside.json()["reason"], "WakeDenied");
    disclosed_inside_only(&answer, &inside, "exceeded quota");
}

#[tokio::test]
async fn a_wake_that_was_undone_is_retried() {
    let rig = Rig::start().await;
    rig.function("hello", json!({}));
    let pod = FakePod::saying("hi").await;
    let name = rig.start_pod("hello", &pod);
    assert_eq!(get(rig.public, HOST, "/").await.status, 200);
    // The scaler removes the last pod: it is marked, then deleted. Requests in between wake the function again.
    let mut going = pod_object(&name, "hello", "uid-1", "hello-00001", running(), pod.address.port());
    going["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    rig.scaler.answer([Ok(()), Err(WakeError::Awake)]);
    rig.show_pod(going.clone());
    let call = tokio::spawn(get(rig.public, HOST, "/"));
    rig.wake().await;
    rig.pod_deleted(going);
    rig.wake().await;
    rig.start_pod("hello", &pod);
    assert_eq!(call.await.unwrap().status, 200);
    assert_eq!(pod.requests.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn the_readiness_check_is_used_if_there_is_one() {
    let rig = Rig::start().await;
    rig.function("hello", json!({"readiness": {"path": "/ready"}}));
    let call = tokio::spawn(get(rig.public, HOST, "/"));
    rig.wake().await;
    let asked = Arc::new(AtomicUsize::new(0));
    let pod = FakePod::start({
        let asked = asked.clone();
        move |request| {
            let early = request.uri().path() == "/ready" && asked.fetch_add(1, Ordering::SeqCst) < 5;
            async move {
                let mut response = ok("hi");
                if early {
                    *response.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
                }
                response
            }
        }
    })
    .await;
    rig.start_pod("hello", &pod);
    assert_eq!(call.await.unwrap().status, 200);
    assert_eq!(asked.load(Ordering::SeqCst), 6);
}

#[tokio::test]
async fn the_kubelet_may_be_faster_than_the_probe() {
    let rig = Rig::start().await;
    rig.function("hello", json!({"readiness": {"path": "/never"}}));
    let call = tokio::spawn(get(rig.public, HOST, "/"));
    rig.wake().await;
    let pod = FakePod::start(|request| async move {
        let mut response = ok("hi");
        if request.uri().path() == "/never" {
            *response.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
        }
        response
    })
    .await;
    let mut status = running();
    status["conditions"].as_array_mut().unwrap().push(json!({"type": "Ready", "status": "True"}));
    rig.show_as("p", "hello", status, pod.address.port());
    assert_eq!(call.await.unwrap().status, 200);
}

#[tokio::test]
async fn client_disconnects_are_counted() {
    let rig = Rig::start().await;
    rig.function("hello", json!({"queue": {"maxRequests": 1}}));
    for (count, head) in [(1, "POST / HTTP/1.1\r\ncontent-length: 5"), (2, "GET / HTTP/1.1")] {
        let waiting = raw(rig.public, &format!("{head}\r\nhost: {HOST}\r\n\r\n")).await;
        rig.queued("hello", 1).await;
        assert_eq!(get(rig.public, HOST, "/").await.status, 429);
        drop(waiting);
        rig.metric("rouse_activator_client_disconnects_total", count).await;
    }
    // A served request is no disconnect.
    let waiting = tokio::spawn(get(rig.public, HOST, "/"));
    rig.queued("hello", 1).await;
    rig.delete("hello");
    assert_eq!(waiting.await.unwrap().status, 404);
    rig.metric("rouse_activator_client_disconnects_total", 2).await;
}
