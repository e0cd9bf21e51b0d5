//! The report on scenarios, as text and as JSON, with a comparison of Rouse and Knative.

use serde::Serialize;
use serde_json::{Value, json};

use super::{Figures, measure::TIMELINE};
use crate::report::table;

/// All figures, by scenario and then by policy.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    pub(crate) seed: u64,
    /// Name and description of each scenario.
    pub(crate) scenarios: Vec<(&'static str, String)>,
    pub(crate) figures: Vec<Figures>,
}

/// Two figures that differ by less than this fraction, or by less than the absolute amount, are equal.
const EQUAL: f64 = 0.02;

/// Pod-seconds.
const EQUAL_OVERSHOOT: f64 = 1.0;

/// Requests.
const EQUAL_FAILED: f64 = 10.0;

/// Seconds.
const EQUAL_QUEUE: f64 = 0.01;

/// Maximum overshoot of Rouse relative to Knative's autoscaler.
const BAR: f64 = 0.5;

/// Comparison of a figure of Rouse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Better,
    Equal,
    Worse,
}

impl Verdict {
    fn of(ours: f64, theirs: f64, equal: f64) -> Self {
        if (ours - theirs).abs() <= equal.max(EQUAL * theirs) {
            Self::Equal
        } else if ours < theirs {
            Self::Better
        } else {
            Self::Worse
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::Equal => "equal",
            Self::Worse => "worse",
        }
    }
}

/// Comparison of Rouse and Knative's autoscaler in one scenario.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Comparison {
    scenario: &'static str,
    /// Figures of Rouse and of Knative.
    overshoot_pod_s: (f64, f64),
    queue_p99_s: (f64, f64),
    overshoot: Verdict,
    queue: Verdict,
    /// Requests that failed or were not served.
    failed: (u64, u64),
    /// Whether Rouse is no worse in both figures and better in one (or no better result is possible), without more failed
    /// requests, which have no time in the queue.
    met: bool,
}

/// Comparison of Rouse and Knative's autoscaler over all scenarios.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Sum {
    overshoot_pod_s: (f64, f64),
    /// Sums of overshoot over the oracle's pod-seconds, in which a long scenario weighs no more than a short one.
    overshoot_ratio: (f64, f64),
    /// Scenarios in which the bar is met, and all.
    met: (usize, usize),
}

impl Sum {
    /// Returns the overshoot of Rouse relative to Knative's: of pod-seconds, and of ratios.
    fn parts(&self) -> (f64, f64) {
        let part = |(ours, theirs): (f64, f64)| ours / theirs.max(f64::MIN_POSITIVE);
        (part(self.overshoot_pod_s), part(self.overshoot_ratio))
    }
}

impl Report {
    pub(crate) fn json(&self) -> Value {
        let comparison = self.comparison();
        json!({
            "seed": self.seed,
            "scenarios": self.scenarios.iter().map(|(name, about)| json!({"name": name, "about": about})).collect::<Vec<_>>(),
            "figures": self.figures,
            "timeline_seconds": TIMELINE,
            "against_kpa": comparison.as_ref().map(|(all, _)| all),
            "against_kpa_sum": comparison.as_ref().map(|(_, sum)| sum),
        })
    }

