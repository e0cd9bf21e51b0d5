//! The directory and its table against a naive model: a map of the existing Functions, searched anew for each host and
//! path.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::json;

use super::*;

/// The part of a Function's spec that is about routes.
#[derive(Clone, Debug)]
struct Says {
    public: bool,
    /// Indices into [`CUSTOM`].
    hosts: Vec<usize>,
    /// Indices into [`ROUTES`].
    routes: Vec<usize>,
    /// Indices into [`TAGS`], each with whether a revision has the tag already.
    tags: Vec<(usize, bool)>,
}

/// An event of one of the functions.
#[derive(Clone, Debug)]
enum Act {
    /// It was created or has changed.
    Seen {
        which: usize,
        says: Says,
    },
    /// The same after a deletion that the watch missed. `second` is its creation time.
    MadeAgain {
        which: usize,
        second: i64,
        says: Says,
    },
    Gone(usize),
    Unreadable(usize),
    /// A relist returns the existing Functions except this one, and that one as unreadable.
    Listed {
        without: usize,
        unreadable: usize,
    },
}

/// A Function in the model.
#[derive(Clone, Debug)]
struct Known {
    second: i64,
    generation: u64,
    says: Says,
}

type Key = (&'static str, &'static str);
type Model = BTreeMap<Key, Known>;

/// The route of a request: the Function, the revision if it is of a tag, and the index of the route.
type End = (Key, Option<String>, Option<usize>);

/// One has the name of another's tag, and one a part of the cluster domain.
const FUNCTIONS: [Key; 7] =
    [("a", "f"), ("a", "g"), ("a", "t-f"), ("b", "f"), ("b", "g"), ("svc", "f"), ("svc", "svc")];

const TAGS: [&str; 2] = ["t", "u"];

/// Plain hosts, one that only `a` may claim, default hosts of functions and tags, cluster names, and one in several
/// spellings.
const CUSTOM: [&str; 11] = [
    "x.example.org",
    "y.example.org",
    "X.Example.ORG.",
    "f.a.example.com",
    "t-g.a.example.com",
    "g.b.example.com",
    "z.example.com",
    "f.a",
    "g.a.svc",
    "g.b.svc.cluster.local",
    "not a host",
];

/// Host, path and method.
const ROUTES: [(Option<&str>, &str, Option<&str>); 9] = [
    (None, "/a", None),
    (None, "/a/b/", Some("GET")),
    (None, "/", Some("POST")),
    (Some("x.example.org"), "/a", Some("PUT")),
    (Some("x.example.org"), "/", None),
    (Some("y.example.org"), "/a/b", Some("DELETE")),
    (Some("f.a.example.com"), "/a", Some("PATCH")),
    (Some("t-f.a.example.com"), "/c", None),
    (Some("g.a"), "/a", None),
];

const PATHS: [&str; 5] = ["/", "/a/", "/a/b/c", "/ab", "/c"];

fn says() -> impl Strategy<Value = Says> {
    let hosts = prop::collection::vec(0..CUSTOM.len(), 0..4);
    let routes = prop::collection::btree_set(0..ROUTES.len(), 0..4);
    let tags = prop::collection::btree_map(0..TAGS.len(), prop::bool::weighted(0.8), 0..3);
    (prop::bool::weighted(0.8), hosts, routes, tags).prop_map(|(public, hosts, routes, tags)| Says {
        public,
        hosts,
        routes: routes.into_iter().collect(),
        tags: tags.into_iter().collect(),
    })
}

fn act() -> impl Strategy<Value = Act> {
    let which = 0..FUNCTIONS.len();
    prop_oneof![
        6 => (which.clone(), says()).prop_map(|(which, says)| Act::Seen { which, says }),
        2 => (which.clone(), 0..4_i64, says())
            .prop_map(|(which, second, says)| Act::MadeAgain { which, second, says }),
        2 => which.clone().prop_map(Act::Gone),
        1 => which.clone().prop_map(Act::Unreadable),
        1 => (which.clone(), which).prop_map(|(without, unreadable)| Act::Listed { without, unreadable }),
    ]
}

