//! `hop`: cost of a warm request without a proxy, and through nginx, HAProxy, Envoy and the activator, in time and in
//! instructions.
//!
//! All forward to the same origin. The subject of a measurement has one core; the origin, the client and the API server
//! share another. Subjects alternate in every round, so that other load of the machine affects all alike, and each
//! figure is the median of the rounds.

mod instructions;
mod proxies;
mod table;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;
use serde_json::json;

use self::proxies::Proxy;
use super::{
    Figures, Wanted,
    callgrind::Callgrind,
    daemon::{Core, Daemon},
    loopback::{Activator, Loopback, Variant, free_address},
};
use crate::{
    Places,
    http_client::HttpClient,
    images,
    process::run as run_command,
    progress::Progress,
    requirements::{find_program, meet_programs},
};

/// Subjects, in the order of a round and of the table.
const NAMES: [&str; 6] = ["direct", "nginx", "haproxy", "envoy", "before", "activator"];
const FUNCTION: &str = "hop";
/// Requests per second of the constant load.
const RATE: u32 = 1000;

/// A kind of load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Load {
    /// Closed loop with this many connections.
    Closed(u32),
    /// [`RATE`] requests per second over 16 connections.
    Constant,
}

impl Load {
    const ALL: [Self; 3] = [Self::Closed(64), Self::Closed(1), Self::Constant];

    fn label(self) -> String {
        match self {
            Self::Closed(connections) => format!("c{connections}"),
            Self::Constant => format!("r{RATE}"),
        }
    }

    /// Returns the flags of the load generator.
    fn flags(self) -> Vec<String> {
        let flags = match self {
            Self::Closed(connections) => format!("closed --connections {connections} --warm-up 500 --measured 2000"),
            Self::Constant => format!("open --rate {RATE} --connections 16 --warm-up 500 --measured 4000"),
        };
        flags.split(' ').map(str::to_owned).collect()
    }
}

/// Output of the load generator.
#[derive(Clone, Debug, Deserialize)]
struct Report {
    responses: u64,
    failures: u64,
    reconnects: u64,
    seconds: f64,
    user_seconds: f64,
    system_seconds: f64,
    p50_us: f64,
    p99_us: f64,
    p999_us: f64,
    first_failure: Option<String>,
}

/// Figures of a subject under a load: medians of the rounds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Medians {
    pub(super) rps: f64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
    pub(super) p999_us: f64,
    /// CPU time per request; `None` without a proxy.
    pub(super) cpu: Option<Cpu>,
    /// Utilization of the core, from 0 to 1.
    pub(super) busy: f64,
}

/// CPU time per request, in microseconds. The kernel knows the sum; it estimates the parts from samples.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Cpu {
    pub(super) total: f64,
    pub(super) user: f64,
    pub(super) system: f64,
}

/// A subject of the comparison.
struct Subject {
    name: &'static str,
    address: SocketAddr,
    /// `None` without a proxy.
    daemon: Option<Daemon>,
}

pub(super) async fn run(
    places: &Places,
    loopback: &Loopback,
    wanted: &Wanted,
    figures: &mut Figures,
    progress: &Progress,
) -> Result<()> {
    if let Some(unknown) = wanted.only.iter().find(|n| !NAMES.contains(&n.as_str())) {
        bail!("unknown subject `{unknown}`; available: {}", NAMES.join(", "));
    }
    let cores = std::thread::available_parallelism()?.get();
    ensure!(cores >= 2, "the subject and the load generator need a core each; found {cores}");
    let (_origin, origin) = loopback.origin().await?;
    let host = loopback.host(FUNCTION);
    loopback.function(FUNCTION, json!({})).await?;
    loopback.pod(FUNCTION, origin).await?;
    let setup = Setup { places, loopback, before: wanted.before.as_deref(), origin, host: &host, progress };
    let names: Vec<_> = NAMES
        .into_iter()
        .filter(|n| wanted.only.is_empty() || wanted.only.iter().any(|o| o == n))
        .filter(|n| *n != "before" || wanted.before.is_some())
        .collect();
    let mut subjects = vec![];
    for name in &names {
        subjects.push(setup.start(name, None).await?);
    }
    let mut reports: BTreeMap<(&str, Load), Vec<Report>> = BTreeMap::new();
    for round in 1..=wanted.rounds {
        for subject in &mut subjects {
            for load in Load::ALL {
                let report = setup
                    .measure(subject, load)
                    .await
                    .with_context(|| format!("{} at {}", subject.name, load.label()))?;
                reports.entry((subject.name, load)).or_default().push(report);
            }
        }
        eprintln!("    round {round} of {} done", wanted.rounds);
    }
    let (mut medians, mut all_failures) = (BTreeMap::new(), 0);
    for (name, load) in NAMES.into_iter().flat_map(|name| Load::ALL.map(|load| (name, load))) {
        let Some(reports) = reports.get(&(name, load)) else { continue };
        let values = of(reports, name != "direct");
        note(figures, name, load, &values);
        let failures: u64 = reports.iter().map(|r| r.failures).sum();
        all_failures += failures;
        figures.detail(format!("hop.{name}.{}.failures", load.label()), failures as f64, "requests");
        if let Some(first) = reports.iter().find_map(|r| r.first_failure.as_ref()) {
            eprintln!("    {name} at {}: the first failure: {first}", load.label());
        }
        let reconnects: u64 = reports.iter().map(|r| r.reconnects).sum();
        if reconnects > 0 {
            eprintln!("    {name} at {}: closed {reconnects} connections between requests", load.label());
        }
        medians.insert((name, load), values);
    }
    figures.bar("hop.failures", all_failures as f64, "requests", 0.0);
    let mut memory = BTreeMap::new();
    for subject in &subjects {
        if let Some(daemon) = &subject.daemon {
            let rss = daemon.memory()?.rss as f64 / 1024.0;
            figures.note(format!("hop.{}.rss_mib", subject.name), rss, "MiB");
            memory.insert(subject.name, rss);
        }
    }
    drop(subjects);
    let instructions = instructions::count(&setup, &names, figures).await?;
    print!("{}", table::table(&NAMES, &medians, &memory, &instructions));
    table::bars(&medians, figures);
    loopback.clear().await
}

