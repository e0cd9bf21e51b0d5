//! Calls another function, as functions in a chain do.

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::{Response, Uri};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};

use crate::bodies::{Answer, whole};

/// Most of another's answer that is handed on, in bytes.
const MOST: usize = 1 << 20;

/// `GET url`, and its status and body as an answer; an error is a sentence.
pub(crate) async fn fetch(url: &str) -> Result<Response<Answer>, String> {
    let uri: Uri = url.parse().map_err(|e| format!("url={url}: {e}"))?;
    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    let response = client.get(uri).await.map_err(|e| format!("{url}: {}", chain(&e)))?;
    let status = response.status();
    let body = http_body_util::Limited::new(response.into_body(), MOST);
    let body = body.collect().await.map_err(|e| format!("{url}: {e}"))?.to_bytes();
    let mut answer = Response::new(whole(body));
    *answer.status_mut() = status;
    Ok(answer)
}

/// The error with what caused it: a client's own says little.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |e| e.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
