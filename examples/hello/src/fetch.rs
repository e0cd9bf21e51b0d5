//! Requests to another function, for chains of functions.

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::{Response, Uri};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};

use crate::bodies::{ResponseBody, whole};

/// Longest response body that is forwarded, in bytes.
const MAX_BODY: usize = 1 << 20;

/// Sends `GET url` and returns its status and body. An error is a message for the client.
pub(crate) async fn fetch(url: &str) -> Result<Response<ResponseBody>, String> {
    let uri: Uri = url.parse().map_err(|e| format!("url={url}: {e}"))?;
    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    let response = client.get(uri).await.map_err(|e| format!("{url}: {}", chain(&e)))?;
    let status = response.status();
    let body = http_body_util::Limited::new(response.into_body(), MAX_BODY);
    let body = body.collect().await.map_err(|e| format!("{url}: {e}"))?.to_bytes();
    let mut forwarded = Response::new(whole(body));
    *forwarded.status_mut() = status;
    Ok(forwarded)
}

/// Formats an error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |e| e.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
