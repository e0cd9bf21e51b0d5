//! The directory and its table against a naive model: the Functions that there are, in a map, searched anew for each host.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::json;

use super::*;

/// What can happen to one of the functions.
#[derive(Clone, Debug)]
enum Act {
    /// It is there, or has changed: visibility, and which of [`CUSTOM`] it claims.
    Seen {
        which: usize,
        public: bool,
        hosts: Vec<usize>,
    },
    /// The same, after a deletion that was not seen. It is of this second.
    MadeAgain {
        which: usize,
        second: i64,
        public: bool,
        hosts: Vec<usize>,
    },
    Gone(usize),
    Unreadable(usize),
    /// A new list shows those that there are but for this one, and shows that one as unreadable.
    Listed {
        without: usize,
        unreadable: usize,
    },
}

/// A Function as the model has it.
#[derive(Clone, Debug)]
struct Known {
    second: i64,
    generation: u64,
    public: bool,
    hosts: Vec<&'static str>,
}

type Model = BTreeMap<(&'static str, &'static str), Known>;

const FUNCTIONS: [(&str, &str); 6] = [("a", "f"), ("a", "g"), ("b", "f"), ("b", "g"), ("svc", "f"), ("svc", "svc")];

/// Plain ones, defaults of functions, names in the cluster, and one in several spellings.
const CUSTOM: [&str; 10] = [
    "x.example.org",
    "y.example.org",
    "X.Example.ORG.",
    "f.a.example.com",
    "g.b.example.com",
    "z.example.com",
    "f.a",
    "g.a.svc",
    "g.b.svc.cluster.local",
    "not a host",
];

fn act() -> impl Strategy<Value = Act> {
    let which = 0..FUNCTIONS.len();
    let hosts = prop::collection::vec(0..CUSTOM.len(), 0..4);
    prop_oneof![
        6 => (which.clone(), prop::bool::weighted(0.8), hosts.clone())
            .prop_map(|(which, public, hosts)| Act::Seen { which, public, hosts }),
        2 => (which.clone(), 0..4_i64, prop::bool::weighted(0.8), hosts)
            .prop_map(|(which, second, public, hosts)| Act::MadeAgain { which, second, public, hosts }),
        2 => which.clone().prop_map(Act::Gone),
        1 => which.clone().prop_map(Act::Unreadable),
        1 => (which.clone(), which).prop_map(|(without, unreadable)| Act::Listed { without, unreadable }),
    ]
}

/// The function that a host leads to.
fn owner_in(model: &Model, side: Side, host: &str) -> Option<(&'static str, &'static str)> {
    let host = host.to_ascii_lowercase();
    let host = host.trim_end_matches('.');
    let forms = |(namespace, name): &(&str, &str)| {
        ["", ".svc", ".svc.cluster.local"].map(|end| format!("{name}.{namespace}{end}"))
    };
    if side == Side::Cluster {
        let named = |key: &&(&'static str, &'static str)| forms(key).contains(&host.to_owned());
        if let Some(key) = model.keys().find(named) {
            return Some(*key);
        }
        if host.ends_with(".svc") || host.ends_with(".svc.cluster.local") {
            return None;
        }
    }
    let mut claims = vec![];
    for (key, known) in model.iter().filter(|(_, known)| known.public) {
        let own = format!("{}.{}.example.com", key.1, key.0);
        if own == host {
            return Some(*key);
        }
        let reserved = host.strip_suffix(".example.com").is_some_and(|rest| rest.split('.').count() == 2);
        if !reserved && known.hosts.iter().any(|h| h.to_lowercase().trim_end_matches('.') == host) {
            claims.push((known.second, key));
        }
    }
    claims.iter().min().map(|(_, key)| **key)
}

fn every_host() -> Vec<String> {
    let mut hosts: Vec<String> = CUSTOM.iter().filter(|h| !h.contains(' ')).map(|h| (*h).to_owned()).collect();
    for (namespace, name) in FUNCTIONS {
        for end in [".example.com", "", ".svc", ".svc.cluster.local"] {
            hosts.push(format!("{name}.{namespace}{end}"));
        }
    }
    hosts
}

