//! Hostile clients, over every protocol and in every phase of a request: their connection, concurrency slot and pod are
//! released within the documented timeouts, they hold no more memory than documented, and other clients are served.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../rig/mod.rs"]
mod rig;
mod table;
mod wire;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::future::join_all;
use parking_lot::Mutex;
use rig::{Authority, FakePod, GENEROUS, Rig, get, raw_pod, running};
use serde_json::json;
use socket2::SockRef;
use table::*;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::watch,
    time::timeout,
};
use tokio_util::task::AbortOnDropHandle;
use wire::Wire;

const HOST: &str = "hello.default.example.com";

/// The timeouts, a sixtieth of the defaults or less.
const FLAGS: [&str; 6] = [
    "--first-request-timeout=1s",
    "--head-timeout=1s",
    "--idle-connection-timeout=1s",
    "--body-timeout=1s",
    "--min-body-rate=1Ki",
    "--send-timeout=1s",
];

/// Bytes of a response that are taken for a client that does not read, over both hops: the buffers of the activator, and
/// those of its sockets, which the kernel sizes by the throughput. `hostile_memory.rs` measures the process alone.
const HELD: usize = 4 << 20;

/// Connections that a client resets after its first one.
const RESETS: usize = 20;

/// Bytes that the pod has sent, by function.
type Sent = Arc<Mutex<HashMap<String, Arc<AtomicUsize>>>>;

/// Requests in flight and queued, by function.
type Requests = HashMap<String, [u64; 2]>;

/// A pod that sends without end, or reads to the end, as the path says; also through a tunnel.
async fn endless(sent: Sent) -> u16 {
    raw_pod(move |head, mut stream| {
        let sent = sent.clone();
        async move {
            SockRef::from(&stream).set_send_buffer_size(16 << 10).unwrap();
            let path = head.split(' ').nth(1)?.to_owned();
            let (function, mode) = path.strip_prefix('/')?.split_once('/')?;
            if head.to_ascii_lowercase().contains("upgrade: x") {
                stream
                    .write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
                    .await
                    .ok()?;
            } else if mode == "down" {
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.ok()?;
            }
            if mode == "down" {
                let sent = sent.lock().entry(function.to_owned()).or_default().clone();
                send_all(&mut stream, &sent).await
            } else {
                stream.read_to_end(&mut vec![]).await.ok()?;
                None
            }
        }
    })
    .await
}

async fn send_all(stream: &mut TcpStream, sent: &AtomicUsize) -> Option<TcpStream> {
    let piece = [b'x'; 4 << 10];
    loop {
        sent.fetch_add(stream.write(&piece).await.ok()?, Ordering::SeqCst);
    }
}