/// What every subject is measured with.
struct Setup<'a> {
    places: &'a Places,
    loopback: &'a Loopback,
    /// Program of the subject `before`.
    before: Option<&'a Path>,
    origin: SocketAddr,
    /// Host of the requests.
    host: &'a str,
    progress: &'a Progress,
}

impl Setup<'_> {
    /// Starts a subject on a free port in front of the origin, and verifies it.
    async fn start(&self, name: &'static str, callgrind: Option<&Callgrind>) -> Result<Subject> {
        let debian = async |program: &str, package: &'static str| -> Result<PathBuf> {
            meet_programs(&[(program, package)], self.progress).await?;
            find_program(program).with_context(|| format!("{program} not found"))
        };
        let (address, daemon) = match name {
            "direct" => (self.origin, None),
            "activator" | "before" => {
                let program = self.before.filter(|_| name == "before");
                let Activator { daemon, public } =
                    self.loopback.variant(Variant { program, callgrind, group: None }, &[]).await?;
                (public, Some(daemon))
            }
            _ => {
                let (proxy, program) = match name {
                    "nginx" => (Proxy::Nginx, debian("nginx", "nginx-light").await?),
                    "haproxy" => (Proxy::Haproxy, debian("haproxy", "haproxy").await?),
                    _ => (Proxy::Envoy, images::envoy_program(self.places, self.progress).await?),
                };
                let (address, folder) = (free_address()?, self.loopback.folder());
                (address, Some(proxy.start(&program, address, self.origin, folder, callgrind).await?))
            }
        };
        let subject = Subject { name, address, daemon };
        verify(&subject, self.host).await.with_context(|| format!("verification of {name}"))?;
        Ok(subject)
    }

    /// Runs one load on one subject. Checks that every counted response is from the origin.
    async fn measure(&self, subject: &mut Subject, load: Load) -> Result<Report> {
        let counter = HttpClient::new(self.origin);
        let count = async || -> Result<u64> { Ok(counter.get("origin", "/count").await?.text().parse()?) };
        let before = count().await?;
        let mut generator = Core::Measuring.command(&self.loopback.load);
        generator.args(load.flags());
        generator.args(["--target", &subject.address.to_string(), "--host", self.host]);
        if let Some(daemon) = &mut subject.daemon {
            daemon.check_alive()?;
            generator.args(["--watch", &daemon.pid.to_string()]);
        }
        let report: Report =
            serde_json::from_str(&run_command(generator).await?).context("the load generator's report")?;
        let reached = count().await? - before;
        ensure!(
            reached >= report.responses,
            "{} responses, but only {reached} requests at the origin",
            report.responses
        );
        Ok(report)
    }
}

