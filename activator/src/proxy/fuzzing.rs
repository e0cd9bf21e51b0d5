//! Harness for fuzz targets, and for the tests that replay their findings: from the bytes of a connection to the
//! router, without sockets and pods.
//!
//! The parts are those of the product: the head guard, the HTTP server as the listeners configure it, validation, the
//! Host, the routing table, and the headers toward a pod. Only the bytes come from memory, in pieces of a chosen size.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a violated invariant panics")]

mod strict;

use std::{
    convert::Infallible,
    io,
    net::Ipv4Addr,
    pin::Pin,
    sync::Arc,
    task::{Context as Poller, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderValue, Request, Response, Version, header, request::Parts};
use http_body_util::{BodyExt as _, Empty};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use rouse_crds::function::Protocol;
use rouse_crds::hosts::{DEFAULT_TEMPLATE, EVERYONE, HostTemplate, ownership::Rules};
use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    runtime::Runtime,
    time::timeout,
};

use self::strict::{End, Message};
use super::{headers, trace, validate};
use crate::{
    admit::{Bounds, Context},
    demand::Ledger,
    downstream::{ConnectionState, Peer, REJECTED_HEADER},
    endpoints::Dialer,
    hop_by_hop::{self, Found},
    metrics::Metrics,
    route::{Directory, Host, Side, Table},
    serve::{HeadGuard, Limits, Rejected, http1_builder, http2_builder},
    wake::{Scaler, WakeError},
};

/// State for reading connections; created once, since it has a runtime.
#[derive(Debug)]
pub struct Bench {
    runtime: Runtime,
    table: Arc<Table>,
}

/// A request that the HTTP server passed on.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    method: String,
    target: String,
    outcome: Outcome,
    /// `None` if it was aborted or rejected.
    body: Option<Vec<u8>>,
}

/// Result of routing.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    Rejected,
    /// Accepted for this host, with the Function that it is routed to, if any.
    Accepted(String, Option<String>),
}

/// Longer inputs are cut: the limits of the server are tested elsewhere.
const LONGEST: usize = 16 << 10;
/// The size limits are above [`LONGEST`].
const LIMITS: Limits = Limits {
    connections: 1,
    head_bytes: 64 << 10,
    headers: 128,
    request_line: 32 << 10,
    head_time: STUCK,
    first_request: STUCK,
    idle: STUCK,
    send: STUCK,
    body_time: STUCK,
    body_rate: 1,
    age: None,
    streams: 100,
    resets: 20,
};
/// Far longer than one connection takes.
const STUCK: Duration = Duration::from_secs(20);

#[derive(Debug)]
struct NoScaler;

impl Scaler for NoScaler {
    fn wake<'a>(&'a self, _: &'a str, _: &'a str, _: u32) -> BoxFuture<'a, Result<(), WakeError>> {
        Box::pin(std::future::pending())
    }
}

impl Default for Bench {
    fn default() -> Self {
        Self::new()
    }
}

