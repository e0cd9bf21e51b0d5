//! h2c pods that violate the protocol, or obey it to do harm.
//!
//! Each behaviour is a row. For each row the request ends within the Function's timeouts with the expected problem, its slot
//! is free, memory stays bounded, and another function is served meanwhile.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod rig;

use std::time::Duration;

use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use rig::{Answer, Client, FakePod, GENEROUS, Rig, frames, get, running};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

const HOST: &str = "hello.default.example.com";
const OTHER: &str = "other.default.example.com";
/// `:status: 200` and `:status: 100`.
const OK: &[u8] = &[0x88];

/// What a pod does on a connection. It may stop at any time: the socket stays open until the test ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Behaviour {
    NoSettings,
    NotHttp2,
    NeverResponds,
    GoawayInCall,
    ClosesInCall,
    ResetsEachStream,
    RefusesEachStream,
    EndlessInterim,
    EndlessHead,
    EndlessEmptyContinuations,
    HugeHead,
    EndlessTrailers,
    InvalidFrame,
    EndlessPings,
    EndlessSettings,
    NeverOpensWindow,
    TrickledHead,
    StopsInBody,
    TrickledBody,
}

/// What the client sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// An error response of this type.
    Problem(&'static str),
    /// A response that breaks off.
    Cut,
    /// Either, depending on what has been read when the connection ends.
    CutOr(&'static str),
}

struct Pod {
    stream: TcpStream,
    /// The last stream that was opened.
    request: u32,
}

impl Pod {
    /// Reads frames until a request has begun; `None` if the connection ends.
    async fn request(&mut self) -> Option<u32> {
        loop {
            let mut head = [0; 9];
            self.stream.read_exact(&mut head).await.ok()?;
            let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            self.stream.read_exact(&mut payload).await.ok()?;
            if head[3] == frames::HEADERS {
                self.request = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
                return Some(self.request);
            }
        }
    }

    async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Option<()> {
        self.stream.write_all(&frames::frame(kind, flags, stream, payload)).await.ok()
    }

    /// Sends without end, and reads what arrives, until the other side closes or stops the stream.
    async fn flood(&mut self, frame: &[u8]) -> Option<()> {
        let (mut read, mut write) = self.stream.split();
        let mut scratch = [0; 4096];
        loop {
            tokio::select! {
                written = write.write_all(frame) => written.ok()?,
                count = read.read(&mut scratch) => if count.ok()? == 0 { return None },
            }
        }
    }

    async fn behave(mut self, behaviour: Behaviour) -> Option<()> {
        use Behaviour as B;
        if behaviour == B::NoSettings {
            // Keeps the socket open.
            return self.flood_nothing().await;
        }
        if behaviour == B::NotHttp2 {
            self.stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n").await.ok()?;
            return None;
        }
        // A window of nothing, where the request body is what is waited for.
        let window: &[u8] = if behaviour == B::NeverOpensWindow { &[0, 4, 0, 0, 0, 0] } else { &[] };
        self.send(frames::SETTINGS, 0, 0, window).await?;
        let mut preface = [0; 24];
        self.stream.read_exact(&mut preface).await.ok()?;
        loop {
            let stream = self.request().await?;
            let interim = frames::block(&[(":status", "103"), ("link", "</x>")]);
            match behaviour {
                B::NoSettings | B::NotHttp2 => return None,
                B::NeverResponds | B::NeverOpensWindow => {}
                B::GoawayInCall => {
                    // The stream was processed, and gets no response.
                    self.send(frames::GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0]).await?;
                    return None;
                }
                B::ClosesInCall => return None,
                B::ResetsEachStream => self.send(frames::RESET, 0, stream, &[0, 0, 0, 2]).await?,
                B::RefusesEachStream => self.send(frames::RESET, 0, stream, &[0, 0, 0, 7]).await?,
                B::EndlessInterim => {
                    return self.flood(&frames::frame(frames::HEADERS, frames::END_HEADERS, stream, &interim)).await;
                }
                B::EndlessHead => {
                    self.send(frames::HEADERS, 0, stream, OK).await?;
                    let field = frames::literal("x", &"y".repeat(100)).repeat(100);
                    return self.flood(&frames::frame(frames::CONTINUATION, 0, stream, &field)).await;
                }
                B::EndlessEmptyContinuations => {
                    self.send(frames::HEADERS, 0, stream, OK).await?;
                    return self.flood(&frames::frame(frames::CONTINUATION, 0, stream, &[])).await;
                }
                B::HugeHead => {
                    self.send(frames::HEADERS, 0, stream, OK).await?;
                    let field = frames::literal("x", &"y".repeat(100)).repeat(100);
                    for _ in 0..10 {
                        self.send(frames::CONTINUATION, 0, stream, &field).await?;
                    }
                    self.send(frames::CONTINUATION, frames::END_HEADERS, stream, &[]).await?;
                }
                B::EndlessTrailers => {
                    self.send(frames::HEADERS, frames::END_HEADERS, stream, OK).await?;
                    self.send(frames::HEADERS, frames::END_STREAM, stream, &[]).await?;
                    let field = frames::literal("x", &"y".repeat(100)).repeat(100);
                    return self.flood(&frames::frame(frames::CONTINUATION, 0, stream, &field)).await;
                }
                // Data on a stream that nobody opened.
                B::InvalidFrame => self.send(frames::DATA, 0, stream + 100, b"x").await?,
                B::EndlessPings => return self.flood(&frames::frame(frames::PING, 0, 0, &[0; 8])).await,
                B::EndlessSettings => return self.flood(&frames::frame(frames::SETTINGS, 0, 0, &[])).await,
                B::TrickledHead => {
                    let head = frames::frame(frames::HEADERS, frames::END_HEADERS, stream, &interim);
                    for byte in head.iter().cycle() {
                        self.stream.write_all(&[*byte]).await.ok()?;
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                }
                B::StopsInBody => {
                    self.send(frames::HEADERS, frames::END_HEADERS, stream, OK).await?;
                    self.send(frames::DATA, 0, stream, b"begun").await?;
                }
                B::TrickledBody => {
                    self.send(frames::HEADERS, frames::END_HEADERS, stream, OK).await?;
                    loop {
                        self.send(frames::DATA, 0, stream, b"x").await?;
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                }
            }
        }
    }

    /// Reads until the other side closes.
    async fn flood_nothing(&mut self) -> Option<()> {
        let mut scratch = [0; 4096];
        while self.stream.read(&mut scratch).await.ok()? > 0 {}
        None
    }
}

/// Starts a pod on its port.
async fn start(behaviour: Behaviour) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(Pod { stream, request: 0 }.behave(behaviour));
        }
    });
    port
}

