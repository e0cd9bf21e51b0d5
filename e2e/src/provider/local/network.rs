//! The node's network namespace and its link to the host.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

use super::{Addresses, Names};
use crate::places::{Places, hex};
use crate::process::{command, run, succeeds};
use crate::state::State;

/// Chooses addresses that no other cluster and no route of this machine has. The caller holds the lock.
pub(super) async fn choose(places: &Places) -> Result<Addresses> {
    let mut taken = BTreeSet::new();
    for entry in std::fs::read_dir(&places.state)? {
        taken.extend(State::read(&entry?.path()).ok().flatten().and_then(|state| state.index));
    }
    let table = run(command("ip", ["-4", "-o", "route", "show", "table", "all"])).await?;
    let destinations: Vec<&str> = table.lines().flat_map(|line| line.split_whitespace().take(2)).collect();
    Addresses::choose(&taken, &destinations)
        .context("No free subnet for a cluster in 10.128.0.0/9: another network uses it, or too many clusters run")
}

/// The host's end of the link. Interface names have at most 15 characters, so it is a hash of the node's.
pub(super) fn link(node: &str) -> String {
    format!("rouse{}", &hex(&Sha256::digest(node))[..8])
}

/// Makes the namespace, the link, the addresses and the routes.
pub(super) async fn create(names: &Names, addresses: Addresses) -> Result<()> {
    let (node, link) = (names.node.as_str(), link(&names.node));
    let ip = async |args: &[&str]| run(command("ip", args)).await.map(|_| ());
    ip(&["netns", "add", node]).await?;
    ip(&["link", "add", &link, "type", "veth", "peer", "name", "eth0", "netns", node]).await?;
    ip(&["address", "add", &format!("{}/30", addresses.host()), "dev", &link]).await?;
    ip(&["link", "set", &link, "up"]).await?;
    ip(&["-n", node, "address", "add", &format!("{}/30", addresses.node()), "dev", "eth0"]).await?;
    ip(&["-n", node, "link", "set", "lo", "up"]).await?;
    ip(&["-n", node, "link", "set", "eth0", "up"]).await?;
    ip(&["-n", node, "route", "add", "default", "via", &addresses.host().to_string()]).await?;
    // The host reaches pods by way of the node: tests measure the way to a pod without the ingress.
    ip(&["route", "add", &addresses.pods(), "via", &addresses.node().to_string(), "dev", &link]).await?;
    let net = format!("--net={}", names.namespace().display());
    run(command("nsenter", [net.as_str(), "sysctl", "-qw", "net.ipv4.ip_forward=1"])).await?;
    Ok(())
}

/// Removes the link (and with it the host's routes through it) and the namespace, as far as they are there.
pub(super) async fn remove(node: &str) -> Result<()> {
    let link = link(node);
    if succeeds(command("ip", ["link", "show", "dev", &link])).await {
        run(command("ip", ["link", "delete", "dev", &link])).await?;
    }
    if std::path::Path::new("/run/netns").join(node).exists() {
        run(command("ip", ["netns", "delete", node])).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_names_fit_and_differ() {
        let (a, b) = (link("rouse-a"), link("rouse-a-name-that-is-thirty-characters-long"));
        assert!(a.len() <= 15 && b.len() <= 15);
        assert_ne!(a, b);
    }
}
