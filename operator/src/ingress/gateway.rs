//! The shared HTTPRoutes, and what their Gateway says of them. Pure.
//!
//! There are three families of them: those of hosts that are led by HTTP/1.1, those of hosts that are led by HTTP/2, and those
//! that send callers of http to https.

use std::collections::BTreeSet;

use super::shards::Shard;
use crate::cluster::httproute::{
    BackendRef, Filter, HTTPRoute, HttpRouteSpec, ParentRef, PathMatch, Redirect, RouteMatch, RouteRule, Timeouts,
};

/// The Gateway that the routes hang on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gateway {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Names of the listeners that functions are called by; every one if none is named.
    pub sections: Vec<String>,
    /// Name of the listener whose callers are sent to https.
    pub redirect_section: Option<String>,
}

/// What a family of routes is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// To the activators by HTTP/1.1.
    Http1,
    /// To the activators by HTTP/2.
    H2c,
    /// Back to the caller, who is to come by https.
    Redirect,
}

/// All of them.
pub const FAMILIES: [Family; 3] = [Family::Http1, Family::H2c, Family::Redirect];

/// Port of the activators' Services that takes calls from outside: a Gateway knows ports by their numbers alone.
pub const PUBLIC_PORT: u16 = 8080;

/// Matches in one rule, few enough for every version of the Gateway API.
const MATCHES: usize = 8;

impl Family {
    /// Name of its route of a number.
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

    /// Family and number of a route of this name; `None` if it is none of ours.
    pub fn of(name: &str) -> Option<(Self, usize)> {
        FAMILIES.into_iter().find_map(|family| {
            let number: usize = name.strip_prefix(family.stem())?.parse().ok()?;
            // `rouse-01` and `rouse-+1` are numbers, too, but not by us.
            (family.route(number) == name).then_some((family, number))
        })
    }
}

impl Gateway {
    /// What a route is to be. `service` is where its calls go, if they do not go back.
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
                // The activator ends calls that take too long by what their Function says; streams have no end.
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

    /// What the Gateway's controller has said of a route.
    pub fn verdict(&self, route: &HTTPRoute) -> Verdict {
        let own = route.metadata.namespace.as_deref();
        let (mut heard, mut accepted, mut elsewhere) = (false, false, None);
        for parent in route.status.iter().flat_map(|status| &status.parents) {
            let ParentRef { name, namespace, .. } = &parent.parent_ref;
            if *name != self.name || namespace.as_deref().or(own) != Some(&self.namespace) {
                continue;
            }
            heard |= parent.conditions.iter().any(|c| c.type_ == "Accepted");
            accepted |= parent.conditions.iter().any(|c| c.type_ == "Accepted" && c.status == "True");
            let bad = |c: &&k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition| {
                matches!(c.type_.as_str(), "Accepted" | "ResolvedRefs") && c.status == "False"
            };
            if let Some(bad) = parent.conditions.iter().find(bad) {
                let refused = Verdict::Refused(format!(
                    "the Gateway {self} says of the HTTPRoute {}: {}=False, {}: {}",
                    route.metadata.name.as_deref().unwrap_or_default(),
                    bad.type_,
                    bad.reason,
                    bad.message
                ));
                // A listener that is for one host only has nothing to do with routes of others: another one serves those.
                if bad.reason != "NoMatchingListenerHostname" {
                    return refused;
                }
                elsewhere.get_or_insert(refused);
            }
        }
        match elsewhere {
            Some(refused) if !accepted => refused,
            _ if heard => Verdict::Accepted,
            _ => Verdict::Unheard,
        }
    }
}

impl std::fmt::Display for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What a Gateway's controller has said of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It serves it.
    Accepted,
    /// It does not, or not all of it.
    Refused(String),
    /// Nothing.
    Unheard,
}

/// What a live route leads, by its own word.
pub fn led(route: &HTTPRoute) -> Shard {
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
    fn what_the_api_server_gets() {
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
    fn callers_of_http_are_sent_to_https_by_a_route_on_that_listener_alone() {
        let gateway = gateway(&["https", "https-0"], Some("http"));
        let sections = |family| -> Vec<_> {
            gateway.spec(family, &shard(), "s").parent_refs.into_iter().filter_map(|p| p.section_name).collect()
        };
        assert_eq!(sections(Family::Http1), ["https", "https-0"]);
        assert_eq!(sections(Family::Redirect), ["http"]);
        let rule = serde_json::to_value(&gateway.spec(Family::Redirect, &shard(), "s").rules[0]).unwrap();
        let filter = json!([{"type": "RequestRedirect", "requestRedirect": {"scheme": "https", "statusCode": 301}}]);
        assert_eq!(rule["filters"], filter);
        assert_eq!(rule["backendRefs"], Value::Null, "a redirect leads nowhere else");
    }

    #[test]
    fn many_paths_are_several_rules() {
        let shard = Shard { paths: (0..20).map(|n| format!("/{n:02}")).collect(), ..shard() };
        let spec = gateway(&[], None).spec(Family::Http1, &shard, "s");
        assert_eq!(spec.rules.iter().map(|r| r.matches.len()).collect::<Vec<_>>(), [8, 8, 4]);
        assert_eq!(led(&HTTPRoute::new("rouse-0", spec)), shard);
    }

    #[test]
    fn names_say_the_family_and_the_number() {
        for family in FAMILIES {
            assert_eq!(Family::of(&family.route(12)), Some((family, 12)));
        }
        for other in ["rouse", "rouse-", "rouse-x", "rouse-01", "rouse-+1", "rouse-h2c", "other-1"] {
            assert_eq!(Family::of(other), None, "{other}");
        }
    }

    #[test]
    fn what_the_controller_says() {
        let gateway = gateway(&[], None);
        let parent = |gateway: &str, conditions: Value| json!([{"parentRef": {"name": gateway, "namespace": "infra"}, "controllerName": "x/y", "conditions": conditions}]);
        let condition = |type_: &str, status: &str| json!({"type": type_, "status": status, "reason": "Why", "message": "what", "lastTransitionTime": "2026-01-01T00:00:00Z"});
        let good = json!([condition("Accepted", "True"), condition("ResolvedRefs", "True")]);
        assert_eq!(gateway.verdict(&route(&parent("edge", good.clone()))), Verdict::Accepted);
        assert_eq!(gateway.verdict(&route(&parent("other", good))), Verdict::Unheard);
        assert_eq!(gateway.verdict(&route(&json!([]))), Verdict::Unheard);
        let listener = |conditions: Value| parent("edge", conditions)[0].clone();
        let mut no_host = condition("Accepted", "False");
        no_host["reason"] = json!("NoMatchingListenerHostname");
        let two = json!([listener(json!([no_host])), listener(json!([condition("Accepted", "True")]))]);
        assert_eq!(gateway.verdict(&route(&two)), Verdict::Accepted, "another listener serves it");
        assert!(matches!(gateway.verdict(&route(&json!([listener(json!([no_host]))]))), Verdict::Refused(_)));
        for bad in [
            json!([condition("Accepted", "False")]),
            json!([condition("Accepted", "True"), condition("ResolvedRefs", "False")]),
        ] {
            let Verdict::Refused(message) = gateway.verdict(&route(&parent("edge", bad))) else { panic!("accepted") };
            assert!(message.contains("infra/edge") && message.contains("rouse-0") && message.contains("Why: what"));
        }
    }
}
