//! CORS (Fetch standard): which origins may read responses, and the headers that say so.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method, header, request::Parts};
use rouse_crds::function;

/// CORS settings of a route as header values.
#[derive(Debug, PartialEq, Eq)]
pub struct Cors {
    origins: Box<[Pattern]>,
    methods: HeaderValue,
    /// `None` allows the headers that the browser asks for.
    headers: Option<HeaderValue>,
    expose: Option<HeaderValue>,
    credentials: bool,
    /// In seconds.
    max_age: HeaderValue,
}

/// An allowed origin.
#[derive(Debug, PartialEq, Eq)]
enum Pattern {
    Any,
    Exact(Box<str>),
    /// Any subdomain: the part before the name, and the part from its dot on.
    Below(Box<str>, Box<str>),
}

/// The CORS headers of one response.
#[derive(Clone, Debug)]
pub struct CorsGrant {
    cors: Arc<Cors>,
    /// The origin that may read it.
    origin: Option<HeaderValue>,
}

/// Methods if neither the route nor its `cors` names any.
const USUAL_METHODS: [&str; 6] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"];

/// Headers that replace those of the function.
const REPLACED: [HeaderName; 3] = [
    header::ACCESS_CONTROL_ALLOW_ORIGIN,
    header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
    header::ACCESS_CONTROL_EXPOSE_HEADERS,
];

impl Cors {
    /// Reads the spec, on a route that allows these methods.
    #[must_use]
    pub fn new(spec: &function::Cors, methods: Option<&[String]>) -> Self {
        let named = spec.allow_methods.as_deref().or(methods);
        let methods = named.map_or_else(|| USUAL_METHODS.join(", "), |methods| methods.join(", "));
        let names = |names: &Option<Vec<String>>| names.as_ref().and_then(|names| value(&names.join(", ")));
        Self {
            origins: spec.allow_origins.iter().map(|origin| Pattern::new(origin)).collect(),
            methods: value(&methods).unwrap_or(HeaderValue::from_static("")),
            headers: names(&spec.allow_headers),
            expose: names(&spec.expose_headers).filter(|names| !names.is_empty()),
            credentials: spec.allow_credentials.unwrap_or(false),
            max_age: spec.max_age().as_secs().into(),
        }
    }

    /// Whether a request is a preflight.
    #[must_use]
    pub fn is_preflight(parts: &Parts) -> bool {
        parts.method == Method::OPTIONS
            && parts.headers.contains_key(header::ORIGIN)
            && parts.headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
    }

    /// Returns the CORS headers for the response to this request.
    #[must_use]
    pub fn grant(self: &Arc<Self>, headers: &HeaderMap) -> CorsGrant {
        let origin = if self.is_open() {
            Some(HeaderValue::from_static("*"))
        } else {
            let mut origins = headers.get_all(header::ORIGIN).iter();
            let only = origins.next().filter(|_| origins.next().is_none());
            only.filter(|origin| origin.to_str().is_ok_and(|origin| self.allows(origin))).cloned()
        };
        CorsGrant { cors: self.clone(), origin }
    }

    /// Whether the response is the same for all origins.
    fn is_open(&self) -> bool {
        !self.credentials && self.origins.contains(&Pattern::Any)
    }

    fn allows(&self, origin: &str) -> bool {
        self.origins.iter().any(|pattern| pattern.matches(origin))
    }
}

impl CorsGrant {
    /// Writes the headers into a response, replacing those of the function.
    pub fn write(&self, headers: &mut HeaderMap) {
        for name in &REPLACED {
            headers.remove(name);
        }
        self.write_origin(headers);
        if let (Some(_), Some(expose)) = (&self.origin, &self.cors.expose) {
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, expose.clone());
        }
        if !self.cors.is_open() {
            vary(headers, "origin", HeaderValue::from_static("Origin"));
        }
    }

    /// Returns the headers of the response to a preflight. For a disallowed origin there are none, so the browser
    /// denies access.
    #[must_use]
    pub fn preflight(&self, asked: &HeaderMap) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let depends = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers";
        headers.insert(header::VARY, HeaderValue::from_static(depends));
        if self.origin.is_none() {
            return headers;
        }
        self.write_origin(&mut headers);
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, self.cors.methods.clone());
        let wanted = || asked.get_all(header::ACCESS_CONTROL_REQUEST_HEADERS).iter().filter(|v| !v.is_empty());
        match &self.cors.headers {
            Some(allowed) => drop(headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, allowed.clone())),
            None => headers.extend(wanted().map(|value| (header::ACCESS_CONTROL_ALLOW_HEADERS, value.clone()))),
        }
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, self.cors.max_age.clone());
        headers
    }

    fn write_origin(&self, headers: &mut HeaderMap) {
        let Some(origin) = &self.origin else { return };
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        if self.cors.credentials {
            headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
    }
}