impl Bench {
    /// Creates a harness with two functions: `f` in `ns`, also with the host `a.example`, and `g`, which is reachable
    /// from the cluster only.
    ///
    /// # Panics
    ///
    /// If no runtime can be created.
    #[must_use]
    pub fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let table = Arc::new(Table::new("cluster.local"));
        let ledger = Ledger::new();
        let metrics = Metrics::new(ledger.clone());
        let context = Context::new(Arc::new(NoScaler), Bounds::generous(), Dialer::new(false), metrics, ledger);
        let template = HostTemplate::new(DEFAULT_TEMPLATE, "example.com").unwrap();
        let mut directory =
            Directory::new(context, table.clone(), Rules { template, allowed: EVERYONE.parse().unwrap() });
        for (name, visibility, hosts) in [("f", "Public", vec!["a.example"]), ("g", "Cluster", vec![])] {
            let function = serde_json::from_value(json!({
                "apiVersion": "rouse.dev/v1alpha1", "kind": "Function",
                "metadata": {"name": name, "namespace": "ns", "uid": name},
                "spec": {"image": "x", "visibility": visibility, "hosts": hosts},
            }));
            directory.function_updated(&function.unwrap());
        }
        Self { runtime, table }
    }

    /// Reads `bytes` as one connection, whole and byte by byte, and checks every invariant.
    ///
    /// # Panics
    ///
    /// If one does not hold.
    pub fn check(&self, bytes: &[u8]) {
        let bytes = &bytes[..bytes.len().min(LONGEST)];
        let _shown = Shown(bytes);
        let whole = self.read(bytes, bytes.len().max(1));
        if bytes.starts_with(b"PRI ") {
            // HTTP/2 requests have no order to compare.
            return;
        }
        let by_one = self.read(bytes, 1);
        for (step, other) in [(1, &by_one), (7, &self.read(bytes, 7))] {
            assert_eq!(&whole, other, "reads of {step} make a difference");
        }
        let accepted = |seen: &[Seen]| -> Vec<Seen> {
            seen.iter().filter(|s| matches!(s.outcome, Outcome::Accepted(..))).cloned().collect()
        };
        let (messages, end) = strict::read(bytes);
        for (n, message) in messages.iter().enumerate() {
            let Some(seen) = by_one.get(n) else { panic!("{message:?} is a request and was not seen: {by_one:?}") };
            agree(message, seen);
        }
        let after = accepted(by_one.get(messages.len()..).unwrap_or_default());
        match end {
            End::Refused(why) => assert!(after.is_empty(), "{why}: {after:?}"),
            End::Head => assert!(after.is_empty(), "the head is not over: {after:?}"),
            End::Body => {
                assert!(after.len() <= 1 && after.iter().all(|s| s.body.is_none()), "no end: {after:?}");
            }
            End::Unsure => {}
        }
    }

    /// Reads a connection whose bytes arrive in pieces of `step`.
    fn read(&self, bytes: &[u8], step: usize) -> Vec<Seen> {
        let verdict = Arc::new(ConnectionState::default());
        let address = (Ipv4Addr::new(192, 0, 2, 1), 1).into();
        let peer = Arc::new(Peer::new(address, verdict.clone(), LIMITS.headers));
        let seen = Arc::new(Mutex::new(vec![]));
        let service = service_fn({
            let (seen, table) = (seen.clone(), self.table.clone());
            move |request| respond(request, peer.clone(), table.clone(), seen.clone())
        });
        let heads = HeadGuard::new(LIMITS);
        let coming = bytes.to_vec();
        let wire =
            Wire { coming, at: 0, step, heads, verdict, kept: vec![], ready: vec![], refused: None, patience: 32 };
        let ended = self.runtime.block_on(async {
            if bytes.starts_with(b"PRI ") {
                let http2 = http2_builder(&LIMITS, TokioExecutor::new());
                timeout(STUCK, http2.serve_connection(TokioIo::new(wire), service)).await
            } else {
                let http1 = http1_builder(&LIMITS);
                timeout(STUCK, http1.serve_connection(TokioIo::new(wire), service).with_upgrades()).await
            }
        });
        // Most inputs end in an error.
        drop(ended.expect("a connection whose client has hung up does not end"));
        std::mem::take(&mut *seen.lock())
    }
}

/// Prints the input after a panic.
struct Shown<'a>(&'a [u8]);

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the bytes: {}", self.0.escape_ascii());
        }
    }
}

