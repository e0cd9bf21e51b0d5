//! Claims to the hosts of one side, and the routes that result.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use rouse_crds::{
    Function,
    hosts::ownership::{Claim, Claimant, Form, Rules},
};

use super::{Host, Route, Side, Table, path::ROOT};

/// Claims to the hosts of one side.
#[derive(Debug)]
pub(super) struct Claims {
    side: Side,
    rules: Rules,
    hosts: HashMap<Box<str>, Claimed>,
    /// Hosts to settle at the end of the first list. If ten thousand Functions share a host, it is settled once then,
    /// and not once per Function.
    pending: Option<BTreeSet<Box<str>>>,
}

/// A claimed host.
#[derive(Debug, Default)]
struct Claimed {
    /// In the order of precedence.
    claims: Vec<Arc<Claim>>,
    /// Paths of the host that have a route.
    paths: Box<[Box<str>]>,
}

impl Claims {
    pub(super) fn new(side: Side, rules: Rules) -> Self {
        Self { side, rules, hosts: HashMap::new(), pending: None }
    }

    /// Returns the claims of a Function on this side.
    pub(super) fn of(&self, function: &Function) -> Vec<Arc<Claim>> {
        let claims = match self.side {
            Side::Public => rouse_crds::hosts::ownership::claims(function, &self.rules.template),
            Side::Cluster => cluster_names(function),
        };
        claims.into_iter().map(Arc::new).collect()
    }

    /// Replaces the claims of one Function, and updates the routes of the hosts that they name. `route` returns where a
    /// claim leads, if its Function is ready for that.
    pub(super) fn change(
        &mut self,
        table: &Table,
        previous: &[Arc<Claim>],
        now: &[Arc<Claim>],
        route: impl Fn(&Claim) -> Option<Route>,
    ) {
        for claim in previous {
            if let Some(claimed) = self.hosts.get_mut(&claim.host)
                && let Ok(at) = claimed.claims.binary_search(claim)
            {
                claimed.claims.remove(at);
            }
        }
        for claim in now {
            let claimed = self.hosts.entry(claim.host.clone()).or_default();
            if let Err(at) = claimed.claims.binary_search(claim) {
                claimed.claims.insert(at, claim.clone());
            }
        }
        let touched: BTreeSet<&str> = previous.iter().chain(now).map(|claim| &*claim.host).collect();
        if let Some(pending) = &mut self.pending {
            pending.extend(touched.into_iter().map(Into::into));
            return;
        }
        for host in touched {
            self.settle(table, host, &route);
        }
    }

    /// Defers all updates until [`Claims::settle_pending`].
    pub(super) fn defer(&mut self) {
        self.pending.get_or_insert_default();
    }

    /// Makes the deferred updates.
    pub(super) fn settle_pending(&mut self, table: &Table, route: impl Fn(&Claim) -> Option<Route>) {
        for host in self.pending.take().into_iter().flatten() {
            self.settle(table, &host, &route);
        }
    }

    fn settle(&mut self, table: &Table, host: &str, route: impl Fn(&Claim) -> Option<Route>) {
        let Some(claimed) = self.hosts.get_mut(host) else { return };
        let settled = self.rules.settle(claimed.claims.iter().map(|claim| &**claim));
        for (claim, loss) in &settled.lost {
            let Claimant { namespace, name, .. } = &claim.claimant;
            tracing::debug!(%namespace, function = %name, %claim, ?loss, "Claim to a host lost");
        }
        // A host that no request can name is left out; an earlier schema may have allowed it.
        let can_be_named = Host::normalise(host).is_ok_and(|named| named.as_str() == host);
        let routes: Vec<(Box<str>, Route)> = (settled.paths.iter())
            .filter(|_| can_be_named)
            .filter_map(|(path, claim)| Some(((*path).into(), route(claim)?)))
            .collect();
        table.set(self.side, host, &claimed.paths, &routes);
        claimed.paths = routes.into_iter().map(|(path, _)| path).collect();
        if claimed.claims.is_empty() {
            self.hosts.remove(host);
        }
    }

    /// Number of claimed hosts.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.hosts.len()
    }
}

/// Returns the names of a Function and its tags inside the cluster, `name.namespace`, with the paths of the routes that
/// apply to every host. The name of a Function has precedence over an equal name of a tag.
fn cluster_names(function: &Function) -> BTreeSet<Claim> {
    let claimant = Claimant::of(function);
    let Claimant { namespace, name, .. } = &claimant;
    let mut names = vec![(format!("{name}.{namespace}"), Form::Default, None)];
    for tag in function.spec.traffic.iter().flatten().filter_map(|target| target.tag.as_deref()) {
        names.push((format!("{tag}-{name}.{namespace}"), Form::Tag, Some(tag)));
    }
    let routes = function.spec.routes.iter().flatten().enumerate();
    let mut ways: Vec<(&str, Option<usize>)> = vec![];
    for (index, route) in routes.filter(|(_, route)| route.host.is_none()) {
        if ways.iter().all(|(path, _)| *path != route.path()) {
            ways.push((route.path(), Some(index)));
        }
    }
    if ways.is_empty() {
        ways.push((ROOT, None));
    }
    let claim = |host: &str, form: Form, tag: Option<&str>, path: &str, route: Option<usize>| Claim {
        host: host.into(),
        form,
        claimant: claimant.clone(),
        path: path.into(),
        tag: tag.map(Into::into),
        route,
    };
    let each = names
        .iter()
        .flat_map(|(host, form, tag)| ways.iter().map(move |(path, route)| (host, *form, *tag, *path, *route)));
    each.map(|(host, form, tag, path, route)| claim(host, form, tag, path, route)).collect()
}