async fn post(rig: &Rig, body: usize) -> Result<Answer, String> {
    let mut client = Client::connect(rig.public).await;
    let body = Full::from(vec![b'x'; body]).boxed();
    let request = Request::post("/").header("host", HOST).body(body).unwrap();
    let response = timeout(GENEROUS, client.sender.send_request(request)).await.expect("no response");
    let (parts, body) = response.map_err(|error| error.to_string())?.into_parts();
    let body = timeout(GENEROUS, body.collect()).await.expect("no end of the response").map_err(|e| e.to_string())?;
    let trailers = body.trailers().cloned();
    Ok(Answer { status: parts.status, headers: parts.headers, body: body.to_bytes(), trailers })
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Returns what is not as it should be.
async fn row(behaviour: Behaviour, body: usize, seen: Seen) -> Vec<String> {
    let port = start(behaviour).await;
    let rig = Rig::start().await;
    let timeouts = json!({"coldStart": "4s", "response": "1s", "idle": "1s"});
    rig.function("hello", json!({"protocol": "h2c", "timeouts": timeouts, "scaling": {"concurrencyLimit": 16}}));
    rig.show_as("hello-00001-x", "hello", running(), port);
    let other = FakePod::saying("hi").await;
    rig.function("other", json!({}));
    rig.start_pod("other", &other);
    let before = resident_kib();
    let sent: Vec<_> = (0..8).map(|_| post(&rig, body)).collect();
    let (answers, ()) = tokio::join!(futures::future::join_all(sent), async {
        for _ in 0..20 {
            assert_eq!(get(rig.public, OTHER, "/").await.status, StatusCode::OK, "{behaviour:?} affects others");
        }
    });
    let mut wrong = vec![];
    for answer in answers {
        let fits = match (seen, &answer) {
            (Seen::Problem(kind) | Seen::CutOr(kind), Ok(answer)) => {
                answer.text().contains(&format!("https://rouse.dev/problems/{kind}\""))
            }
            (Seen::Cut | Seen::CutOr(_), Err(_)) => true,
            _ => false,
        };
        if !fits {
            wrong.push(format!("{behaviour:?}: {:?}", answer.map(|answer| (answer.status, answer.text()))));
        }
    }
    rig.in_flight("hello", 0).await;
    rig.queued("hello", 0).await;
    let grown = resident_kib().saturating_sub(before);
    // The library keeps the interim responses of one turn of its task, which reads 128 times at most: some 50 MiB of 16-byte
    // frames were seen. The next turn of the request drops them.
    let most = if behaviour == Behaviour::EndlessInterim { 96 << 10 } else { 32 << 10 };
    if grown > most {
        wrong.push(format!("{behaviour:?}: {grown} KiB"));
    }
    wrong
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_to_a_hostile_pod_ends_and_affects_no_other() {
    use Behaviour as B;
    let mut wrong = vec![];
    for (behaviour, body, seen) in [
        (B::NoSettings, 0, Seen::Problem("pod-unreachable")),
        (B::NotHttp2, 0, Seen::Problem("pod-unreachable")),
        (B::NeverResponds, 0, Seen::Problem("response-timeout")),
        (B::GoawayInCall, 1, Seen::Problem("bad-response")),
        (B::ClosesInCall, 1, Seen::Problem("bad-response")),
        (B::ResetsEachStream, 1, Seen::Problem("bad-response")),
        (B::RefusesEachStream, 1, Seen::Problem("bad-response")),
        (B::EndlessInterim, 0, Seen::Problem("response-timeout")),
        (B::EndlessHead, 0, Seen::Problem("bad-response")),
        (B::EndlessEmptyContinuations, 0, Seen::Problem("bad-response")),
        (B::HugeHead, 0, Seen::Problem("bad-response")),
        (B::EndlessTrailers, 0, Seen::CutOr("bad-response")),
        (B::InvalidFrame, 0, Seen::Problem("bad-response")),
        (B::EndlessPings, 0, Seen::Problem("response-timeout")),
        (B::EndlessSettings, 0, Seen::Problem("response-timeout")),
        (B::NeverOpensWindow, 1 << 20, Seen::Problem("response-timeout")),
        (B::TrickledHead, 0, Seen::Problem("response-timeout")),
        (B::StopsInBody, 0, Seen::Cut),
    ] {
        wrong.extend(row(behaviour, body, seen).await);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A response of one byte at a time is a stream, which only its client ends.
#[tokio::test]
async fn a_trickled_response_ends_with_its_client() {
    let port = start(Behaviour::TrickledBody).await;
    let rig = Rig::start().await;
    rig.function("hello", json!({"protocol": "h2c", "timeouts": {"response": "1s", "idle": "1s"}}));
    rig.show_as("hello-00001-x", "hello", running(), port);
    let mut client = Client::connect(rig.public).await;
    let request = Request::get("/").header("host", HOST).body(Full::default().boxed()).unwrap();
    let mut body = client.begin(request).await.into_body();
    for _ in 0..3 {
        assert!(timeout(GENEROUS, body.frame()).await.unwrap().unwrap().is_ok());
    }
    rig.in_flight("hello", 1).await;
    drop((body, client));
    rig.in_flight("hello", 0).await;
}
