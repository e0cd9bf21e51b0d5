//! The report on a trace, as text and as JSON.

use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    compare::{Summary, front},
    step::StepResponse,
};

/// Settings of a run. Two runs with the same settings give the same report, byte for byte.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Setting {
    pub(crate) trace: String,
    pub(crate) functions: usize,
    pub(crate) hours: u32,
    pub(crate) seed: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) note: Option<String>,
}

/// Results of a run.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    pub(crate) setting: Setting,
    pub(crate) summaries: Vec<Summary>,
    pub(crate) steps: Vec<StepResponse>,
}

impl Report {
    pub(crate) fn json(&self) -> Value {
        let front = |cold: fn(&Summary) -> f64| -> Vec<_> {
            front(&self.summaries, cold).iter().map(|s| s.policy.clone()).collect()
        };
        json!({
            "setting": self.setting,
            "policies": self.summaries,
            "steps": self.steps,
            "front": {"cold_ratio_p50": front(|s| s.cold_ratio_p50), "cold_ratio_p75": front(|s| s.cold_ratio_p75)},
            "verdicts": self.verdicts(),
        })
    }

    /// Formats the report as text.
    pub(crate) fn text(&self) -> String {
        let requests = self.summaries.first().map_or(0, |s| s.requests);
        let Setting { trace, functions, hours, seed, note } = &self.setting;
        let mut text =
            format!("{functions} functions, {hours} hours, {requests} requests, trace {trace}, seed {seed}\n");
        if let Some(note) = note {
            text += &format!("{note}\n");
        }
        text += "\n";
        let head = [
            "policy",
            "cold p50",
            "p75",
            "p95",
            "of requests",
            "waste",
            "starts/h",
            "slow p50",
            "p99",
            "fn's p99",
            "queue p99",
        ];
        let rows = self.summaries.iter().map(|s| {
            vec![
                s.policy.clone(),
                percent(s.cold_ratio_p50),
                percent(s.cold_ratio_p75),
                percent(s.cold_ratio_p95),
                format!("{:.4} %", s.cold_ratio_calls * 100.0),
                format!("{:.3}", s.wasted_relative),
                format!("{:.0}", s.starts_per_hour),
                format!("{:.2}", s.slowdown_p50),
                format!("{:.2}", s.slowdown_p99),
                format!("{:.2}", s.slowdown_p99_median_function),
                format!("{:.1} ms", s.queue_p99_ms),
            ]
        });
        text += &table(&head, rows);
        text += "\nA step from 5 to 50 concurrent requests, and an hour of 50\n\n";
        let head = ["policy", "limit", "response", "overshoot", "queue p99", "turns", "turns, even"];
        let rows = self.steps.iter().map(|a| {
            vec![
                a.policy.clone(),
                a.limit.to_string(),
                a.response_s.map_or_else(|| "never".to_owned(), |s| format!("{s:.2} s")),
                format!("{:.0} %", a.overshoot * 100.0),
                format!("{:.0} ms", a.queue_p99_ms),
                a.turns.to_string(),
                a.turns_even.to_string(),
            ]
        });
        text += &table(&head, rows);
        text += "\n";
        for verdict in self.verdicts() {
            text += &format!("{verdict}\n");
        }
        text
    }

    /// Compares each policy of Rouse with each other policy.
    fn verdicts(&self) -> Vec<String> {
        let mut verdicts = Vec::new();
        for ours in self.summaries.iter().filter(|s| s.ours) {
            for other in self.summaries.iter().filter(|s| !s.ours && !s.is_bound()) {
                let how = match (ours.dominates(other), other.dominates(ours)) {
                    (true, _) if ours.cold_ratio_calls > other.cold_ratio_calls => {
                        "dominates, though more of all requests are cold,"
                    }
                    (true, _) => "dominates",
                    (_, true) => "is dominated by",
                    _ => "neither dominates nor is dominated by",
                };
                let points = |of: fn(&Summary) -> f64| (of(ours) - of(other)) * 100.0;
                verdicts.push(format!(
                    "{} {how} {}: waste {:+.3}; cold, in points: p50 {:+.1}, p75 {:+.1}, p95 {:+.1}, of requests {:+.3}",
                    ours.policy,
                    other.policy,
                    ours.wasted_relative - other.wasted_relative,
                    points(|s| s.cold_ratio_p50),
                    points(|s| s.cold_ratio_p75),
                    points(|s| s.cold_ratio_p95),
                    points(|s| s.cold_ratio_calls),
                ));
            }
        }
        verdicts
    }
}

