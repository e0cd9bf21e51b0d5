//! The demand stream as a reader sees it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod rig;

use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use rig::{Client, FakePod, GENEROUS, Rig, get, raw};
use rouse_crds::demand::{Frame, RevisionDemand};
use serde_json::json;
use tokio::time::timeout;

struct Reader {
    body: Incoming,
    left: Vec<u8>,
    sequence: u64,
    _client: Client,
}

impl Reader {
    async fn connect(rig: &Rig) -> Self {
        let mut client = Client::connect(rig.admin).await;
        let request = Request::get("/v1/demand").header("host", "admin").body(Full::default().boxed()).unwrap();
        let response = client.begin(request).await;
        assert_eq!(response.headers()["content-type"], "application/x-ndjson");
        Self { body: response.into_body(), left: vec![], sequence: 0, _client: client }
    }

    async fn frame(&mut self) -> Frame {
        loop {
            if let Some(end) = self.left.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.left.drain(..=end).collect();
                let frame: Frame = serde_json::from_slice(&line).unwrap();
                assert_eq!(frame.sequence, self.sequence);
                self.sequence += 1;
                return frame;
            }
            let more = timeout(GENEROUS, self.body.frame()).await.expect("no frame").unwrap().unwrap();
            self.left.extend_from_slice(&more.into_data().unwrap());
        }
    }

    /// Reads until a revision is reported as wanted.
    async fn until(&mut self, wanted: impl Fn(&RevisionDemand) -> bool) -> RevisionDemand {
        timeout(GENEROUS, async {
            loop {
                if let Some(found) = self.frame().await.revisions.into_iter().find(&wanted) {
                    return found;
                }
            }
        })
        .await
        .expect("it is never told")
    }
}

#[tokio::test]
async fn a_request_is_reported_from_arrival_to_end() {
    let rig = Rig::start().await;
    rig.function("hello", json!({}));
    let mut reader = Reader::connect(&rig).await;
    assert!(reader.frame().await.revisions.is_empty());
    let call = tokio::spawn(get(rig.public, "hello.default.example.com", "/"));
    let waiting = reader.until(|r| r.queued == 1).await;
    assert_eq!(
        (waiting.namespace.as_str(), waiting.revision.as_str(), waiting.arrivals),
        ("default", "hello-00001", 1)
    );
    let pod = FakePod::start(|_| std::future::pending()).await;
    rig.start_pod("hello", &pod);
    reader.until(|r| r.in_flight == 1 && r.queued == 0).await;
    call.abort();
    let over = reader.until(|r| r.concurrency() == 0).await;
    assert_eq!((over.arrivals, over.completions), (1, 1));
    assert!(over.request_us > 0);
    // Another reader gets everything in its first frame.
    let first = Reader::connect(&rig).await.frame().await;
    assert_eq!(first.revisions, [over]);
}

#[tokio::test]
async fn disconnected_and_rejected_requests_are_no_demand() {
    let rig = Rig::start().await;
    rig.function("hello", json!({"queue": {"maxRequests": 1}}));
    let mut reader = Reader::connect(&rig).await;
    let waiting = raw(rig.public, "GET / HTTP/1.1\r\nhost: hello.default.example.com\r\n\r\n").await;
    reader.until(|r| r.queued == 1).await;
    assert_eq!(get(rig.public, "hello.default.example.com", "/").await.status, 429);
    drop(waiting);
    let left = reader.until(|r| r.concurrency() == 0).await;
    let counts = (left.arrivals, left.completions, left.abandoned);
    assert_eq!(counts, (1, 0, 1), "the rejected one is not counted, and no pod has served the other");
}

#[tokio::test]
async fn a_deleted_function_is_reported_as_empty() {
    let rig = Rig::start().await;
    rig.function("hello", json!({}));
    let call = tokio::spawn(get(rig.public, "hello.default.example.com", "/"));
    rig.queued("hello", 1).await;
    let mut reader = Reader::connect(&rig).await;
    reader.until(|r| r.queued == 1).await;
    rig.delete("hello");
    assert_eq!(call.await.unwrap().status, 404);
    // Otherwise a reader would attribute its request to another Function of the same name.
    reader.until(|r| r.concurrency() == 0).await;
}
