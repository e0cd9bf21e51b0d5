//! Who has a public host, and each path of it, when several Functions claim it. Pure; what one host comes to depends on the
//! claims to that host alone, so a reader of changes settles only the hosts that a change touches.
//!
//! - A default host is its Function's, and a host that has the form of one is claimed by nobody else.
//! - A custom host is the namespace's of the oldest Function that claims it by any path: or else another namespace could take
//!   `/login` of somebody's host. In that namespace each path is the oldest Function's that claims it.
//! - A namespace claims only what the platform's rules let it claim.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use super::{AllowedHosts, DefaultHost, HostTemplate, NotAllowed};
use crate::{Function, function::Visibility};
use kube::ResourceExt;

/// Who claims a host, in the order in which claimants win: the oldest first, and by namespace and name where two are of the
/// same second, so that every reader comes to the same answer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Claimant {
    /// When the Function was created, in seconds of Unix time; `i64::MAX` if that is not known.
    pub created: i64,
    /// Its namespace.
    pub namespace: Box<str>,
    /// Its name.
    pub name: Box<str>,
}

/// What a host is to the Function that claims it, in the order in which claims win.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Form {
    /// Its default host.
    Default,
    /// The host of one of its tags.
    Tag,
    /// A host that `spec.hosts` or `spec.routes` names.
    Custom,
}

/// A Function's claim to the calls of a host below a path. The claims of one host sort as they win.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Claim {
    /// The host, in lower case and without a dot at its end.
    pub host: Box<str>,
    /// What it is to the claimant.
    pub form: Form,
    /// Who claims.
    pub claimant: Claimant,
    /// `/`, or segments without a slash at the end.
    pub path: Box<str>,
    /// The tag, if the host is of one.
    pub tag: Option<Box<str>>,
    /// Which of `spec.routes` the claim is of; `None` if no route is about the host, and so all of it is claimed.
    pub route: Option<usize>,
}

/// What decides beside the claims.
#[derive(Clone, Debug)]
pub struct Rules {
    /// How default hosts are made.
    pub template: HostTemplate,
    /// Which namespaces may claim which custom hosts.
    pub allowed: AllowedHosts,
}

/// What the claims to one host come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settled<'a> {
    /// The claim that has each path.
    pub paths: BTreeMap<&'a str, &'a Claim>,
    /// The others, and why.
    pub lost: Vec<(&'a Claim, Loss)>,
}

/// Why a claim leads to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The host or the path is another Function's.
    Taken {
        /// Namespace and name of the Function that has it.
        owner: (Box<str>, Box<str>),
        /// Whether it has all of the host, so that another path would be no help.
        whole_host: bool,
    },
    /// It has the form of a default host, and which Function's cannot be told.
    Reserved,
    /// The namespace may not claim it.
    NotAllowed(NotAllowed),
}

impl Claimant {
    /// The claimant that a Function is.
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

/// Everything that a Function claims: its default host, those of its tags, and the custom ones, each by the paths of the
/// routes that are about it, or whole if none is. A `Cluster` Function claims nothing. Each host and path is there once.
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
        // What names a host that is the function's already, a default one say, adds nothing to what that is.
        if !done.insert(host) {
            continue;
        }
        let (mut about, all) = (false, index < anywhere);
        // A route that names the host comes before one that is about every host.
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

/// A host as the schema wants it, for a Function may be older than the schema's rules.
fn normal(host: &str) -> String {
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

impl Rules {
    /// Whether a claim may be made at all, whoever else makes it.
    fn admit(&self, claim: &Claim) -> Result<(), Loss> {
        if claim.form != Form::Custom {
            return Ok(());
        }
        match self.template.read(&claim.host) {
            // Even before that Function exists: or else whoever claims its host first would get its calls.
            DefaultHost::Of(name, namespace) => {
                return Err(Loss::Taken { owner: (namespace.into(), name.into()), whole_host: true });
            }
            DefaultHost::Ambiguous => return Err(Loss::Reserved),
            DefaultHost::No => {}
        }
        self.allowed.check(&claim.host, &claim.claimant.namespace).map_err(Loss::NotAllowed)
    }

    /// Settles the claims to one host, in whatever order they come.
    pub fn settle<'a>(&self, claims: impl IntoIterator<Item = &'a Claim>) -> Settled<'a> {
        let mut settled = Settled::default();
        let mut admitted: Vec<&Claim> = Vec::new();
        for claim in claims {
            match self.admit(claim) {
                Ok(()) => admitted.push(claim),
                Err(loss) => settled.lost.push((claim, loss)),
            }
        }
        admitted.sort_unstable();
        let Some(first) = admitted.first().copied() else { return settled };
        for claim in admitted {
            // A host that is made from a Function's name is that Function's with every path, claimed or not.
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

/// What a lost claim is about, for people: the host, and the path where that is what is lost.
impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = if &*self.path == "/" { "" } else { &*self.path };
        write!(f, "{}{path}", self.host)
    }
}

#[cfg(test)]
mod tests;
