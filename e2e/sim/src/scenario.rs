//! Scenarios: one function, its requests, the cluster that it runs on, and the pods that an oracle would have.
//!
//! ```text
//! cases ──► Scenario ──► world::play ──► measure ──► report
//! ```

use anyhow::{Result, bail};

use crate::{
    micros::Micros,
    policy::{Policy, Scaling},
    request::{Arrival, Function},
    world::{Setup, play},
};

mod arrivals;
mod cases;
mod measure;
mod report;

pub(crate) use cases::NAMES;
pub(crate) use measure::Figures;
pub(crate) use report::{Report, timelines};

/// Default policies.
pub(crate) const POLICIES: &str = "rouse,heads,kpa,hpa";

const SECOND: Micros = 1_000_000;

/// A scenario.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// Description in one line.
    pub(crate) about: String,
    pub(crate) function: Function,
    pub(crate) scaling: Scaling,
    pub(crate) setup: Setup,
    /// Requests of an open loop.
    pub(crate) requests: Vec<Arrival>,
    /// Expected concurrency without queueing, for each second of the scenario.
    pub(crate) load: Vec<f64>,
    /// Seconds with a constant load, for direction changes and the needed pods; `None` if the load is never constant.
    pub(crate) constant: Option<(usize, usize)>,
}

impl Scenario {
    /// Returns the target concurrency of a pod.
    pub(crate) fn target(&self) -> f64 {
        (f64::from(self.function.limit) * 0.7).max(1.0)
    }

    /// Returns the pods of an oracle for a load.
    fn pods(&self, load: f64) -> u32 {
        // A rounding error of a sum of fractions must not add a pod.
        (load / self.target() - 1e-9).ceil().max(0.0) as u32
    }

    /// Returns the needed pods for each second.
    pub(crate) fn needed(&self) -> Vec<u32> {
        self.load.iter().map(|load| self.pods(*load)).collect()
    }

    /// Returns the pods needed at the constant load, or at the highest load if it is never constant.
    pub(crate) fn needed_steadily(&self) -> u32 {
        let part = self.constant.map_or(&*self.load, |(from, to)| &self.load[from..to]);
        self.pods(part.iter().copied().fold(0.0, f64::max)).max(1)
    }

    pub(crate) fn end(&self) -> Micros {
        self.load.len() as Micros * SECOND
    }

    /// Runs a policy; none for the oracle, which is the reference.
    pub(crate) fn run(&self, policy: Policy, seed: u64) -> Option<Figures> {
        let mut scaler = policy.scaler_with(&self.function, self.scaling)?;
        let (outcome, trail) = play(&self.function, &self.requests, self.end(), seed, &self.setup, &mut *scaler);
        Some(Figures::of(self, policy, &outcome.wanted, &trail))
    }
}

/// Returns the names of scenarios for `all`, for a name, or for the part of a name before the `/`.
pub(crate) fn select(texts: &[String]) -> Result<Vec<&'static str>> {
    let mut names = Vec::new();
    for text in texts {
        let is = |name: &&&str| text == "all" || text == **name || name.split('/').next() == Some(text);
        let found: Vec<_> = NAMES.iter().filter(is).copied().collect();
        if found.is_empty() {
            bail!("`{text}` is not a scenario; write all, or some of {}", NAMES.join(", "));
        }
        names.extend(found);
    }
    Ok(names)
}

/// Builds a scenario by its name.
pub(crate) fn build(name: &str, seed: u64) -> Option<Scenario> {
    cases::build(name, seed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scenarios_are_selected_by_name_or_by_group() {
        let of = |texts: &[&str]| select(&texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>());
        assert_eq!(of(&["step", "crowd"]).unwrap(), ["step/open", "step/closed", "crowd"]);
        assert_eq!(of(&["steady/20s"]).unwrap(), ["steady/20s"]);
        assert_eq!(of(&["all"]).unwrap(), NAMES);
        assert!(of(&["crow"]).is_err() && of(&[""]).is_err());
    }

    /// Wanted/ready every two seconds on a cluster with two slow cores, before work was counted:
    /// `1/1 13/1 29/1 62/1 82/1 100/1 100/1 100/2 100/6 … 100/16 64/16 24/16 4/4 100/3 100/3 …` and so on for 20 s.
    #[test]
    fn the_runaway_of_a_real_cluster_is_reproduced() {
        let figures = build("scarce/cpu/short", 1).unwrap().run(Policy::Heads { idle: 30 }, 1).unwrap();
        let timeline = &figures.timeline;
        // A hundred are wanted for the work of five, and next to none of them is ready.
        assert!(timeline[5..9].iter().all(|(wanted, ready)| *wanted == 100 && *ready <= 5), "{timeline:?}");
        // When the queue is drained hardly any pods are wanted, and then all of it repeats, for twenty seconds and more.
        let low = (9..timeline.len()).find(|nth| timeline[*nth].0 <= 25).unwrap();
        let starved = |part: &[(u32, u32)]| part.iter().all(|(wanted, ready)| *wanted == 100 && *ready <= 15);
        assert!(timeline[low..].windows(10).any(starved), "{timeline:?}");
    }

    #[test]
    fn the_pods_needed_follow_from_the_load() {
        let scenario = build("steady/3s", 1).unwrap();
        assert_eq!((scenario.needed()[7], scenario.needed_steadily()), (5, 5));
        assert_eq!([0.0, 3.5, 3.51, 35.0].map(|load| scenario.pods(load)), [0, 1, 2, 10]);
        let step = build("step/open", 1).unwrap();
        assert_eq!((step.needed()[0], step.needed_steadily()), (2, 15));
    }
}
