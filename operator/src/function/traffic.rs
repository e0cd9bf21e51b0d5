//! Which revision gets which share of the calls. Pure.

use rouse_crds::function::{TrafficStatus, TrafficTarget};

/// What the shares are decided from.
#[derive(Debug)]
pub struct Inputs<'a> {
    /// What the spec says; nothing means all to the latest.
    pub wanted: &'a [TrafficTarget],
    /// What held before.
    pub former: &'a [TrafficStatus],
    /// Name of the newest revision.
    pub latest: &'a str,
    /// Whether the newest may take traffic: it has been ready, or is not to be proven.
    pub latest_may_serve: bool,
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

/// The shares that hold now. `latest` means the newest revision that may serve: until the newest of all has been
/// proven, calls stay where they were. The first revision of a function takes them at once, for there is no other.
///
/// While a named revision is missing, what held before holds on.
pub fn resolve(inputs: &Inputs<'_>) -> (Vec<TrafficStatus>, Option<Missing>) {
    let serving = serving(inputs);
    if inputs.wanted.is_empty() {
        return (
            vec![TrafficStatus { revision: serving, percent: 100, latest: true, ..TrafficStatus::default() }],
            None,
        );
    }
    let mut shares = Vec::with_capacity(inputs.wanted.len());
    for target in inputs.wanted {
        let revision = match &target.revision {
            Some(revision) if inputs.existing.contains(revision) => revision.clone(),
            Some(revision) => {
                let missing = Missing { revision: revision.clone(), existing: inputs.existing.join(", ") };
                let held = if inputs.former.is_empty() {
                    vec![TrafficStatus { revision: serving, percent: 100, latest: true, ..TrafficStatus::default() }]
                } else {
                    inputs.former.to_vec()
                };
                return (held, Some(missing));
            }
            None => serving.clone(),
        };
        shares.push(TrafficStatus {
            revision,
            percent: target.percent.unwrap_or(0),
            latest: target.revision.is_none(),
            tag: target.tag.clone(),
            url: None,
        });
    }
    (shares, None)
}

/// The revision that `latest` stands for.
fn serving(inputs: &Inputs<'_>) -> String {
    let alive = |share: &&TrafficStatus| inputs.existing.contains(&share.revision);
    let former = inputs.former.iter().filter(alive);
    let held = former.clone().find(|share| share.latest).or_else(|| former.max_by_key(|share| share.percent));
    match held {
        Some(share) if !inputs.latest_may_serve => share.revision.clone(),
        _ => inputs.latest.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn share(revision: &str, percent: i32, latest: bool) -> TrafficStatus {
        TrafficStatus { revision: revision.into(), percent, latest, ..TrafficStatus::default() }
    }

    fn run(
        wanted: &[TrafficTarget],
        former: &[TrafficStatus],
        may: bool,
        existing: &[&str],
    ) -> (Vec<TrafficStatus>, Option<Missing>) {
        let existing: Vec<String> = existing.iter().map(|n| (*n).to_owned()).collect();
        let latest = existing.last().unwrap().clone();
        resolve(&Inputs { wanted, former, latest: &latest, latest_may_serve: may, existing: &existing })
    }

    #[rstest]
    #[case::first_at_once(&[], false, &["f-1"], "f-1")]
    #[case::stays_until_proven(&[share("f-1", 100, true)], false, &["f-1", "f-2"], "f-1")]
    #[case::moves_when_proven(&[share("f-1", 100, true)], true, &["f-1", "f-2"], "f-2")]
    #[case::skips_one_never_proven(&[share("f-1", 100, true)], true, &["f-1", "f-2", "f-3"], "f-3")]
    #[case::former_is_gone(&[share("f-1", 100, true)], false, &["f-2"], "f-2")]
    fn to_the_latest(
        #[case] former: &[TrafficStatus],
        #[case] may: bool,
        #[case] existing: &[&str],
        #[case] expected: &str,
    ) {
        assert_eq!(run(&[], former, may, existing), (vec![share(expected, 100, true)], None));
    }

    #[test]
    fn split_between_a_named_one_and_the_latest() {
        let wanted = [
            TrafficTarget { revision: Some("f-1".into()), percent: Some(90), ..TrafficTarget::default() },
            TrafficTarget {
                latest: Some(true),
                percent: Some(10),
                tag: Some("next".into()),
                ..TrafficTarget::default()
            },
        ];
        let (shares, missing) = run(&wanted, &[share("f-1", 100, true)], true, &["f-1", "f-2"]);
        assert_eq!(missing, None);
        assert_eq!(shares[0], share("f-1", 90, false));
        assert_eq!(shares[1], TrafficStatus { tag: Some("next".into()), ..share("f-2", 10, true) });
    }

    #[test]
    fn a_missing_revision_keeps_what_held() {
        let wanted = [TrafficTarget { revision: Some("f-9".into()), percent: Some(100), ..TrafficTarget::default() }];
        let (shares, missing) = run(&wanted, &[share("f-1", 100, true)], true, &["f-1", "f-2"]);
        assert_eq!(shares, [share("f-1", 100, true)]);
        assert_eq!(missing.unwrap().revision, "f-9");
        assert_eq!(run(&wanted, &[], true, &["f-1"]).0, [share("f-1", 100, true)]);
    }
}
