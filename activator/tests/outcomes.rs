//! Outcomes of requests in the demand stream, which a rollout is aborted by.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::needless_pass_by_value, reason = "a test hands over a `json!` where it stands")]

mod rig;

use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use rig::{Client, FakePod, GENEROUS, Rig, by_hand, get, no_image, ok, raw, raw_pod, running, warm};
use rouse_crds::demand::{Frame, Outcomes};
use serde_json::{Value, json};
use tokio::time::timeout;

const HOST: &str = "hello.default.example.com";

fn judged(more: Value) -> Value {
    let mut spec = json!({"rollout": {"steps": [10], "abortOn": {"errorRate": "5%"}}});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    spec
}

/// The outcomes of `hello-00001` in the first frame of a new reader.
async fn outcomes(rig: &Rig) -> Option<Outcomes> {
    let mut client = Client::connect(rig.admin).await;
    let request =
        Request::get("/v1/demand").header("host", "admin").body(http_body_util::Empty::new().boxed()).unwrap();
    let mut body = client.begin(request).await.into_body();
    let mut line = vec![];
    while !line.ends_with(b"\n") {
        let frame = timeout(GENEROUS, body.frame()).await.expect("no frame").unwrap().unwrap();
        line.extend_from_slice(&frame.into_data().unwrap());
    }
    let frame: Frame = serde_json::from_slice(&line).unwrap();
    frame.revisions.into_iter().find(|r| r.revision == "hello-00001")?.outcomes
}

async fn ended(rig: &Rig) -> (u64, u64, u64) {
    let told = outcomes(rig).await.unwrap();
    (told.answered, told.failed, told.latencies.iter().map(|(_, count)| count).sum())
}

#[tokio::test]
async fn outcomes_are_counted_by_status_and_only_on_demand() {
    let pod = FakePod::start(|request| async move {
        let mut response = ok("x");
        *response.status_mut() = request.uri().path()[1..].parse::<StatusCode>().unwrap();
        response
    })
    .await;
    let rig = warm(&pod, json!({})).await;
    get(rig.public, HOST, "/500").await;
    assert_eq!(outcomes(&rig).await, None);
    rig.function("hello", judged(json!({})));
    for path in ["/200", "/404", "/499", "/500", "/503"] {
        get(rig.public, HOST, path).await;
    }
    assert_eq!(ended(&rig).await, (5, 2, 5));
    rig.function("hello", json!({}));
    get(rig.public, HOST, "/200").await;
    assert_eq!(outcomes(&rig).await, None);
}

#[tokio::test]
async fn a_missing_response_is_a_failure_and_a_client_disconnect_is_none() {
    let pod = FakePod::start(|request| async move {
        match request.uri().path() {
            "/never" => std::future::pending().await,
            _ => ok("x"),
        }
    })
    .await;
    let rig = warm(&pod, judged(json!({"timeouts": {"response": "1s"}}))).await;
    let leaving = tokio::spawn(get(rig.public, HOST, "/never"));
    rig.in_flight("hello", 1).await;
    leaving.abort();
    rig.in_flight("hello", 0).await;
    assert_eq!(ended(&rig).await, (0, 0, 0));
    assert_eq!(get(rig.public, HOST, "/never").await.status, 504);
    assert_eq!(ended(&rig).await, (1, 1, 0));
}

#[tokio::test]
async fn a_slow_client_is_not_a_failure_of_the_pod() {
    let pod = FakePod::start(|request| async move {
        request.into_body().collect().await.ok();
        ok("x")
    })
    .await;
    let rig = warm(&pod, judged(json!({"timeouts": {"response": "1s"}}))).await;
    let call = |body| {
        let request = Request::post("/").header("host", HOST).body(body).unwrap();
        let public = rig.public;
        tokio::spawn(async move { Client::connect(public).await.send(request).await.status })
    };
    // The body starts and never ends.
    let (frames, body) = by_hand();
    let never = call(body);
    frames.send(http_body::Frame::data("x".into())).await.unwrap();
    assert_eq!(never.await.unwrap(), 504);
    assert_eq!(ended(&rig).await, (0, 0, 0));
    // The upload takes longer than the pod, and ends.
    let (frames, body) = by_hand();
    let slow = call(body);
    let mut tick = tokio::time::interval(std::time::Duration::from_millis(500));
    for _ in 0..5 {
        tick.tick().await;
        frames.send(http_body::Frame::data("x".into())).await.unwrap();
    }
    drop(frames);
    assert_eq!(slow.await.unwrap(), 200);
    let told = outcomes(&rig).await.unwrap();
    assert_eq!((told.answered, told.failed), (1, 0));
    let bound = rouse_crds::demand::latency_bound(told.latencies[0].0);
    assert!(bound < std::time::Duration::from_secs(1), "{bound:?}");
}

