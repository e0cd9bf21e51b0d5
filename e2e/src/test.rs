//! `cargo e2e test`: every test there is, tier by tier, and one line at the end that counts them.

use std::{collections::BTreeSet, process::Stdio};

use anyhow::{Context as _, Result, bail};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    time::Instant,
};

use crate::{
    Places,
    api_server::ApiServer,
    clients::{self, Clients},
    down::down,
    gomod::CLUSTER,
    process::command,
    progress::{Progress, human, note},
    requirements,
    up::{Options, prepare, up},
};

/// What a tier is run against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// Nothing: pure code, paused time, loopback sockets.
    One,
    /// An API server and etcd.
    Two,
    /// A Kubernetes with everything.
    Three,
}

impl Tier {
    /// Reads `1,2,3`.
    ///
    /// # Errors
    ///
    /// If something else than 1, 2 or 3 stands there.
    pub fn parse_list(text: &str) -> Result<BTreeSet<Self>> {
        text.split(',')
            .map(|part| match part.trim() {
                "1" => Ok(Self::One),
                "2" => Ok(Self::Two),
                "3" => Ok(Self::Three),
                other => bail!("Invalid tier `{other}`: use 1, 2 and 3, separated by commas"),
            })
            .collect()
    }
}

/// Tests that passed, failed, or were not run although they were chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Passed.
    pub passed: u32,
    /// Failed.
    pub failed: u32,
    /// Marked as ignored.
    pub skipped: u32,
}

impl Count {
    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl std::fmt::Display for Count {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

/// Which tests.
#[derive(Clone, Debug)]
pub struct Run {
    /// The tiers.
    pub tiers: BTreeSet<Tier>,
    /// Leave the cluster up even if it was not before.
    pub keep: bool,
    /// Only tests with this in their name.
    pub filter: Option<String>,
}

/// The tests that make a pod's network slow have this in their path.
const SLOW_NETWORK: &str = "network::";

/// Runs the tests tier by tier. A tier that has failures does not keep the next from being run.
///
/// # Errors
///
/// If something does not compile, or a server or the cluster does not come up. A failed test is counted, and no error.
pub async fn test(places: &Places, options: &Options, run: &Run, progress: &Progress) -> Result<Count> {
    // A missing requirement is reported before anything is done.
    let mut was_up = false;
    if run.tiers.contains(&Tier::Three) {
        was_up = prepare(places, options, progress).await?;
        clients::meet(progress).await?;
    } else if run.tiers.contains(&Tier::Two) {
        requirements::meet_go(places).await?;
    }
    let mut count = Count::default();
    // Every tier names the whole workspace, so that dependencies get the same features in all and are compiled once.
    let with_filter = |args: &[&str]| -> Vec<String> {
        let mut args: Vec<String> = args.iter().map(|a| (*a).to_owned()).collect();
        args.extend(run.filter.clone().into_iter().flat_map(|f| ["--".to_owned(), f]));
        args
    };
    if run.tiers.contains(&Tier::One) {
        eprintln!("\n=== tier 1: code only");
        let began = Instant::now();
        let tier = cargo_test(&with_filter(&["--workspace"]), &[]).await?;
        count.add(tier);
        report(1, tier, began);
    }
    if run.tiers.contains(&Tier::Two) {
        eprintln!("\n=== tier 2: API server and etcd");
        let began = Instant::now();
        let bin = CLUSTER.build(places, &["kube-apiserver", "etcd", "kubectl"], progress).await?;
        let server = ApiServer::start(&bin).await?;
        let kubeconfig = server.kubeconfig.display().to_string();
        let args = with_filter(&["--workspace", "--test", "api_server"]);
        let tier = cargo_test(&args, &[("ROUSE_TEST_KUBECONFIG", &kubeconfig)]).await?;
        count.add(tier);
        report(2, tier, began);
    }
    if run.tiers.contains(&Tier::Three) {
        eprintln!("\n=== tier 3: a whole cluster");
        let began = Instant::now();
        let cluster = up(places, &Options { suites: true, ..options.clone() }, progress).await?;
        let tools = Clients::install(places, progress).await?.environment();
        let mut args = with_filter(&["--workspace", "--test", "cluster"]);
        if let Some(why) = requirements::no_slow_network(cluster.provider) {
            note(&format!("Skipping the tests of slow networks ({SLOW_NETWORK}): {why}"));
            if run.filter.is_none() {
                args.push("--".to_owned());
            }
            args.extend(["--skip".to_owned(), SLOW_NETWORK.to_owned()]);
            count.skipped += 1;
        }
        let mut env = vec![("ROUSE_E2E_NAME", cluster.name.as_str())];
        env.extend(tools.iter().map(|(name, value)| (*name, value.as_str())));
        let result = cargo_test(&args, &env).await;
        // Failures are debugged on the cluster, so it stays, except in CI.
        let failed = result.as_ref().is_ok_and(|c| c.failed > 0) && std::env::var_os("CI").is_none();
        if !was_up && !run.keep && !failed {
            down(places, &Options { name: Some(cluster.name), ..options.clone() }, progress).await?;
        }
        let tier = result?;
        count.add(tier);
        report(3, tier, began);
    }
    Ok(count)
}

fn report(tier: u8, count: Count, began: Instant) {
    eprintln!("\n=== tier {tier}: {count} in {}", human(began.elapsed()));
}

/// Runs `cargo test` with `args`, shows what it prints, and counts.
///
/// # Errors
///
/// If cargo cannot be run, or fails without a failed test, as when something does not compile.
async fn cargo_test(args: &[String], env: &[(&str, &str)]) -> Result<Count> {
    // `cargo e2e` names its toolchain in the environment.
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    // Report all failures, not only the first.
    let mut test = command(cargo, ["test", "--no-fail-fast"]);
    test.args(args).envs(env.iter().copied()).stdout(Stdio::piped());
    test.current_dir(Places::discover()?.repo);
    let mut child = test.spawn().context("Cannot run cargo")?;
    let mut lines = BufReader::new(child.stdout.take().context("cargo has no output")?).lines();
    let mut count = Count::default();
    while let Some(line) = lines.next_line().await? {
        println!("{line}");
        if let Some(result) = parse_result(&line) {
            count.add(result);
        }
    }
    let status = child.wait().await?;
    if !status.success() && count.failed == 0 {
        bail!("cargo test {} failed ({status}) without a failed test", args.join(" "));
    }
    Ok(count)
}

/// Reads `test result: ok. 3 passed; 0 failed; 1 ignored; …`.
fn parse_result(line: &str) -> Option<Count> {
    let rest = line.trim().strip_prefix("test result: ")?;
    let number = |what: &str| -> Option<u32> {
        rest.split(['.', ';']).find_map(|part| part.trim().strip_suffix(what))?.trim().parse().ok()
    };
    Some(Count { passed: number(" passed")?, failed: number(" failed")?, skipped: number(" ignored")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_read() {
        let line = "test result: FAILED. 51 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.11s";
        assert_eq!(parse_result(line), Some(Count { passed: 51, failed: 1, skipped: 2 }));
        assert_eq!(parse_result("test foo ... ok"), None);
    }

    #[test]
    fn tiers_are_read() {
        assert_eq!(Tier::parse_list("1, 3").unwrap(), [Tier::One, Tier::Three].into());
        assert!(Tier::parse_list("4").is_err());
    }
}
