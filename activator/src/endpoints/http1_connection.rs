//! An HTTP/1.1 connection to a pod.

use std::{sync::Arc, time::Duration};

use hyper::client::conn::http1;

use super::pod_stream::PodStream;
use crate::body::RequestBody;

/// An HTTP/1.1 connection.
#[derive(Debug)]
pub(super) struct Http1Connection {
    pub(super) sender: http1::SendRequest<RequestBody>,
    pub(super) stream: Arc<PodStream>,
    /// How long the connection may be idle before it is used again.
    pub(super) idle_limit: Duration,
}
