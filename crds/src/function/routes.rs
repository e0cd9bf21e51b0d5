//! Routes of a Function: paths, methods and CORS.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::Duration;

/// A host and a path prefix that are routed to the Function.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Route {
    /// Host of the route. Functions of one namespace may share a host by different paths. Default: the default host and every
    /// host in `spec.hosts`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\\\\.[a-z]([-a-z0-9]*[a-z0-9])?$')").message("spec.routes[].host must be a lower-case DNS name with a dot, such as shop.example.org: no port, no wildcard, no IP address"))]
    pub host: Option<String>,
    /// Path prefix, matched by whole segments: `/api` matches `/api` and `/api/x`, not `/apix`. The longest prefix of a host
    /// wins. The Function receives the full path. Default `/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(validation = Rule::new("self.matches('^(/[A-Za-z0-9._~!$&\\'()*+,;=:@-]+)*/?$') && !self.matches('/[.]{1,2}(/|$)')").message("spec.routes[].path must start with / and be a plain path such as /api/v1, without `.`, `..`, `//`, `?` and percent signs"))]
    pub path: Option<String>,
    /// Allowed HTTP methods; other methods receive status 405. Default: every method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16), inner(length(min = 1, max = 32)))]
    #[x_kube(validation = Rule::new("self.all(m, m.matches('^[A-Z]+$'))").message("spec.routes[].methods must be upper-case names such as GET"))]
    pub methods: Option<Vec<String>>,
    /// CORS policy that Rouse applies. Default: none; the Function handles CORS itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cors: Option<Cors>,
}

/// CORS policy of a route. Rouse responds to preflight requests itself, without a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!(has(self.allowCredentials) && self.allowCredentials) || !('*' in self.allowOrigins)").message("spec.routes[].cors.allowCredentials requires explicit allowOrigins, because browsers reject `*` with credentials; list the origins"),
)]
pub struct Cors {
    /// Allowed origins: `https://app.example.org`, `https://*.example.org` for every subdomain, or `*` for all. Required.
    #[schemars(length(min = 1, max = 32), inner(length(min = 1, max = 253)))]
    #[x_kube(validation = Rule::new("self.all(o, o == '*' || o.matches('^[a-z][a-z0-9+.-]*://([*][.])?[a-z0-9.-]+(:[0-9]+)?$'))").message("spec.routes[].cors.allowOrigins must be origins such as https://app.example.org, https://*.example.org, or *"))]
    pub allow_origins: Vec<String>,
    /// Allowed methods. Default: the methods of the route, or GET, HEAD, POST, PUT, PATCH and DELETE.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16), inner(length(min = 1, max = 32)))]
    #[x_kube(validation = Rule::new("self.all(m, m.matches('^[A-Z]+$'))").message("spec.routes[].cors.allowMethods must be upper-case names such as GET"))]
    pub allow_methods: Option<Vec<String>>,
    /// Allowed request headers. Default: the headers that the preflight request names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 128)))]
    #[x_kube(validation = Rule::new("self.all(h, h.matches('^[A-Za-z0-9!#$%&*+.^_|~-]+$'))").message("spec.routes[].cors.allowHeaders must be header names such as X-Request-Id"))]
    pub allow_headers: Option<Vec<String>>,
    /// Response headers that a script may read. Default: the headers that browsers always expose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 128)))]
    #[x_kube(validation = Rule::new("self.all(h, h.matches('^[A-Za-z0-9!#$%&*+.^_|~-]+$'))").message("spec.routes[].cors.exposeHeaders must be header names such as X-Request-Id"))]
    pub expose_headers: Option<Vec<String>>,
    /// Whether requests with credentials, such as cookies, are allowed. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_credentials: Option<bool>,
    /// Time that a browser may cache the preflight response. Default 10m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("!self.matches('^([0-9]{1,9}(ms|s|m|h))+$') || (duration(self) <= duration('24h'))").message("spec.routes[].cors.maxAge must be at most 24h"))]
    pub max_age: Option<Duration>,
}

impl Route {
    /// Path prefix: `/`, or segments without a trailing slash.
    #[must_use]
    pub fn path(&self) -> &str {
        match self.path.as_deref().unwrap_or("/").trim_end_matches('/') {
            "" => "/",
            path => path,
        }
    }
}

impl Cors {
    /// Time that a browser may cache the preflight response.
    #[must_use]
    pub fn max_age(&self) -> std::time::Duration {
        self.max_age.unwrap_or(Duration::from_secs(600)).get()
    }
}