fn percent(part: f64) -> String {
    format!("{:.1} %", part * 100.0)
}

/// Formats a table: the first column left-aligned, the others right-aligned.
pub(crate) fn table(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut all = vec![head.iter().map(|h| (*h).to_owned()).collect::<Vec<_>>()];
    all.extend(rows);
    let width = |column: usize| all.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<_> = (0..head.len()).map(width).collect();
    let mut text = String::new();
    for row in &all {
        for (nth, (cell, width)) in row.iter().zip(&widths).enumerate() {
            text += &if nth == 0 { format!("{cell:<width$}") } else { format!("  {cell:>width$}") };
        }
        text += "\n";
    }
    text
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn summary(policy: &str, ours: bool, cold: f64, waste: f64) -> Summary {
        Summary {
            policy: policy.to_owned(),
            ours,
            cold_ratio_p50: cold,
            cold_ratio_p75: cold,
            cold_ratio_p95: cold,
            cold_ratio_calls: 0.001,
            slowdown_p50: 1.0,
            slowdown_p99: 1.5,
            slowdown_p99_median_function: 2.0,
            queue_p99_ms: 3.0,
            wasted_pod_s: 10.0,
            wasted_relative: waste,
            pod_s: 20.0,
            starts_per_hour: 4.0,
            requests: 9,
        }
    }

    pub(crate) fn report() -> Report {
        Report {
            setting: Setting { trace: "generated".into(), functions: 1, hours: 2, seed: 3, note: None },
            summaries: vec![
                summary("rouse", true, 0.5, 0.2),
                summary("kpa", false, 0.4, 0.3),
                summary("keep:1m", false, 0.6, 0.3),
                summary("oracle", false, 0.0, 0.1),
            ],
            steps: vec![StepResponse {
                policy: "rouse".into(),
                limit: 5,
                response_s: None,
                overshoot: 0.25,
                turns: 2,
                turns_even: 0,
                queue_p99_ms: 80.0,
            }],
        }
    }

    #[test]
    fn verdicts_name_the_better_policy_and_the_margin() {
        assert_eq!(
            report().verdicts(),
            [
                "rouse neither dominates nor is dominated by kpa: waste -0.100; \
                 cold, in points: p50 +10.0, p75 +10.0, p95 +10.0, of requests +0.000",
                "rouse dominates keep:1m: waste -0.100; \
                 cold, in points: p50 -10.0, p75 -10.0, p95 -10.0, of requests +0.000",
            ]
        );
    }

    #[test]
    fn the_table_is_aligned_and_reports_never() {
        let text = report().text();
        assert!(text.starts_with("1 functions, 2 hours, 9 requests, trace generated, seed 3\n"));
        assert!(text.contains("never"));
        let lines: Vec<_> = text.lines().skip(2).take(5).collect();
        assert!(lines.iter().all(|line| line.chars().count() == lines[0].chars().count()), "{text}");
    }

    #[test]
    fn json_has_settings_figures_and_the_front() {
        let json = report().json();
        assert_eq!(json["setting"]["seed"], 3);
        assert_eq!(json["policies"][1]["policy"], "kpa");
        assert_eq!(json["steps"][0]["response_s"], Value::Null);
        assert_eq!(json["front"]["cold_ratio_p75"], json!(["rouse", "kpa"]));
    }
}
