//! The plan of `up`, from what the cache lacks. The seconds were measured on a machine with two cores and are estimates elsewhere.

use std::time::Duration;

use anyhow::Result;

use crate::gomod::{CLUSTER, CONTAINERD, CONTOUR, COREDNS, HELM, KIND, Module, RUNC, SUITES};
use crate::host::find_program;
use crate::images::{self, Profile};
use crate::places::Places;
use crate::plan::{Plan, title};
use crate::provider::Provider;
use crate::requirements::install_title;
use crate::wheels::{ENVOY, Wheel};

/// The cores of the machine that the estimates were measured on.
const MEASURED_CORES: u32 = 2;

/// What the plan depends on beside the cache.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// Who creates the cluster.
    pub provider: Provider,
    /// Debian packages that have to be installed.
    pub packages: &'a [&'static str],
    /// The node runs already.
    pub running: bool,
    /// How Rouse is built; none if it is left out.
    pub profile: Option<Profile>,
    /// The images of the conformance suites are needed.
    pub suites: bool,
    /// The demo follows.
    pub demo: bool,
}

/// Compares what `up` needs with the cache.
///
/// # Errors
///
/// If a lock file cannot be read or Go cannot be run.
pub async fn forecast(places: &Places, facts: &Facts<'_>) -> Result<Plan> {
    let mut plan = Plan::default();
    if !facts.packages.is_empty() {
        plan.once(install_title(facts.packages), Duration::from_secs(10));
    }
    if let Some(profile) = facts.profile {
        // Cargo finds out what has changed; of a build before, most is left.
        if images::is_compiled(places, profile) {
            plan.always(&profile.title(), 20);
        } else {
            plan.once(profile.title(), compile_time(profile.seconds()));
        }
    }
    let local = facts.provider == Provider::Local;
    match facts.provider {
        Provider::Local => {
            add_module(&mut plan, places, &CLUSTER, &CLUSTER.all()).await?;
            add_module(&mut plan, places, &CONTAINERD, &CONTAINERD.all()).await?;
            add_module(&mut plan, places, &RUNC, &RUNC.all()).await?;
        }
        Provider::Kind => {
            if find_program("kind").is_none() {
                add_module(&mut plan, places, &KIND, &KIND.all()).await?;
            }
            add_module(&mut plan, places, &CLUSTER, &["kubectl"]).await?;
        }
        Provider::Current => {
            if find_program("kubectl").is_none() {
                add_module(&mut plan, places, &CLUSTER, &["kubectl"]).await?;
            }
        }
    }
    let made = facts.provider != Provider::Current;
    if made || find_program("helm").is_none() {
        add_module(&mut plan, places, &HELM, &HELM.all()).await?;
    }
    if local {
        add_module(&mut plan, places, &COREDNS, &COREDNS.all()).await?;
    }
    if made {
        add_module(&mut plan, places, &CONTOUR, &CONTOUR.all()).await?;
        add_wheel(&mut plan, places, &ENVOY);
    }
    if facts.suites {
        add_module(&mut plan, places, &SUITES, &images::SUITE_PROGRAMS).await?;
    }
    match (facts.provider, facts.running) {
        (Provider::Local, false) => plan.always(title::START_LOCAL, 25),
        (Provider::Kind, false) => plan.always(title::START_KIND, 60),
        _ => {}
    }
    // The local provider loads them while its control plane starts.
    if facts.provider == Provider::Kind || (local && facts.running) {
        plan.always(title::LOAD, 10);
    }
    if made && !facts.running {
        plan.always(title::ADDONS, 25);
    }
    if facts.profile.is_some() {
        plan.always(title::INSTALL, 15);
    }
    if facts.demo {
        plan.always(title::DEMO, 30);
    }
    Ok(plan)
}

fn add_wheel(plan: &mut Plan, places: &Places, wheel: &Wheel) {
    if !wheel.is_cached(places) {
        plan.once(wheel.step_title(), Duration::from_secs(5));
    }
}

async fn add_module(plan: &mut Plan, places: &Places, module: &Module, wanted: &[&str]) -> Result<()> {
    let missing = module.missing(places, wanted).await?;
    if let Some(wheel) = missing.wheel {
        add_wheel(plan, places, wheel);
    }
    if !missing.compiled.is_empty() {
        let estimate = compile_time(module.seconds(&missing.compiled));
        plan.once(module.step_title(&missing.compiled), estimate);
    }
    Ok(())
}

/// Seconds of compilation on the measured machine as time on this one. More than eight cores do not help much: programs are linked
/// on one core.
fn compile_time(seconds: u64) -> Duration {
    let cores = std::thread::available_parallelism().map_or(MEASURED_CORES, |cores| cores.get().clamp(1, 8) as u32);
    Duration::from_secs(seconds) * MEASURED_CORES / cores
}