/// The directory beside the model, and every gate that there ever was.
struct Both {
    directory: Directory,
    model: Model,
    generation: u64,
    gates: HashMap<String, Arc<Gate>>,
}

impl Both {
    fn object(&self, key: (&str, &str)) -> Function {
        let known = &self.model[&key];
        let spec = json!({"visibility": if known.public { "Public" } else { "Cluster" }, "hosts": known.hosts});
        function(key.0, key.1, &known.generation.to_string(), known.second, &spec)
    }

    fn show(&mut self, which: usize, public: bool, hosts: &[usize], made_again: Option<i64>) {
        let key = FUNCTIONS[which];
        let hosts = hosts.iter().map(|h| CUSTOM[*h]).collect();
        let former = self.model.get(&key).filter(|_| made_again.is_none());
        let (second, generation) =
            former.map_or_else(|| (made_again.unwrap_or(2), self.generation), |f| (f.second, f.generation));
        self.generation += 1;
        self.model.insert(key, Known { second, generation, public, hosts });
        self.directory.function_seen(&self.object(key));
    }

    fn act(&mut self, act: &Act) {
        match act {
            Act::Seen { which, public, hosts } => self.show(*which, *public, hosts, None),
            Act::MadeAgain { which, second, public, hosts } => self.show(*which, *public, hosts, Some(*second)),
            Act::Gone(which) => {
                let (namespace, name) = FUNCTIONS[*which];
                self.model.remove(&(namespace, name));
                self.directory.function_gone(namespace, name);
            }
            Act::Unreadable(which) => self.directory.function_unreadable(FUNCTIONS[*which].0, FUNCTIONS[*which].1),
            Act::Listed { without, unreadable } => {
                let [without, unreadable] = [without, unreadable].map(|which| FUNCTIONS[*which]);
                self.directory.functions_listing();
                self.directory.function_unreadable(unreadable.0, unreadable.1);
                if without != unreadable {
                    self.model.remove(&without);
                }
                for key in self.model.keys().copied().filter(|key| *key != unreadable).collect::<Vec<_>>() {
                    self.directory.function_seen(&self.object(key));
                }
                self.directory.functions_listed();
            }
        }
    }

    fn check(&mut self) {
        for host in every_host() {
            for side in [Side::Public, Side::Cluster] {
                let expected = owner_in(&self.model, side, &host);
                let found = self.directory.table.find(side, &Host::normalise(&host).unwrap());
                let found_name = found.as_ref().map(|gate| gate.id().to_string());
                let expected_name = expected.map(|(namespace, name)| format!("{namespace}/{name}"));
                assert_eq!(found_name, expected_name, "{side:?} {host}");
                let (Some(key), Some(gate)) = (expected, found) else { continue };
                let uid = self.model[&key].generation.to_string();
                assert_eq!(&*gate.id().uid, &*uid, "{host} leads to the former one");
                // As long as it is the same Function it is the same gate, or requests in it would be counted twice.
                let first = self.gates.entry(uid).or_insert_with(|| gate.clone());
                assert!(Arc::ptr_eq(first, &gate), "{host} has another gate");
            }
        }
        for (uid, gate) in &self.gates {
            if !self.model.values().any(|known| known.generation.to_string() == *uid) {
                assert!(gate.enter(&Target::ANY, || 1).is_err(), "the gate of a Function that is gone is open");
            }
        }
        assert_eq!(self.directory.functions.len(), self.model.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// After whatever has happened, every host leads where the Functions that there are say, on both sides.
    #[test]
    fn the_table_is_what_the_functions_say(acts in prop::collection::vec(act(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _inside = runtime.enter();
        let mut both =
            Both { directory: directory(), model: Model::new(), generation: 1, gates: HashMap::new() };
        for act in &acts {
            both.act(act);
            both.check();
        }
        for which in 0..FUNCTIONS.len() {
            both.act(&Act::Gone(which));
        }
        both.check();
        prop_assert!(both.directory.claims.is_empty(), "{:?}", both.directory.claims);
        prop_assert!(both.directory.namespaces.values().all(|n| n.strong_count() > 0), "a namespace without a function is kept");
    }
}