/// Does what the proxy does with a request, up to the router and, if it found a route, past it.
async fn respond(
    request: Request<Incoming>,
    peer: Arc<Peer>,
    table: Arc<Table>,
    seen: Arc<Mutex<Vec<Seen>>>,
) -> Result<Response<Empty<Bytes>>, Infallible> {
    let (mut parts, body) = request.into_parts();
    let mut found = hop_by_hop::scan(&parts.headers);
    hop_by_hop::strip_origin(&mut parts.headers, &mut found);
    let (method, target) = (parts.method.to_string(), parts.uri.to_string());
    let host =
        validate::validate(&parts, &peer, &found).ok().and_then(|()| Some(Host::of(&parts).ok()?.as_str().to_owned()));
    let stands_in = host.is_some() && parts.headers.contains_key(REJECTED_HEADER) && peer.state.fault().is_some();
    assert!(!stands_in, "what stands for a refused request was accepted");
    let Some(host) = host else {
        seen.lock().push(Seen { method, target, outcome: Outcome::Rejected, body: None });
        let mut response = Response::new(Empty::new());
        *response.status_mut() = http::StatusCode::BAD_REQUEST;
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        return Ok(response);
    };
    let form = Host::normalise(&host).map(|h| h.as_str().to_owned());
    assert_eq!(form.as_ref(), Ok(&host), "a host has one form");
    let [public, inside] = [Side::Public, Side::Cluster].map(|side| {
        let route = table.find(side, &Host::normalise(&host).ok()?, parts.uri.path()).ok()?;
        Some(route.breaker.id().to_string())
    });
    assert_ne!(public.as_deref(), Some("ns/g"), "the ingress reaches what only the cluster may call");
    toward_pod(parts, &peer, &found, &host);
    let index = {
        let mut seen = seen.lock();
        seen.push(Seen { method, target, outcome: Outcome::Accepted(host, public.or(inside)), body: None });
        seen.len() - 1
    };
    let whole = body.collect().await.ok().map(|body| body.to_bytes().to_vec());
    seen.lock()[index].body = whole;
    Ok(Response::new(Empty::new()))
}

/// Checks that the request toward a pod names one host, the routed one, and has no hop-by-hop headers.
fn toward_pod(parts: Parts, peer: &Peer, found: &Found, host: &str) {
    let mut request = Request::from_parts(parts, ());
    trace::RequestId::of(request.headers()).add(request.headers_mut());
    let upgrades = headers::toward_pod(&mut request, peer, found).upgrade.is_some();
    headers::target(&mut request, Protocol::Http1);
    let (parts, ()) = request.into_parts();
    let named: Vec<_> = parts.headers.get_all(header::HOST).iter().map(|h| h.to_str().unwrap()).collect();
    assert_eq!(named.len(), 1, "{named:?}");
    assert_eq!(Host::normalise(named[0]).unwrap().as_str(), host, "the pod gets another host");
    assert_eq!(parts.version, Version::HTTP_11);
    assert!(parts.uri.authority().is_none() && parts.uri.scheme().is_none());
    assert!(parts.headers.get_all(header::CONTENT_LENGTH).iter().count() <= 1);
    for (name, value) in &parts.headers {
        let of_the_connection = match name.as_str() {
            "connection" => !upgrades && value != "TE",
            "upgrade" => !upgrades,
            "te" => value != "trailers",
            "transfer-encoding" | "keep-alive" | "proxy-connection" => true,
            name => name.starts_with("rouse-"),
        };
        assert!(!of_the_connection, "{name} is passed on");
    }
}

fn agree(message: &Message, seen: &Seen) {
    assert_eq!((&message.method, &message.target), (&seen.method, &seen.target));
    let Outcome::Accepted(host, _) = &seen.outcome else { panic!("{message:?} was refused") };
    assert_eq!(&message.host, host, "{message:?}");
    assert_eq!(Some(&message.body), seen.body.as_ref(), "{message:?}");
}

/// A connection whose bytes are in memory; stands in for the client's socket.
struct Wire {
    coming: Vec<u8>,
    at: usize,
    step: usize,
    heads: HeadGuard,
    verdict: Arc<ConnectionState>,
    kept: Vec<u8>,
    ready: Vec<u8>,
    refused: Option<Rejected>,
    /// Polls that are left to the server between the last byte and the end.
    patience: u32,
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Poller<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.ready.is_empty() {
            this.heads.finish_upgrade(false);
        }
        loop {
            if !this.ready.is_empty() {
                let count = this.ready.len().min(buffer.remaining());
                buffer.put_slice(&this.ready[..count]);
                this.ready.drain(..count);
                return Poll::Ready(Ok(()));
            }
            match this.refused {
                Some(Rejected::Body(fault)) => return Poll::Ready(Err(io::Error::other(fault.detail()))),
                // The response to the placeholder ends the connection.
                Some(Rejected::Head(_)) => return this.wait(cx),
                None => {}
            }
            let end = this.coming.len().min(this.at + this.step);
            this.kept.extend_from_slice(&this.coming[this.at..end]);
            let more = end > this.at;
            this.at = end;
            let judged = this.heads.read(&this.kept, &this.verdict);
            this.ready.extend(this.kept.drain(..judged.pass));
            this.refused = judged.rejected;
            if let Some(Rejected::Head(_)) = judged.rejected {
                this.ready.extend_from_slice(this.heads.placeholder());
            }
            if !more && this.ready.is_empty() && this.refused.is_none() {
                return this.wait(cx);
            }
        }
    }
}

