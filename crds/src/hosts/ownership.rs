//! Ownership of public hosts and their paths when several Functions claim them. Pure. The owner of a host depends on
//! the claims to that host alone, so a change requires settling only the hosts that it touches.
//!
//! - A default host belongs to its Function. No other Function can claim a host that matches the template of default
//!   hosts.
//! - A custom host belongs to the namespace of the oldest Function that claims any path of it. Otherwise another
//!   namespace could claim `/login` of a foreign host. Within the namespace, each path belongs to the oldest Function
//!   that claims it.
//! - A namespace may claim only the hosts that the rules of the platform allow.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use super::{AllowedHosts, DefaultHost, HostTemplate, NotAllowed};
use crate::{Function, function::Visibility};
use kube::ResourceExt;

/// The Function that claims a host. Claimants sort by precedence: the oldest first, then by namespace and name, so that
/// every reader computes the same owner.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Claimant {
    /// Creation time of the Function, in seconds of Unix time; `i64::MAX` if unknown.
    pub created: i64,
    /// Namespace of the Function.
    pub namespace: Box<str>,
    /// Name of the Function.
    pub name: Box<str>,
}

/// Kind of a claimed host, in order of precedence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Form {
    /// Default host of the Function.
    Default,
    /// Host of a tag.
    Tag,
    /// Host of `spec.hosts` or `spec.routes`.
    Custom,
}

/// A Function's claim to the requests of a host below a path. Claims to one host sort by precedence.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Claim {
    /// Host in lower case, without a trailing dot.
    pub host: Box<str>,
    /// Kind of the host.
    pub form: Form,
    /// The Function that claims the host.
    pub claimant: Claimant,
    /// `/`, or segments without a trailing slash.
    pub path: Box<str>,
    /// Tag, if the host is that of a tag.
    pub tag: Option<Box<str>>,
    /// Index in `spec.routes`; `None` if no route names the host, and the whole host is claimed.
    pub route: Option<usize>,
}

/// Platform settings that decide about claims.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Template of default hosts.
    pub template: HostTemplate,
    /// Which namespaces may claim which custom hosts.
    pub allowed: AllowedHosts,
}

/// Settled claims to one host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settled<'a> {
    /// The winning claim of each path.
    pub paths: BTreeMap<&'a str, &'a Claim>,
    /// Lost claims, with the reason.
    pub lost: Vec<(&'a Claim, Loss)>,
}

/// Reason why a claim is lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Another Function owns the host or the path.
    Taken {
        /// Namespace and name of the owner.
        owner: (Box<str>, Box<str>),
        /// Whether the whole host is lost, so another path would not help.
        whole_host: bool,
    },
    /// The host matches the template of default hosts ambiguously, or is a parent of default hosts, so no Function may claim
    /// it.
    Reserved,
    /// The namespace may not claim the host.
    NotAllowed(NotAllowed),
}

impl Claimant {
    /// Returns the claimant for a Function.
    #[must_use]
    pub fn of(function: &Function) -> Self {
        Self {
            created: function.creation_timestamp().map_or(i64::MAX, |t| t.0.as_second()),
            namespace: function.metadata.namespace.as_deref().unwrap_or_default().into(),
            name: function.metadata.name.as_deref().unwrap_or_default().into(),
        }
    }

    fn id(&self) -> (Box<str>, Box<str>) {
        (self.namespace.clone(), self.name.clone())
    }
}