    /// Formats the report as text.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("{} scenarios, seed {}\n\n", self.scenarios.len(), self.seed);
        for (name, about) in &self.scenarios {
            text += &format!("{name:<20}{about}\n");
        }
        text += "\n";
        let head = [
            "scenario",
            "policy",
            "needed",
            "most",
            "ratio",
            "over, pod-s",
            "ratio",
            "under",
            "queue p50",
            "p99",
            "max",
            "turns/h",
            "requests",
            "unserved",
            "abandoned",
            "failed",
        ];
        let rows = self.figures.iter().map(|f| {
            vec![
                f.scenario.to_owned(),
                f.policy.clone(),
                f.needed.to_string(),
                f.most.to_string(),
                format!("{:.2}", f.most_ratio),
                format!("{:.0}", f.overshoot_pod_s),
                format!("{:.2}", f.overshoot_ratio),
                format!("{:.0}", f.undershoot_pod_s),
                format!("{:.2} s", f.queue_p50_s),
                format!("{:.2} s", f.queue_p99_s),
                format!("{:.2} s", f.queue_max_s),
                f.turns_per_hour.map_or_else(|| "-".to_owned(), |turns| format!("{turns:.0}")),
                f.requests.to_string(),
                f.unserved.to_string(),
                f.abandoned.to_string(),
                f.failed.to_string(),
            ]
        });
        text += &table(&head, rows);
        if let Some((all, sum)) = self.comparison() {
            text += &compared(&all, &sum);
        }
        text
    }

    /// Compares the first policy of Rouse with the first of Knative; none if one of them was not run.
    fn comparison(&self) -> Option<(Vec<Comparison>, Sum)> {
        let of = |name: &'static str, is: fn(&str) -> bool| {
            self.figures.iter().find(|f| f.scenario == name && is(&f.policy))
        };
        let pairs: Option<Vec<_>> = self
            .scenarios
            .iter()
            .map(|(name, _)| Some((of(name, |p| p.starts_with("rouse"))?, of(name, |p| p.starts_with("kpa"))?)))
            .collect();
        let pairs = pairs.filter(|pairs| !pairs.is_empty())?;
        let all: Vec<_> = pairs
            .iter()
            .map(|(ours, theirs)| {
                let overshoot = Verdict::of(ours.overshoot_pod_s, theirs.overshoot_pod_s, EQUAL_OVERSHOOT);
                let queue = Verdict::of(ours.queue_p99_s, theirs.queue_p99_s, EQUAL_QUEUE);
                let both = [overshoot, queue];
                let perfect = |f: &Figures| f.overshoot_pod_s <= EQUAL_OVERSHOOT && f.queue_p99_s <= EQUAL_QUEUE;
                let better = both.contains(&Verdict::Better) || (perfect(ours) && perfect(theirs));
                let failed = |f: &Figures| f.failed + f.unserved;
                let failures = Verdict::of(failed(ours) as f64, failed(theirs) as f64, EQUAL_FAILED);
                Comparison {
                    scenario: ours.scenario,
                    overshoot_pod_s: (ours.overshoot_pod_s, theirs.overshoot_pod_s),
                    queue_p99_s: (ours.queue_p99_s, theirs.queue_p99_s),
                    overshoot,
                    queue,
                    failed: (failed(ours), failed(theirs)),
                    met: !both.contains(&Verdict::Worse) && better && failures != Verdict::Worse,
                }
            })
            .collect();
        let sum = |of: fn(&Figures) -> f64| {
            (pairs.iter().map(|(ours, _)| of(ours)).sum(), pairs.iter().map(|(_, theirs)| of(theirs)).sum())
        };
        let sum = Sum {
            overshoot_pod_s: sum(|f| f.overshoot_pod_s),
            overshoot_ratio: sum(|f| f.overshoot_ratio),
            met: (all.iter().filter(|c| c.met).count(), all.len()),
        };
        Some((all, sum))
    }
}

fn compared(all: &[Comparison], sum: &Sum) -> String {
    let mut text =
        "\nRouse against Knative's autoscaler: no worse in both, better in one, no more failed requests\n\n".to_owned();
    let head = ["scenario", "over, pod-s", "kpa", "", "queue p99", "kpa", "", "failed", "kpa", "bar"];
    let rows = all.iter().map(|c| {
        vec![
            c.scenario.to_owned(),
            format!("{:.0}", c.overshoot_pod_s.0),
            format!("{:.0}", c.overshoot_pod_s.1),
            c.overshoot.word().to_owned(),
            format!("{:.2} s", c.queue_p99_s.0),
            format!("{:.2} s", c.queue_p99_s.1),
            c.queue.word().to_owned(),
            c.failed.0.to_string(),
            c.failed.1.to_string(),
            if c.met { "met" } else { "missed" }.to_owned(),
        ]
    });
    text += &table(&head, rows);
    let (pod_s, ratio) = sum.parts();
    let verdict = |met: bool| if met { "met" } else { "missed" };
    text += &format!(
        "\nEach scenario: met in {} of {}, {}\n\
         Sum of overshoot: {:.0} pod-s against {:.0}, {pod_s:.2} of Knative's, bar {BAR}: {}\n\
         Sum of overshoot over the oracle's pod-seconds: {:.1} against {:.1}, {ratio:.2} of Knative's, bar {BAR}: {}\n",
        sum.met.0,
        sum.met.1,
        verdict(sum.met.0 == sum.met.1),
        sum.overshoot_pod_s.0,
        sum.overshoot_pod_s.1,
        verdict(pod_s <= BAR),
        sum.overshoot_ratio.0,
        sum.overshoot_ratio.1,
        verdict(ratio <= BAR),
    );
    text
}

