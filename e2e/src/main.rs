//! `cargo e2e <verb>`: the one front door for people who work on Rouse.

#[cfg(test)]
mod docs;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use rouse_e2e::down::down;
use rouse_e2e::plan::title;
use rouse_e2e::progress::Progress;
use rouse_e2e::requirements::Unmet;
use rouse_e2e::test::{Run, Tier};
use rouse_e2e::up::{Options, build_images, up};
use rouse_e2e::{Cluster, Places, Provider};

/// sysexits' EX_UNAVAILABLE: a requirement is missing, and nothing was done.
const EXIT_UNMET: u8 = 69;

/// Development tool of Rouse: a real Kubernetes cluster to try, test and benchmark it on.
#[derive(Debug, Parser)]
#[command(name = "cargo e2e", bin_name = "cargo e2e", version)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Start a Kubernetes cluster with an ingress and install Rouse. Skips what exists already.
    Up {
        #[command(flatten)]
        which: Which,
        /// Do not install Rouse, only the ingress.
        #[arg(long)]
        without_rouse: bool,
        /// Build Rouse as a release does, with link-time optimization: several minutes more. Default: a quick build.
        #[arg(long)]
        release: bool,
    },
    /// Remove the cluster. A cluster that cannot be reached is reported and forgotten.
    Down {
        #[command(flatten)]
        which: Which,
    },
    /// Start a cluster, apply examples/hello and send requests: 0 → 1 → 0 → 1 pods. Keeps the cluster.
    Demo {
        #[command(flatten)]
        which: Which,
    },
    /// Run all tests. Removes the cluster afterwards unless it existed before.
    Test {
        #[command(flatten)]
        which: Which,
        /// 1: code only; 2: API server and etcd; 3: a whole cluster.
        #[arg(long, default_value = "1,2,3")]
        tier: String,
        /// Keep the cluster.
        #[arg(long)]
        keep: bool,
        /// Run only tests whose name contains this.
        filter: Option<String>,
    },
    /// Run benchmarks on release builds. Keeps the cluster if a benchmark needs one.
    Bench {
        #[command(flatten)]
        which: Which,
        /// Which benchmarks: decide, hop, park, route, rollback, cold, wake, crowd1000, step, steady,
        /// steady-stress. Default: all.
        names: Vec<String>,
        /// How often `hop` measures each of those that it compares; the figures are medians.
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
        rounds: u32,
        /// Compare only these in `hop`: direct, nginx, haproxy, envoy, before, activator.
        #[arg(long, value_delimiter = ',')]
        only: Vec<String>,
        /// Another build of rouse-activator, which `hop` and `park` measure beside the present one as `before`.
        #[arg(long)]
        before: Option<PathBuf>,
        /// Also write the results to this file, as JSON.
        #[arg(long)]
        json: Option<PathBuf>,
    },
    /// Simulate the autoscaler and its alternatives over a day of requests. Needs no cluster.
    #[command(disable_help_flag = true)]
    Sim {
        /// Arguments of the simulator; `cargo e2e sim --help` lists them.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<std::ffi::OsString>,
    },
    /// Write the files that are generated from the code.
    Generate,
    /// Build everything that `up` needs, as a release does.
    Images {
        #[command(flatten)]
        which: Which,
        /// Copy the images to this folder, as OCI archives.
        #[arg(long)]
        out: Option<PathBuf>,
    },
}

#[derive(Args, Debug)]
struct Which {
    /// Who creates the cluster. Default: the provider of the existing cluster, else kind if a Docker engine responds, else local.
    #[arg(long, value_enum, env = "ROUSE_E2E_PROVIDER")]
    provider: Option<Provider>,
    /// Name of the cluster. Default: a name derived from the path of this checkout.
    #[arg(long, env = "ROUSE_E2E_NAME")]
    name: Option<String>,
}

impl Which {
    fn options(self) -> Options {
        Options { name: self.name, provider: self.provider, ..Options::default() }
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
        Verb::Up { which, without_rouse, release } => {
            let options = Options { without_rouse, release, ..which.options() };
            let cluster = up(&places, &options, &progress).await?;
            eprint!("\n{}", progress.table());
            print_cluster(&cluster);
        }
        Verb::Down { which } => {
            let found = down(&places, &which.options(), &progress).await?;
            eprintln!("{}", if found { "The cluster was removed." } else { "No such cluster." });
        }
        Verb::Demo { which } => {
            let options = Options { demo: true, ..which.options() };
            let cluster = up(&places, &options, &progress).await?;
            progress.announce(title::DEMO);
            rouse_e2e::demo::demo(&cluster, &places).await?;
        }
        Verb::Test { which, tier, keep, filter } => {
            let tiers = Tier::parse_list(&tier)?;
            let run = Run { tiers, keep, filter };
            let count = rouse_e2e::test::test(&places, &which.options(), &run, &progress).await?;
            println!("\n{count}");
            anyhow::ensure!(count.failed == 0, "{} tests failed", count.failed);
            anyhow::ensure!(count.passed > 0, "no test name contains the filter");
        }
        Verb::Bench { which, names, rounds, only, before, json } => {
            let wanted = rouse_e2e::bench::Wanted { names, rounds, only, before };
            // A quick build on a running cluster is replaced: its images have other tags.
            let options = Options { release: true, ..which.options() };
            rouse_e2e::bench::bench(&places, &options, &wanted, json.as_deref(), &progress).await?;
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
    println!("\nThe cluster `{}` is up. Ingress: http://{}", cluster.name, cluster.ingress);
    println!("  export KUBECONFIG={}", cluster.kubeconfig.display());
    println!("  {} get pods --all-namespaces", cluster.kubectl.display());
}