/// Returns all claims of a Function: its default host, the hosts of its tags and its custom hosts, each with the paths
/// of the routes that apply to it, or with `/` if none does. A `Cluster` Function claims nothing. Each pair of host and
/// path occurs once.
#[must_use]
pub fn claims(function: &Function, template: &HostTemplate) -> BTreeSet<Claim> {
    if function.spec.visibility() != Visibility::Public {
        return BTreeSet::new();
    }
    let claimant = Claimant::of(function);
    let (namespace, name) = (&*claimant.namespace, &*claimant.name);
    let routes = || function.spec.routes.iter().flatten().enumerate();
    let mut hosts = vec![(template.host(name, namespace), Form::Default, None)];
    for tag in function.spec.traffic.iter().flatten().filter_map(|target| target.tag.as_deref()) {
        hosts.push((template.tagged(tag, name, namespace), Form::Tag, Some(tag)));
    }
    let named = routes().filter_map(|(_, route)| route.host.as_ref());
    hosts.extend(function.spec.hosts.iter().flatten().map(|host| (normal(host), Form::Custom, None)));
    let anywhere = hosts.len();
    hosts.extend(named.map(|host| (normal(host), Form::Custom, None)));

    let mut seen: BTreeMap<(Box<str>, Box<str>), Claim> = BTreeMap::new();
    let mut claim = |host: &str, form: Form, tag: Option<&str>, path: &str, route: Option<usize>| {
        seen.entry((host.into(), path.into())).or_insert_with(|| Claim {
            host: host.into(),
            form,
            claimant: claimant.clone(),
            path: path.into(),
            tag: tag.map(Into::into),
            route,
        });
    };
    let mut done: BTreeSet<&str> = BTreeSet::new();
    for (index, (host, form, tag)) in hosts.iter().enumerate() {
        // A custom host that is already a default host or a tag of the Function keeps that form.
        if !done.insert(host) {
            continue;
        }
        let (mut about, all) = (false, index < anywhere);
        // A route that names the host has precedence over a route for every host.
        let by_name = routes().filter(|(_, route)| route.host.as_deref().is_some_and(|named| normal(named) == *host));
        for (index, route) in by_name.chain(routes().filter(|(_, route)| all && route.host.is_none())) {
            about = true;
            claim(host, *form, *tag, route.path(), Some(index));
        }
        if !about {
            claim(host, *form, *tag, "/", None);
        }
    }
    seen.into_values().collect()
}

/// Normalizes a host. A stored Function may be older than the schema's rules.
fn normal(host: &str) -> String {
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

impl Rules {
    /// Checks whether a claim is allowed, regardless of other claims.
    fn check(&self, claim: &Claim) -> Result<(), Loss> {
        if claim.form != Form::Custom {
            return Ok(());
        }
        match self.template.read(&claim.host) {
            // Even before that Function exists. Otherwise the first claimant of its host would receive its requests.
            DefaultHost::Of(name, namespace) => {
                return Err(Loss::Taken { owner: (namespace.into(), name.into()), whole_host: true });
            }
            DefaultHost::Ambiguous | DefaultHost::Parent => return Err(Loss::Reserved),
            DefaultHost::No => {}
        }
        self.allowed.check(&claim.host, &claim.claimant.namespace).map_err(Loss::NotAllowed)
    }

    /// Settles the claims to one host. The order of `claims` does not matter.
    pub fn settle<'a>(&self, claims: impl IntoIterator<Item = &'a Claim>) -> Settled<'a> {
        let mut settled = Settled::default();
        let mut admitted: Vec<&Claim> = Vec::new();
        for claim in claims {
            match self.check(claim) {
                Ok(()) => admitted.push(claim),
                Err(loss) => settled.lost.push((claim, loss)),
            }
        }
        admitted.sort_unstable();
        let Some(first) = admitted.first().copied() else { return settled };
        for claim in admitted {
            // A default host or tag belongs to its Function with every path, claimed or not.
            let within = if first.form == Form::Custom {
                claim.claimant.namespace == first.claimant.namespace
            } else {
                claim.claimant == first.claimant && claim.form == first.form
            };
            if !within {
                settled.lost.push((claim, Loss::Taken { owner: first.claimant.id(), whole_host: true }));
                continue;
            }
            let owner = *settled.paths.entry(&claim.path).or_insert(claim);
            if owner != claim {
                settled.lost.push((claim, Loss::Taken { owner: owner.claimant.id(), whole_host: false }));
            }
        }
        settled
    }
}

/// Formats the host, and the path unless it is `/`.
impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = if &*self.path == "/" { "" } else { &*self.path };
        write!(f, "{}{path}", self.host)
    }
}

#[cfg(test)]
mod tests;
