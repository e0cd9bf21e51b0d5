use super::*;
use crate::hosts::{DEFAULT_TEMPLATE, EVERYONE};
use serde_json::{Value, json};

/// `namespace/name`, created at this second.
fn function(id: &str, second: i64, spec: Value) -> Function {
    let (namespace, name) = id.split_once('/').unwrap();
    let created = k8s_openapi::jiff::Timestamp::from_second(second).unwrap().to_string();
    let mut whole = json!({
        "apiVersion": "rouse.dev/v1alpha1", "kind": "Function",
        "metadata": {"name": name, "namespace": namespace, "creationTimestamp": created},
    });
    whole["spec"] = spec;
    whole["spec"]["image"] = json!("i");
    serde_json::from_value(whole).unwrap()
}

/// Without rules, every namespace may claim every host.
fn rules(template: &str, allowed: &str) -> Rules {
    let allowed = if allowed.is_empty() { EVERYONE } else { allowed };
    Rules { template: HostTemplate::new(template, "example.com").unwrap(), allowed: allowed.parse().unwrap() }
}

/// Owner of each path of `host`, as `path namespace/name`, and the losses, as `namespace/name path: reason`.
fn settle(rules: &Rules, host: &str, functions: &[Function]) -> (Vec<String>, Vec<String>) {
    let all: Vec<_> = functions.iter().flat_map(|f| claims(f, &rules.template)).collect();
    let here = || all.iter().filter(|claim| &*claim.host == host);
    let settled = rules.settle(here());
    let mut backwards = rules.settle(here().rev());
    backwards.lost.sort_by_key(|(claim, _)| *claim);
    let mut forwards = settled.clone();
    forwards.lost.sort_by_key(|(claim, _)| *claim);
    assert_eq!(forwards, backwards, "the order of claims must not matter");
    assert_eq!(settled.paths.len() + settled.lost.len(), here().count(), "each claim has won or lost");
    let who = |c: &Claimant| format!("{}/{}", c.namespace, c.name);
    let paths = settled.paths.iter().map(|(path, claim)| format!("{path} {}", who(&claim.claimant))).collect();
    let lost = settled.lost.iter().map(|(claim, loss)| match loss {
        Loss::Taken { owner: (namespace, name), whole_host } => {
            let what = if *whole_host { "host" } else { "path" };
            format!("{} {}: {what} of {namespace}/{name}", who(&claim.claimant), claim.path)
        }
        Loss::Reserved => format!("{} {}: reserved", who(&claim.claimant), claim.path),
        Loss::NotAllowed(why) => format!("{} {}: {why}", who(&claim.claimant), claim.path),
    });
    (paths, lost.collect())
}

#[test]
fn the_oldest_claim_decides_the_namespace_of_a_host_and_the_owner_of_each_path() {
    let rules = rules(DEFAULT_TEMPLATE, "");
    let route = |path: &str| json!({"routes": [{"host": "shop.example.org", "path": path}]});
    let functions = [
        function("shop/api", 1, route("/api")),
        function("thief/login", 2, route("/login")),
        function("shop/web", 3, json!({"hosts": ["Shop.example.org."]})),
        function("shop/late", 4, json!({"hosts": ["shop.example.org"]})),
        function("shop/later", 5, route("/api/")),
    ];
    let (paths, lost) = settle(&rules, "shop.example.org", &functions);
    assert_eq!(paths, ["/ shop/web", "/api shop/api"]);
    assert_eq!(
        lost,
        ["thief/login /login: host of shop/api", "shop/late /: path of shop/web", "shop/later /api: path of shop/api"]
    );
    // The next claimant owns the host when the first releases it.
    let (paths, lost) = settle(&rules, "shop.example.org", &functions[1..]);
    assert_eq!(paths, ["/login thief/login"]);
    assert_eq!(lost.len(), 3);
}

#[test]
fn names_decide_between_claims_of_the_same_second() {
    let claim = json!({"hosts": ["a.example.org"]});
    let functions = [function("b/a", 1, claim.clone()), function("a/b", 1, claim.clone()), function("a/a", 1, claim)];
    assert_eq!(settle(&rules(DEFAULT_TEMPLATE, ""), "a.example.org", &functions).0, ["/ a/a"]);
}

#[test]
fn a_default_host_is_reserved_before_its_function_exists() {
    let rules = rules(DEFAULT_TEMPLATE, "");
    let thief = function("thief/old", 1, json!({"hosts": ["pay.shop.example.com"]}));
    let neighbour = function("shop/other", 1, json!({"routes": [{"host": "pay.shop.example.com", "path": "/login"}]}));
    let pay = function("shop/pay", 9, json!({"hosts": ["pay.shop.example.com"], "routes": [{"path": "/api"}]}));
    let refused = ["thief/old /: host of shop/pay", "shop/other /login: host of shop/pay"];
    let (paths, lost) = settle(&rules, "pay.shop.example.com", &[thief.clone(), neighbour.clone()]);
    assert_eq!((paths, lost), (vec![], refused.map(String::from).into()));
    let (paths, lost) = settle(&rules, "pay.shop.example.com", &[thief, neighbour, pay]);
    assert_eq!((paths, lost), (vec!["/api shop/pay".to_owned()], refused.map(String::from).into()));
}