/// Reads the metrics again and again.
async fn watch_requests(rig: Arc<Rig>, requests: watch::Sender<Requests>) {
    loop {
        let text = get(rig.admin, "admin", "/metrics").await.text();
        let mut seen = Requests::default();
        for (index, metric) in ["rouse_activator_in_flight{", "rouse_activator_queued{"].into_iter().enumerate() {
            for line in text.lines().filter(|line| line.starts_with(metric)) {
                let function = line.split("function=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
                let count: u64 = line.rsplit(' ').next().unwrap().parse().unwrap();
                seen.entry(function.to_owned()).or_default()[index] += count;
            }
        }
        requests.send_replace(seen);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn until(requests: &watch::Receiver<Requests>, function: &str, count: [u64; 2]) -> Result<(), String> {
    let mut waiting = requests.clone();
    let reached = waiting.wait_for(|seen| seen.get(function).copied().unwrap_or_default() == count);
    let reached = timeout(GENEROUS, reached).await.is_ok();
    let seen = requests.borrow().get(function).copied();
    if reached { Ok(()) } else { Err(format!("{seen:?} in flight and queued, not {count:?}")) }
}

/// One cell of the table.
#[derive(Clone, Copy, Debug)]
struct Case {
    peer: Peer,
    protocol: Protocol,
    phase: Phase,
    ends: &'static str,
}

fn cases() -> Vec<Case> {
    let mut cases = vec![];
    for peer in PEERS {
        for (protocol, phase) in PROTOCOLS.into_iter().flat_map(|protocol| PHASES.map(|phase| (protocol, phase))) {
            match cell(peer, protocol, phase) {
                Ends(ends) => cases.push(Case { peer, protocol, phase, ends }),
                Empty(reason) => println!("{peer:?} × {protocol:?} × {phase:?}: {reason}"),
            }
        }
    }
    cases
}

/// Runs one case until the activator holds nothing of it. The client stays hostile until the handle is dropped.
async fn run(
    case: Case,
    function: &str,
    (rig, authority): (&Rig, &Authority),
    requests: &watch::Receiver<Requests>,
) -> Result<Option<AbortOnDropHandle<()>>, String> {
    let connect = || Wire::connect(rig, authority, (case.peer, case.protocol, case.phase), function);
    let begun = match (case.protocol, case.phase) {
        (_, Parked) => [0, 1],
        (_, Uploading | Downloading) | (Tunnel, Idle) => [1, 0],
        (_, Idle) => [0, 0],
    };
    let mut wire = connect().await;
    wire.begin().await;
    until(requests, function, begun).await.map_err(|error| format!("at the beginning: {error}"))?;
    let hostile = if case.peer == ResetsInALoop && !wire.is_http2() {
        wire.reset();
        for _ in 0..RESETS {
            let mut wire = connect().await;
            wire.begin().await;
            wire.reset();
        }
        None
    } else {
        let acting = tokio::spawn(async move {
            wire.act().await;
            // Keeps the connection open.
            std::future::pending::<()>().await;
            drop(wire);
        });
        Some(AbortOnDropHandle::new(acting))
    };
    until(requests, function, [0, 0]).await?;
    Ok(hostile)
}

#[tokio::test]
async fn hostile_clients_are_bounded_in_time_and_memory() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let tls = authority.flags(folder.path());
    let flags: Vec<&str> = FLAGS.into_iter().chain(tls.iter().map(String::as_str)).collect();
    let rig = Arc::new(Rig::with(&flags).await);
    let sent = Sent::default();
    let port = endless(sent.clone()).await;
    let (honest_pod, cases) = (FakePod::saying("hi").await, cases());
    assert!(cases.len() >= 80, "{} cells", cases.len());
    rig.function("hello", json!({}));
    rig.start_pod("hello", &honest_pod);
    let function = |index: usize| format!("c{index}");
    for (index, case) in cases.iter().enumerate() {
        // Only the limit of the cell may end it.
        let idle = if case.ends == "timeouts.idle" { "1s" } else { "0s" };
        let name = function(index);
        rig.function(&name, json!({"timeouts": {"coldStart": "2s", "response": "1h", "idle": idle}}));
        if case.phase != Parked {
            let mut status = running();
            status["podIP"] = json!(format!("127.1.0.{}", index + 1));
            rig.show_as(&format!("{name}-00001-0"), &name, status, port);
        }
    }
    let (publish, requests) = watch::channel(Requests::default());
    let _watching = AbortOnDropHandle::new(tokio::spawn(watch_requests(rig.clone(), publish)));
    let running = join_all(cases.iter().enumerate().map(|(index, case)| {
        let (rig, authority, requests, name) = (&rig, &authority, &requests, function(index));
        async move { run(*case, &name, (rig, authority), requests).await }
    }));
    let served = async {
        loop {
            assert_eq!(get(rig.public, HOST, "/").await.text(), "hi");
        }
    };
    let results = tokio::select! {
        results = running => results,
        () = served => unreachable!(),
    };
    let failed: Vec<_> = cases.iter().zip(&results).filter_map(|(case, r)| Some((case, r.as_ref().err()?))).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    // Their connections have ended, though the clients are still there.
    rig.metric("rouse_activator_connections{", 0).await;
    for (index, case) in cases.iter().enumerate().filter(|(_, case)| case.phase == Downloading) {
        let held = sent.lock().get(&function(index)).map_or(0, |sent| sent.load(Ordering::SeqCst));
        let resets = case.peer == ResetsInALoop && matches!(case.protocol, Http1 | Tunnel);
        let connections = if resets { RESETS + 1 } else { 1 };
        println!("{case:?}: {held} bytes over {connections} connections");
        assert!((1..HELD * connections).contains(&held), "{case:?}: {held} bytes are held");
    }
    drop(results);
}
