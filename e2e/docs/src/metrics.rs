//! The page of metrics, from a scrape in which every metric has a sample.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result};
use rouse_operator::metrics::Metrics as OperatorMetrics;

use crate::markdown::{GENERATED, cell, code, sentence, table};

const INTRODUCTION: &str = "# Metrics

Both processes serve OpenMetrics text at `/metrics` on their admin port (9090, named `admin`). Counters end in `_total` and are
per process: sum them over pods. The series of a Function are removed when the Function is deleted and has no request in flight.
What to watch, and the values of the labels: [Limits and queues](../tasks/limits.md#metrics),
[Split and mirror traffic](../tasks/traffic.md#metrics) and [Autoscaling and schedules](../tasks/scaling.md#events-and-metrics).
";

/// One metric family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Family {
    /// The name that a query uses, with `_total` or `_info`.
    pub name: String,
    /// `counter`, `gauge`, `histogram` or `info`.
    pub kind: String,
    /// Its help text.
    pub help: String,
    /// Names of its labels.
    pub labels: Vec<String>,
}

/// Returns the page.
///
/// # Errors
///
/// If a registry cannot be encoded, or its text cannot be read.
pub fn page() -> Result<String> {
    let mut out = format!("{GENERATED}\n{INTRODUCTION}");
    for (title, families) in [("Activator", activator()?), ("Operator", operator()?)] {
        out.push_str(&format!("\n## {title}\n\n"));
        let rows = families.iter().map(|family| {
            let labels: Vec<_> = family.labels.iter().map(|label| code(label)).collect();
            [code(&family.name), family.kind.clone(), labels.join(", "), cell(&sentence(&family.help))]
        });
        table(&mut out, ["metric", "type", "labels", "meaning"], rows);
    }
    Ok(out)
}

/// Returns the activator's metrics.
///
/// # Errors
///
/// If they cannot be encoded.
pub fn activator() -> Result<Vec<Family>> {
    families(&rouse_activator::metrics::Metrics::sample()?)
}

/// Returns the operator's metrics.
///
/// # Errors
///
/// If they cannot be encoded.
pub fn operator() -> Result<Vec<Family>> {
    let metrics = OperatorMetrics::default();
    metrics.reconciled(Duration::ZERO, true);
    metrics.wrote("", String::new(), 0);
    metrics.scaled("", "");
    metrics.refused("");
    families(&metrics.text()?)
}

/// Reads OpenMetrics text.
fn families(text: &str) -> Result<Vec<Family>> {
    let mut found: BTreeMap<String, Family> = BTreeMap::new();
    for line in text.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.splitn(3, ' ');
            let (kind, name, rest) = (words.next(), words.next(), words.next().unwrap_or_default());
            let Some(name) = name else { continue };
            let family = found.entry(name.to_owned()).or_default();
            match kind {
                Some("HELP") => rest.clone_into(&mut family.help),
                Some("TYPE") => {
                    let suffix = match rest {
                        "counter" => "_total",
                        "info" => "_info",
                        _ => "",
                    };
                    family.name = format!("{name}{suffix}");
                    rest.clone_into(&mut family.kind);
                }
                _ => {}
            }
        } else {
            let (series, labels) = match line.split_once('{') {
                Some((series, rest)) => (series, labels(rest)),
                None => (line.split(' ').next().unwrap_or_default(), vec![]),
            };
            let family = found
                .iter_mut()
                .filter(|(name, _)| series.starts_with(name.as_str()))
                .max_by_key(|(name, _)| name.len())
                .with_context(|| format!("a sample without a family: {line}"))?
                .1;
            for label in labels {
                if label != "le" && !family.labels.contains(&label) {
                    family.labels.push(label);
                }
            }
        }
    }
    Ok(found.into_values().collect())
}

/// Names of the labels in `a="x",b="y"} 1`. The samples have no quotes and commas in their values.
fn labels(text: &str) -> Vec<String> {
    let inside = text.split('}').next().unwrap_or_default();
    inside.split(',').filter_map(|pair| Some(pair.split_once('=')?.0.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scrape_is_read() {
        let text = "# HELP a_x What.\n# TYPE a_x counter\na_x_total{l=\"\",m=\"v\"} 1\n# HELP a_s How long.\n\
                    # TYPE a_s histogram\n# UNIT a_s seconds\na_s_bucket{le=\"1\"} 0\na_s_sum 0\n# EOF\n";
        let family = |name: &str, kind: &str, help: &str, labels: &[&str]| Family {
            name: name.into(),
            kind: kind.into(),
            help: help.into(),
            labels: labels.iter().map(|l| (*l).to_owned()).collect(),
        };
        assert_eq!(
            families(text).unwrap(),
            [family("a_s", "histogram", "How long.", &[]), family("a_x_total", "counter", "What.", &["l", "m"])]
        );
    }

    /// A family that has no sample is not encoded, and would be missed without a word.
    #[test]
    fn every_registered_metric_is_listed() {
        let root = crate::checkout();
        let listed: Vec<_> = [activator().unwrap(), operator().unwrap()].concat();
        let sources = crate::book::files(&root, &["activator/src", "operator/src"], "rs").unwrap();
        let mut seen = 0;
        for source in sources {
            let text = std::fs::read_to_string(root.join(&source)).unwrap();
            let calls = ["register(", "register_with_unit(", "encode_descriptor("];
            for (at, call) in calls.iter().flat_map(|call| text.match_indices(call)) {
                let Some(rest) = text[at + call.len()..].trim_start().strip_prefix('"') else { continue };
                let name = rest.split('"').next().unwrap_or_default();
                seen += 1;
                assert!(
                    listed.iter().any(|family| family.name.contains(&format!("_{name}"))),
                    "{} registers `{name}`, which has no sample: add it to Metrics::sample()",
                    source.display()
                );
            }
        }
        assert!(seen > 20, "only {seen} registrations were found");
    }
}
