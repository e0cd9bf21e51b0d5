//! What a route itself says of a request before anything is woken for it: methods, and calls from other origins.

use std::sync::Arc;

use http::{HeaderValue, request::Parts};
use rouse_crds::function;

use super::cors::{Cors, Grant};

/// What a route says beside where it leads.
#[derive(Debug, PartialEq, Eq)]
pub struct Rules {
    methods: Option<Methods>,
    cors: Option<Arc<Cors>>,
}

/// Methods that are let in.
#[derive(Debug, PartialEq, Eq)]
struct Methods {
    each: Box<[Box<str>]>,
    /// As `Allow` says it.
    all: HeaderValue,
}

/// What becomes of a request.
#[derive(Debug)]
pub enum Verdict {
    /// It goes on.
    Go,
    /// It only asks what may be sent, and is told.
    Preflight(Box<Grant>),
    /// Its method is none of these.
    NotAllowed(HeaderValue),
}

impl Rules {
    /// What a route of a spec says; `None` if it says nothing.
    #[must_use]
    pub fn new(route: &function::Route) -> Option<Self> {
        let methods = route.methods.as_ref().and_then(|methods| {
            // The CRD lets in what a header can say.
            let all = HeaderValue::try_from(methods.join(", ")).ok()?;
            Some(Methods { each: methods.iter().map(|method| method.as_str().into()).collect(), all })
        });
        let cors = route.cors.as_ref().map(|cors| Arc::new(Cors::new(cors, route.methods.as_deref())));
        (methods.is_some() || cors.is_some()).then_some(Self { methods, cors })
    }

    /// What becomes of a request, and what is to be put into its answer, whoever gives it.
    #[must_use]
    pub fn judge(&self, parts: &Parts) -> (Verdict, Option<Box<Grant>>) {
        let grant = self.cors.as_ref().map(|cors| Box::new(cors.grant(&parts.headers)));
        match (grant, &self.methods) {
            // Before the methods: it does not ask for its own, and a route need not name it.
            (Some(grant), _) if Cors::is_preflight(parts) => (Verdict::Preflight(grant), None),
            (grant, Some(methods)) if !methods.each.iter().any(|method| **method == *parts.method.as_str()) => {
                (Verdict::NotAllowed(methods.all.clone()), grant)
            }
            (grant, _) => (Verdict::Go, grant),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;
    use rstest::rstest;
    use serde_json::{Value, json};

    fn judged(route: Value, method: &str, preflight: bool) -> (Verdict, bool) {
        let rules = Rules::new(&serde_json::from_value(route).unwrap()).unwrap();
        let mut request = Request::builder().method(method).header("origin", "https://a.example");
        if preflight {
            request = request.header("access-control-request-method", "DELETE");
        }
        let (verdict, grant) = rules.judge(&request.body(()).unwrap().into_parts().0);
        (verdict, grant.is_some())
    }

    #[test]
    fn a_route_that_says_nothing_has_no_rules() {
        assert_eq!(Rules::new(&function::Route { path: Some("/x".into()), ..function::Route::default() }), None);
    }

    #[rstest]
    #[case("GET", true)]
    #[case("POST", true)]
    #[case("HEAD", false)]
    #[case("get", false)]
    #[case("OPTIONS", false)]
    fn only_methods_that_are_named_are_let_in(#[case] method: &str, #[case] goes: bool) {
        match judged(json!({"methods": ["GET", "POST"]}), method, false) {
            (Verdict::Go, false) => assert!(goes),
            (Verdict::NotAllowed(allow), false) => assert!(!goes && allow == "GET, POST"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_preflight_is_answered_where_other_origins_may_call_and_is_a_request_elsewhere() {
        let both = json!({"methods": ["GET"], "cors": {"allowOrigins": ["https://a.example"]}});
        assert!(matches!(judged(both.clone(), "OPTIONS", true), (Verdict::Preflight(_), false)));
        assert!(matches!(judged(both, "OPTIONS", false), (Verdict::NotAllowed(_), true)), "with what lets it be read");
        assert!(matches!(judged(json!({"methods": ["GET"]}), "OPTIONS", true), (Verdict::NotAllowed(_), false)));
    }
}
