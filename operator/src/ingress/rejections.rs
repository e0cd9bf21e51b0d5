//! What the API server rejects of the hosts of a namespace, and whose it is.
//!
//! The hosts of a namespace are in one object, so one rejected host would keep those of all its Functions from being routed. The
//! object is therefore divided until the Functions are found whose hosts are rejected.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::{Duration, Instant};

use super::public_hosts::Hosts;
use crate::cluster::key::FunctionKey;

/// Time until rejected hosts are tried again: a policy or a quota may have changed.
const RETRY: Duration = Duration::from_secs(30);

/// Rejections by object.
#[derive(Debug, Default)]
pub(super) struct Rejections(BTreeMap<String, Rejection>);

#[derive(Debug)]
struct Rejection {
    wanted: Hosts,
    result: Divided,
    retry: Instant,
}

/// Result of a division.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Divided {
    /// Hosts that the API server accepts together.
    pub(super) accepted: Hosts,
    /// Functions whose hosts it rejects, with its message.
    pub(super) rejected: BTreeMap<FunctionKey, String>,
}

impl Rejections {
    /// Returns the result for an object with these hosts, if it was rejected not long ago. Otherwise forgets the object, which is
    /// to be written as a whole: if that succeeds, there is nothing to wait for.
    pub(super) fn known(&mut self, name: &str, wanted: &Hosts, now: Instant) -> Option<Divided> {
        let rejection = self.0.get(name)?;
        if rejection.wanted == *wanted && now < rejection.retry {
            return Some(rejection.result.clone());
        }
        self.0.remove(name);
        None
    }

    /// Remembers the result for an object.
    pub(super) fn remember(&mut self, name: &str, wanted: &Hosts, result: &Divided, now: Instant) {
        let rejection = Rejection { wanted: wanted.clone(), result: result.clone(), retry: now + RETRY };
        self.0.insert(name.to_owned(), rejection);
    }

    /// Forgets all objects but these.
    pub(super) fn retain(&mut self, is_kept: impl Fn(&str) -> bool) {
        self.0.retain(|name, _| is_kept(name));
    }

    /// Returns the time until the next retry.
    pub(super) fn wait(&self, now: Instant) -> Option<Duration> {
        self.0.values().map(|rejection| rejection.retry.saturating_duration_since(now)).min()
    }
}

/// Search for the hosts that the API server accepts together. Pure: [`Self::next`] gives the hosts to try, and
/// [`Self::answer`] takes the result. Needs about `k log n` tries for `k` rejected of `n` Functions.
#[derive(Debug)]
pub(super) struct Division<'a> {
    hosts: &'a Hosts,
    owners: &'a BTreeMap<FunctionKey, BTreeSet<String>>,
    groups: Vec<Vec<&'a FunctionKey>>,
    trying: Option<(Vec<&'a FunctionKey>, Hosts)>,
    result: Divided,
}

impl<'a> Division<'a> {
    /// `hosts` are all hosts, and `owners` those of each Function. Hosts of no Function, such as wildcards, are tried first and
    /// alone, and then with each group.
    pub(super) fn new(hosts: &'a Hosts, owners: &'a BTreeMap<FunctionKey, BTreeSet<String>>) -> Self {
        // An empty group stands for the hosts of no Function.
        Self { hosts, owners, groups: vec![owners.keys().collect(), vec![]], trying: None, result: Divided::default() }
    }

    /// Returns the hosts to try; `None` at the end.
    pub(super) fn next(&mut self) -> Option<&Hosts> {
        while let Some(group) = self.groups.pop() {
            let mut candidate = self.result.accepted.clone();
            let of_group: BTreeSet<&String> = if group.is_empty() {
                let owned: BTreeSet<&String> = self.owners.values().flatten().collect();
                self.hosts.keys().filter(|host| !owned.contains(host)).collect()
            } else {
                group.iter().filter_map(|key| self.owners.get(key)).flatten().collect()
            };
            candidate
                .extend(of_group.into_iter().filter_map(|host| Some((host.clone(), self.hosts.get(host)?.clone()))));
            if candidate.len() > self.result.accepted.len() {
                return Some(&self.trying.insert((group, candidate)).1);
            }
        }
        None
    }

