//! Keeps the shared HTTPRoutes.

use std::collections::BTreeMap;

use kube::ResourceExt as _;

use super::{
    Gateway, Keeper,
    gateway::{FAMILIES, Family, led},
    public_hosts::{Hosts, Ways},
    shards::{self, Shards},
};
use crate::cluster::{cache::Cache, httproute::HTTPRoute};

/// Where hosts are, in each family.
pub(super) type Placed = BTreeMap<Family, Shards>;

impl Keeper {
    /// Makes them what is wanted, and takes away those that have no host. One that the API server does not take keeps no
    /// other from being written; the first error is what is told.
    pub(super) async fn keep_routes(
        &self,
        ways: &Ways,
        gateway: &Gateway,
        placed: &mut Option<Placed>,
    ) -> kube::Result<()> {
        let live = live(&self.caches.httproutes);
        let former = placed.take().unwrap_or_else(|| self::former(&live));
        let wanted = place(ways, gateway, &former);
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
                // Of the same type on both sides, so that what the API server fills in makes no difference and a listener that
                // is no longer named does.
                let same = live.get(&name).map(|live| &**live).filter(|live| live.spec == route.spec);
                match self.keep(&route, same).await {
                    Ok(true) => tracing::info!(name, hosts = shard.hosts.len(), "Wrote a shared HTTPRoute"),
                    Ok(false) => {}
                    Err(error) => outcome = outcome.and(Err(error)),
                }
            }
        }
        // After the writes, so that a host that has moved is not nowhere meanwhile.
        for (name, route) in &live {
            let Some((family, number)) = Family::of(name) else { continue };
            if !wanted.get(&family).is_some_and(|shards| shards.contains_key(&number))
                && let Err(error) = self.remove::<HTTPRoute>(&**route).await
            {
                outcome = outcome.and(Err(error));
            }
        }
        *placed = Some(wanted);
        outcome
    }
}

/// The live routes by name.
fn live(cache: &Cache<HTTPRoute>) -> BTreeMap<String, std::sync::Arc<HTTPRoute>> {
    cache.all().into_iter().map(|route| (route.name_any(), route)).collect()
}

/// Where hosts are by the word of the live routes.
fn former(live: &BTreeMap<String, std::sync::Arc<HTTPRoute>>) -> Placed {
    let mut placed = Placed::new();
    for (name, route) in live {
        if let Some((family, number)) = Family::of(name) {
            placed.entry(family).or_default().insert(number, led(route));
        }
    }
    placed
}

fn place(ways: &Ways, gateway: &Gateway, former: &Placed) -> Placed {
    let none = Shards::new();
    let place = |family| {
        let all: Hosts;
        let hosts = match family {
            Family::Http1 => &ways.http1,
            Family::H2c => &ways.h2c,
            Family::Redirect if gateway.redirect_section.is_none() => return (family, Shards::new()),
            Family::Redirect => {
                let names = ways.http1.keys().chain(ways.h2c.keys());
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
    use crate::ingress::public_hosts::tests::{function, ways};
    use rouse_crds::hosts::DEFAULT_TEMPLATE;
    use serde_json::json;

    #[test]
    fn redirects_are_for_every_host_and_only_where_they_are_wanted() {
        let functions = [
            function("app", "a", json!({})),
            function("app", "g", json!({"protocol": "h2c", "hosts": ["g.example.org"]})),
        ];
        let ways = ways(&functions, DEFAULT_TEMPLATE, "example.com");
        let mut gateway = Gateway::default();
        assert_eq!(place(&ways, &gateway, &Placed::new())[&Family::Redirect], Shards::new());
        gateway.redirect_section = Some("http".into());
        let placed = place(&ways, &gateway, &Placed::new());
        let hosts: Vec<_> = placed[&Family::Redirect][&0].hosts.iter().map(String::as_str).collect();
        assert_eq!(hosts, ["*.app.example.com", "g.app.example.com", "g.example.org"]);
        assert_eq!(placed[&Family::Http1][&0].hosts.len(), 1);
        assert_eq!(placed[&Family::H2c][&0].hosts.len(), 2);
    }
}
