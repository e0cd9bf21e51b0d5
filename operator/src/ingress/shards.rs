//! Assignment of hosts to HTTPRoutes, which are limited to 16 hosts each. Pure.
//!
//! A host stays in its route, so that adding or removing a host is a single write.

use std::collections::{BTreeMap, BTreeSet};

use super::public_hosts::Hosts;

/// Maximum number of hosts in a route, as the Gateway API defines.
const MAX_HOSTS: usize = 16;

/// Maximum number of paths in a route. The hosts of a route have the same paths.
const MAX_PATHS: usize = 64;

/// Hosts and paths of one route.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shard {
    /// Hosts, at most 16.
    pub hosts: BTreeSet<String>,
    /// Paths of each host, sorted.
    pub paths: Vec<String>,
}

/// Routes by number.
pub type Shards = BTreeMap<usize, Shard>;

/// Assigns `hosts` to routes, given the previous assignment. Routes of `former` that the result does not contain are
/// obsolete.
pub fn place(hosts: &Hosts, former: &Shards) -> Shards {
    let mut left: BTreeMap<Vec<String>, BTreeSet<&str>> = BTreeMap::new();
    for (host, paths) in hosts {
        let paths: Vec<_> = paths.iter().cloned().collect();
        for some in paths.chunks(MAX_PATHS) {
            left.entry(some.to_vec()).or_default().insert(host);
        }
    }
    let mut shards = Shards::new();
    for (number, shard) in former {
        let Some(left) = left.get_mut(&shard.paths) else { continue };
        let stays: BTreeSet<_> =
            shard.hosts.iter().filter(|host| left.contains(host.as_str())).take(MAX_HOSTS).cloned().collect();
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
            let free = MAX_HOSTS - shard.hosts.len();
            shard.hosts.extend(left.by_ref().take(free));
        }
        while left.peek().is_some() {
            while shards.contains_key(&free) {
                free += 1;
            }
            shards.insert(free, Shard { hosts: left.by_ref().take(MAX_HOSTS).collect(), paths: paths.clone() });
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
        let mut assigned = Hosts::new();
        for shard in shards.values() {
            assert!((1..=MAX_HOSTS).contains(&shard.hosts.len()) && shard.paths.len() <= MAX_PATHS, "{shard:?}");
            for host in &shard.hosts {
                for path in &shard.paths {
                    assert!(assigned.entry(host.clone()).or_default().insert(path.clone()), "{host}{path} twice");
                }
            }
        }
        assert_eq!(assigned, *wanted);
        assert_eq!(place(wanted, &shards), shards, "the assignment is stable");
        shards
    }

    fn differing(a: &Shards, b: &Shards) -> usize {
        a.keys().chain(b.keys()).collect::<BTreeSet<_>>().into_iter().filter(|n| a.get(*n) != b.get(*n)).count()
    }

    #[test]
    fn adding_or_removing_a_host_changes_one_route() {
        let before = check(&hosts(0..100), &Shards::new());
        assert_eq!(before.len(), 7);
        let more = check(&hosts(0..=100), &before);
        assert_eq!(differing(&before, &more), 1);
        let less = check(&hosts((0..=100).filter(|n| *n != 3)), &more);
        assert_eq!(differing(&more, &less), 1);
        // The slot of the removed host is used before another route is created.
        let again = check(&hosts((0..=101).filter(|n| *n != 3)), &less);
        assert_eq!((differing(&less, &again), again.len()), (1, 7));
    }

    #[test]
    fn numbers_of_deleted_routes_are_reused() {
        let before = check(&hosts(0..40), &Shards::new());
        let less = check(&hosts(16..40), &before);
        assert_eq!(less.keys().copied().collect::<Vec<_>>(), [1, 2]);
        assert_eq!(check(&hosts(0..40), &less).len(), 3);
        assert_eq!(check(&Hosts::new(), &before), Shards::new());
    }

    #[test]
    fn hosts_with_different_paths_have_separate_routes() {
        let mut wanted = hosts(0..3);
        let many: BTreeSet<_> = (0..100).map(|n| format!("/p{n:03}")).collect();
        wanted.insert("cut.example.org".to_owned(), many);
        let shards = check(&wanted, &Shards::new());
        assert_eq!(shards.len(), 3);
        // A host whose paths changed moves to another route.
        let mut other = wanted.clone();
        other.insert("h000.example.org".to_owned(), BTreeSet::from(["/x".to_owned()]));
        check(&other, &shards);
    }

    #[test]
    fn overfull_and_duplicate_routes_are_repaired() {
        let overfull = Shard { hosts: hosts(0..30).into_keys().collect(), paths: vec!["/".to_owned()] };
        let twice = Shards::from([(0, overfull.clone()), (5, overfull)]);
        let shards = check(&hosts(0..30), &twice);
        assert_eq!(shards.keys().copied().collect::<Vec<_>>(), [0, 5]);
    }
}
