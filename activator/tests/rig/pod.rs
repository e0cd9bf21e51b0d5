//! A pod: an HTTP server on loopback.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinHandle,
};

pub(crate) type PodBody = BoxBody<Bytes, Infallible>;
pub(crate) type Handler = Arc<dyn Fn(Request<Incoming>) -> BoxFuture<'static, Response<PodBody>> + Send + Sync>;

pub(crate) struct FakePod {
    pub(crate) address: SocketAddr,
    /// Requests in flight, and their maximum so far.
    pub(crate) now: Arc<AtomicUsize>,
    pub(crate) most: Arc<AtomicUsize>,
    /// Requests so far.
    pub(crate) requests: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

struct Inside(Arc<AtomicUsize>);

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl FakePod {
    /// Responds to every request by `handler`.
    pub(crate) async fn start<F, R>(handler: F) -> Self
    where
        F: Fn(Request<Incoming>) -> R + Send + Sync + 'static,
        R: Future<Output = Response<PodBody>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::on(listener, handler)
    }

    pub(crate) fn on<F, R>(listener: TcpListener, handler: F) -> Self
    where
        F: Fn(Request<Incoming>) -> R + Send + Sync + 'static,
        R: Future<Output = Response<PodBody>> + Send + 'static,
    {
        let address = listener.local_addr().unwrap();
        let (now, most, requests) = <(Arc<AtomicUsize>, Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
        let handler: Handler = Arc::new(move |request| Box::pin(handler(request)));
        let accepting = tokio::spawn({
            let (now, most, requests) = (now.clone(), most.clone(), requests.clone());
            async move {
                let mut connections = tokio::task::JoinSet::new();
                while let Ok((stream, _)) = listener.accept().await {
                    stream.set_nodelay(true).unwrap();
                    let (handler, now, most, requests) = (handler.clone(), now.clone(), most.clone(), requests.clone());
                    let service = service_fn(move |request| {
                        let (handler, now, most, requests) =
                            (handler.clone(), now.clone(), most.clone(), requests.clone());
                        async move {
                            requests.fetch_add(1, Ordering::SeqCst);
                            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                            let _inside = Inside(now);
                            Ok::<_, Infallible>(handler(request).await)
                        }
                    });
                    // The connections end with the pod.
                    connections.spawn(async move {
                        let server = auto::Builder::new(TokioExecutor::new());
                        server.serve_connection_with_upgrades(TokioIo::new(stream), service).await.ok();
                    });
                }
            }
        });
        Self { address, now, most, requests, accepting }
    }

    /// Responds to everything with a word.
    pub(crate) async fn saying(word: &'static str) -> Self {
        Self::start(move |_| async move { ok(word) }).await
    }
}

impl Drop for FakePod {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

pub(crate) fn ok(text: impl Into<Bytes>) -> Response<PodBody> {
    Response::new(Full::new(text.into()).boxed())
}

/// A body whose frames a test sends one by one.
pub(crate) fn by_hand() -> (mpsc::Sender<Frame<Bytes>>, BoxBody<Bytes, Infallible>) {
    let (sender, receiver) = mpsc::channel::<Frame<Bytes>>(1);
    let frames = futures::stream::unfold(receiver, |mut r| async { Some((Ok::<_, Infallible>(r.recv().await?), r)) });
    (sender, BodyExt::boxed(StreamBody::new(Box::pin(frames))))
}

/// A pod that sends bytes: `answer` gets each request head, and the connection to write to. A probe, which sends
/// nothing, does not call it.
pub(crate) async fn raw_pod<F, R>(answer: F) -> u16
where
    F: Fn(String, TcpStream) -> R + Send + Sync + Clone + 'static,
    R: Future<Output = Option<TcpStream>> + Send + 'static,
{
    // On every loopback address, so that it can be the pod of several functions: an address belongs to one pod.
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                loop {
                    let mut head = vec![];
                    while !head.ends_with(b"\r\n\r\n") {
                        match stream.read_u8().await {
                            Ok(byte) => head.push(byte),
                            Err(_) => return,
                        }
                    }
                    match answer(String::from_utf8_lossy(&head).into_owned(), stream).await {
                        Some(kept) => stream = kept,
                        None => return,
                    }
                }
            });
        }
    });
    port
}
