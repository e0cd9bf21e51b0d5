//! Calls functions as a client outside of the cluster does: through the ingress, by host name.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, header::HOST};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use tokio::time::{Instant, timeout};

/// Longest that any call may take, so that no test waits for ever.
const LIMIT: Duration = Duration::from_secs(150);

/// A client with a pool of connections to one address.
#[derive(Clone, Debug)]
pub struct Caller {
    client: Client<HttpConnector, Full<Bytes>>,
    address: SocketAddr,
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Status.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
    /// From the call to the end of the body.
    pub took: Duration,
}

impl Answer {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; `Null` where it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// A header's value as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|v| v.to_str().ok())
    }

    /// Phases of a cold start in milliseconds, by name, as `Server-Timing` states them. Proxies on the way may add lines
    /// of their own.
    pub fn phases(&self) -> Vec<(String, f64)> {
        let lines = self.headers.get_all("server-timing").iter().filter_map(|v| v.to_str().ok());
        lines
            .flat_map(|line| line.split(','))
            .filter_map(|entry| {
                let (name, rest) = entry.trim().split_once(';')?;
                let duration = rest.split(';').find_map(|p| p.trim().strip_prefix("dur="))?;
                Some((name.to_owned(), duration.parse().ok()?))
            })
            .collect()
    }
}

impl Caller {
    /// A client of the server at `address`.
    pub fn new(address: SocketAddr) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(20))
            .build(connector);
        Self { client, address }
    }

    /// The address that is called.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `GET path` at `host`.
    ///
    /// # Errors
    ///
    /// If no answer comes: an answer with any status is none.
    pub async fn get(&self, host: &str, path: &str) -> Result<Answer> {
        self.send(Method::GET, host, path, Bytes::new()).await
    }

    /// Any method with a body.
    ///
    /// # Errors
    ///
    /// If no answer comes.
    pub async fn send(&self, method: Method, host: &str, path: &str, body: Bytes) -> Result<Answer> {
        let begun = Instant::now();
        let call = async {
            let response = self.begin(method, host, path, body).await?;
            let (parts, body) = response.into_parts();
            let body = body.collect().await.context("the response ended early")?.to_bytes();
            anyhow::Ok(Answer { status: parts.status, headers: parts.headers, body, took: begun.elapsed() })
        };
        timeout(LIMIT, call).await.with_context(|| format!("no response from {host}{path} within {LIMIT:?}"))?
    }

    /// A request of one's own, which names the address of this in its URI.
    ///
    /// # Errors
    ///
    /// If it is no request, or no answer comes.
    pub async fn request(&self, request: http::request::Builder) -> Result<Answer> {
        let begun = Instant::now();
        let call = async {
            let request = request.body(Full::new(Bytes::new())).context("invalid request")?;
            let (parts, body) = self.client.request(request).await.context("no response")?.into_parts();
            let body = body.collect().await.context("the response ended early")?.to_bytes();
            anyhow::Ok(Answer { status: parts.status, headers: parts.headers, body, took: begun.elapsed() })
        };
        timeout(LIMIT, call).await.with_context(|| format!("no response within {LIMIT:?}"))?
    }

    /// Any method with a body; the answer's body is still to come.
    ///
    /// # Errors
    ///
    /// If no answer begins.
    pub async fn begin(&self, method: Method, host: &str, path: &str, body: Bytes) -> Result<http::Response<Incoming>> {
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.address))
            .header(HOST, host)
            .body(Full::new(body))
            .context("invalid request")?;
        self.client.request(request).await.with_context(|| format!("no response from {host}{path}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_are_read_from_server_timing() {
        let mut headers = HeaderMap::new();
        headers.append("server-timing", "wake;dur=3.5, schedule;dur=12".parse().unwrap());
        headers.append("server-timing", "cdn;desc=x, probe;desc=\"first\";dur=1".parse().unwrap());
        let answer = Answer { status: StatusCode::OK, headers, body: Bytes::new(), took: Duration::ZERO };
        let expected = [("wake", 3.5), ("schedule", 12.0), ("probe", 1.0)].map(|(n, d)| (n.to_owned(), d));
        assert_eq!(answer.phases(), expected);
    }
}