#[tokio::test]
async fn invalid_responses_are_failures() {
    let port = raw_pod(|head, mut stream| async move {
        use tokio::io::AsyncWriteExt;
        let answer: &[u8] = match head.split(' ').nth(1).unwrap() {
            "/both" => b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            "/change" => b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
            _ => b"nonsense\r\n\r\n",
        };
        stream.write_all(answer).await.unwrap();
        None
    })
    .await;
    let rig = Rig::start().await;
    rig.function("hello", judged(json!({})));
    rig.show_as("p", "hello", running(), port);
    for path in ["/both", "/change", "/nonsense"] {
        assert_eq!(get(rig.public, HOST, path).await.status, 502);
    }
    assert_eq!(ended(&rig).await, (3, 3, 0));
}

#[tokio::test]
async fn failing_pods_are_failures_and_a_full_queue_is_none() {
    let rig = Rig::start().await;
    rig.function("hello", judged(json!({"queue": {"maxRequests": 2}, "timeouts": {"coldStart": "1s"}})));
    let waiting: Vec<_> = (0..2).map(|_| tokio::spawn(get(rig.public, HOST, "/"))).collect();
    rig.queued("hello", 2).await;
    assert_eq!(get(rig.public, HOST, "/").await.status, 429);
    for call in waiting {
        assert_eq!(call.await.unwrap().status, 504, "no pod came");
    }
    assert_eq!(ended(&rig).await, (0, 0, 0));
    let call = tokio::spawn(get(rig.public, HOST, "/"));
    rig.queued("hello", 1).await;
    rig.show("hello", no_image());
    assert_eq!(call.await.unwrap().status, 503);
    assert_eq!(ended(&rig).await, (1, 1, 0));
    assert_eq!(get(rig.public, HOST, "/").await.status, 503);
    assert_eq!(ended(&rig).await, (2, 2, 0), "one that is refused at once has failed too");
}

#[tokio::test]
async fn an_unreachable_pod_is_one_failure() {
    let pod = FakePod::saying("hi").await;
    let rig = warm(&pod, judged(json!({"timeouts": {"coldStart": "1s"}}))).await;
    assert_eq!(get(rig.public, HOST, "/").await.status, 200);
    drop(pod);
    assert_eq!(get(rig.public, HOST, "/").await.status, 502);
    assert_eq!(ended(&rig).await, (2, 1, 1));
}

#[tokio::test]
async fn latency_excludes_the_cold_start() {
    let rig = Rig::start().await;
    rig.function("hello", judged(json!({})));
    let call = tokio::spawn(get(rig.public, HOST, "/"));
    rig.queued("hello", 1).await;
    // It is queued for longer than the pod takes.
    let began = tokio::time::Instant::now();
    rig.wake().await;
    tokio::time::sleep_until(began + std::time::Duration::from_secs(1)).await;
    let pod = FakePod::start(|_| async { Response::new(ok("x").into_body()) }).await;
    rig.start_pod("hello", &pod);
    assert_eq!(call.await.unwrap().status, 200);
    let (bucket, count) = outcomes(&rig).await.unwrap().latencies[0];
    let bound = rouse_crds::demand::latency_bound(bucket);
    assert!(count == 1 && bound < std::time::Duration::from_secs(1), "{bound:?}");
}

#[tokio::test]
async fn a_request_body_that_breaks_off_is_not_a_failure_of_the_pod() {
    for protocol in ["http1", "h2c"] {
        let pod = FakePod::start(|request| async move {
            request.into_body().collect().await.ok();
            std::future::pending().await
        })
        .await;
        let rig = warm(&pod, judged(json!({"protocol": protocol}))).await;
        let head = format!("POST / HTTP/1.1\r\nhost: {HOST}\r\ntransfer-encoding: chunked\r\n\r\n");
        let mut client = raw(rig.public, &format!("{head}1\r\nx\r\n")).await;
        rig.in_flight("hello", 1).await;
        timeout(GENEROUS, async {
            while pod.requests.load(std::sync::atomic::Ordering::SeqCst) == 0 {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("the pod gets no request");
        tokio::io::AsyncWriteExt::write_all(&mut client, b"no chunk\r\n").await.unwrap();
        assert!(rig::read_head(&mut client).await.starts_with("HTTP/1.1 400 "), "{protocol}");
        rig.in_flight("hello", 0).await;
        assert_eq!(ended(&rig).await, (0, 0, 0), "{protocol}");
    }
}
