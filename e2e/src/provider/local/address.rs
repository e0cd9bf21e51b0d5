//! Addresses of a local cluster: a number chooses them all, so that several clusters fit on one machine.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

/// How many clusters one machine can have: the pod networks are 10.128.0.0/16 and up and must end before 10.250.
const PLACES: u8 = 100;

/// The service network. It is the same in each cluster: it exists in the node's namespace alone.
pub(super) const SERVICES: &str = "10.96.0.0/16";
/// The first address of the service network, which is the API server's.
pub(super) const SERVICE_API: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
/// Cluster DNS.
pub(super) const SERVICE_DNS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);

/// The addresses of one cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses(u8);

impl Addresses {
    /// The addresses with this number.
    pub fn at(index: u8) -> Self {
        Self(index)
    }

    /// The first that is neither another cluster's nor routed elsewhere. `routes` are destinations as `ip route` prints them.
    pub fn choose(taken: &BTreeSet<u8>, routes: &[&str]) -> Option<Self> {
        let routed: Vec<Prefix> = routes.iter().filter_map(|route| Prefix::parse(route)).collect();
        (0..PLACES).filter(|index| !taken.contains(index)).map(Self).find(|candidate| {
            let own = [
                Prefix { address: candidate.host().into(), bits: 30 },
                Prefix { address: candidate.pod_base(), bits: 16 },
            ];
            !own.iter().any(|own| routed.iter().any(|route| route.overlaps(*own)))
        })
    }

    /// The number.
    pub fn index(self) -> u8 {
        self.0
    }

    /// The host's end of the link to the node.
    pub fn host(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 250, self.0, 1)
    }

    /// The node's end.
    pub fn node(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 250, self.0, 2)
    }

    /// The pods' network, in CIDR notation.
    pub fn pods(self) -> String {
        format!("{}/16", Ipv4Addr::from(self.pod_base()))
    }

    fn pod_base(self) -> u32 {
        Ipv4Addr::new(10, 128 + self.0, 0, 0).into()
    }
}

#[derive(Clone, Copy, Debug)]
struct Prefix {
    address: u32,
    bits: u32,
}

impl Prefix {
    /// `10.0.0.0/8` or a single address; `default` overlaps nothing, as everything is more specific.
    fn parse(text: &str) -> Option<Self> {
        let (address, bits) = text.split_once('/').unwrap_or((text, "32"));
        let address: Ipv4Addr = address.parse().ok()?;
        let bits = bits.parse().ok().filter(|bits| (1..=32).contains(bits))?;
        Some(Self { address: address.into(), bits })
    }

    fn overlaps(self, other: Self) -> bool {
        let mask = u32::MAX << (32 - self.bits.min(other.bits));
        self.address & mask == other.address & mask
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_clusters_share_an_address() {
        let mut seen = BTreeSet::new();
        for index in 0..PLACES {
            let addresses = Addresses::at(index);
            assert!(seen.insert(addresses.pods()) && seen.insert(addresses.node().to_string()));
            assert!(!addresses.pods().starts_with("10.250."));
        }
    }

    #[test]
    fn the_first_free_place_is_taken() {
        assert_eq!(Addresses::choose(&BTreeSet::new(), &["default", "192.0.2.0/24"]), Some(Addresses(0)));
        assert_eq!(Addresses::choose(&BTreeSet::from([0, 1]), &[]), Some(Addresses(2)));
        assert_eq!(Addresses::choose(&(0..PLACES).collect(), &[]), None);
    }

    #[test]
    fn routes_of_others_are_avoided() {
        // A link, a pod network, and one that holds a link's address inside a bigger network.
        assert_eq!(Addresses::choose(&BTreeSet::new(), &["10.250.0.0/30"]), Some(Addresses(1)));
        assert_eq!(Addresses::choose(&BTreeSet::new(), &["10.128.7.0/24"]), Some(Addresses(1)));
        assert_eq!(Addresses::choose(&BTreeSet::new(), &["10.250.0.0/23", "10.130.1.1"]), Some(Addresses(3)));
        // All of 10/8 is routed away: there is no place.
        assert_eq!(Addresses::choose(&BTreeSet::new(), &["10.0.0.0/8"]), None);
    }
}