    /// Takes whether the API server accepts the hosts of the last [`Self::next`], or else its message.
    pub(super) fn answer(&mut self, answer: Result<(), String>) {
        let Some((group, candidate)) = self.trying.take() else { return };
        match (answer, &group[..]) {
            (Ok(()), _) => self.result.accepted = candidate,
            (Err(message), []) => {
                // The reason is not a host of a Function.
                self.groups.clear();
                self.result.rejected = self.owners.keys().map(|key| (key.clone(), message.clone())).collect();
            }
            (Err(message), [one]) => {
                self.result.rejected.insert((*one).clone(), message);
            }
            (Err(_), many) => {
                let (first, second) = many.split_at(many.len() / 2);
                self.groups.extend([second.to_vec(), first.to_vec()]);
            }
        }
    }

    /// Returns the result.
    pub(super) fn finish(self) -> Divided {
        self.result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> FunctionKey {
        FunctionKey::new("ns", name)
    }

    fn hosts(names: &[String]) -> Hosts {
        names.iter().map(|name| (name.clone(), BTreeSet::from(["/".to_owned()]))).collect()
    }

    /// Divides with what `accepts` says, and returns the number of tries.
    fn divide(
        hosts: &Hosts,
        owners: &BTreeMap<FunctionKey, BTreeSet<String>>,
        accepts: impl Fn(&Hosts) -> Result<(), String>,
    ) -> (Divided, u32) {
        let (mut division, mut tries) = (Division::new(hosts, owners), 0);
        while let Some(candidate) = division.next() {
            let answer = accepts(candidate);
            division.answer(answer);
            tries += 1;
        }
        (division.finish(), tries)
    }

    #[test]
    fn only_the_functions_with_a_rejected_host_lose_theirs() {
        let names: Vec<_> = (0..64).map(|n| format!("h{n}.example.org")).collect();
        let mut all = hosts(&names);
        all.insert("*.ns.example.com".to_owned(), BTreeSet::from(["/".to_owned()]));
        let owners: BTreeMap<_, _> =
            names.iter().enumerate().map(|(n, host)| (key(&format!("f{n}")), BTreeSet::from([host.clone()]))).collect();
        let (divided, tries) = divide(&all, &owners, |hosts| {
            let bad = ["h7.example.org", "h50.example.org"].into_iter().find(|bad| hosts.contains_key(*bad));
            bad.map_or(Ok(()), |bad| Err(format!("no {bad}")))
        });
        assert_eq!(divided.rejected.keys().cloned().collect::<Vec<_>>(), [key("f50"), key("f7")]);
        assert_eq!(divided.rejected[&key("f7")], "no h7.example.org");
        assert_eq!(divided.accepted.len(), 63);
        assert!(divided.accepted.contains_key("*.ns.example.com"));
        assert!(tries < 40, "{tries} tries");
    }

    #[test]
    fn an_object_that_is_too_large_has_as_many_as_fit() {
        let names: Vec<_> = (0..10).map(|n| format!("h{n}.example.org")).collect();
        let owners: BTreeMap<_, _> =
            names.iter().enumerate().map(|(n, host)| (key(&format!("f{n}")), BTreeSet::from([host.clone()]))).collect();
        let too_large = |hosts: &Hosts| if hosts.len() > 6 { Err("too large".to_owned()) } else { Ok(()) };
        let (divided, _) = divide(&hosts(&names), &owners, too_large);
        assert_eq!((divided.accepted.len(), divided.rejected.len()), (6, 4));
    }

    #[test]
    fn a_rejection_for_another_reason_concerns_every_function() {
        let all = hosts(&["*.ns.example.com".to_owned(), "a.example.org".to_owned()]);
        let owners =
            BTreeMap::from([(key("f"), BTreeSet::from(["a.example.org".to_owned()])), (key("g"), BTreeSet::new())]);
        let (divided, _) = divide(&all, &owners, |_| Err("no Ingresses".to_owned()));
        assert_eq!((divided.accepted.len(), divided.rejected.len()), (0, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_rejection_is_tried_again_later_or_with_other_hosts() {
        let (mut rejections, now) = (Rejections::default(), Instant::now());
        let (wanted, result) = (hosts(&["a.example.org".to_owned()]), Divided::default());
        for (hosts, later) in [(&Hosts::new(), Duration::ZERO), (&wanted, RETRY)] {
            rejections.remember("rouse-http1-ns", &wanted, &result, now);
            assert_eq!(rejections.known("rouse-http1-ns", &wanted, now), Some(result.clone()));
            assert_eq!(rejections.wait(now), Some(RETRY));
            assert_eq!(rejections.known("rouse-http1-ns", hosts, now + later), None);
            assert_eq!(rejections.wait(now + later), None, "an object that is written as a whole is not waited for");
        }
        rejections.remember("rouse-http1-ns", &wanted, &result, now);
        rejections.retain(|_| false);
        assert_eq!(rejections.wait(now), None);
    }
}
