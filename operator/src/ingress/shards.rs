//! How hosts are spread over HTTPRoutes, of which each takes no more than 16. Pure.
//!
//! A host stays in the route that it is in, so that one more host, or one less, is one write, however many there are.

use std::collections::{BTreeMap, BTreeSet};

use super::public_hosts::Hosts;

/// Most hosts in one route, by the Gateway API.
const HOSTS: usize = 16;

/// Most paths in one route. Hosts of one route have the same paths.
const PATHS: usize = 64;

/// What one route is to lead.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shard {
    /// Hosts, at most 16.
    pub hosts: BTreeSet<String>,
    /// Paths of each of them, sorted.
    pub paths: Vec<String>,
}

/// Routes by their numbers.
pub type Shards = BTreeMap<usize, Shard>;

/// Where each of `hosts` is to be, given where they are. Routes that are in `former` and not in what this yields are to go.
pub fn place(hosts: &Hosts, former: &Shards) -> Shards {
    let mut left: BTreeMap<Vec<String>, BTreeSet<&str>> = BTreeMap::new();
    for (host, paths) in hosts {
        let paths: Vec<_> = paths.iter().cloned().collect();
        for some in paths.chunks(PATHS) {
            left.entry(some.to_vec()).or_default().insert(host);
        }
    }
    let mut shards = Shards::new();
    for (number, shard) in former {
        let Some(left) = left.get_mut(&shard.paths) else { continue };
        let stays: BTreeSet<_> =
            shard.hosts.iter().filter(|host| left.contains(host.as_str())).take(HOSTS).cloned().collect();
        for host in &stays {
            left.remove(host.as_str());
        }
        if !stays.is_empty() {
            shards.insert(*number, Shard { hosts: stays, paths: shard.paths.clone() });
        }
    }
    let mut free = 0;
    for (paths, left) in left {
        let mut left = left.into_iter().map(str::to_owned).peekable();
        for shard in shards.values_mut().filter(|shard| shard.paths == paths) {
            let room = HOSTS - shard.hosts.len();
            shard.hosts.extend(left.by_ref().take(room));
        }
        while left.peek().is_some() {
            while shards.contains_key(&free) {
                free += 1;
            }
            shards.insert(free, Shard { hosts: left.by_ref().take(HOSTS).collect(), paths: paths.clone() });
        }
    }
    shards
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(numbers: impl IntoIterator<Item = usize>) -> Hosts {
        numbers.into_iter().map(|n| (format!("h{n:03}.example.org"), BTreeSet::from(["/".to_owned()]))).collect()
    }

    fn check(wanted: &Hosts, former: &Shards) -> Shards {
        let shards = place(wanted, former);
        let mut led = Hosts::new();
        for shard in shards.values() {
            assert!((1..=HOSTS).contains(&shard.hosts.len()) && shard.paths.len() <= PATHS, "{shard:?}");
            for host in &shard.hosts {
                for path in &shard.paths {
                    assert!(led.entry(host.clone()).or_default().insert(path.clone()), "{host}{path} twice");
                }
            }
        }
        assert_eq!(led, *wanted);
        assert_eq!(place(wanted, &shards), shards, "what is placed stays");
        shards
    }

    fn differing(a: &Shards, b: &Shards) -> usize {
        a.keys().chain(b.keys()).collect::<BTreeSet<_>>().into_iter().filter(|n| a.get(*n) != b.get(*n)).count()
    }

    #[test]
    fn one_host_more_or_less_is_one_route() {
        let before = check(&hosts(0..100), &Shards::new());
        assert_eq!(before.len(), 7);
        let more = check(&hosts(0..=100), &before);
        assert_eq!(differing(&before, &more), 1);
        let less = check(&hosts((0..=100).filter(|n| *n != 3)), &more);
        assert_eq!(differing(&more, &less), 1);
        // The place of the one that went is taken before another route is made.
        let again = check(&hosts((0..=101).filter(|n| *n != 3)), &less);
        assert_eq!((differing(&less, &again), again.len()), (1, 7));
    }

    #[test]
    fn what_has_no_host_goes_and_its_number_is_taken_again() {
        let before = check(&hosts(0..40), &Shards::new());
        let less = check(&hosts(16..40), &before);
        assert_eq!(less.keys().copied().collect::<Vec<_>>(), [1, 2]);
        assert_eq!(check(&hosts(0..40), &less).len(), 3);
        assert_eq!(check(&Hosts::new(), &before), Shards::new());
    }

    #[test]
    fn hosts_with_other_paths_have_routes_of_their_own() {
        let mut wanted = hosts(0..3);
        let many: BTreeSet<_> = (0..100).map(|n| format!("/p{n:03}")).collect();
        wanted.insert("cut.example.org".to_owned(), many);
        let shards = check(&wanted, &Shards::new());
        assert_eq!(shards.len(), 3);
        // A host whose paths have become others goes elsewhere.
        let mut other = wanted.clone();
        other.insert("h000.example.org".to_owned(), BTreeSet::from(["/x".to_owned()]));
        check(&other, &shards);
    }

    #[test]
    fn routes_that_somebody_has_filled_by_hand_are_put_right() {
        let overfull = Shard { hosts: hosts(0..30).into_keys().collect(), paths: vec!["/".to_owned()] };
        let twice = Shards::from([(0, overfull.clone()), (5, overfull)]);
        let shards = check(&hosts(0..30), &twice);
        assert_eq!(shards.keys().copied().collect::<Vec<_>>(), [0, 5]);
    }
}
