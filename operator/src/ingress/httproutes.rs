//! Reconciliation of the shared HTTPRoutes.

use std::collections::BTreeMap;

use kube::ResourceExt as _;
use rouse_crds::{conditions::INGRESS_REJECTED, hosts::ownership::Claim};

use super::{
    Gateway, IngressReconciler,
    gateway::{FAMILIES, Family, shard_of},
    objects::Applied,
    public_hosts::{ByNamespace, Hosts, PublicHosts},
    shards::{self, Shards},
};
use crate::{
    cluster::{cache::Cache, httproute::HTTPRoute, key::FunctionKey},
    hosts::{LostHost, Won},
};

/// Assignment of hosts to routes, for each family.
pub(super) type Placed = BTreeMap<Family, Shards>;

impl IngressReconciler {
    /// Writes the wanted routes, and deletes routes without hosts. A route that the API server rejects does not block
    /// the others. Returns the Functions with hosts in rejected routes, and the first other error.
    pub(super) async fn apply_httproutes(
        &self,
        public: &ByNamespace,
        won: &Won,
        gateway: &Gateway,
        placed: &mut Option<Placed>,
    ) -> (BTreeMap<FunctionKey, LostHost>, kube::Result<()>) {
        let public = &united(public);
        let mut lost = BTreeMap::new();
        let live = live(&self.caches.httproutes);
        let former = placed.take().unwrap_or_else(|| self::former(&live));
        let wanted = place(public, gateway, &former);
        let mut outcome = Ok(());
        for (family, shards) in &wanted {
            let service = match family {
                Family::H2c => self.names.h2c_service(),
                Family::Http1 | Family::Redirect => self.names.activator_service.clone(),
            };
            for (number, shard) in shards {
                let name = family.route(*number);
                let mut route = HTTPRoute::new(&name, gateway.spec(*family, shard, &service));
                route.metadata = self.metadata(&name);
                // Compares values of the same type, so defaults of the API server make no difference, but a removed
                // listener does.
                let same = live.get(&name).map(|live| &**live).filter(|live| live.spec == route.spec);
                match self.apply_if_changed(&route, same).await {
                    Ok(Applied::Written) => tracing::info!(name, hosts = shard.hosts.len(), "Applied shared HTTPRoute"),
                    Ok(Applied::Unchanged) => {}
                    Ok(Applied::Rejected(message)) => {
                        tracing::error!(name, detail = message, "API server rejected an HTTPRoute");
                        let has_host =
                            |claims: &Vec<Claim>| claims.iter().any(|claim| shard.hosts.contains(&*claim.host));
                        let message = format!(
                            "The API server rejected HTTPRoute {}/{name}, so the Gateway does not serve its hosts: {message}",
                            self.names.namespace
                        );
                        let concerned = won.iter().filter(|(_, claims)| has_host(claims));
                        lost.extend(concerned.map(|(key, _)| {
                            (key.clone(), LostHost { host: None, reason: INGRESS_REJECTED, message: message.clone() })
                        }));
                    }
                    Err(error) => outcome = outcome.and(Err(error)),
                }
            }
        }
        // After the writes, so that a moved host is always in a route.
        for (name, route) in &live {
            let Some((family, number)) = Family::of(name) else { continue };
            if !wanted.get(&family).is_some_and(|shards| shards.contains_key(&number))
                && let Err(error) = self.delete::<HTTPRoute>(&**route).await
            {
                outcome = outcome.and(Err(error));
            }
        }
        *placed = Some(wanted);
        (lost, outcome)
    }
}

/// Returns the hosts of all namespaces.
fn united(public: &ByNamespace) -> PublicHosts {
    let all = |hosts: fn(&PublicHosts) -> &Hosts| {
        public.values().flat_map(hosts).map(|(host, paths)| (host.clone(), paths.clone())).collect()
    };
    PublicHosts { http1: all(|public| &public.http1), h2c: all(|public| &public.h2c) }
}

/// Live routes by name.
fn live(cache: &Cache<HTTPRoute>) -> BTreeMap<String, std::sync::Arc<HTTPRoute>> {
    cache.all().into_iter().map(|route| (route.name_any(), route)).collect()
}

/// Assignment of hosts in the live routes.
fn former(live: &BTreeMap<String, std::sync::Arc<HTTPRoute>>) -> Placed {
    let mut placed = Placed::new();
    for (name, route) in live {
        if let Some((family, number)) = Family::of(name) {
            placed.entry(family).or_default().insert(number, shard_of(route));
        }
    }
    placed
}

fn place(public: &PublicHosts, gateway: &Gateway, former: &Placed) -> Placed {
    let none = Shards::new();
    let place = |family| {
        let all: Hosts;
        let hosts = match family {
            Family::Http1 => &public.http1,
            Family::H2c => &public.h2c,
            Family::Redirect if gateway.redirect_section.is_none() => return (family, Shards::new()),
            Family::Redirect => {
                let names = public.http1.keys().chain(public.h2c.keys());
                all = names.map(|host| (host.clone(), ["/".to_owned()].into())).collect();
                &all
            }
        };
        (family, shards::place(hosts, former.get(&family).unwrap_or(&none)))
    };
    FAMILIES.into_iter().map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingress::public_hosts::tests::{function, public_hosts};
    use rouse_crds::hosts::DEFAULT_TEMPLATE;
    use serde_json::json;

    #[test]
    fn redirects_cover_every_host_if_enabled() {
        let functions = [
            function("app", "a", json!({})),
            function("app", "g", json!({"protocol": "h2c", "hosts": ["g.example.org"]})),
        ];
        let public = public_hosts(&functions, DEFAULT_TEMPLATE, "example.com");
        let mut gateway = Gateway::default();
        assert_eq!(place(&public, &gateway, &Placed::new())[&Family::Redirect], Shards::new());
        gateway.redirect_section = Some("http".into());
        let placed = place(&public, &gateway, &Placed::new());
        let hosts: Vec<_> = placed[&Family::Redirect][&0].hosts.iter().map(String::as_str).collect();
        assert_eq!(hosts, ["*.app.example.com", "g.app.example.com", "g.example.org"]);
        assert_eq!(placed[&Family::Http1][&0].hosts.len(), 1);
        assert_eq!(placed[&Family::H2c][&0].hosts.len(), 2);
    }
}
