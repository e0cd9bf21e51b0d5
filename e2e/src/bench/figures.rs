//! Named numbers, and how they are shown.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;

/// The figures of one run.
#[derive(Debug, Default)]
pub struct Figures {
    rows: Vec<(String, f64, &'static str)>,
}

impl Figures {
    /// Notes a figure.
    pub fn note(&mut self, name: impl Into<String>, value: f64, unit: &'static str) {
        self.rows.push((name.into(), value, unit));
    }

    /// Notes percentiles of `samples` in milliseconds as `{name}.p50` and so on; 100 is called `max`.
    pub fn percentiles(&mut self, name: &str, samples: &[Duration], percents: &[u32]) {
        for percent in percents {
            let label = if *percent == 100 { "max".to_owned() } else { format!("p{percent}") };
            self.note(format!("{name}.{label}"), percentile(samples, *percent).as_secs_f64() * 1000.0, "ms");
        }
    }

    /// For people.
    #[must_use]
    pub fn table(&self) -> String {
        let width = self.rows.iter().map(|(name, ..)| name.len()).max().unwrap_or(0);
        self.rows.iter().fold(String::new(), |mut text, (name, value, unit)| {
            let digits = if value.fract() == 0.0 { 0 } else { 1 };
            text.push_str(&format!("  {name:<width$}  {value:>10.digits$} {unit}\n"));
            text
        })
    }

    /// For programs.
    ///
    /// # Errors
    ///
    /// If a figure is not a number.
    pub fn json(&self) -> Result<String> {
        let figures: Vec<_> =
            self.rows.iter().map(|(name, value, unit)| json!({"name": name, "value": value, "unit": unit})).collect();
        Ok(serde_json::to_string_pretty(&json!({"machine": machine(), "figures": figures}))?)
    }
}

/// The smallest sample that `percent` of all are not above; zero if there is none.
fn percentile(samples: &[Duration], percent: u32) -> Duration {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() * percent as usize).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

/// What was measured on: processor, cores, memory, kernel.
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
    fn figures_are_shown_in_both_ways() {
        let mut figures = Figures::default();
        figures.percentiles("cold.ingress_ms", &[Duration::from_micros(1500)], &[50, 100]);
        figures.note("crowd1000.failures", 0.0, "requests");
        assert_eq!(figures.table().lines().count(), 3);
        let json: serde_json::Value = serde_json::from_str(&figures.json().unwrap()).unwrap();
        assert_eq!(json["figures"][1], json!({"name": "cold.ingress_ms.max", "value": 1.5, "unit": "ms"}));
    }
}
