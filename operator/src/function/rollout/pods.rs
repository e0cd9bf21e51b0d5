//! How many pods a new revision needs before it gets calls. Pure.

use rouse_crds::function::TrafficTarget;

/// The part of `ready` pods of the revision `from` that serves calls to the latest: it may have calls by its own name too.
pub fn need(traffic: &[TrafficTarget], from: &str, ready: u32) -> u32 {
    if traffic.is_empty() {
        return ready;
    }
    let percent = |is: fn(&TrafficTarget, &str) -> bool| -> u32 {
        let mine = traffic.iter().filter(|t| is(t, from));
        mine.map(|t| u32::try_from(t.percent.unwrap_or(0)).unwrap_or(0)).sum()
    };
    let latest = percent(|target, _| target.revision.is_none());
    let named = percent(|target, from| target.revision.as_deref() == Some(from));
    if latest == 0 { 0 } else { ready.saturating_mul(latest).div_ceil(latest + named) }
}

/// Pods that are needed for a share of `to` percent, when the former revision does with `former` pods for all but the
/// `from` percent that `new` pods of the new one have.
pub fn before(from: u32, to: u32, former: u32, new: u32) -> u32 {
    if from == 0 {
        return former.saturating_mul(to).div_ceil(100);
    }
    // Both counts are rounded up already, and one pod may have far less to do than it could: neither the ratio of the
    // shares nor the sum of the pods alone may make many of few.
    let rest = 100u32.saturating_sub(from).max(1);
    let by_share = former.saturating_mul(to).saturating_add(rest / 2) / rest;
    let by_sum = former.saturating_add(new).saturating_mul(to).div_ceil(100);
    by_share.max(former.min(1)).min(by_sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::all_at_once(0, 100, 20, 0, 20)]
    #[case::a_tenth(0, 10, 20, 0, 2)]
    #[case::at_least_one(0, 10, 1, 0, 1)]
    #[case::idle(0, 100, 0, 1, 0)]
    #[case::half(10, 50, 18, 2, 10)]
    #[case::the_rest(50, 100, 10, 10, 20)]
    #[case::one_pod_each(10, 100, 1, 1, 1)]
    #[case::one_pod_that_does_little(90, 100, 1, 1, 2)]
    #[case::nobody_calls(50, 100, 0, 0, 0)]
    fn pods_for_a_share(#[case] from: u32, #[case] to: u32, #[case] former: u32, #[case] new: u32, #[case] pods: u32) {
        assert_eq!(before(from, to, former, new), pods);
    }

    fn target(revision: Option<&str>, percent: i32) -> TrafficTarget {
        TrafficTarget {
            revision: revision.map(str::to_owned),
            latest: revision.is_none().then_some(true),
            percent: Some(percent),
            tag: None,
        }
    }

    #[test]
    fn pods_that_serve_others_are_not_counted() {
        assert_eq!(need(&[], "f-1", 7), 7);
        assert_eq!(need(&[target(None, 100)], "f-1", 7), 7);
        assert_eq!(need(&[target(Some("f-1"), 80), target(None, 20)], "f-1", 10), 2);
        assert_eq!(need(&[target(Some("f-0"), 80), target(None, 20)], "f-1", 4), 4);
        assert_eq!(need(&[target(Some("f-1"), 100)], "f-1", 7), 0, "no call goes to the latest");
    }
}
