//! Client of the API server. It counts write requests.

use std::{
    task::{Context, Poll},
    time::Duration,
};

use futures::future::BoxFuture;
use http::{Method, Request, Response, Uri};
use kube::{
    Client, Config,
    client::{Body, ClientBuilder},
};
use tower::{Layer, Service};

use crate::telemetry::metrics::Metrics;

/// Read timeout of a connection to the API server, whose peer may be gone without closing it. The API server ends a
/// watch after less than five minutes and responds to other requests sooner.
const READ_TIMEOUT: Duration = Duration::from_secs(310);

/// Creates a client from the environment: the pod's service account, or a kubeconfig.
///
/// # Errors
///
/// If neither exists or is valid.
pub async fn client(metrics: &Metrics) -> anyhow::Result<Client> {
    let config = Config::infer().await?;
    Ok(client_for(config, metrics)?)
}

/// Creates a client from a configuration.
///
/// # Errors
///
/// If the certificates or the URL of the configuration are invalid.
pub fn client_for(mut config: Config, metrics: &Metrics) -> kube::Result<Client> {
    config.read_timeout.get_or_insert(READ_TIMEOUT);
    Ok(ClientBuilder::try_from(config)?.with_layer(&CountWrites(metrics.clone())).build())
}

/// Layer that counts write requests by verb, resource and status code.
#[derive(Clone, Debug)]
pub struct CountWrites(pub Metrics);

impl<S> Layer<S> for CountWrites {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Counted { inner, metrics: self.0.clone() }
    }
}

/// Service of [`CountWrites`].
#[derive(Clone, Debug)]
pub struct Counted<S> {
    inner: S,
    metrics: Metrics,
}

impl<S, B> Service<Request<Body>> for Counted<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    B: Send + 'static,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let write = verb(request.method()).map(|verb| (verb, resource(request.uri())));
        let metrics = self.metrics.clone();
        let response = self.inner.call(request);
        Box::pin(async move {
            let response = response.await;
            if let Some((verb, resource)) = write {
                metrics.wrote(verb, resource, response.as_ref().map_or(0, |r| r.status().as_u16()));
            }
            response
        })
    }
}

fn verb(method: &Method) -> Option<&'static str> {
    match *method {
        Method::POST => Some("create"),
        Method::PUT => Some("update"),
        Method::PATCH => Some("patch"),
        Method::DELETE => Some("delete"),
        _ => None,
    }
}

/// Returns the resource in a path of the Kubernetes API, with its subresource: `deployments/scale`.
fn resource(uri: &Uri) -> String {
    let mut parts = uri.path().split('/').filter(|part| !part.is_empty());
    // `/api/v1/…` and `/apis/<group>/<version>/…`.
    let skip = if parts.next() == Some("apis") { 2 } else { 1 };
    let mut rest: Vec<_> = parts.skip(skip).collect();
    if rest.first() == Some(&"namespaces") && rest.len() > 2 {
        rest.drain(..2);
    }
    match rest[..] {
        [resource, _, subresource, ..] => format!("{resource}/{subresource}"),
        [resource, ..] => resource.to_owned(),
        [] => "unknown".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("/apis/apps/v1/namespaces/default/deployments/hello-00001/scale?fieldManager=x", "deployments/scale")]
    #[case("/apis/apps/v1/namespaces/default/controllerrevisions", "controllerrevisions")]
    #[case("/api/v1/namespaces/default/services/hello", "services")]
    #[case("/apis/rouse.dev/v1alpha1/namespaces/default/functions/hello/status", "functions/status")]
    #[case("/api/v1/namespaces/default", "namespaces")]
    fn names_the_resource(#[case] path: &str, #[case] expected: &str) {
        assert_eq!(resource(&path.parse().unwrap()), expected);
    }
}
