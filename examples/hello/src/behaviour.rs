//! What each path does.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use http_body_util::BodyExt;
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode, Version,
    body::{Body as _, Incoming},
    header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, TRAILER},
};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::{
    bodies::{Answer, dots, parts, whole},
    fetch::fetch,
    query::Query,
    settings::Settings,
    stats::{Counted, InFlight, Stats},
    upgrade::upgrade,
};

/// The function: its settings and what it remembers.
#[derive(Debug)]
pub(crate) struct Function {
    settings: Settings,
    stats: Arc<Stats>,
    /// When it began to take connections.
    listening_since: Instant,
    /// When `/ready` begins to say yes.
    ready_at: Instant,
    /// Connections that have been upgraded: no server counts them any more, and a shutdown waits for them.
    pub(crate) tunnels: TaskTracker,
}

/// Why a request gets no proper answer.
enum Refused {
    /// The client asked for something that cannot be: a sentence for it.
    Nonsense(String),
    /// The request could not be read to its end.
    Broken(hyper::Error),
}

impl From<String> for Refused {
    fn from(reason: String) -> Self {
        Self::Nonsense(reason)
    }
}

impl From<hyper::Error> for Refused {
    fn from(error: hyper::Error) -> Self {
        Self::Broken(error)
    }
}

impl Function {
    pub(crate) fn new(settings: Settings) -> Self {
        let listening_since = Instant::now();
        let ready_at = listening_since + settings.ready_delay;
        Self { settings, stats: Arc::default(), listening_since, ready_at, tunnels: TaskTracker::new() }
    }

    /// Answers one request. An error ends the connection.
    pub(crate) async fn answer(&self, request: Request<Incoming>) -> Result<Response<Counted>, hyper::Error> {
        // Probes are no requests: a kubelet's would make the counts say nothing.
        if request.uri().path() == "/ready" {
            return Ok(self.ready().map(|body| Counted { body, _in_flight: None }));
        }
        let in_flight = self.stats.arrive();
        let bodiless = request.method() == Method::HEAD && request.version() == Version::HTTP_2;
        let listening = self.listening_since.elapsed();
        let mut response = match self.behave(request, &in_flight).await {
            Ok(response) => response,
            Err(Refused::Nonsense(reason)) => text(StatusCode::BAD_REQUEST, reason),
            Err(Refused::Broken(error)) => return Err(error),
        };
        if bodiless {
            // Over HTTP/2 hyper sends the body that it is given, and after a HEAD a client takes that for an error.
            if let Some(length) = response.body().size_hint().exact() {
                response.headers_mut().insert(CONTENT_LENGTH, length.into());
            }
            *response.body_mut() = whole("");
        }
        let headers = response.headers_mut();
        if let Ok(pod) = HeaderValue::from_str(&self.settings.pod) {
            headers.insert("hello-pod", pod);
        }
        headers.insert("hello-request", in_flight.number.into());
        headers.insert("hello-in-flight", in_flight.together.into());
        headers.insert("hello-listening-us", u64::try_from(listening.as_micros()).unwrap_or(u64::MAX).into());
        Ok(response.map(|body| Counted { body, _in_flight: Some(in_flight) }))
    }

