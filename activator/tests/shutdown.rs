//! How an activator goes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod rig;

use std::{sync::Arc, time::Duration};

use rig::{Client, FakePod, GENEROUS, Rig, get, ok};
use serde_json::json;
use tokio::{net::TcpStream, sync::Notify, time::timeout};

const HOST: &str = "hello.default.example.com";

async fn until_refused(rig: &Rig) {
    timeout(GENEROUS, async {
        while TcpStream::connect(rig.public).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("it goes on accepting");
}

#[tokio::test]
async fn what_is_under_way_ends_before_the_process_does() {
    let mut rig = Rig::with(&["--shutdown-delay=300ms"]).await;
    rig.function("hello", json!({}));
    rig.function("cold", json!({}));
    let go = Arc::new(Notify::new());
    let pod = FakePod::start({
        let go = go.clone();
        move |request| {
            let go = go.clone();
            async move {
                if request.uri().path() == "/slow" {
                    go.notified().await;
                }
                ok("hi")
            }
        }
    })
    .await;
    rig.start_pod("hello", &pod);
    let mut kept = Client::connect(rig.public).await;
    assert_eq!(kept.get(HOST, "/").await.status, 200);
    let slow = tokio::spawn(get(rig.public, HOST, "/slow"));
    let parked = tokio::spawn(get(rig.public, "cold.default.example.com", "/"));
    rig.in_flight("hello", 1).await;
    rig.queued("cold", 1).await;
    assert_eq!(get(rig.admin, "admin", "/readyz").await.status, 200);

    rig.stop();
    timeout(GENEROUS, async { while get(rig.admin, "admin", "/readyz").await.status != 503 {} }).await.unwrap();
    assert_eq!(get(rig.public, HOST, "/").await.status, 200, "it still accepts for the delay");
    until_refused(&rig).await;

    let cold = FakePod::saying("woken").await;
    rig.start_pod("cold", &cold);
    let answer = parked.await.unwrap();
    assert_eq!((answer.text().as_str(), answer.header("connection")), ("woken", "close"));
    assert_eq!(get(rig.admin, "admin", "/livez").await.status, 200);
    assert!(!rig.ended.as_ref().unwrap().is_finished());
    go.notify_one();
    assert_eq!(slow.await.unwrap().text(), "hi");
    timeout(GENEROUS, rig.ended.take().unwrap()).await.expect("it does not end").unwrap().unwrap();
}

#[tokio::test]
async fn who_still_waits_at_the_end_is_told() {
    let mut rig = Rig::with(&["--shutdown-delay=0s", "--shutdown-grace=2s"]).await;
    rig.function("hello", json!({}));
    let parked = tokio::spawn(get(rig.public, HOST, "/"));
    rig.queued("hello", 1).await;
    rig.stop();
    let answer = parked.await.unwrap();
    assert_eq!(
        (answer.status.as_u16(), answer.json()["type"].as_str().unwrap()),
        (503, "https://rouse.dev/problems/shutting-down")
    );
    assert_eq!(answer.header("retry-after"), "1");
    timeout(Duration::from_secs(10), rig.ended.take().unwrap()).await.expect("it does not end").unwrap().unwrap();
}

#[tokio::test]
async fn the_grace_bounds_it_all() {
    let mut rig = Rig::with(&["--shutdown-delay=0s", "--shutdown-grace=1s"]).await;
    rig.function("hello", json!({}));
    let pod = FakePod::start(|_| std::future::pending()).await;
    rig.start_pod("hello", &pod);
    let call = tokio::spawn(get(rig.public, HOST, "/"));
    rig.in_flight("hello", 1).await;
    rig.stop();
    timeout(Duration::from_secs(10), rig.ended.take().unwrap()).await.expect("it does not end").unwrap().unwrap();
    call.abort();
}
