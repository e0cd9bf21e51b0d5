//! Which revision gets which share of the calls. Pure.

use rouse_crds::function::{TrafficStatus, TrafficTarget};

use crate::function::rollout::Split;

/// What the shares are decided from.
#[derive(Debug)]
pub struct Inputs<'a> {
    /// What the spec says; nothing means all to the latest.
    pub wanted: &'a [TrafficTarget],
    /// What held before.
    pub former: &'a [TrafficStatus],
    /// The revisions that `latest` stands for.
    pub split: &'a Split,
    /// Names of all revisions that have a Deployment, or are about to.
    pub existing: &'a [String],
}

/// A revision that the spec names and that is not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("spec.traffic names the revision {revision}, which does not exist; there are: {existing}")]
pub struct Missing {
    /// Its name.
    pub revision: String,
    /// The ones that there are.
    pub existing: String,
}

/// The shares that hold now.
///
/// While a named revision is missing, what held before holds on.
pub fn resolve(inputs: &Inputs<'_>) -> (Vec<TrafficStatus>, Option<Missing>) {
    let all = TrafficTarget { latest: Some(true), percent: Some(100), ..TrafficTarget::default() };
    let wanted = if inputs.wanted.is_empty() { std::slice::from_ref(&all) } else { inputs.wanted };
    let mut shares = Vec::with_capacity(wanted.len() + 1);
    for target in wanted {
        match &target.revision {
            Some(revision) if inputs.existing.contains(revision) => shares.push(TrafficStatus {
                revision: revision.clone(),
                percent: target.percent.unwrap_or(0),
                latest: false,
                tag: target.tag.clone(),
                url: None,
            }),
            Some(revision) => {
                let missing = Missing { revision: revision.clone(), existing: inputs.existing.join(", ") };
                return (held(inputs), Some(missing));
            }
            None => shares.extend(of_latest(inputs.split, target)),
        }
    }
    (shares, None)
}

/// What the revisions that `latest` stands for have of one target. Its tag leads to the one that is to take over.
fn of_latest(split: &Split, target: &TrafficTarget) -> impl Iterator<Item = TrafficStatus> {
    let percent = target.percent.unwrap_or(0);
    let share = |revision: &str, percent: i32, tag: Option<String>| TrafficStatus {
        revision: revision.to_owned(),
        percent,
        latest: true,
        tag,
        url: None,
    };
    let (rest, new) = match &split.to {
        None => (share(&split.from, percent, target.tag.clone()), None),
        Some((to, part)) => {
            // At least one in a hundred, or a step would be none.
            let part = i32::try_from(*part).unwrap_or(100);
            let moved = ((percent * part + 50) / 100).clamp(percent.min(1), percent);
            (share(&split.from, percent - moved, None), Some(share(to, moved, target.tag.clone())))
        }
    };
    let rest = Some(rest).filter(|rest| new.is_none() || rest.percent > 0);
    rest.into_iter().chain(new)
}

/// What held before, without revisions that are gone since: their calls go to whoever has the most.
fn held(inputs: &Inputs<'_>) -> Vec<TrafficStatus> {
    let (mut held, gone): (Vec<_>, Vec<_>) =
        inputs.former.iter().cloned().partition(|share| inputs.existing.contains(&share.revision));
    let lost: i32 = gone.iter().map(|share| share.percent).sum();
    match held.iter_mut().max_by_key(|share| share.percent) {
        Some(most) if lost > 0 => most.percent += lost,
        Some(_) => {}
        None => held.extend(of_latest(
            inputs.split,
            &TrafficTarget { percent: Some(100), latest: Some(true), ..TrafficTarget::default() },
        )),
    }
    held
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn share(revision: &str, percent: i32, latest: bool) -> TrafficStatus {
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
        resolve(&Inputs { wanted, former, split, existing: &existing })
    }

    fn step(percent: u32) -> Split {
        Split { from: "f-1".into(), to: Some(("f-2".into(), percent)) }
    }

    #[test]
    fn all_to_the_latest() {
        assert_eq!(run(&[], &[], &Split::all("f-1"), &["f-1"]), (vec![share("f-1", 100, true)], None));
    }

    #[rstest]
    #[case::all_calls(&[], 10, &[share("f-1", 90, true), share("f-2", 10, true)])]
    #[case::of_a_part(&[named("f-0", 80), latest(20, None)], 50, &[share("f-0", 80, false), share("f-1", 10, true), share("f-2", 10, true)])]
    #[case::never_nothing(&[named("f-0", 98), latest(2, None)], 10, &[share("f-0", 98, false), share("f-1", 1, true), share("f-2", 1, true)])]
    #[case::one_cannot_be_split(&[named("f-0", 99), latest(1, None)], 10, &[share("f-0", 99, false), share("f-2", 1, true)])]
    fn a_step_divides_what_goes_to_the_latest(
        #[case] wanted: &[TrafficTarget],
        #[case] percent: u32,
        #[case] expected: &[TrafficStatus],
    ) {
        let (shares, missing) = run(wanted, &[], &step(percent), &["f-0", "f-1", "f-2"]);
        assert_eq!((&shares[..], missing), (expected, None));
        assert_eq!(shares.iter().map(|s| s.percent).sum::<i32>(), 100);
    }

    #[test]
    fn a_tag_of_the_latest_leads_to_the_new_one() {
        let wanted = [named("f-0", 90), latest(10, Some("next"))];
        let tagged =
            |revision: &str, percent| TrafficStatus { tag: Some("next".into()), ..share(revision, percent, true) };
        let (shares, _) = run(&wanted, &[], &step(50), &["f-0", "f-1", "f-2"]);
        assert_eq!(shares, [share("f-0", 90, false), share("f-1", 5, true), tagged("f-2", 5)]);
        let (shares, _) = run(&wanted, &[], &Split::all("f-1"), &["f-0", "f-1", "f-2"]);
        assert_eq!(shares, [share("f-0", 90, false), tagged("f-1", 10)]);
        let wanted = [named("f-0", 100), latest(0, Some("next"))];
        let (shares, _) = run(&wanted, &[], &Split::all("f-2"), &["f-0", "f-1", "f-2"]);
        assert_eq!(shares, [share("f-0", 100, false), tagged("f-2", 0)]);
    }

    #[test]
    fn a_missing_revision_keeps_what_held() {
        let wanted = [named("f-9", 100)];
        let split = Split::all("f-2");
        let former = [share("f-1", 90, true), share("f-2", 10, true)];
        let (shares, missing) = run(&wanted, &former, &split, &["f-1", "f-2"]);
        assert_eq!(shares, former);
        assert_eq!(
            missing.unwrap().to_string(),
            "spec.traffic names the revision f-9, which does not exist; there are: f-1, f-2"
        );
        assert_eq!(run(&wanted, &[], &split, &["f-2"]).0, [share("f-2", 100, true)]);
    }

    #[test]
    fn calls_of_a_revision_that_is_gone_go_to_the_others() {
        let wanted = [named("f-1", 60), named("f-2", 40)];
        let former = [share("f-1", 60, false), share("f-2", 40, false)];
        assert_eq!(run(&wanted, &former, &Split::all("f-3"), &["f-2", "f-3"]).0, [share("f-2", 100, false)]);
        assert_eq!(run(&wanted, &former, &Split::all("f-3"), &["f-3"]).0, [share("f-3", 100, true)]);
    }
}