fn normal(host: &str) -> String {
    host.to_lowercase().trim_end_matches('.').to_owned()
}

impl Known {
    /// The paths by which it claims a host, each with its route; `everywhere` is whether routes without a host apply.
    fn ways(&self, host: &str, everywhere: bool) -> Vec<(&'static str, Option<usize>)> {
        let about = |named: bool| {
            self.says.routes.iter().filter(move |r| match ROUTES[**r].0 {
                Some(of) => named && of == host,
                None => !named && everywhere,
            })
        };
        let mut ways: Vec<(&str, Option<usize>)> = vec![];
        for route in about(true).chain(about(false)) {
            let path = ROUTES[*route].1.trim_end_matches('/');
            let path = if path.is_empty() { "/" } else { path };
            if ways.iter().all(|(known, _)| *known != path) {
                ways.push((path, Some(*route)));
            }
        }
        if ways.is_empty() { vec![("/", None)] } else { ways }
    }

    /// The tag that this name is of, and its revision, if there is one.
    fn tag(&self, key: Key, name: &str) -> Option<Option<String>> {
        let (tag, resolved) = self.says.tags.iter().find(|(tag, _)| format!("{}-{}", TAGS[*tag], key.1) == name)?;
        Some(resolved.then(|| format!("{}-tagged-{}", key.1, TAGS[*tag])))
    }

    /// Whether it claims a custom host, and whether routes without a host apply to it then.
    fn custom(&self, host: &str) -> Option<bool> {
        let listed = self.says.hosts.iter().any(|h| normal(CUSTOM[*h]) == host);
        let routed = self.says.routes.iter().any(|r| ROUTES[*r].0 == Some(host));
        (listed || routed).then_some(listed)
    }
}

