//! Number of pods that a new revision needs before it receives traffic. Pure.

use rouse_crds::function::TrafficTarget;

/// Returns how many of the `ready` pods of revision `from` serve traffic of the latest revision. The others serve
/// traffic that names `from`.
pub fn serving_latest(traffic: &[TrafficTarget], from: &str, ready: u32) -> u32 {
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

/// Returns the number of pods that the new revision needs for `to` percent of the traffic. At `from` percent, it has
/// `new` pods and the previous revision serves the rest with `former` pods.
pub fn for_percent(from: u32, to: u32, former: u32, new: u32) -> u32 {
    if from == 0 {
        return former.saturating_mul(to).div_ceil(100);
    }
    // Both counts are already rounded up, and a single pod may be mostly idle. So neither the ratio of the percentages
    // nor the sum of the pods alone gives a good estimate: take the smaller.
    let rest = 100u32.saturating_sub(from).max(1);
    let by_ratio = former.saturating_mul(to).saturating_add(rest / 2) / rest;
    let by_sum = former.saturating_add(new).saturating_mul(to).div_ceil(100);
    by_ratio.max(former.min(1)).min(by_sum)
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
    fn pods_for_a_percentage(
        #[case] from: u32,
        #[case] to: u32,
        #[case] former: u32,
        #[case] new: u32,
        #[case] pods: u32,
    ) {
        assert_eq!(for_percent(from, to, former, new), pods);
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
    fn pods_that_serve_named_traffic_are_not_counted() {
        assert_eq!(serving_latest(&[], "f-1", 7), 7);
        assert_eq!(serving_latest(&[target(None, 100)], "f-1", 7), 7);
        assert_eq!(serving_latest(&[target(Some("f-1"), 80), target(None, 20)], "f-1", 10), 2);
        assert_eq!(serving_latest(&[target(Some("f-0"), 80), target(None, 20)], "f-1", 4), 4);
        assert_eq!(serving_latest(&[target(Some("f-1"), 100)], "f-1", 7), 0, "no traffic goes to the latest revision");
    }
}
