//! Resolves `spec.traffic` into percentages of revisions. Pure.

use rouse_crds::function::{TrafficStatus, TrafficTarget};

use crate::function::rollout::Split;

/// Inputs of [`resolve`].
#[derive(Debug)]
pub struct Inputs<'a> {
    /// `spec.traffic`; empty means 100 % to the latest revision.
    pub wanted: &'a [TrafficTarget],
    /// Previous traffic split.
    pub former: &'a [TrafficStatus],
    /// Revisions that share the traffic of the latest revision; `None` if no revision exists that could receive it.
    pub split: Option<&'a Split>,
    /// Names of all revisions with a Deployment, including those that were just created.
    pub existing: &'a [String],
}

/// Error: `spec.traffic` names a revision that does not exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("spec.traffic names revision {revision}, which does not exist; use one of: {existing}")]
pub struct Missing {
    /// Name of the revision.
    pub revision: String,
    /// Names of the existing revisions, separated by commas.
    pub existing: String,
}

/// Returns the current traffic split. While a named revision is missing, the previous split stays.
pub fn resolve(inputs: &Inputs<'_>) -> (Vec<TrafficStatus>, Option<Missing>) {
    let all = TrafficTarget { latest: Some(true), percent: Some(100), ..TrafficTarget::default() };
    let wanted = if inputs.wanted.is_empty() { std::slice::from_ref(&all) } else { inputs.wanted };
    let mut split = Vec::with_capacity(wanted.len() + 1);
    for target in wanted {
        match &target.revision {
            Some(revision) if inputs.existing.contains(revision) => split.push(TrafficStatus {
                revision: revision.clone(),
                percent: target.percent.unwrap_or(0),
                latest: false,
                tag: target.tag.clone(),
                url: None,
            }),
            Some(revision) => {
                let missing = Missing { revision: revision.clone(), existing: inputs.existing.join(", ") };
                return (previous(inputs), Some(missing));
            }
            None => split.extend(inputs.split.into_iter().flat_map(|split| of_latest(split, target))),
        }
    }
    if inputs.split.is_none() {
        give_rest(&mut split);
    }
    (split, None)
}

/// Splits a target for the latest revision. Its tag goes to the revision that is rolled out.
fn of_latest(split: &Split, target: &TrafficTarget) -> impl Iterator<Item = TrafficStatus> + use<> {
    let percent = target.percent.unwrap_or(0);
    let entry = |revision: &str, percent: i32, tag: Option<String>| TrafficStatus {
        revision: revision.to_owned(),
        percent,
        latest: true,
        tag,
        url: None,
    };
    let (rest, new) = match &split.to {
        None => (entry(&split.from, percent, target.tag.clone()), None),
        Some((to, step)) => {
            // At least 1 %, or the step would have no effect.
            let step = i32::try_from(*step).unwrap_or(100);
            let moved = ((percent * step + 50) / 100).clamp(percent.min(1), percent);
            (entry(&split.from, percent - moved, None), Some(entry(to, moved, target.tag.clone())))
        }
    };
    let rest = Some(rest).filter(|rest| new.is_none() || rest.percent > 0);
    rest.into_iter().chain(new)
}

/// Previous split without deleted revisions. The traffic of those goes to the revision with the highest percentage.
fn previous(inputs: &Inputs<'_>) -> Vec<TrafficStatus> {
    let mut split: Vec<_> =
        inputs.former.iter().filter(|entry| inputs.existing.contains(&entry.revision)).cloned().collect();
    if split.is_empty() {
        let all = TrafficTarget { percent: Some(100), latest: Some(true), ..TrafficTarget::default() };
        return inputs.split.into_iter().flat_map(|split| of_latest(split, &all)).collect();
    }
    give_rest(&mut split);
    split
}

