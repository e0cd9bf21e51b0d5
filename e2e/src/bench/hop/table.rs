//! Table of `hop`, and the bars for the activator.

use std::{collections::BTreeMap, fmt::Write as _};

use super::{Figures, Load, Medians};

/// Medians by subject and load.
type All<'a> = BTreeMap<(&'a str, Load), Medians>;

/// Returns a row for each subject and load, with the latency that it adds to direct requests.
pub(super) fn table(names: &[&str], medians: &All<'_>, memory: &BTreeMap<&str, f64>) -> String {
    let mut text = String::new();
    for load in Load::ALL {
        let direct = medians.get(&("direct", load));
        let title = match load {
            Load::Closed(1) => "1 connection, closed loop".to_owned(),
            Load::Closed(n) => format!("{n} connections, closed loop"),
            Load::Constant => format!("{} requests a second, constant", super::RATE),
        };
        line(&mut text, &format!("\n  {title}"));
        line(
            &mut text,
            &format!(
                "    {:<10} {:>9} {:>9} {:>6} {:>9} {:>9} {:>9} {:>10} {:>10} {:>8}",
                "", "rps", "CPU µs", "busy", "p50 µs", "p99 µs", "p99.9 µs", "added p50", "added p99", "RSS MiB"
            ),
        );
        for name in names {
            let Some(m) = medians.get(&(name, load)) else { continue };
            let or_dash =
                |value: Option<f64>, digits: usize| value.map_or_else(|| "–".to_owned(), |v| format!("{v:.digits$}"));
            let added = |of: fn(&Medians) -> f64| direct.filter(|_| *name != "direct").map(|d| of(m) - of(d));
            line(
                &mut text,
                &format!(
                    "    {:<10} {:>9.0} {:>9} {:>6} {:>9.1} {:>9.1} {:>9.1} {:>10} {:>10} {:>8}",
                    name,
                    m.rps,
                    or_dash(m.cpu_us, 1),
                    m.cpu_us.map_or_else(|| "–".to_owned(), |_| format!("{:.0} %", m.busy * 100.0)),
                    m.p50_us,
                    m.p99_us,
                    m.p999_us,
                    or_dash(added(|m| m.p50_us), 1),
                    or_dash(added(|m| m.p99_us), 1),
                    or_dash(memory.get(name).copied(), 1),
                ),
            );
        }
    }
    text
}

/// Records the ratios and differences that have a bar.
pub(super) fn bars(medians: &All<'_>, figures: &mut Figures) {
    let full = Load::Closed(64);
    let cpu = |name| medians.get(&(name, full)).and_then(|m| m.cpu_us);
    for (name, most) in [("haproxy", 1.25), ("envoy", 1.0)] {
        if let (Some(ours), Some(theirs)) = (cpu("activator"), cpu(name)) {
            figures.bar(format!("hop.cpu_by_{name}"), ours / theirs, "×", most);
        }
    }
    let constant = |name| medians.get(&(name, Load::Constant));
    if let (Some(ours), Some(direct)) = (constant("activator"), constant("direct")) {
        figures.bar("hop.added_p50_us", ours.p50_us - direct.p50_us, "µs", 60.0);
        figures.bar("hop.added_p99_us", ours.p99_us - direct.p99_us, "µs", 300.0);
    }
}

fn line(text: &mut String, line: &str) {
    // Writing to a String cannot fail.
    writeln!(text, "{line}").ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> All<'static> {
        let m = |p50_us, cpu_us| Medians { p50_us, p99_us: 2.0 * p50_us, cpu_us, ..Medians::default() };
        let mut all = All::new();
        for load in Load::ALL {
            all.insert(("direct", load), m(40.0, None));
            all.insert(("haproxy", load), m(90.0, Some(20.0)));
            all.insert(("activator", load), m(120.0, Some(30.0)));
        }
        all
    }

    #[test]
    fn added_latency_is_relative_to_direct_requests() {
        let text = table(&["direct", "haproxy", "activator"], &all(), &[("activator", 12.0)].into());
        let row = text.lines().rfind(|line| line.contains("activator")).unwrap();
        let columns: Vec<_> = row.split_whitespace().collect();
        assert_eq!(columns[columns.len() - 3..], ["80.0", "160.0", "12.0"]);
    }

    #[test]
    fn bars_are_met_or_missed() {
        let mut figures = Figures::default();
        bars(&all(), &mut figures);
        let table = figures.table();
        assert!(table.contains("hop.cpu_by_haproxy") && table.contains("missed"), "{table}");
        assert!(!table.contains("envoy"), "{table}");
    }
}