impl Pattern {
    fn new(text: &str) -> Self {
        if text == "*" {
            return Self::Any;
        }
        // Browsers omit the default port of the scheme.
        let text = match text.split_once("://").map_or("", |(scheme, _)| scheme) {
            "https" => text.strip_suffix(":443").unwrap_or(text),
            "http" => text.strip_suffix(":80").unwrap_or(text),
            _ => text,
        };
        match text.split_once("://*.") {
            Some((scheme, name)) => Self::Below(format!("{scheme}://").into(), format!(".{name}").into()),
            None => Self::Exact(text.into()),
        }
    }

    /// Compares byte by byte: browsers send an origin in one canonical form.
    fn matches(&self, origin: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(exact) => **exact == *origin,
            Self::Below(before, after) => {
                let name = origin.strip_prefix(&**before).and_then(|rest| rest.strip_suffix(&**after));
                let in_a_name = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.');
                name.is_some_and(|name| name.bytes().all(in_a_name) && name.split('.').all(|label| !label.is_empty()))
            }
        }
    }
}

/// Adds a header name to `Vary`, unless it is there.
fn vary(headers: &mut HeaderMap, name: &str, value: HeaderValue) {
    let said = headers.get_all(header::VARY).iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(','));
    if !said.map(str::trim).any(|said| said == "*" || said.eq_ignore_ascii_case(name)) {
        headers.append(header::VARY, value);
    }
}

