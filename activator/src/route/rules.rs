//! Rules of a route, applied before anything is woken: allowed methods and CORS.

use std::sync::Arc;

use http::{HeaderValue, request::Parts};
use rouse_crds::function;

use super::cors::{Cors, CorsGrant};

/// Rules of a route.
#[derive(Debug, PartialEq, Eq)]
pub struct RouteRules {
    methods: Option<Methods>,
    cors: Option<Arc<Cors>>,
}

/// Allowed methods.
#[derive(Debug, PartialEq, Eq)]
struct Methods {
    each: Box<[Box<str>]>,
    /// As the value of `Allow`.
    all: HeaderValue,
}

/// Decision on a request.
#[derive(Debug)]
pub enum RuleDecision {
    /// Forward it.
    Forward,
    /// Respond to a CORS preflight.
    Preflight(Box<CorsGrant>),
    /// Reject it: only these methods are allowed.
    MethodNotAllowed(HeaderValue),
}

impl RouteRules {
    /// Reads a route of the spec; `None` if it has no rules.
    #[must_use]
    pub fn new(route: &function::Route) -> Option<Self> {
        let methods = route.methods.as_ref().and_then(|methods| {
            // The CRD allows only what is valid in a header.
            let all = HeaderValue::try_from(methods.join(", ")).ok()?;
            Some(Methods { each: methods.iter().map(|method| method.as_str().into()).collect(), all })
        });
        let cors = route.cors.as_ref().map(|cors| Arc::new(Cors::new(cors, route.methods.as_deref())));
        (methods.is_some() || cors.is_some()).then_some(Self { methods, cors })
    }

    /// Decides on a request, and returns the CORS headers of its response, whoever sends that.
    #[must_use]
    pub fn evaluate(&self, parts: &Parts) -> (RuleDecision, Option<Box<CorsGrant>>) {
        let grant = self.cors.as_ref().map(|cors| Box::new(cors.grant(&parts.headers)));
        match (grant, &self.methods) {
            // Before the methods: a preflight is not about its own method, and a route need not name OPTIONS.
            (Some(grant), _) if Cors::is_preflight(parts) => (RuleDecision::Preflight(grant), None),
            (grant, Some(methods)) if !methods.each.iter().any(|method| **method == *parts.method.as_str()) => {
                (RuleDecision::MethodNotAllowed(methods.all.clone()), grant)
            }
            (grant, _) => (RuleDecision::Forward, grant),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;
    use rstest::rstest;
    use serde_json::{Value, json};

    fn judged(route: Value, method: &str, preflight: bool) -> (RuleDecision, bool) {
        let rules = RouteRules::new(&serde_json::from_value(route).unwrap()).unwrap();
        let mut request = Request::builder().method(method).header("origin", "https://a.example");
        if preflight {
            request = request.header("access-control-request-method", "DELETE");
        }
        let (decision, grant) = rules.evaluate(&request.body(()).unwrap().into_parts().0);
        (decision, grant.is_some())
    }

    #[test]
    fn a_route_without_settings_has_no_rules() {
        assert_eq!(RouteRules::new(&function::Route { path: Some("/x".into()), ..function::Route::default() }), None);
    }

    #[rstest]
    #[case("GET", true)]
    #[case("POST", true)]
    #[case("HEAD", false)]
    #[case("get", false)]
    #[case("OPTIONS", false)]
    fn only_listed_methods_are_allowed(#[case] method: &str, #[case] goes: bool) {
        match judged(json!({"methods": ["GET", "POST"]}), method, false) {
            (RuleDecision::Forward, false) => assert!(goes),
            (RuleDecision::MethodNotAllowed(allow), false) => assert!(!goes && allow == "GET, POST"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_preflight_is_handled_on_routes_with_cors_only() {
        let both = json!({"methods": ["GET"], "cors": {"allowOrigins": ["https://a.example"]}});
        assert!(matches!(judged(both.clone(), "OPTIONS", true), (RuleDecision::Preflight(_), false)));
        assert!(
            matches!(judged(both, "OPTIONS", false), (RuleDecision::MethodNotAllowed(_), true)),
            "with the CORS headers"
        );
        assert!(matches!(
            judged(json!({"methods": ["GET"]}), "OPTIONS", true),
            (RuleDecision::MethodNotAllowed(_), false)
        ));
    }
}
