//! Specs of the shared HTTPRoutes, and their acceptance by the Gateway. Pure.
//!
//! There are three families of routes: for hosts with HTTP/1.1, for hosts with h2c, and for redirects from http to
//! https.

use std::collections::BTreeSet;

use super::shards::Shard;
use crate::cluster::httproute::{
    BackendRef, Filter, HTTPRoute, HttpRouteSpec, ParentRef, PathMatch, Redirect, RouteMatch, RouteRule, Timeouts,
};

/// Gateway that the routes attach to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gateway {
    /// Name.
    pub name: String,
    /// Namespace.
    pub namespace: String,
    /// Names of the listeners that serve Functions; all listeners if empty.
    pub sections: Vec<String>,
    /// Name of the listener that redirects clients to https.
    pub redirect_section: Option<String>,
}

/// Family of routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// To the activators with HTTP/1.1.
    Http1,
    /// To the activators with h2c.
    H2c,
    /// Redirect to https.
    Redirect,
}

/// All families.
pub const FAMILIES: [Family; 3] = [Family::Http1, Family::H2c, Family::Redirect];

/// Public port of the activators' Services. A Gateway references ports by number.
pub const PUBLIC_PORT: u16 = 8080;

/// Maximum number of matches in one rule, within the limit of every version of the Gateway API.
const MATCHES: usize = 8;

impl Family {
    /// Returns the name of route `number` of the family.
    pub fn route(self, number: usize) -> String {
        format!("{}{number}", self.stem())
    }

    fn stem(self) -> &'static str {
        match self {
            Self::Http1 => "rouse-",
            Self::H2c => "rouse-h2c-",
            Self::Redirect => "rouse-redirect-",
        }
    }

    /// Returns the family and number of a route with this name; `None` if it is not a route of Rouse.
    pub fn of(name: &str) -> Option<(Self, usize)> {
        FAMILIES.into_iter().find_map(|family| {
            let number: usize = name.strip_prefix(family.stem())?.parse().ok()?;
            // `rouse-01` and `rouse-+1` parse as well, but are not names of Rouse.
            (family.route(number) == name).then_some((family, number))
        })
    }
}

impl Gateway {
    /// Builds the spec of a route. `service` is its backend, unless it redirects.
    pub fn spec(&self, family: Family, shard: &Shard, service: &str) -> HttpRouteSpec {
        let sections: Vec<Option<String>> = match (family, &self.redirect_section) {
            (Family::Redirect, section) => vec![section.clone()],
            (_, _) if self.sections.is_empty() => vec![None],
            _ => self.sections.iter().cloned().map(Some).collect(),
        };
        let parent =
            |section_name| ParentRef { name: self.name.clone(), namespace: Some(self.namespace.clone()), section_name };
        let rule = |paths: &[String]| {
            let path = |path: &String| PathMatch { type_: "PathPrefix".to_owned(), value: path.clone() };
            let matches = paths.iter().map(|p| RouteMatch { path: path(p) }).collect();
            if family == Family::Redirect {
                let redirect = Redirect { scheme: "https".to_owned(), status_code: 301 };
                let filter = Filter { type_: "RequestRedirect".to_owned(), request_redirect: Some(redirect) };
                return RouteRule { matches, filters: vec![filter], ..RouteRule::default() };
            }
            RouteRule {
                matches,
                backend_refs: vec![BackendRef { name: service.to_owned(), port: PUBLIC_PORT }],
                // No timeout here: activators enforce the timeouts of the Function, and streams may be unbounded.
                timeouts: Some(Timeouts { request: "0s".to_owned() }),
                ..RouteRule::default()
            }
        };
        HttpRouteSpec {
            parent_refs: sections.into_iter().map(parent).collect(),
            hostnames: shard.hosts.iter().cloned().collect(),
            rules: shard.paths.chunks(MATCHES).map(rule).collect(),
        }
    }

    /// Returns whether the Gateway's controller accepted a route.
    pub fn acceptance(&self, route: &HTTPRoute) -> RouteAcceptance {
        let own = route.metadata.namespace.as_deref();
        let (mut reported, mut accepted, mut other_listener) = (false, false, None);
        for parent in route.status.iter().flat_map(|status| &status.parents) {
            let ParentRef { name, namespace, .. } = &parent.parent_ref;
            if *name != self.name || namespace.as_deref().or(own) != Some(&self.namespace) {
                continue;
            }
            reported |= parent.conditions.iter().any(|c| c.type_ == "Accepted");
            accepted |= parent.conditions.iter().any(|c| c.type_ == "Accepted" && c.status == "True");
            let bad = |c: &&k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition| {
                matches!(c.type_.as_str(), "Accepted" | "ResolvedRefs") && c.status == "False"
            };
            if let Some(bad) = parent.conditions.iter().find(bad) {
                let rejected = RouteAcceptance::Rejected(format!(
                    "Gateway {self} did not accept HTTPRoute {}: {}=False, {}: {}",
                    route.metadata.name.as_deref().unwrap_or_default(),
                    bad.type_,
                    bad.reason,
                    bad.message
                ));
                // A listener for a single host does not match the routes of other hosts. Another listener may serve
                // those.
                if bad.reason != "NoMatchingListenerHostname" {
                    return rejected;
                }
                other_listener.get_or_insert(rejected);
            }
        }
        match other_listener {
            Some(rejected) if !accepted => rejected,
            _ if reported => RouteAcceptance::Accepted,
            _ => RouteAcceptance::Pending,
        }
    }
}