/// The CRD allows only what is valid in a header.
fn value(text: &str) -> Option<HeaderValue> {
    HeaderValue::try_from(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;
    use rstest::rstest;
    use serde_json::{Value, json};

    fn cors(spec: Value) -> Arc<Cors> {
        Arc::new(Cors::new(&serde_json::from_value(spec).unwrap(), None))
    }

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    fn shown(headers: &HeaderMap) -> Vec<(String, String)> {
        let mut all: Vec<_> =
            headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
        all.sort();
        all
    }

    #[rstest]
    #[case("https://app.example.org", "https://app.example.org", true)]
    #[case("https://app.example.org", "http://app.example.org", false)]
    #[case("https://app.example.org", "https://app.example.org:8443", false)]
    #[case("https://app.example.org", "https://app.example.org.evil.example", false)]
    #[case("https://app.example.org:443", "https://app.example.org", true)]
    #[case("http://app.example.org:80", "http://app.example.org", true)]
    #[case("http://app.example.org:443", "http://app.example.org:443", true)]
    #[case("https://*.example.org", "https://a.example.org", true)]
    #[case("https://*.example.org", "https://a.b.example.org", true)]
    #[case("https://*.example.org", "https://example.org", false)]
    #[case("https://*.example.org", "https://.example.org", false)]
    #[case("https://*.example.org", "https://evil-example.org", false)]
    #[case("https://*.example.org", "https://evil.example/.example.org", false)]
    #[case("https://*.example.org", "https://evil.example:1.example.org", false)]
    #[case("https://*.example.org", "https://user@a.example.org", false)]
    #[case("https://*.example.org", "https://a.example.org:8443", false)]
    #[case("https://*.example.org:8443", "https://a.example.org:8443", true)]
    #[case("https://app.example.org", "null", false)]
    fn allowed_origins(#[case] pattern: &str, #[case] origin: &'static str, #[case] may: bool) {
        let mut response = HeaderMap::new();
        cors(json!({"allowOrigins": [pattern]})).grant(&headers(&[("origin", origin)])).write(&mut response);
        assert_eq!(response.get("access-control-allow-origin").map(|v| v.to_str().unwrap()), may.then_some(origin));
        assert_eq!(response["vary"], "Origin", "for any origin");
    }

    #[test]
    fn cors_headers_of_the_function_are_replaced() {
        let own = [
            ("access-control-allow-origin", "*"),
            ("access-control-allow-credentials", "true"),
            ("access-control-expose-headers", "x-secret"),
            ("vary", "Accept-Encoding"),
            ("x-total", "5"),
        ];
        let cors = cors(json!({"allowOrigins": ["https://a.example"], "exposeHeaders": ["x-total", "etag"]}));
        let mut response = headers(&own);
        cors.grant(&headers(&[("origin", "https://a.example")])).write(&mut response);
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            shown(&response),
            [
                pair("access-control-allow-origin", "https://a.example"),
                pair("access-control-expose-headers", "x-total, etag"),
                pair("vary", "Accept-Encoding"),
                pair("vary", "Origin"),
                pair("x-total", "5"),
            ]
        );
        for origin in [&[("origin", "https://b.example")][..], &[]] {
            let mut response = headers(&own);
            cors.grant(&headers(origin)).write(&mut response);
            assert_eq!(response.len(), 3, "{response:?}");
        }
        let mut twice = HeaderMap::new();
        twice.append("origin", HeaderValue::from_static("https://a.example"));
        twice.append("origin", HeaderValue::from_static("https://b.example"));
        let mut response = HeaderMap::new();
        cors.grant(&twice).write(&mut response);
        assert!(!response.contains_key("access-control-allow-origin"));
        let mut varied = headers(&[("vary", "accept, ORIGIN")]);
        cors.grant(&headers(&[])).write(&mut varied);
        assert_eq!(varied.get_all("vary").iter().count(), 1);
    }

    #[test]
    fn any_origin_gets_the_same_response() {
        let mut response = HeaderMap::new();
        cors(json!({"allowOrigins": ["*"]})).grant(&HeaderMap::new()).write(&mut response);
        assert_eq!((response.len(), &response["access-control-allow-origin"]), (1, &HeaderValue::from_static("*")));
    }

    #[test]
    fn a_preflight_response_lists_methods_and_headers() {
        let asked = headers(&[
            ("origin", "https://a.example"),
            ("access-control-request-method", "PUT"),
            ("access-control-request-headers", "x-one,x-two"),
        ]);
        let response = cors(json!({"allowOrigins": ["https://a.example"], "allowCredentials": true, "maxAge": "1h"}))
            .grant(&asked)
            .preflight(&asked);
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            shown(&response),
            [
                pair("access-control-allow-credentials", "true"),
                pair("access-control-allow-headers", "x-one,x-two"),
                pair("access-control-allow-methods", "GET, HEAD, POST, PUT, PATCH, DELETE"),
                pair("access-control-allow-origin", "https://a.example"),
                pair("access-control-max-age", "3600"),
                pair("vary", "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"),
            ]
        );
        let named = json!({"allowOrigins": ["*"], "allowHeaders": ["x-only"], "allowMethods": ["PUT"]});
        let response = cors(named).grant(&asked).preflight(&asked);
        assert_eq!(
            (&response["access-control-allow-headers"], &response["access-control-allow-methods"]),
            (&HeaderValue::from_static("x-only"), &HeaderValue::from_static("PUT"))
        );
        assert_eq!(response["access-control-max-age"], "600");
        let response = cors(json!({"allowOrigins": ["https://b.example"]})).grant(&asked).preflight(&asked);
        assert_eq!(response.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["vary"]);
    }

    #[rstest]
    #[case("OPTIONS", &["origin", "access-control-request-method"], true)]
    #[case("OPTIONS", &["origin"], false)]
    #[case("OPTIONS", &["access-control-request-method"], false)]
    #[case("GET", &["origin", "access-control-request-method"], false)]
    fn preflights_are_recognised(#[case] method: &str, #[case] names: &[&str], #[case] is: bool) {
        let request = names.iter().fold(Request::builder().method(method), |request, name| request.header(*name, "x"));
        assert_eq!(Cors::is_preflight(&request.body(()).unwrap().into_parts().0), is);
    }
}
