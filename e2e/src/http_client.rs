//! HTTP client outside of the cluster, which sends requests through the ingress by host name.

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

/// Timeout of a request.
const LIMIT: Duration = Duration::from_secs(150);

/// HTTP client with a connection pool to one address.
#[derive(Clone, Debug)]
pub struct HttpClient {
    client: Client<HttpConnector, Full<Bytes>>,
    address: SocketAddr,
}

/// A response that was received completely.
#[derive(Clone, Debug)]
pub struct Response {
    /// Status.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
    /// Time from the request to the end of the response body.
    pub took: Duration,
}

impl Response {
    /// Returns the body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Returns the body as JSON, or `Null` if it is not JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// Returns the value of a header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|v| v.to_str().ok())
    }

    /// Returns the phases of a cold start in milliseconds, by name, from `Server-Timing`. Proxies may add entries.
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

impl HttpClient {
    /// Creates a client of the server at `address`.
    pub fn new(address: SocketAddr) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(20))
            .build(connector);
        Self { client, address }
    }

    /// Returns the address of the server.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends `GET path` to `host`.
    ///
    /// # Errors
    ///
    /// If there is no response. A response with any status is not an error.
    pub async fn get(&self, host: &str, path: &str) -> Result<Response> {
        self.send(Method::GET, host, path, Bytes::new()).await
    }

    /// Sends a request with a body.
    ///
    /// # Errors
    ///
    /// If there is no response.
    pub async fn send(&self, method: Method, host: &str, path: &str, body: Bytes) -> Result<Response> {
        let started = Instant::now();
        let call = async {
            let response = self.send_streaming(method, host, path, body).await?;
            let (parts, body) = response.into_parts();
            let body = body.collect().await.context("the response ended early")?.to_bytes();
            anyhow::Ok(Response { status: parts.status, headers: parts.headers, body, took: started.elapsed() })
        };
        timeout(LIMIT, call).await.with_context(|| format!("no response from {host}{path} within {LIMIT:?}"))?
    }

    /// Sends any request. Its URI must contain the address of the server.
    ///
    /// # Errors
    ///
    /// If the request is invalid, or there is no response.
    pub async fn request(&self, request: http::request::Builder) -> Result<Response> {
        let started = Instant::now();
        let call = async {
            let request = request.body(Full::new(Bytes::new())).context("invalid request")?;
            let (parts, body) = self.client.request(request).await.context("no response")?.into_parts();
            let body = body.collect().await.context("the response ended early")?.to_bytes();
            anyhow::Ok(Response { status: parts.status, headers: parts.headers, body, took: started.elapsed() })
        };
        timeout(LIMIT, call).await.with_context(|| format!("no response within {LIMIT:?}"))?
    }

    /// Sends a request with a body and returns when the response headers arrive.
    ///
    /// # Errors
    ///
    /// If there is no response.
    pub async fn send_streaming(
        &self,
        method: Method,
        host: &str,
        path: &str,
        body: Bytes,
    ) -> Result<http::Response<Incoming>> {
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
        let response = Response { status: StatusCode::OK, headers, body: Bytes::new(), took: Duration::ZERO };
        let expected = [("wake", 3.5), ("schedule", 12.0), ("probe", 1.0)].map(|(n, d)| (n.to_owned(), d));
        assert_eq!(response.phases(), expected);
    }
}