/// The longest of these paths that matches.
fn longest<T: Clone>(ways: impl IntoIterator<Item = (&'static str, T)>, path: &str) -> Option<T> {
    let leads = |way: &str| way == "/" || path == way || path.starts_with(&format!("{way}/"));
    let best = ways.into_iter().filter(|(way, _)| leads(way)).max_by_key(|(way, _)| way.len());
    best.map(|(_, end)| end)
}

/// The route by the names of functions and tags in this order; `None` if none has the name.
fn by_name(
    model: &Model,
    (namespace, name): (&str, &str),
    public: bool,
    host: &str,
    path: &str,
) -> Option<Option<End>> {
    let here = || model.iter().filter(|((of, _), known)| *of == namespace && (known.says.public || !public));
    let end = |key: &Key, known: &Known, revision: Option<String>| {
        longest(known.ways(host, true), path).map(|route| (*key, revision, route))
    };
    if let Some((key, known)) = here().find(|(key, _)| key.1 == name) {
        return Some(end(key, known, None));
    }
    let tagged = here().filter_map(|(key, known)| Some((known.second, key, known, known.tag(*key, name)?)));
    let (_, key, known, revision) = tagged.min_by_key(|(second, key, ..)| (*second, **key))?;
    // A tag without a revision has no route, and has no precedence inside the cluster.
    Some(revision.and_then(|revision| end(key, known, Some(revision))))
}

/// The route of a host and a path.
fn end_in(model: &Model, side: Side, host: &str, path: &str) -> Option<End> {
    let host = &normal(host);
    if side == Side::Cluster {
        let inside = [".svc.cluster.local", ".svc"].iter().find_map(|end| host.strip_suffix(end));
        for name in inside.into_iter().chain([host.as_str()]) {
            if let Some((name, namespace)) = name.split_once('.')
                && let Some(end) = by_name(model, (namespace, name), false, "", path)
                && (end.is_some() || model.contains_key(&(namespace, name)) || resolved(model, (namespace, name)))
            {
                return end;
            }
        }
        if inside.is_some() {
            return None;
        }
    }
    if let Some((name, namespace)) = host.strip_suffix(".example.com").and_then(|rest| rest.split_once('.')) {
        return by_name(model, (namespace, name), true, host, path)?;
    }
    let may = |namespace: &str| match host.as_str() {
        "y.example.org" => namespace == "a",
        // Default hosts are subdomains of `z.example.com`, so nobody may claim it.
        host => host == "x.example.org",
    };
    let claimed = model.iter().filter(|((namespace, _), known)| known.says.public && may(namespace));
    let mut claims: Vec<_> =
        claimed.filter_map(|(key, known)| Some((known.second, *key, known, known.custom(host)?))).collect();
    claims.sort_by_key(|(second, key, ..)| (*second, *key));
    let owner = claims.first()?.1.0;
    let mut ways: BTreeMap<&'static str, End> = BTreeMap::new();
    for (_, key, known, everywhere) in claims.iter().filter(|(_, key, ..)| key.0 == owner) {
        for (path, route) in known.ways(host, *everywhere) {
            ways.entry(path).or_insert((*key, None, route));
        }
    }
    longest(ways, path)
}

/// Whether a name is of a tag that has a revision.
fn resolved(model: &Model, (namespace, name): (&str, &str)) -> bool {
    let here = model.iter().filter(|((of, _), _)| *of == namespace);
    let tagged = here.filter_map(|(key, known)| Some((known.second, key, known.tag(*key, name)?)));
    tagged.min_by_key(|(second, key, _)| (*second, **key)).is_some_and(|(.., revision)| revision.is_some())
}

fn every_host() -> Vec<String> {
    let mut hosts: Vec<String> = CUSTOM.iter().filter(|h| !h.contains(' ')).map(|h| (*h).to_owned()).collect();
    for (namespace, name) in FUNCTIONS {
        for tag in ["", "t-"] {
            for end in [".example.com", "", ".svc", ".svc.cluster.local"] {
                hosts.push(format!("{tag}{name}.{namespace}{end}"));
            }
        }
    }
    hosts
}

fn spec_route(route: usize) -> Value {
    let (host, path, method) = ROUTES[route];
    let mut spec = json!({"path": path});
    if let Some(host) = host {
        spec["host"] = json!(host);
    }
    if let Some(method) = method {
        spec["methods"] = json!([method]);
    }
    spec
}

/// The directory beside the model, and all breakers so far.
struct Both {
    directory: Directory,
    /// The rules of each of [`ROUTES`].
    rules: Vec<Option<Arc<RouteRules>>>,
    model: Model,
    generation: u64,
    breakers: HashMap<String, Arc<Breaker>>,
}

impl Both {
    fn object(&self, key: Key) -> Function {
        let Known { second, generation, says } = &self.model[&key];
        let mut traffic = vec![json!({"latest": true, "percent": 100})];
        let mut status = vec![json!({"revision": format!("{}-00001", key.1), "percent": 100})];
        for (tag, resolved) in &says.tags {
            let revision = format!("{}-tagged-{}", key.1, TAGS[*tag]);
            traffic.push(json!({"revision": revision, "percent": 0, "tag": TAGS[*tag]}));
            if *resolved {
                status.push(json!({"revision": revision, "percent": 0, "tag": TAGS[*tag]}));
            }
        }
        let spec = json!({
            "visibility": if says.public { "Public" } else { "Cluster" },
            "hosts": says.hosts.iter().map(|h| CUSTOM[*h]).collect::<Vec<_>>(),
            "routes": says.routes.iter().map(|r| spec_route(*r)).collect::<Vec<_>>(),
            "traffic": traffic,
        });
        let mut function = function(key.0, key.1, &generation.to_string(), *second, &spec);
        function.status.as_mut().unwrap().traffic = serde_json::from_value(json!(status)).unwrap();
        function
    }

    fn show(&mut self, which: usize, says: &Says, made_again: Option<i64>) {
        let key = FUNCTIONS[which];
        let previous = self.model.get(&key).filter(|_| made_again.is_none());
        let (second, generation) =
            previous.map_or_else(|| (made_again.unwrap_or(2), self.generation), |f| (f.second, f.generation));
        self.generation += 1;
        self.model.insert(key, Known { second, generation, says: says.clone() });
        self.directory.function_updated(&self.object(key));
    }

    fn act(&mut self, act: &Act) {
        match act {
            Act::Seen { which, says } => self.show(*which, says, None),
            Act::MadeAgain { which, second, says } => self.show(*which, says, Some(*second)),
            Act::Gone(which) => {
                let (namespace, name) = FUNCTIONS[*which];
                self.model.remove(&(namespace, name));
                self.directory.function_deleted(namespace, name);
            }
            Act::Unreadable(which) => self.directory.function_unreadable(FUNCTIONS[*which].0, FUNCTIONS[*which].1),
            Act::Listed { without, unreadable } => {
                let [without, unreadable] = [without, unreadable].map(|which| FUNCTIONS[*which]);
                self.directory.functions_relist_started();
                self.directory.function_unreadable(unreadable.0, unreadable.1);
                if without != unreadable {
                    self.model.remove(&without);
                }
                for key in self.model.keys().copied().filter(|key| *key != unreadable).collect::<Vec<_>>() {
                    self.directory.function_updated(&self.object(key));
                }
                self.directory.functions_relist_finished();
            }
        }
    }

    fn check(&mut self) {
        for host in every_host() {
            for (side, path) in [Side::Public, Side::Cluster].into_iter().flat_map(|s| PATHS.map(|p| (s, p))) {
                let expected = end_in(&self.model, side, &host, path);
                let found = find(&self.directory, side, &host, path).ok();
                let named = |key: &Key| format!("{}/{}", key.0, key.1);
                let rules = |route: usize| self.rules[route].clone();
                assert_eq!(
                    found.as_ref().map(|f| (f.breaker.id().to_string(), f.revision.as_deref(), f.rules.as_deref())),
                    expected
                        .as_ref()
                        .map(|(key, revision, route)| (named(key), revision.as_deref(), route.and_then(rules)))
                        .as_ref()
                        .map(|(key, revision, rules)| (key.clone(), *revision, rules.as_deref())),
                    "{side:?} {host} {path}"
                );
                let (Some((key, ..)), Some(Route { breaker, .. })) = (expected, found) else { continue };
                let uid = self.model[&key].generation.to_string();
                assert_eq!(&*breaker.id().uid, &*uid, "{host} leads to the previous one");
                // The same Function keeps its breaker, or requests in flight would be counted twice.
                let first = self.breakers.entry(uid).or_insert_with(|| breaker.clone());
                assert!(Arc::ptr_eq(first, &breaker), "{host} has another breaker");
            }
        }
        for (uid, breaker) in &self.breakers {
            if !self.model.values().any(|known| known.generation.to_string() == *uid) {
                assert!(breaker.admit(&Target::ANY, || 1).is_err(), "the breaker of a deleted Function is open");
            }
        }
        assert_eq!(self.directory.functions.len(), self.model.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// After any sequence of events, every host has the route of the model, on both sides.
    #[test]
    fn the_table_matches_the_model(acts in prop::collection::vec(act(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _inside = runtime.enter();
        let rule = |route| RouteRules::new(&serde_json::from_value(spec_route(route)).unwrap()).map(Arc::new);
        let rules = (0..ROUTES.len()).map(rule).collect();
        let mut both =
            Both { directory: directory(), rules, model: Model::new(), generation: 1, breakers: HashMap::new() };
        for act in &acts {
            both.act(act);
            both.check();
        }
        for which in 0..FUNCTIONS.len() {
            both.act(&Act::Gone(which));
        }
        both.check();
        prop_assert_eq!((both.directory.public.len(), both.directory.cluster.len(), both.directory.table.len()), (0, 0, 0));
        prop_assert!(both.directory.namespaces.values().all(|n| n.strong_count() > 0), "a namespace without a function is kept");
    }
}
