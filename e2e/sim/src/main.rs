//! Simulator of autoscaling policies: Rouse and others, on a trace of many functions or in single scenarios.
//!
//! ```text
//! trace ──► world (one for each function and policy) ──► outcome ──► compare ──► report · svg
//! (generate,   ▲ │
//!  azure)      │ ▼
//!           scaler: policy/{rouse, heads, kpa, hpa, keep_alive}; the oracle has no world
//! ```
//!
//! With `--scenario`, the world includes a node and clients: see [`scenario`].
//!
//! Time is whole microseconds since the start of the trace. Runs are reproducible: no clock, no dependence on threads, and
//! all random numbers derive from the seed.
#![allow(clippy::disallowed_types, reason = "no runtime is used here whose time could be paused")]

use std::{path::PathBuf, time::Instant};

use anyhow::{Context as _, Result};
use clap::Parser;

use policy::Policy;
use report::{Report, Setting};
use trace::{Source, Trace};

mod azure;
mod clients;
mod compare;
mod generate;
mod micros;
mod node;
mod oracle;
mod outcome;
mod pods;
mod policy;
mod profile;
mod queue;
mod random;
mod report;
mod request;
mod scaler;
mod scenario;
mod step;
mod svg;
mod threads;
mod trace;
mod world;

/// Simulates autoscaling policies on a trace and reports cold starts, queueing and idle pods.
#[derive(Debug, Parser)]
#[command(name = "cargo e2e sim", version)]
struct Cli {
    /// Number of functions.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    functions: u32,
    /// Simulated hours.
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=336))]
    hours: u32,
    /// Seed of all random numbers. The same seed gives the same report.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Trace: `generated`, or `azure:DIR` with the files of the public Azure Functions trace of 2019.
    #[arg(long, default_value = "generated")]
    trace: Source,
    /// Policies to compare: `rouse[:IDLE]`, `prewarm[:IDLE]`, `heads[:IDLE]`, `kpa[:GRACE]`, `hpa`, `keep:IDLE`, `oracle`,
    /// with times such as 30s or 10m. Default: those of docs/autoscaling.md; with scenarios rouse, heads, kpa and hpa.
    #[arg(long, value_delimiter = ',')]
    policy: Vec<Policy>,
    /// Run scenarios instead of a trace: `all`, names, or groups of names (`steady`). An unknown name lists them.
    #[arg(long, value_delimiter = ',', conflicts_with_all = ["functions", "hours", "trace", "svg"])]
    scenario: Vec<String>,
    /// Print the wanted and ready pods of these scenarios every two seconds.
    #[arg(long, value_delimiter = ',', conflicts_with_all = ["functions", "hours", "trace", "svg"])]
    timeline: Vec<String>,
    /// Number of threads. Does not affect the result.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=256))]
    threads: u32,
    /// Write all figures as JSON to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Write an SVG plot of cold starts against waste to this file.
    #[arg(long)]
    svg: Option<PathBuf>,
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    let began = Instant::now();
    if !cli.scenario.is_empty() || !cli.timeline.is_empty() {
        return scenarios(&cli, began);
    }
    let report = run(&cli)?;
    print!("{}", report.text());
    finish(&cli, began, &report.json())?;
    if let Some(path) = &cli.svg {
        std::fs::write(path, svg::plot(&report)).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// Writes the figures to the `--json` file, if any.
fn finish(cli: &Cli, began: Instant, json: &serde_json::Value) -> Result<()> {
    // On stderr, since the report is reproducible.
    eprintln!("\nsimulated in {:.1} s", began.elapsed().as_secs_f64());
    if let Some(path) = &cli.json {
        let text = serde_json::to_string_pretty(json)? + "\n";
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn policies(cli: &Cli, default: &str) -> Result<Vec<Policy>> {
    if cli.policy.is_empty() { default.split(',').map(str::parse).collect() } else { Ok(cli.policy.clone()) }
}

fn scenarios(cli: &Cli, began: Instant) -> Result<()> {
    let policies = policies(cli, scenario::POLICIES)?;
    let play = |texts: &[String]| -> Result<scenario::Report> {
        let names = scenario::select(texts)?;
        let built: Vec<_> = names.iter().filter_map(|name| scenario::build(name, cli.seed)).collect();
        let runs: Vec<_> = built.iter().flat_map(|scenario| policies.iter().map(move |p| (scenario, *p))).collect();
        let figures = threads::each(&runs, cli.threads as usize, |(scenario, policy)| scenario.run(*policy, cli.seed))?;
        let scenarios = built.iter().map(|scenario| (scenario.name, scenario.about.clone())).collect();
        Ok(scenario::Report { seed: cli.seed, scenarios, figures: figures.into_iter().flatten().collect() })
    };
    if !cli.timeline.is_empty() {
        print!("{}", scenario::timelines(&play(&cli.timeline)?.figures));
    }
    if cli.scenario.is_empty() {
        return Ok(());
    }
    let report = play(&cli.scenario)?;
    print!("{}", report.text());
    finish(cli, began, &report.json())
}

fn run(cli: &Cli) -> Result<Report> {
    let policies = policies(cli, Policy::DEFAULT)?;
    let trace = Trace::open(&cli.trace, cli.functions as usize, cli.hours, cli.seed)?;
    let threads = cli.threads as usize;
    let summaries = compare::compare(&trace, &policies, cli.hours, cli.seed, threads)?;
    let steps: Vec<_> = policies.iter().flat_map(|policy| step::LIMITS.map(|limit| (*policy, limit))).collect();
    let steps = threads::each(&steps, threads, |(policy, limit)| step::step_response(*policy, *limit, cli.seed))?;
    let steps = steps.into_iter().flatten().collect();
    let setting = Setting {
        trace: match &cli.trace {
            Source::Generated => "generated".to_owned(),
            Source::Azure(folder) => format!("azure:{}", folder.display()),
        },
        functions: trace.functions().len(),
        hours: cli.hours,
        seed: cli.seed,
        note: trace.note(),
    };
    Ok(Report { setting, summaries, steps })
}