impl Wire {
    /// Waits for the end. A client that closes gets no response any more, so it closes after some polls only.
    fn wait(&mut self, cx: &Poller<'_>) -> Poll<io::Result<()>> {
        if self.patience == 0 {
            return Poll::Ready(Ok(()));
        }
        self.patience -= 1;
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, _: &mut Poller<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Poller<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Poller<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The seed corpus and past findings.
    #[test]
    fn the_corpus_upholds_every_invariant() {
        let bench = Bench::new();
        let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/heads");
        let mut read = 0;
        for entry in std::fs::read_dir(&corpus).unwrap() {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap();
            bench.check(&bytes);
            // And with every byte changed, as a fuzzer begins.
            for at in 0..bytes.len() {
                let mut changed = bytes.clone();
                changed[at] = [b' ', b'\n', b'\r', b':', b'0', bytes[at] ^ 0x20][at % 6];
                bench.check(&changed);
            }
            read += 1;
        }
        assert!(read > 0, "there is no corpus at {}", corpus.display());
    }

    /// What the guard passes and the library refuses would get a response that is no problem document.
    #[test]
    fn every_head_reaches_the_proxy() {
        let bench = Bench::new();
        let reaches = |head: &[u8]| {
            let seen = bench.read(head, head.len());
            assert_eq!(seen.len(), 1, "{}", head.escape_ascii());
        };
        for byte in 0..=255_u8 {
            for (before, after) in [
                ("GET /a", "b HTTP/1.1\r\nHost: a.example\r\n\r\n"),
                ("GET /?a", "b HTTP/1.1\r\nHost: a.example\r\n\r\n"),
                ("G", "T / HTTP/1.1\r\nHost: a.example\r\n\r\n"),
                ("LONG-EXTENSION-M", "THOD / HTTP/1.1\r\nHost: a.example\r\n\r\n"),
                ("GET http://a", ".example/ HTTP/1.1\r\nHost: a.example\r\n\r\n"),
                ("GET http://a.example/", " HTTP/1.1\r\nHost: a.example\r\n\r\n"),
                ("CONNECT a", ":80 HTTP/1.1\r\nHost: a.example\r\n\r\n"),
                ("OPTIONS *", " HTTP/1.1\r\nHost: a.example\r\n\r\n"),
                ("GET / HTTP/1.", "\r\nHost: a.example\r\n\r\n"),
                ("GET / HTTP/1.1\r\nHost: a.example\r\nx", ": y\r\n\r\n"),
                ("GET / HTTP/1.1\r\nHost: a.example\r\nx: y", "\r\n\r\n"),
                ("GET / HTTP/1.1\r\nHost: a", "\r\n\r\n"),
            ] {
                reaches(&[before.as_bytes(), &[byte], after.as_bytes()].concat());
            }
        }
        for length in ["9223372036854775808", "18446744073709551613", "18446744073709551614", "18446744073709551615"] {
            let head = format!("POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: {length}\r\n\r\n");
            reaches(head.as_bytes());
        }
    }

    #[test]
    fn a_request_is_read_as_sent() {
        let text = b"POST /x HTTP/1.1\r\nHost: A.example:80\r\nContent-Length: 2\r\n\r\nab\
                     GET /y HTTP/1.1\r\nHost: g.ns\r\nHost: a\r\n\r\n";
        let seen = Bench::new().read(text, 5);
        let accepted = Outcome::Accepted("a.example".into(), Some("ns/f".into()));
        let first = Seen { method: "POST".into(), target: "/x".into(), outcome: accepted, body: Some(b"ab".to_vec()) };
        assert_eq!(seen[0], first);
        assert_eq!((seen.len(), &seen[1].outcome), (2, &Outcome::Rejected));
    }
}