    async fn behave(&self, request: Request<Incoming>, in_flight: &Arc<InFlight>) -> Result<Response<Answer>, Refused> {
        let uri = request.uri().clone();
        let query = Query::new(uri.query());
        let sleep = Some(query.sleep()?).filter(|sleep| !sleep.is_zero()).unwrap_or(self.settings.sleep);
        let status = match query.number("status", self.settings.status.unwrap_or(0))? {
            0 => None,
            status => Some(asked_status(status)?),
        };
        if !sleep.is_zero() {
            tokio::time::sleep(sleep).await;
        }
        let mut response = match uri.path() {
            "/" => self.greet(in_flight.number),
            "/headers" => json(&head(&request)),
            "/echo" => echo(request),
            "/upload" => upload(request.into_body()).await?,
            "/size" => Response::new(dots(query.number("bytes", 0)?)),
            "/stream" => stream(query)?,
            "/sse" => sse(query)?,
            "/stats" => json(&self.stats.to_json()),
            "/fetch" => {
                let url = query.get("url").ok_or_else(|| "url= is missing".to_owned())?;
                fetch(url).await.unwrap_or_else(|reason| text(StatusCode::BAD_GATEWAY, reason))
            }
            "/upgrade" => upgrade(request, &self.tunnels, Arc::clone(in_flight)),
            "/exit" => exit(query)?,
            path => text(StatusCode::NOT_FOUND, format!("{path} is not here; run rouse-hello --help for what is")),
        };
        if let Some(status) = status {
            *response.status_mut() = status;
            if matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED) {
                *response.body_mut() = whole("");
            }
        }
        Ok(response)
    }

    fn greet(&self, number: u64) -> Response<Answer> {
        let Settings { greeting, pod, .. } = &self.settings;
        text(StatusCode::OK, format!("{greeting} from {pod}, request {number} of this pod"))
    }

    fn ready(&self) -> Response<Answer> {
        if Instant::now() >= self.ready_at {
            text(StatusCode::OK, "ready")
        } else {
            text(StatusCode::SERVICE_UNAVAILABLE, "not yet")
        }
    }
}

/// A status that an answer with a body can have: 1xx are not final.
fn asked_status(status: u16) -> Result<StatusCode, Refused> {
    StatusCode::from_u16(status)
        .ok()
        .filter(|status| (200..600).contains(&status.as_u16()))
        .ok_or_else(|| Refused::Nonsense(format!("status={status} is not between 200 and 599")))
}

fn text(status: StatusCode, line: impl Into<String>) -> Response<Answer> {
    let mut response = Response::new(whole(line.into() + "\n"));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

fn json(value: &serde_json::Value) -> Response<Answer> {
    let mut response = Response::new(whole(format!("{value}\n")));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The head of a request. Names and values are in order, so that two can be compared.
fn head(request: &Request<Incoming>) -> serde_json::Value {
    serde_json::json!({
        "method": request.method().as_str(),
        "uri": request.uri().to_string(),
        "version": format!("{:?}", request.version()),
        "headers": by_name(request.headers()),
    })
}

fn by_name(headers: &HeaderMap) -> BTreeMap<&str, Vec<String>> {
    let values =
        |name| headers.get_all(name).iter().map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned()).collect();
    headers.keys().map(|name| (name.as_str(), values(name))).collect()
}

/// The body goes back as it comes, so that a client may wait for an answer before it sends more.
fn echo(request: Request<Incoming>) -> Response<Answer> {
    let (head, body) = request.into_parts();
    let mut response = Response::new(body.boxed_unsync());
    for name in [CONTENT_TYPE, TRAILER] {
        // HTTP/1.1 sends only trailers that were announced.
        if let Some(value) = head.headers.get(&name) {
            response.headers_mut().insert(name, value.clone());
        }
    }
    response
}

async fn upload(mut body: Incoming) -> Result<Response<Answer>, Refused> {
    let mut bytes = 0u64;
    while let Some(frame) = body.frame().await {
        bytes += frame?.data_ref().map_or(0, |data| data.len() as u64);
    }
    Ok(json(&serde_json::json!({ "bytes": bytes })))
}

fn stream(query: Query<'_>) -> Result<Response<Answer>, Refused> {
    let (count, interval) = pace(query, "chunks")?;
    let mut response = Response::new(parts(count, interval, |n| format!("chunk {n}\n")));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    Ok(response)
}

fn sse(query: Query<'_>) -> Result<Response<Answer>, Refused> {
    let (count, interval) = pace(query, "events")?;
    let mut response = Response::new(parts(count, interval, |n| format!("id: {n}\ndata: event {n}\n\n")));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// How many parts (0: without end) and how far apart.
fn pace(query: Query<'_>, what: &str) -> Result<(Option<u64>, Duration), Refused> {
    let count = Some(query.number(what, 10)?).filter(|count| *count > 0);
    Ok((count, Duration::from_millis(query.number("interval_ms", 100)?)))
}

fn exit(query: Query<'_>) -> Result<Response<Answer>, Refused> {
    let code: u8 = query.number("code", 1)?;
    eprintln!("Ending with {code}, as a request to /exit says");
    std::process::exit(code.into())
}
