//! What a run is going to do: its steps in order, and an estimate of the time of each. Pure; `forecast.rs` makes the plan of `up`.

use std::time::Duration;

/// The titles of steps that have no module of their own.
pub mod title {
    /// Of the local provider.
    pub const START_LOCAL: &str = "Starting Kubernetes";
    /// Of the kind provider.
    pub const START_KIND: &str = "Starting Kubernetes in Docker";
    /// Into a node that runs.
    pub const LOAD: &str = "Loading images";
    /// Of the add-ons.
    pub const ADDONS: &str = "Waiting for DNS and the ingress";
    /// Of the chart.
    pub const INSTALL: &str = "Installing Rouse with Helm";
    /// Of `cargo e2e demo`.
    pub const DEMO: &str = "Running the demo";
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// As [`crate::progress::Progress::step`] gets it.
    pub title: String,
    /// How long it takes on this machine, roughly.
    pub estimate: Duration,
    /// Its product is cached, so that the next run skips it.
    pub once: bool,
}

/// The steps of a run, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The steps.
    pub steps: Vec<Planned>,
}

/// What is known of a step when it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outlook {
    /// Its number, from 1.
    pub number: usize,
    /// The number of all steps.
    pub count: usize,
    /// How long it takes.
    pub estimate: Duration,
    /// How long the steps after it take.
    pub later: Duration,
}

impl Outlook {
    /// The time until the run ends, when the step has run for `elapsed`.
    pub fn left(&self, elapsed: Duration) -> Duration {
        self.estimate.saturating_sub(elapsed) + self.later
    }
}

impl Plan {
    /// Adds a step whose product is cached, unless the plan has it.
    pub fn once(&mut self, title: String, estimate: Duration) {
        if !self.steps.iter().any(|step| step.title == title) {
            self.steps.push(Planned { title, estimate, once: true });
        }
    }

    /// Adds a step of every run.
    pub fn always(&mut self, title: &str, seconds: u64) {
        self.steps.push(Planned { title: title.to_owned(), estimate: Duration::from_secs(seconds), once: false });
    }

    /// What is known of the step `title` when it starts: its number, its estimate and that of the steps after it. The estimates follow
    /// how fast the steps in `taken` were.
    pub fn outlook(&self, title: &str, taken: &[(String, Duration)]) -> Option<Outlook> {
        let index = self.steps.iter().position(|step| step.title == title)?;
        let estimate_of = |title: &str| self.steps.iter().find(|step| step.title == title).map(|step| step.estimate);
        let (mut estimated, mut measured) = (Duration::ZERO, Duration::ZERO);
        for (title, time) in taken {
            if let Some(estimate) = estimate_of(title) {
                estimated += estimate;
                measured += *time;
            }
        }
        // Short steps say little of the machine.
        let factor = match estimated.as_secs() {
            0..30 => 1.0,
            _ => (measured.as_secs_f64() / estimated.as_secs_f64()).clamp(0.25, 4.0),
        };
        let later: Duration = self.steps[index + 1..].iter().map(|step| step.estimate).sum();
        Some(Outlook {
            number: index + 1,
            count: self.steps.len(),
            estimate: self.steps[index].estimate.mul_f64(factor),
            later: later.mul_f64(factor),
        })
    }

    /// How long it takes, and how long it takes the next time.
    fn total(&self) -> (Duration, Duration) {
        let sum = |once: bool| self.steps.iter().filter(|step| once || !step.once).map(|step| step.estimate).sum();
        (sum(true), sum(false))
    }

    /// The plan for a person, in one paragraph.
    pub fn summary(&self) -> String {
        let (now, next) = self.total();
        let steps = match self.steps.len() {
            1 => "1 step".to_owned(),
            count => format!("{count} steps"),
        };
        let mut text = format!("{steps}, {} (estimated)", about(now));
        if self.steps.iter().any(|step| step.once) {
            text.push_str(&format!("; {} the next time, when everything is built", about(next)));
        }
        text.push_str(":\n");
        for (index, step) in self.steps.iter().enumerate() {
            text.push_str(&format!("  {:>2}. {} ({})\n", index + 1, step.title, about(step.estimate)));
        }
        text
    }
}

/// `about 20 s`, `about 8 min`.
pub fn about(time: Duration) -> String {
    match time.as_secs() {
        0..10 => "a few seconds".to_owned(),
        seconds @ 10..90 => format!("about {} s", seconds.div_ceil(10) * 10),
        seconds => format!("about {} min", (seconds + 30) / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        let mut plan = Plan::default();
        plan.once("Compiling Kubernetes".to_owned(), Duration::from_secs(300));
        plan.once("Fetching Helm and kubectl".to_owned(), Duration::from_secs(5));
        plan.once("Fetching Helm and kubectl".to_owned(), Duration::from_secs(5));
        plan.always(title::START_LOCAL, 25);
        plan.always(title::INSTALL, 15);
        plan
    }

    #[test]
    fn the_summary_has_the_time_of_this_run_and_of_the_next() {
        let text = plan().summary();
        assert!(text.starts_with("4 steps, about 6 min (estimated); about 40 s the next time"), "{text}");
        assert!(text.contains(" 1. Compiling Kubernetes (about 5 min)\n"), "{text}");
        assert_eq!(text.lines().count(), 5);
    }

    #[test]
    fn a_run_with_everything_cached_names_no_other_time() {
        let plan = Plan { steps: plan().steps.into_iter().filter(|step| !step.once).collect() };
        assert!(plan.summary().starts_with("2 steps, about 40 s (estimated):\n"), "{}", plan.summary());
    }

    #[test]
    fn a_machine_of_half_the_speed_has_twice_the_time_left() {
        let plan = plan();
        let first = plan.outlook("Compiling Kubernetes", &[]).unwrap();
        assert_eq!((first.number, first.count), (1, 4));
        assert_eq!(first.left(Duration::from_secs(100)), Duration::from_secs(200 + 45));
        // Longer than estimated: only the later steps are left.
        assert_eq!(first.left(Duration::from_secs(400)), Duration::from_secs(45));
        let taken = [("Compiling Kubernetes".to_owned(), Duration::from_secs(600))];
        let third = plan.outlook(title::START_LOCAL, &taken).unwrap();
        assert_eq!((third.number, third.left(Duration::ZERO)), (3, Duration::from_secs(80)));
        assert_eq!(plan.outlook("not planned", &taken), None);
    }

    #[test]
    fn times_are_rounded() {
        let times = [3, 11, 89, 90, 500].map(|seconds| about(Duration::from_secs(seconds)));
        assert_eq!(times, ["a few seconds", "about 20 s", "about 90 s", "about 2 min", "about 8 min"]);
    }
}