/// Formats the wanted and ready pods every two seconds, with a paragraph per scenario and policy: `12/3`, or `12` while none
/// is ready.
pub(crate) fn timelines(figures: &[Figures]) -> String {
    let mut text = String::new();
    for figures in figures {
        text += &format!("{} {}, wanted/ready every {TIMELINE} s\n", figures.scenario, figures.policy);
        for line in figures.timeline.chunks(20) {
            let entry = |(wanted, ready): &(u32, u32)| match ready {
                0 => wanted.to_string(),
                ready => format!("{wanted}/{ready}"),
            };
            text += &format!("   {}\n", line.iter().map(entry).map(|e| format!(" {e:>7}")).collect::<String>());
        }
        text += "\n";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(policy: &str, overshoot: f64, queue: f64) -> Figures {
        Figures {
            scenario: "crowd",
            policy: policy.to_owned(),
            needed: 5,
            most: 10,
            most_ratio: 2.0,
            overshoot_pod_s: overshoot,
            overshoot_ratio: overshoot / 100.0,
            undershoot_pod_s: 0.0,
            queue_p50_s: 0.0,
            queue_p99_s: queue,
            queue_max_s: queue,
            turns_per_hour: None,
            requests: 9,
            unserved: 0,
            abandoned: 0,
            failed: 0,
            timeline: vec![(1, 0), (100, 3)],
        }
    }

    fn report(figures: &[Figures]) -> Report {
        Report { seed: 1, scenarios: vec![("crowd", "a crowd".to_owned())], figures: figures.to_vec() }
    }

    #[test]
    fn a_figure_compares_as_better_equal_or_worse() {
        let of = |ours, theirs| Verdict::of(ours, theirs, 1.0);
        assert_eq!([of(99.0, 100.0), of(102.0, 100.0), of(0.5, 0.0)], [Verdict::Equal; 3]);
        assert_eq!((of(97.0, 100.0), of(103.0, 100.0)), (Verdict::Better, Verdict::Worse));
    }

    #[test]
    fn the_bar_is_no_worse_in_both_and_better_in_one() {
        let met = |overshoot, queue| {
            let report = report(&[figures("rouse", overshoot, queue), figures("kpa", 100.0, 1.0)]);
            report.comparison().unwrap().0[0].met
        };
        assert!(report(&[figures("rouse", 0.0, 0.0), figures("kpa", 0.0, 0.0)]).comparison().unwrap().0[0].met);
        let failing = Figures { failed: 100, ..figures("rouse", 50.0, 1.0) };
        assert!(!report(&[failing, figures("kpa", 100.0, 1.0)]).comparison().unwrap().0[0].met);
        assert!(met(50.0, 1.0) && met(100.0, 0.5) && met(50.0, 0.5));
        assert!(!met(100.0, 1.0) && !met(50.0, 2.0) && !met(200.0, 0.5));
        assert!(report(&[figures("rouse", 1.0, 1.0)]).comparison().is_none());
    }

    #[test]
    fn the_report_has_a_row_per_policy_and_the_margin_of_a_missed_bar() {
        let report = report(&[figures("rouse", 60.0, 1.0), figures("kpa", 100.0, 1.0)]);
        let text = report.text();
        assert!(text.contains("60 pod-s against 100, 0.60 of Knative's, bar 0.5: missed"), "{text}");
        assert!(text.contains("Each scenario: met in 1 of 1, met"), "{text}");
        let json = report.json();
        assert_eq!(json["figures"][1]["policy"], "kpa");
        assert_eq!(json["figures"][0]["turns_per_hour"], Value::Null);
        assert_eq!(json["against_kpa"][0]["overshoot"], "better");
    }

    #[test]
    fn a_timeline_has_wanted_and_ready_pods() {
        let text = timelines(&[figures("rouse", 0.0, 0.0)]);
        assert_eq!(text, "crowd rouse, wanted/ready every 2 s\n          1   100/3\n\n");
    }
}
