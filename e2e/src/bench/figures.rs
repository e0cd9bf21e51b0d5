//! Named figures of a run, as a table and as JSON.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;

#[derive(Debug)]
struct Row {
    name: String,
    value: f64,
    unit: &'static str,
    shown: bool,
}

/// The figures of one run.
#[derive(Debug, Default)]
pub struct Figures {
    rows: Vec<Row>,
    /// Name and limit of a figure.
    bars: Vec<(String, Limit)>,
}

#[derive(Clone, Copy, Debug)]
enum Limit {
    AtMost(f64),
    AtLeast(f64),
}

impl Limit {
    /// Returns whether a value keeps to the limit, and the limit in words.
    fn judge(self, value: f64) -> (bool, String) {
        match self {
            Self::AtMost(most) => (value <= most, format!("at most {most}")),
            Self::AtLeast(least) => (value >= least, format!("at least {least}")),
        }
    }
}

impl Figures {
    /// Records a figure.
    pub fn note(&mut self, name: impl Into<String>, value: f64, unit: &'static str) {
        self.rows.push(Row { name: name.into(), value, unit, shown: true });
    }

    /// Records a figure for the JSON only, since the benchmark prints its own table.
    pub fn detail(&mut self, name: impl Into<String>, value: f64, unit: &'static str) {
        self.rows.push(Row { name: name.into(), value, unit, shown: false });
    }

    /// Records a figure with an upper limit.
    pub fn bar(&mut self, name: impl Into<String>, value: f64, unit: &'static str, most: f64) {
        let name = name.into();
        self.note(name.clone(), value, unit);
        self.limit(name, most);
    }

    /// Sets the upper limit of a figure.
    pub fn limit(&mut self, name: impl Into<String>, most: f64) {
        self.bars.push((name.into(), Limit::AtMost(most)));
    }

    /// Records a figure with a lower limit.
    pub fn floor(&mut self, name: impl Into<String>, value: f64, unit: &'static str, least: f64) {
        let name = name.into();
        self.note(name.clone(), value, unit);
        self.bars.push((name, Limit::AtLeast(least)));
    }

    /// Records percentiles of `samples` in milliseconds as `{name}.p50` and so on; 100 is named `max`.
    pub fn percentiles(&mut self, name: &str, samples: &[Duration], percents: &[u32]) {
        for percent in percents {
            let label = if *percent == 100 { "max".to_owned() } else { format!("p{percent}") };
            self.note(format!("{name}.{label}"), percentile(samples, *percent).as_secs_f64() * 1000.0, "ms");
        }
    }

    /// Returns the table.
    #[must_use]
    pub fn table(&self) -> String {
        let shown = || self.rows.iter().filter(|row| row.shown);
        let width = shown().map(|row| row.name.len()).max().unwrap_or(0);
        shown().fold(String::new(), |mut text, Row { name, value, unit, .. }| {
            let digits = match value.abs() {
                _ if value.fract() == 0.0 => 0,
                small if small < 10.0 => 2,
                _ => 1,
            };
            let bar = self.bars.iter().find(|(named, _)| named == name).map_or_else(String::new, |(_, limit)| {
                let (held, words) = limit.judge(*value);
                format!("   {}: {words} {unit}", if held { "✓ met" } else { "✗ missed" })
            });
            text.push_str(&format!("  {name:<width$}  {value:>10.digits$} {unit}{bar}\n"));
            text
        })
    }

    /// Returns the JSON document.
    ///
    /// # Errors
    ///
    /// If a figure is not a number.
    pub fn json(&self) -> Result<String> {
        let rows = self.rows.iter();
        let figures: Vec<_> = rows.map(|row| json!({"name": row.name, "value": row.value, "unit": row.unit})).collect();
        Ok(serde_json::to_string_pretty(&json!({"machine": machine(), "figures": figures}))?)
    }
}

/// Returns the nearest-rank percentile; zero without samples.
pub(super) fn percentile(samples: &[Duration], percent: u32) -> Duration {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() * percent as usize).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

/// Describes the machine: CPU, cores, memory, kernel.
fn machine() -> serde_json::Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let after = |text: &str, key: &str| {
        let line = text.lines().find(|l| l.starts_with(key)).unwrap_or_default();
        line.split_once(':').map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
    };
    json!({
        "cpu": after(&read("/proc/cpuinfo"), "model name"),
        "cores": std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        "memory": after(&read("/proc/meminfo"), "MemTotal"),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples() {
        let samples: Vec<_> = (1..=20).rev().map(Duration::from_millis).collect();
        assert_eq!(percentile(&samples, 50), Duration::from_millis(10));
        assert_eq!(percentile(&samples, 95), Duration::from_millis(19));
        assert_eq!(percentile(&samples, 100), Duration::from_millis(20));
        assert_eq!(percentile(&samples[..1], 50), Duration::from_millis(20));
        assert_eq!(percentile(&[], 50), Duration::ZERO);
    }

    #[test]
    fn a_bar_is_shown_beside_its_figure() {
        let mut figures = Figures::default();
        figures.bar("a", 1.2, "×", 1.25);
        figures.bar("b", 1.3, "×", 1.25);
        let table = figures.table();
        let lines: Vec<_> = table.lines().collect();
        assert!(lines[0].contains("1.20 ×   ✓ met: at most 1.25 ×"), "{table}");
        assert!(lines[1].contains("✗ missed"), "{table}");
        figures.floor("c", 0.7, "×", 0.8);
        assert!(figures.table().contains("0.70 ×   ✗ missed: at least 0.8 ×"), "{}", figures.table());
    }

    #[test]
    fn figures_are_in_the_table_and_the_json() {
        let mut figures = Figures::default();
        figures.percentiles("cold.ingress_ms", &[Duration::from_micros(1500)], &[50, 100]);
        figures.note("crowd1000.failures", 0.0, "requests");
        assert_eq!(figures.table().lines().count(), 3);
        let json: serde_json::Value = serde_json::from_str(&figures.json().unwrap()).unwrap();
        assert_eq!(json["figures"][1], json!({"name": "cold.ingress_ms.max", "value": 1.5, "unit": "ms"}));
    }
}
