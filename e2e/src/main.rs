//! `cargo e2e <verb>`: the one front door for people who work on Rouse.

#[cfg(test)]
mod docs;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use rouse_e2e::progress::Progress;
use rouse_e2e::requirements::Unmet;
use rouse_e2e::test::{Run, Tier};
use rouse_e2e::up::{Options, build_images, down, up};
use rouse_e2e::{Cluster, Places, Provider};

/// sysexits' EX_UNAVAILABLE: the machine lacks something, nothing was done.
const EXIT_UNMET: u8 = 69;

/// A real Kubernetes for Rouse: brings it up, tests on it, measures on it, takes it down.
#[derive(Debug, Parser)]
#[command(name = "cargo e2e", version)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Bring up a Kubernetes with an ingress and install Rouse. Does only what is missing.
    Up {
        #[command(flatten)]
        which: Which,
        /// Leave Rouse out: a bare cluster with its ingress.
        #[arg(long)]
        without_rouse: bool,
    },
    /// Remove every trace of the cluster.
    Down {
        #[command(flatten)]
        which: Which,
    },
    /// Bring up a cluster, apply examples/hello and call it: 0 → 1 → 0 → 1. Leaves the cluster up.
    Demo {
        #[command(flatten)]
        which: Which,
    },
    /// Run every test there is. Takes down the cluster again if it was not up before.
    Test {
        #[command(flatten)]
        which: Which,
        /// 1: pure; 2: API server; 3: end to end.
        #[arg(long, default_value = "1,2,3")]
        tier: String,
        /// Leave the cluster up.
        #[arg(long)]
        keep: bool,
        /// Run only tests with this in their name.
        filter: Option<String>,
    },
    /// Measure. Leaves the cluster up if a benchmark needs one.
    Bench {
        #[command(flatten)]
        which: Which,
        /// Which benchmarks: decide, hop, park, route, cold, wake, crowd1000, step. Default: all.
        names: Vec<String>,
        /// How often `hop` measures each of those that it compares; the figures are medians.
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
        rounds: u32,
        /// Compare only these in `hop`: direct, nginx, haproxy, envoy, activator.
        #[arg(long, value_delimiter = ',')]
        only: Vec<String>,
        /// Write the figures into this file too.
        #[arg(long)]
        json: Option<PathBuf>,
    },
    /// Simulate: the autoscaler's own decisions and those of others over a day of calls. Needs no cluster.
    #[command(disable_help_flag = true)]
    Sim {
        /// What the simulator is told; `--help` says what it takes.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<std::ffi::OsString>,
    },
    /// Write the files that are made from code.
    Generate,
    /// Compile and pack everything that `up` needs.
    Images {
        #[command(flatten)]
        which: Which,
        /// Copy the images' OCI archives into this folder.
        #[arg(long)]
        out: Option<PathBuf>,
    },
}

#[derive(Args, Debug)]
struct Which {
    /// Who makes the cluster. Default: who made it before; else kind where a Docker engine answers, else local.
    #[arg(long, value_enum, env = "ROUSE_E2E_PROVIDER")]
    provider: Option<Provider>,
    /// The cluster's name. Default: this checkout's own.
    #[arg(long, env = "ROUSE_E2E_NAME")]
    name: Option<String>,
}

impl Which {
    fn options(self, without_rouse: bool) -> Options {
        Options { name: self.name, provider: self.provider, without_rouse, suites: false }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Cli::parse().verb).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\n{error:#}");
            if error.is::<Unmet>() { ExitCode::from(EXIT_UNMET) } else { ExitCode::FAILURE }
        }
    }
}

async fn run(verb: Verb) -> Result<()> {
    let places = Places::discover()?;
    let progress = Progress::default();
    match verb {
        Verb::Up { which, without_rouse } => {
            let cluster = up(&places, &which.options(without_rouse), &progress).await?;
            eprint!("\n{}", progress.table());
            print_cluster(&cluster);
        }
        Verb::Down { which } => {
            let found = down(&places, &which.options(false), &progress).await?;
            eprintln!("{}", if found { "The cluster is gone." } else { "There is no such cluster." });
        }
        Verb::Demo { which } => {
            let cluster = up(&places, &which.options(false), &progress).await?;
            rouse_e2e::demo::demo(&cluster, &places).await?;
        }
        Verb::Test { which, tier, keep, filter } => {
            let tiers = Tier::parse_list(&tier)?;
            let run = Run { tiers, keep, filter };
            let count = rouse_e2e::test::test(&places, &which.options(false), &run, &progress).await?;
            println!("\n{count}");
            anyhow::ensure!(count.failed == 0, "{} tests failed", count.failed);
            anyhow::ensure!(count.passed > 0, "no test has that in its name");
        }
        Verb::Bench { which, names, rounds, only, json } => {
            let wanted = rouse_e2e::bench::Wanted { names, rounds, only };
            rouse_e2e::bench::bench(&places, &which.options(false), &wanted, json.as_deref(), &progress).await?;
        }
        Verb::Sim { arguments } => rouse_e2e::sim::sim(&places, arguments).await?,
        Verb::Generate => rouse_e2e::generate::generate(&places.repo)?,
        Verb::Images { which, out } => {
            let provider = match which.provider {
                Some(provider) => provider,
                None => Provider::default_here().await,
            };
            for archive in build_images(&places, provider, out.as_deref(), &progress).await? {
                println!("{}  {}", archive.reference, archive.path.display());
            }
        }
    }
    Ok(())
}

fn print_cluster(cluster: &Cluster) {
    println!("\nThe cluster `{}` is up; its ingress is http://{}", cluster.name, cluster.ingress);
    println!("  export KUBECONFIG={}", cluster.kubeconfig.display());
    println!("  {} get pods --all-namespaces", cluster.kubectl.display());
}
