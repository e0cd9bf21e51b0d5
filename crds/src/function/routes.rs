//! Paths, methods and origins that a function answers to.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::Duration;

/// A host and a path below which calls lead to the function.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Route {
    /// A host, which Functions of one namespace may share by different paths. Default: the function's default host and
    /// every one of `spec.hosts`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\\\\.[a-z]([-a-z0-9]*[a-z0-9])?$')").message("spec.routes[].host must be a lower-case DNS name with a dot and without port or wildcard, no IP address, such as shop.example.org"))]
    pub host: Option<String>,
    /// Path that calls begin with, by whole segments: `/api` leads `/api` and `/api/x` here, and not `/apix`. The longest
    /// path of a host wins. The function is called with the whole path. Default `/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(validation = Rule::new("self.matches('^(/[A-Za-z0-9._~!$&\\'()*+,;=:@-]+)*/?$') && !self.matches('/[.]{1,2}(/|$)')").message("spec.routes[].path must begin with / and be a plain path such as /api/v1, without `.`, `..`, `//`, `?` and percent signs"))]
    pub path: Option<String>,
    /// Methods that are let in; others are answered with 405. Default: every method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16), inner(length(min = 1, max = 32)))]
    #[x_kube(validation = Rule::new("self.all(m, m.matches('^[A-Z]+$'))").message("spec.routes[].methods are upper-case words such as GET"))]
    pub methods: Option<Vec<String>>,
    /// Calls from web pages of other origins. Without it the function answers for itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cors: Option<Cors>,
}

/// Which web pages of other origins may call (the Fetch standard's CORS protocol). Preflights are answered without waking
/// the function.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!(has(self.allowCredentials) && self.allowCredentials) || !('*' in self.allowOrigins)").message("spec.routes[].cors.allowCredentials needs origins by name: browsers refuse `*` with credentials"),
)]
pub struct Cors {
    /// Origins such as `https://app.example.org`, `https://*.example.org` for every name below it, or `*` for all.
    #[schemars(length(min = 1, max = 32), inner(length(min = 1, max = 253)))]
    #[x_kube(validation = Rule::new("self.all(o, o == '*' || o.matches('^[a-z][a-z0-9+.-]*://([*][.])?[a-z0-9.-]+(:[0-9]+)?$'))").message("spec.routes[].cors.allowOrigins are origins such as https://app.example.org, https://*.example.org, or *"))]
    pub allow_origins: Vec<String>,
    /// Methods. Default: those of the route, or GET, HEAD, POST, PUT, PATCH, DELETE.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16), inner(length(min = 1, max = 32)))]
    #[x_kube(validation = Rule::new("self.all(m, m.matches('^[A-Z]+$'))").message("spec.routes[].cors.allowMethods are upper-case words such as GET"))]
    pub allow_methods: Option<Vec<String>>,
    /// Headers of the call. Default: those that the browser asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 128)))]
    #[x_kube(validation = Rule::new("self.all(h, h.matches('^[A-Za-z0-9!#$%&*+.^_|~-]+$'))").message("spec.routes[].cors.allowHeaders are names of headers"))]
    pub allow_headers: Option<Vec<String>>,
    /// Headers of the answer that a page may read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 128)))]
    #[x_kube(validation = Rule::new("self.all(h, h.matches('^[A-Za-z0-9!#$%&*+.^_|~-]+$'))").message("spec.routes[].cors.exposeHeaders are names of headers"))]
    pub expose_headers: Option<Vec<String>>,
    /// Whether calls with cookies and the like are allowed. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_credentials: Option<bool>,
    /// How long a browser may keep what a preflight said. Default 10m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("!self.matches('^([0-9]{1,9}(ms|s|m|h))+$') || (duration(self) <= duration('24h'))").message("spec.routes[].cors.maxAge must be at most 24h"))]
    pub max_age: Option<Duration>,
}

impl Route {
    /// Path that calls begin with: `/`, or segments without a slash at the end.
    #[must_use]
    pub fn path(&self) -> &str {
        match self.path.as_deref().unwrap_or("/").trim_end_matches('/') {
            "" => "/",
            path => path,
        }
    }
}

impl Cors {
    /// How long a browser may keep what a preflight said.
    #[must_use]
    pub fn max_age(&self) -> std::time::Duration {
        self.max_age.unwrap_or(Duration::from_secs(600)).get()
    }
}
