//! Table of `hop`, and the bars for the activator.

use std::{collections::BTreeMap, fmt::Write as _};

use super::{Cpu, Figures, Load, Medians};

/// Medians by subject and load.
type All<'a> = BTreeMap<(&'a str, Load), Medians>;

/// Returns a row for each subject and load, with the latency that it adds to direct requests.
pub(super) fn table(
    names: &[&str],
    medians: &All<'_>,
    memory: &BTreeMap<&str, f64>,
    instructions: &BTreeMap<&str, f64>,
) -> String {
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
                "    {:<10} {:>9} {:>7} {:>6} {:>6} {:>6} {:>9} {:>9} {:>9} {:>10} {:>10} {:>8}",
                "",
                "rps",
                "CPU µs",
                "user",
                "sys",
                "busy",
                "p50 µs",
                "p99 µs",
                "p99.9 µs",
                "added p50",
                "added p99",
                "RSS MiB"
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
                    "    {:<10} {:>9.0} {:>7} {:>6} {:>6} {:>6} {:>9.1} {:>9.1} {:>9.1} {:>10} {:>10} {:>8}",
                    name,
                    m.rps,
                    or_dash(m.cpu.map(|cpu| cpu.total), 1),
                    or_dash(m.cpu.map(|cpu| cpu.user), 1),
                    or_dash(m.cpu.map(|cpu| cpu.system), 1),
                    m.cpu.map_or_else(|| "–".to_owned(), |_| format!("{:.0} %", m.busy * 100.0)),
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
    if !instructions.is_empty() {
        line(&mut text, "\n  instructions per request in user space");
        for (name, each) in names.iter().filter_map(|name| instructions.get_key_value(name)) {
            line(&mut text, &format!("    {name:<10} {each:>9.0}"));
        }
    }
    text
}

/// Records the ratios and differences, most of which have a bar.
pub(super) fn bars(medians: &All<'_>, figures: &mut Figures) {
    let full = |name| medians.get(&(name, Load::Closed(64))).and_then(|m| m.cpu);
    let mut ratio = |name: &str, of: fn(Cpu) -> f64, to: &'static str, bar: Option<f64>| {
        let (Some(ours), Some(theirs)) = (full("activator"), full(to)) else { return };
        let name = format!("hop.{name}_by_{to}");
        figures.note(name.clone(), of(ours) / of(theirs), "×");
        if let Some(most) = bar {
            figures.limit(name, most);
        }
    };
    ratio("cpu", |cpu| cpu.total, "haproxy", Some(1.15));
    ratio("user", |cpu| cpu.user, "haproxy", Some(1.25));
    ratio("cpu", |cpu| cpu.total, "envoy", Some(1.0));
    ratio("cpu", |cpu| cpu.total, "before", None);
    ratio("user", |cpu| cpu.user, "before", None);
    let added = |name, of: fn(&Medians) -> f64| {
        let constant = |name| medians.get(&(name, Load::Constant));
        Some(of(constant(name)?) - of(constant("direct")?))
    };
    let p50 = |name| added(name, |m| m.p50_us);
    if let Some(ours) = p50("activator") {
        figures.bar("hop.added_p50_us", ours, "µs", 60.0);
        if let Some(theirs) = p50("haproxy") {
            figures.bar("hop.added_p50_by_haproxy", ours / theirs, "×", 1.0);
        }
    }
    if let Some(ours) = added("activator", |m| m.p99_us) {
        figures.bar("hop.added_p99_us", ours, "µs", 300.0);
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
        let cpu = |user| Cpu { total: user + 10.0, user, system: 10.0 };
        let m = |p50_us, cpu| Medians { p50_us, p99_us: 2.0 * p50_us, cpu, ..Medians::default() };
        let mut all = All::new();
        for load in Load::ALL {
            all.insert(("direct", load), m(40.0, None));
            all.insert(("haproxy", load), m(90.0, Some(cpu(10.0))));
            all.insert(("activator", load), m(120.0, Some(cpu(20.0))));
        }
        all
    }

    #[test]
    fn added_latency_is_relative_to_direct_requests() {
        let (memory, instructions) = ([("activator", 12.0)].into(), [("activator", 34_567.8)].into());
        let text = table(&["direct", "haproxy", "activator"], &all(), &memory, &instructions);
        let row = |line: &&str| line.contains("activator");
        let columns: Vec<_> = text.lines().find(row).unwrap().split_whitespace().collect();
        assert_eq!(columns[columns.len() - 3..], ["80.0", "160.0", "12.0"]);
        assert_eq!(text.lines().rfind(row).unwrap().split_whitespace().next_back(), Some("34568"));
    }

    #[test]
    fn bars_are_met_or_missed() {
        let mut figures = Figures::default();
        bars(&all(), &mut figures);
        let table = figures.table();
        let line = |name: &str| table.lines().find(|line| line.contains(name)).unwrap_or_default();
        assert!(line("hop.cpu_by_haproxy").contains("1.50 ×   ✗ missed"), "{table}");
        assert!(line("hop.user_by_haproxy").contains("2 ×   ✗ missed"), "{table}");
        assert!(line("hop.added_p50_by_haproxy").contains("1.60 ×   ✗ missed"), "{table}");
        assert!(line("hop.added_p99_us").contains("160 µs   ✓ met"), "{table}");
        assert!(!table.contains("envoy") && !table.contains("before"), "{table}");
    }
}