/// Requests `/echo` through the subject, and checks that it reaches the origin, keeps the host and adds
/// `X-Forwarded-For`.
async fn verify(subject: &Subject, host: &str) -> Result<()> {
    let response = HttpClient::new(subject.address).get(host, "/echo").await?;
    let head = response.text().to_ascii_lowercase();
    ensure!(response.status.is_success() && head.starts_with("get /echo http/1.1\r\n"), "{}: {head}", response.status);
    ensure!(head.contains(&format!("host: {host}")), "the host was changed: {head}");
    // Envoy adds an address of the machine if the client is on loopback.
    let forwarded = head.lines().any(|line| line.starts_with("x-forwarded-for: "));
    ensure!(forwarded == subject.daemon.is_some(), "unexpected X-Forwarded-For: {head}");
    Ok(())
}

/// Returns the median of each figure over the rounds.
fn of(reports: &[Report], has_process: bool) -> Medians {
    let figure = |of: fn(&Report) -> f64| median(reports.iter().map(of).collect());
    let each = |r: &Report, seconds: f64| seconds * 1e6 / (r.responses.max(1) as f64);
    let cpu = |of: fn(&Report) -> f64| median(reports.iter().map(|r| each(r, of(r))).collect());
    Medians {
        rps: figure(|r| r.responses as f64 / r.seconds),
        p50_us: figure(|r| r.p50_us),
        p99_us: figure(|r| r.p99_us),
        p999_us: figure(|r| r.p999_us),
        cpu: has_process.then(|| Cpu {
            total: cpu(|r| r.user_seconds + r.system_seconds),
            user: cpu(|r| r.user_seconds),
            system: cpu(|r| r.system_seconds),
        }),
        busy: figure(|r| (r.user_seconds + r.system_seconds) / r.seconds),
    }
}

/// Returns the median; zero without values.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    match values.len() {
        0 => 0.0,
        n if n % 2 == 1 => values[half],
        _ => f64::midpoint(values[half - 1], values[half]),
    }
}

/// Records the figures. Those without a load in their name are throughput and CPU time at 64 connections, and latency at the
/// constant rate.
fn note(figures: &mut Figures, name: &str, load: Load, values: &Medians) {
    let label = load.label();
    let mut both = |plain: bool, figure: &str, value: f64, unit: &'static str| {
        if plain {
            figures.note(format!("hop.{name}.{figure}"), value, unit);
        }
        figures.detail(format!("hop.{name}.{label}.{figure}"), value, unit);
    };
    let (full, constant) = (load == Load::Closed(64), load == Load::Constant);
    both(full, "rps", values.rps, "/s");
    both(constant, "p50_us", values.p50_us, "µs");
    both(constant, "p99_us", values.p99_us, "µs");
    both(constant, "p999_us", values.p999_us, "µs");
    if let Some(cpu) = values.cpu {
        both(full, "cpu_us", cpu.total, "µs");
        both(full, "user_us", cpu.user, "µs");
        both(full, "sys_us", cpu.system, "µs");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(responses: u64, user_seconds: f64) -> Report {
        let us = responses as f64;
        Report {
            responses,
            failures: 0,
            reconnects: 0,
            seconds: 2.0,
            user_seconds,
            system_seconds: 0.01,
            p50_us: us,
            p99_us: us,
            p999_us: us,
            first_failure: None,
        }
    }

    #[test]
    fn medians_are_taken_figure_by_figure() {
        let all = of(&[report(100, 0.01), report(300, 0.06), report(200, 0.05)], true);
        assert_eq!((all.rps, all.p99_us), (100.0, 200.0));
        // In user space 100, 200 and 250 µs, and in the kernel 100, 33 and 50 µs.
        let cpu = all.cpu.unwrap();
        assert_eq!([cpu.total, cpu.user, cpu.system].map(f64::round), [233.0, 200.0, 50.0]);
        assert_eq!((median(vec![]), median(vec![4.0, 1.0, 3.0, 2.0])), (0.0, 2.5));
        assert_eq!(of(&[report(1, 0.0)], false).cpu, None);
    }

    #[test]
    fn main_figures_have_names_without_a_load() {
        let mut figures = Figures::default();
        for load in Load::ALL {
            note(&mut figures, "envoy", load, &Medians { cpu: Some(Cpu::default()), ..Medians::default() });
        }
        let (table, json) = (figures.table(), figures.json().unwrap());
        for name in ["rps", "p50_us", "p99_us", "cpu_us", "user_us", "sys_us"] {
            let lines = table.lines().filter(|line| line.trim().starts_with(&format!("hop.envoy.{name} "))).count();
            assert_eq!(lines, 1, "{name} in {table}");
        }
        for name in ["rps", "c64.p999_us", "c1.cpu_us", "r1000.p99_us"] {
            assert_eq!(json.matches(&format!("\"hop.envoy.{name}\"")).count(), 1, "{name} in {json}");
        }
    }
}