impl std::fmt::Display for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Acceptance of a route by a Gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteAcceptance {
    /// The controller accepted the route.
    Accepted,
    /// The controller rejected the route or a part of it.
    Rejected(String),
    /// The controller has not reported a status.
    Pending,
}

/// Returns the hosts and paths of a live route.
pub fn shard_of(route: &HTTPRoute) -> Shard {
    let matches = route.spec.rules.iter().flat_map(|rule| &rule.matches);
    let paths: BTreeSet<_> = matches.map(|m| m.path.value.clone()).collect();
    Shard { hosts: route.spec.hostnames.iter().cloned().collect(), paths: paths.into_iter().collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn gateway(sections: &[&str], redirect: Option<&str>) -> Gateway {
        Gateway {
            name: "edge".into(),
            namespace: "infra".into(),
            sections: sections.iter().map(|s| (*s).to_owned()).collect(),
            redirect_section: redirect.map(Into::into),
        }
    }

    fn shard() -> Shard {
        Shard { hosts: ["a.example.org", "*.app.example.com"].map(String::from).into(), paths: vec!["/".into()] }
    }

    fn route(parents: &Value) -> HTTPRoute {
        let spec = gateway(&[], None).spec(Family::Http1, &shard(), "rouse-activator");
        let mut route = HTTPRoute::new("rouse-0", spec);
        route.metadata.namespace = Some("rouse-system".into());
        route.status = Some(serde_json::from_value(json!({"parents": parents})).unwrap());
        route
    }

    #[test]
    fn spec_of_a_route() {
        let spec = gateway(&[], None).spec(Family::H2c, &shard(), "rouse-activator-h2c");
        assert_eq!(
            serde_json::to_value(&spec).unwrap(),
            json!({
                "parentRefs": [{"name": "edge", "namespace": "infra"}],
                "hostnames": ["*.app.example.com", "a.example.org"],
                "rules": [{
                    "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
                    "backendRefs": [{"name": "rouse-activator-h2c", "port": 8080}],
                    "timeouts": {"request": "0s"},
                }],
            })
        );
    }

    #[test]
    fn redirects_attach_to_their_listener_only() {
        let gateway = gateway(&["https", "https-0"], Some("http"));
        let sections = |family| -> Vec<_> {
            gateway.spec(family, &shard(), "s").parent_refs.into_iter().filter_map(|p| p.section_name).collect()
        };
        assert_eq!(sections(Family::Http1), ["https", "https-0"]);
        assert_eq!(sections(Family::Redirect), ["http"]);
        let rule = serde_json::to_value(&gateway.spec(Family::Redirect, &shard(), "s").rules[0]).unwrap();
        let filter = json!([{"type": "RequestRedirect", "requestRedirect": {"scheme": "https", "statusCode": 301}}]);
        assert_eq!(rule["filters"], filter);
        assert_eq!(rule["backendRefs"], Value::Null, "a redirect has no backend");
    }

    #[test]
    fn many_paths_are_split_into_rules() {
        let shard = Shard { paths: (0..20).map(|n| format!("/{n:02}")).collect(), ..shard() };
        let spec = gateway(&[], None).spec(Family::Http1, &shard, "s");
        assert_eq!(spec.rules.iter().map(|r| r.matches.len()).collect::<Vec<_>>(), [8, 8, 4]);
        assert_eq!(shard_of(&HTTPRoute::new("rouse-0", spec)), shard);
    }

    #[test]
    fn names_encode_family_and_number() {
        for family in FAMILIES {
            assert_eq!(Family::of(&family.route(12)), Some((family, 12)));
        }
        for other in ["rouse", "rouse-", "rouse-x", "rouse-01", "rouse-+1", "rouse-h2c", "other-1"] {
            assert_eq!(Family::of(other), None, "{other}");
        }
    }

    #[test]
    fn acceptance_by_the_controller() {
        let gateway = gateway(&[], None);
        let parent = |gateway: &str, conditions: Value| json!([{"parentRef": {"name": gateway, "namespace": "infra"}, "controllerName": "x/y", "conditions": conditions}]);
        let condition = |type_: &str, status: &str| json!({"type": type_, "status": status, "reason": "Why", "message": "what", "lastTransitionTime": "2026-01-01T00:00:00Z"});
        let good = json!([condition("Accepted", "True"), condition("ResolvedRefs", "True")]);
        assert_eq!(gateway.acceptance(&route(&parent("edge", good.clone()))), RouteAcceptance::Accepted);
        assert_eq!(gateway.acceptance(&route(&parent("other", good))), RouteAcceptance::Pending);
        assert_eq!(gateway.acceptance(&route(&json!([]))), RouteAcceptance::Pending);
        let listener = |conditions: Value| parent("edge", conditions)[0].clone();
        let mut no_host = condition("Accepted", "False");
        no_host["reason"] = json!("NoMatchingListenerHostname");
        let two = json!([listener(json!([no_host])), listener(json!([condition("Accepted", "True")]))]);
        assert_eq!(gateway.acceptance(&route(&two)), RouteAcceptance::Accepted, "another listener serves it");
        assert!(matches!(
            gateway.acceptance(&route(&json!([listener(json!([no_host]))]))),
            RouteAcceptance::Rejected(_)
        ));
        for bad in [
            json!([condition("Accepted", "False")]),
            json!([condition("Accepted", "True"), condition("ResolvedRefs", "False")]),
        ] {
            let RouteAcceptance::Rejected(message) = gateway.acceptance(&route(&parent("edge", bad))) else {
                panic!("accepted")
            };
            assert!(message.contains("infra/edge") && message.contains("rouse-0") && message.contains("Why: what"));
        }
    }
}