/// Gives the rest of 100 % to the entry with the highest percentage.
fn give_rest(split: &mut [TrafficStatus]) {
    let rest = 100 - split.iter().map(|entry| entry.percent).sum::<i32>();
    if let Some(most) = split.iter_mut().max_by_key(|entry| entry.percent) {
        most.percent += rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn entry(revision: &str, percent: i32, latest: bool) -> TrafficStatus {
        TrafficStatus { revision: revision.into(), percent, latest, ..TrafficStatus::default() }
    }

    fn named(revision: &str, percent: i32) -> TrafficTarget {
        TrafficTarget { revision: Some(revision.into()), percent: Some(percent), ..TrafficTarget::default() }
    }

    fn latest(percent: i32, tag: Option<&str>) -> TrafficTarget {
        let tag = tag.map(str::to_owned);
        TrafficTarget { latest: Some(true), percent: Some(percent), tag, ..TrafficTarget::default() }
    }

    fn run(
        wanted: &[TrafficTarget],
        former: &[TrafficStatus],
        split: &Split,
        existing: &[&str],
    ) -> (Vec<TrafficStatus>, Option<Missing>) {
        let existing: Vec<String> = existing.iter().map(|n| (*n).to_owned()).collect();
        resolve(&Inputs { wanted, former, split: Some(split), existing: &existing })
    }

    fn step(percent: u32) -> Split {
        Split { from: "f-1".into(), to: Some(("f-2".into(), percent)) }
    }

    #[test]
    fn defaults_to_the_latest_revision() {
        assert_eq!(run(&[], &[], &Split::all("f-1"), &["f-1"]), (vec![entry("f-1", 100, true)], None));
    }

    #[rstest]
    #[case::all_calls(&[], 10, &[entry("f-1", 90, true), entry("f-2", 10, true)])]
    #[case::of_a_part(&[named("f-0", 80), latest(20, None)], 50, &[entry("f-0", 80, false), entry("f-1", 10, true), entry("f-2", 10, true)])]
    #[case::never_nothing(&[named("f-0", 98), latest(2, None)], 10, &[entry("f-0", 98, false), entry("f-1", 1, true), entry("f-2", 1, true)])]
    #[case::one_cannot_be_split(&[named("f-0", 99), latest(1, None)], 10, &[entry("f-0", 99, false), entry("f-2", 1, true)])]
    fn a_step_splits_the_traffic_of_the_latest_revision(
        #[case] wanted: &[TrafficTarget],
        #[case] percent: u32,
        #[case] expected: &[TrafficStatus],
    ) {
        let (split, missing) = run(wanted, &[], &step(percent), &["f-0", "f-1", "f-2"]);
        assert_eq!((&split[..], missing), (expected, None));
        assert_eq!(split.iter().map(|s| s.percent).sum::<i32>(), 100);
    }

    #[test]
    fn a_tag_of_the_latest_revision_goes_to_the_new_one() {
        let wanted = [named("f-0", 90), latest(10, Some("next"))];
        let tagged =
            |revision: &str, percent| TrafficStatus { tag: Some("next".into()), ..entry(revision, percent, true) };
        let (split, _) = run(&wanted, &[], &step(50), &["f-0", "f-1", "f-2"]);
        assert_eq!(split, [entry("f-0", 90, false), entry("f-1", 5, true), tagged("f-2", 5)]);
        let (split, _) = run(&wanted, &[], &Split::all("f-1"), &["f-0", "f-1", "f-2"]);
        assert_eq!(split, [entry("f-0", 90, false), tagged("f-1", 10)]);
        let wanted = [named("f-0", 100), latest(0, Some("next"))];
        let (split, _) = run(&wanted, &[], &Split::all("f-2"), &["f-0", "f-1", "f-2"]);
        assert_eq!(split, [entry("f-0", 100, false), tagged("f-2", 0)]);
    }

    #[test]
    fn a_missing_revision_keeps_the_previous_split() {
        let wanted = [named("f-9", 100)];
        let split = Split::all("f-2");
        let former = [entry("f-1", 90, true), entry("f-2", 10, true)];
        let (resolved, missing) = run(&wanted, &former, &split, &["f-1", "f-2"]);
        assert_eq!(resolved, former);
        assert_eq!(
            missing.unwrap().to_string(),
            "spec.traffic names revision f-9, which does not exist; use one of: f-1, f-2"
        );
        assert_eq!(run(&wanted, &[], &split, &["f-2"]).0, [entry("f-2", 100, true)]);
    }

    #[test]
    fn a_latest_revision_that_does_not_exist_receives_nothing() {
        let resolve = |wanted: &[TrafficTarget]| {
            resolve(&Inputs { wanted, former: &[], split: None, existing: &["f-1".to_owned()] }).0
        };
        assert_eq!(resolve(&[]), []);
        assert_eq!(resolve(&[named("f-1", 60), latest(40, None)]), [entry("f-1", 100, false)]);
    }

    #[test]
    fn traffic_of_a_deleted_revision_goes_to_the_others() {
        let wanted = [named("f-1", 60), named("f-2", 40)];
        let former = [entry("f-1", 60, false), entry("f-2", 40, false)];
        assert_eq!(run(&wanted, &former, &Split::all("f-3"), &["f-2", "f-3"]).0, [entry("f-2", 100, false)]);
        assert_eq!(run(&wanted, &former, &Split::all("f-3"), &["f-3"]).0, [entry("f-3", 100, true)]);
    }
}
