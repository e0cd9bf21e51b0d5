//! Handlers of the paths.

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
    bodies::{ResponseBody, dots, parts, whole},
    fetch::fetch,
    query::Query,
    settings::Settings,
    stats::{Counted, InFlight, Stats},
    upgrade::upgrade,
};

/// The function: settings and state.
#[derive(Debug)]
pub(crate) struct Function {
    settings: Settings,
    stats: Arc<Stats>,
    /// Time since which it listens.
    listening_since: Instant,
    /// Time from which `/ready` succeeds.
    ready_at: Instant,
    /// Upgraded connections, which hyper no longer tracks, so that a shutdown waits for them.
    pub(crate) tunnels: TaskTracker,
}

/// Why a request fails.
enum RequestError {
    /// The request is invalid, with a message for the client.
    Invalid(String),
    /// The request could not be read.
    Broken(hyper::Error),
}

impl From<String> for RequestError {
    fn from(reason: String) -> Self {
        Self::Invalid(reason)
    }
}

impl From<hyper::Error> for RequestError {
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

    /// Responds to one request. An error closes the connection.
    pub(crate) async fn respond(&self, request: Request<Incoming>) -> Result<Response<Counted>, hyper::Error> {
        // Probes are not counted, since those of the kubelet would distort the counts.
        if request.uri().path() == "/ready" {
            return Ok(self.ready().map(|body| Counted { body, _in_flight: None }));
        }
        let in_flight = self.stats.arrive();
        let bodiless = request.method() == Method::HEAD && request.version() == Version::HTTP_2;
        let listening = self.listening_since.elapsed();
        let mut response = match self.behave(request, &in_flight).await {
            Ok(response) => response,
            Err(RequestError::Invalid(reason)) => text(StatusCode::BAD_REQUEST, reason),
            Err(RequestError::Broken(error)) => return Err(error),
        };
        if bodiless {
            // Over HTTP/2 hyper sends the body, which clients reject after a HEAD.
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
        headers.insert("hello-in-flight", in_flight.concurrent.into());
        headers.insert("hello-listening-us", u64::try_from(listening.as_micros()).unwrap_or(u64::MAX).into());
        Ok(response.map(|body| Counted { body, _in_flight: Some(in_flight) }))
    }

    async fn behave(
        &self,
        request: Request<Incoming>,
        in_flight: &Arc<InFlight>,
    ) -> Result<Response<ResponseBody>, RequestError> {
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
            path => text(StatusCode::NOT_FOUND, format!("{path} not found; run rouse-hello --help for the paths")),
        };
        if let Some(status) = status {
            *response.status_mut() = status;
            if matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED) {
                *response.body_mut() = whole("");
            }
        }
        Ok(response)
    }

    fn greet(&self, number: u64) -> Response<ResponseBody> {
        let Settings { greeting, pod, .. } = &self.settings;
        text(StatusCode::OK, format!("{greeting} from {pod}, request {number} of this pod"))
    }

    fn ready(&self) -> Response<ResponseBody> {
        if Instant::now() >= self.ready_at {
            text(StatusCode::OK, "ready")
        } else {
            text(StatusCode::SERVICE_UNAVAILABLE, "not yet")
        }
    }
}

/// Parses a final status: 1xx are not final.
fn asked_status(status: u16) -> Result<StatusCode, RequestError> {
    StatusCode::from_u16(status)
        .ok()
        .filter(|status| (200..600).contains(&status.as_u16()))
        .ok_or_else(|| RequestError::Invalid(format!("status={status} is not between 200 and 599")))
}

fn text(status: StatusCode, line: impl Into<String>) -> Response<ResponseBody> {
    let mut response = Response::new(whole(line.into() + "\n"));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

fn json(value: &serde_json::Value) -> Response<ResponseBody> {
    let mut response = Response::new(whole(format!("{value}\n")));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Returns the head of a request as JSON. Names and values are in order, so that two can be compared.
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

/// Streams the body back, so that a client may wait for a response before it sends more.
fn echo(request: Request<Incoming>) -> Response<ResponseBody> {
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

async fn upload(mut body: Incoming) -> Result<Response<ResponseBody>, RequestError> {
    let mut bytes = 0u64;
    while let Some(frame) = body.frame().await {
        bytes += frame?.data_ref().map_or(0, |data| data.len() as u64);
    }
    Ok(json(&serde_json::json!({ "bytes": bytes })))
}

fn stream(query: Query<'_>) -> Result<Response<ResponseBody>, RequestError> {
    let (count, interval) = pace(query, "chunks")?;
    let mut response = Response::new(parts(count, interval, |n| format!("chunk {n}\n")));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    Ok(response)
}

fn sse(query: Query<'_>) -> Result<Response<ResponseBody>, RequestError> {
    let (count, interval) = pace(query, "events")?;
    let mut response = Response::new(parts(count, interval, |n| format!("id: {n}\ndata: event {n}\n\n")));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// Parses the number of parts (0: endless) and their interval.
fn pace(query: Query<'_>, what: &str) -> Result<(Option<u64>, Duration), RequestError> {
    let count = Some(query.number(what, 10)?).filter(|count| *count > 0);
    Ok((count, Duration::from_millis(query.number("interval_ms", 100)?)))
}

fn exit(query: Query<'_>) -> Result<Response<ResponseBody>, RequestError> {
    let code: u8 = query.number("code", 1)?;
    eprintln!("Exiting with status {code} (request to /exit)");
    std::process::exit(code.into())
}
