//! Trusted proxies: peers whose statements about the origin of a request are passed on.

use std::{net::IpAddr, str::FromStr, sync::Arc};

use ipnet::IpNet;

/// Networks of trusted proxies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies(Arc<[IpNet]>);

/// Why a list of networks is invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither a network such as 10.0.0.0/8, nor an address, nor the word \"private\"")]
pub struct BadNetwork(String);

/// Networks that are not routed on the internet: RFC 1918, carrier-grade NAT (pods and nodes of some clouds), loopback,
/// and unique local addresses of IPv6.
const PRIVATE: [&str; 7] =
    ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "127.0.0.0/8", "::1/128", "fc00::/7"];

impl TrustedProxies {
    /// Whether a peer at this address is trusted.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }
}

impl FromStr for TrustedProxies {
    type Err = BadNetwork;

    /// Reads networks, addresses and the word `private`, separated by commas. An empty text is no network.
    fn from_str(text: &str) -> Result<Self, BadNetwork> {
        let mut networks = vec![];
        for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            let bad = || BadNetwork(entry.to_owned());
            let words = if entry == "private" { &PRIVATE[..] } else { &[entry] };
            for word in words {
                let address = word.parse().map(|address: IpAddr| IpNet::from(address.to_canonical()));
                networks.push(address.or_else(|_| word.parse()).map_err(|_| bad())?);
            }
        }
        Ok(Self(networks.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("", "10.0.0.1", false)]
    #[case("10.0.0.0/8", "10.255.0.1", true)]
    #[case("10.0.0.0/8", "::ffff:10.255.0.1", true)]
    #[case("10.0.0.0/8", "11.0.0.1", false)]
    #[case("192.0.2.7", "192.0.2.7", true)]
    #[case("192.0.2.7", "192.0.2.8", false)]
    #[case("192.0.2.0/24, 2001:db8::/32,", "2001:db8::1", true)]
    #[case("2001:db8::/32", "2001:db9::1", false)]
    #[case("0.0.0.0/0", "2001:db8::1", false)]
    #[case("private", "172.31.0.1", true)]
    #[case("private", "100.64.3.4", true)]
    #[case("private", "fd00::1", true)]
    #[case("private", "127.0.0.1", true)]
    #[case("private", "203.0.113.7", false)]
    #[case("private", "172.32.0.1", false)]
    #[case("private", "2001:db8::1", false)]
    #[case("private,203.0.113.0/24", "203.0.113.7", true)]
    fn peers_are_matched(#[case] list: &str, #[case] address: &str, #[case] trusted: bool) {
        let list: TrustedProxies = list.parse().unwrap();
        assert_eq!(list.contains(address.parse().unwrap()), trusted);
    }

    #[rstest]
    #[case("10.0.0.0/33")]
    #[case("10.0.0/8")]
    #[case("ingress.example")]
    #[case("Private")]
    #[case("10.0.0.0/8 192.0.2.0/24")]
    fn other_texts_are_invalid(#[case] list: &str) {
        assert!(list.parse::<TrustedProxies>().is_err());
    }
}