#[test]
fn an_ambiguous_default_host_is_reserved() {
    let rules = rules("{name}-{namespace}.{domain}", "");
    let host = "a-b-c.example.com";
    let young = function("b-c/a", 2, json!({}));
    let old = function("c/a-b", 1, json!({}));
    let tagged = function("c/b", 0, json!({"traffic": [{"latest": true, "percent": 100, "tag": "a"}]}));
    let thief = function("thief/x", 0, json!({"hosts": [host]}));
    let (paths, lost) = settle(&rules, host, &[thief.clone(), young.clone(), old.clone(), tagged.clone()]);
    assert_eq!(paths, ["/ c/a-b"], "a default host before a tag's, and the older one");
    assert_eq!(
        lost,
        ["thief/x /: reserved", "b-c/a /: host of c/a-b", "c/b /: host of c/a-b"],
        "a custom host must not match the template"
    );
    assert_eq!(settle(&rules, host, &[tagged, thief.clone()]).0, ["/ c/b"]);
    assert_eq!(settle(&rules, host, &[thief]).0, Vec::<String>::new());
    let own = function("thief/x", 0, json!({"hosts": ["x-thief.example.com"]}));
    assert_eq!(settle(&rules, "x-thief.example.com", &[own]), (vec!["/ thief/x".into()], vec![]));
}

#[test]
fn a_default_host_has_precedence_over_a_tag() {
    let rules = rules(DEFAULT_TEMPLATE, "");
    let pay = function("shop/pay", 1, json!({"traffic": [{"latest": true, "percent": 100, "tag": "next"}]}));
    let named = function("shop/next-pay", 2, json!({"routes": [{"path": "/api"}]}));
    let (paths, lost) = settle(&rules, "next-pay.shop.example.com", &[pay.clone(), named]);
    assert_eq!((paths, lost), (vec!["/api shop/next-pay".into()], vec!["shop/pay /: host of shop/next-pay".into()]));
    assert_eq!(settle(&rules, "next-pay.shop.example.com", &[pay]).0, ["/ shop/pay"]);
}

#[test]
fn a_namespace_claims_only_allowed_hosts() {
    let allowed = r#"[{"domains": ["*.shop.example.org"], "namespaces": ["shop"]}]"#;
    let rules = rules(DEFAULT_TEMPLATE, allowed);
    let claim = json!({"hosts": ["a.shop.example.org"]});
    let functions = [function("thief/old", 1, claim.clone()), function("shop/young", 2, claim)];
    let (paths, lost) = settle(&rules, "a.shop.example.org", &functions);
    assert_eq!(paths, ["/ shop/young"], "a claim that is not allowed does not block others");
    assert!(lost[0].starts_with("thief/old /: rule 1 "), "{lost:?}");
    assert_eq!(settle(&rules, "old.thief.example.com", &functions).0, ["/ thief/old"], "default hosts need no rule");
}

#[test]
fn without_a_rule_no_custom_host_is_claimed() {
    let rules = Rules {
        template: HostTemplate::new(DEFAULT_TEMPLATE, "example.com").unwrap(),
        allowed: super::AllowedHosts::default(),
    };
    let functions = [function("a/f", 1, json!({"routes": [{"host": "grafana.corp.example", "path": "/login"}]}))];
    let (paths, lost) = settle(&rules, "grafana.corp.example", &functions);
    assert_eq!((paths.len(), lost.len()), (0, 1), "{lost:?}");
    assert_eq!(settle(&rules, "f.a.example.com", &functions).0, ["/ a/f"], "default hosts need no rule");
}

#[test]
fn parents_of_default_hosts_are_reserved_whatever_the_rules_allow() {
    let rules = rules(DEFAULT_TEMPLATE, "");
    for host in ["example.com", "shop.example.com"] {
        let functions = [function("thief/f", 1, json!({"hosts": [host]}))];
        assert_eq!(settle(&rules, host, &functions), (vec![], vec!["thief/f /: reserved".to_owned()]));
    }
}

#[test]
fn claims_of_a_function() {
    let template = HostTemplate::new(DEFAULT_TEMPLATE, "example.com").unwrap();
    let claimed = |spec| -> Vec<String> {
        let claims = claims(&function("shop/pay", 1, spec), &template);
        claims.iter().map(|c| format!("{c} {:?} {:?}", c.form, c.route)).collect()
    };
    assert_eq!(claimed(json!({})), ["pay.shop.example.com Default None"]);
    assert_eq!(claimed(json!({"visibility": "Cluster", "hosts": ["a.example.org"]})), Vec::<String>::new());
    // A route without host is about the default host and spec.hosts, and not about a host that only a route names.
    assert_eq!(
        claimed(json!({
            "hosts": ["a.example.org"],
            "routes": [{"path": "/x"}, {"host": "b.example.org", "path": "/y"}, {"host": "a.example.org", "path": "/x/"}],
        })),
        ["a.example.org/x Custom Some(2)", "b.example.org/y Custom Some(1)", "pay.shop.example.com/x Default Some(0)",]
    );
    // What no route is about is claimed whole.
    assert_eq!(
        claimed(json!({"hosts": ["a.example.org"], "routes": [{"host": "b.example.org", "path": "/y"}]})),
        ["a.example.org Custom None", "b.example.org/y Custom Some(0)", "pay.shop.example.com Default None"]
    );
}
