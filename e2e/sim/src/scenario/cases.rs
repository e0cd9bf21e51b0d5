//! Definitions of the scenarios.

use super::{
    SECOND, Scenario,
    arrivals::{even, merged, poisson},
};
use crate::{
    clients::Clients,
    node::{self, Pull},
    pods::Pick,
    policy::Scaling,
    random::{Purpose, stream},
    request::{Arrival, Function},
    world::Setup,
};

/// Names of all scenarios, in the order of the report.
pub(crate) const NAMES: [&str; 25] = [
    "steady/0.3s",
    "steady/3s",
    "steady/20s",
    "steady/60s",
    "steady/0.3s/short",
    "steady/3s/short",
    "steady/20s/short",
    "steady/60s/short",
    "steady/pull",
    "steady/pull-always",
    "step/open",
    "step/closed",
    "spike",
    "sawtooth",
    "diurnal",
    "retry-storm",
    "scarce/room",
    "scarce/cpu",
    "scarce/cpu/short",
    "websockets",
    "long-jobs",
    "bimodal",
    "tiny",
    "fail-fast",
    "crowd",
];

const MILLI: u32 = 1_000;

/// Returns the number of a scenario's function, by which its random numbers are drawn. It depends on the name alone (FNV-1a),
/// so that a new scenario changes no other, and is beyond the functions of a trace.
fn index(name: &str) -> usize {
    let hash = name.bytes().fold(0x811c_9dc5u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    (1 << 40) + hash as usize
}

/// `idleTimeout` 30 s and `stableWindow` 60 s, the defaults.
const DEFAULT: Scaling = Scaling { idle: 30 * SECOND, stable: 60 * SECOND };

/// Short windows, as in a test on a cluster.
const SHORT: Scaling = Scaling { idle: 5 * SECOND, stable: 6 * SECOND };

/// Builds a scenario; none for an unknown name.
pub(super) fn build(name: &str, seed: u64) -> Option<Scenario> {
    let name = *NAMES.iter().find(|known| **known == name)?;
    let case = Case { index: index(name), name };
    let mut random = stream(seed, case.index, Purpose::Requests);
    let scenario = match name {
        "steady/0.3s" => case.steady(0.3, 300, DEFAULT),
        "steady/3s" => case.steady(3.0, 300, DEFAULT),
        "steady/20s" => case.steady(20.0, 300, DEFAULT),
        "steady/60s" => case.steady(60.0, 900, DEFAULT),
        "steady/0.3s/short" => case.steady(0.3, 300, SHORT),
        "steady/3s/short" => case.steady(3.0, 300, SHORT),
        "steady/20s/short" => case.steady(20.0, 300, SHORT),
        "steady/60s/short" => case.steady(60.0, 900, SHORT),
        "steady/pull" => case.pull("the first pod", Pull::First(20 * SECOND)),
        "steady/pull-always" => case.pull("every pod", Pull::Every(20 * SECOND)),
        "step/open" => {
            let about = "25 rps of 200 ms, after 2 min 250 rps, independent";
            let mut scenario = case.scenario(about, (5, 1.0), [vec![5.0; 120], vec![50.0; 300]].concat());
            scenario.requests = poisson(&mut random, scenario.load.iter().map(|load| load / 0.2), 200 * MILLI);
            scenario.constant = Some((120, 420));
            scenario
        }
        "step/closed" => {
            let about = "5 clients one request after the other of 200 ms, after 2 min 50 clients";
            let mut scenario = case.scenario(about, (5, 1.0), [vec![5.0; 120], vec![50.0; 300]].concat());
            scenario.setup.clients = Clients::Closed { counts: vec![(0, 5), (120 * SECOND, 50)], service: 200 * MILLI };
            scenario.constant = Some((120, 420));
            scenario
        }
        "spike" => {
            let about = "50 rps of 200 ms, and after 2 min one second of 500 rps, independent";
            let mut scenario = case.scenario(about, (5, 1.0), vec![10.0; 300]);
            scenario.load[120] = 100.0;
            scenario.requests = poisson(&mut random, scenario.load.iter().map(|load| load / 0.2), 200 * MILLI);
            scenario.constant = Some((130, 300));
            scenario
        }
        "sawtooth" => {
            let about = "5 to 100 rps of 300 ms within 2 min, five times, independent";
            let load = (0..600).map(|second| (5.0 + 95.0 * f64::from(second % 120) / 120.0) * 0.3).collect();
            let mut scenario = case.scenario(about, (5, 1.0), load);
            scenario.requests = poisson(&mut random, scenario.load.iter().map(|load| load / 0.3), 300 * MILLI);
            scenario
        }
        "diurnal" => {
            let about = "two days of 30 min, 10 to 190 rps of 300 ms, independent";
            let day = |second: i32| (f64::from(second) / 1_800.0 * std::f64::consts::TAU).cos();
            let load = (0..3_600).map(|second| (100.0 - 90.0 * day(second)) * 0.3).collect();
            let mut scenario = case.scenario(about, (5, 1.0), load);
            scenario.requests = poisson(&mut random, scenario.load.iter().map(|load| load / 0.3), 300 * MILLI);
            scenario
        }
        "retry-storm" => {
            let about = "50 rps of 300 ms from zero, starts of 10 s, clients give up a try after 1 s and retry 3 times";
            let mut scenario = case.steady(10.0, 300, DEFAULT);
            scenario.about = about.to_owned();
            scenario.setup.clients = Clients::Patient { timeout: SECOND, retries: 3, backoff: SECOND / 10 };
            scenario
        }
        "scarce/room" => {
            let about = "120 rps of 300 ms for 1 min and then 50 rps, a node with capacity for 6 pods, starts of 5 s";
            let mut scenario = case.scenario(about, (5, 5.0), [vec![36.0; 60], vec![15.0; 300]].concat());
            scenario.requests = merged(even((0, 60), 120, 300 * MILLI), even((60, 360), 50, 300 * MILLI));
            scenario.setup.node = Some(node::Spec { capacity: 6, ..node::Spec::default() });
            scenario.constant = Some((60, 360));
            scenario
        }
        "scarce/cpu" => case.scarce(DEFAULT),
        "scarce/cpu/short" => case.scarce(SHORT),
        "websockets" => {
            let about = "200 connections within 20 s that stay, limit 20";
            let load = (0..600).map(|second| f64::from(second.min(20) * 10)).collect();
            let mut scenario = case.scenario(about, (20, 1.0), load);
            scenario.requests = even((0, 20), 10, 600 * MILLI * MILLI);
            scenario.constant = Some((20, 600));
            scenario
        }
        "long-jobs" => {
            let about = "20 jobs of 30 s at once and then one every 20 s, limit 1";
            let mut scenario = case.scenario(about, (1, 2.0), [vec![20.0; 30], vec![0.0; 10], vec![1.5; 560]].concat());
            let job = |at| Arrival { at, service: 30_000 * MILLI };
            scenario.requests = vec![job(0); 20];
            scenario.requests.extend((0..28).map(|nth| job((40 + nth * 20) * SECOND)));
            scenario.constant = Some((100, 600));
            scenario
        }
        "bimodal" => {
            let about = "20 rps of 1 ms and 1 rps of 10 s, independent";
            let mut scenario = case.scenario(about, (5, 1.0), vec![10.02; 600]);
            let short = poisson(&mut random, vec![20.0; 600], MILLI);
            scenario.requests = merged(short, poisson(&mut random, vec![1.0; 600], 10_000 * MILLI));
            scenario.constant = Some((0, 600));
            scenario
        }
        "tiny" => {
            let about = "10,000 rps of 1 ms from zero, limit 100";
            let mut scenario = case.scenario(about, (100, 1.0), vec![10.0; 60]);
            scenario.requests = even((0, 60), 10_000, MILLI);
            scenario.constant = Some((0, 60));
            scenario
        }
        "fail-fast" => {
            let about =
                "100 rps of 200 ms and after 1 min 400 rps, limit 20; a pod with more than 15 responds with an error";
            let mut scenario = case.scenario(about, (20, 3.0), [vec![20.0; 60], vec![80.0; 240]].concat());
            scenario.requests = merged(even((0, 60), 100, 200 * MILLI), even((60, 300), 400, 200 * MILLI));
            scenario.setup.fails_above = Some(15);
            scenario.setup.pick = Pick::Least;
            scenario.constant = Some((60, 300));
            scenario
        }
        "crowd" => {
            let about = "1,000 requests of 10 ms at once at zero, limit 10";
            // Ten seconds of work; an oracle would spread it over one.
            let mut scenario = case.scenario(about, (10, 1.0), [vec![10.0; 1], vec![0.0; 119]].concat());
            scenario.requests = vec![Arrival { at: 0, service: 10 * MILLI }; 1_000];
            scenario
        }
        _ => return None,
    };
    Some(scenario)
}

#[derive(Clone, Copy)]
struct Case {
    index: usize,
    name: &'static str,
}

impl Case {
    /// Creates a scenario without requests, for a function with this limit and start time.
    fn scenario(self, about: &str, (limit, start): (u32, f64), load: Vec<f64>) -> Scenario {
        let Self { index, name } = self;
        Scenario {
            name,
            about: about.to_owned(),
            function: Function { index, kind: "scenario", limit, start, expected: 0.0 },
            scaling: DEFAULT,
            setup: Setup { scenario: true, ..Setup::default() },
            requests: Vec::new(),
            load,
            constant: None,
        }
    }

    /// Sets the load of a load generator on a laptop.
    fn steady(self, start: f64, seconds: u32, scaling: Scaling) -> Scenario {
        let Scaling { idle, stable } = scaling;
        let (idle, stable) = (idle / SECOND, stable / SECOND);
        let about =
            format!("50 rps of 300 ms from zero, starts of {start} s, idleTimeout {idle}s, stableWindow {stable}s");
        let mut scenario = self.scenario(&about, (5, start), vec![15.0; seconds as usize]);
        scenario.requests = even((0, seconds), 50, 300 * MILLI);
        scenario.scaling = scaling;
        scenario.constant = Some((0, seconds as usize));
        scenario
    }

    /// The same on a node that pulls the image.
    fn pull(self, whose: &str, pull: Pull) -> Scenario {
        let mut scenario = self.steady(1.0, 300, DEFAULT);
        scenario.about = format!(
            "50 rps of 300 ms from zero, starts of 1 s after an image pull of 20 s for {whose}, at most 20 new pods per s"
        );
        scenario.setup.node = Some(node::Spec { pull, ..node::Spec::default() });
        scenario
    }

    /// The same on a small node that starting, serving and deleted pods share. The figures are those of a slow laptop: the
    /// start of a pod takes a CPU for a second (runtime, network, probes and the process itself), its deletion for 0.8 s, and a
    /// request for 20 ms, ingress and activator included. With policy `heads` these give the runaway and the thrash that were
    /// measured on a real cluster.
    fn scarce(self, scaling: Scaling) -> Scenario {
        let mut scenario = self.steady(0.5, 300, scaling);
        scenario.about = scenario.about.replace("starts of 0.5 s", "2 CPUs that starts (1 CPU-second) share");
        scenario.setup.node = Some(node::Spec {
            cores: 2.0,
            start_cpu_s: 1.0,
            stop_cpu_s: 0.8,
            request_cpu: 0.02 / 0.3,
            capacity: 110,
            ..node::Spec::default()
        });
        scenario
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the concurrency in each second without queueing.
    fn offered(scenario: &Scenario) -> Vec<f64> {
        let mut offered = vec![0.0; scenario.load.len()];
        for arrival in &scenario.requests {
            let ends = arrival.at + u64::from(arrival.service);
            for second in arrival.at / SECOND..=(ends / SECOND).min(offered.len() as u64 - 1) {
                let within = ends.min((second + 1) * SECOND) - arrival.at.max(second * SECOND);
                offered[second as usize] += within as f64 / SECOND as f64;
            }
        }
        offered
    }

    #[test]
    fn each_scenario_has_the_described_load() {
        for name in NAMES {
            let scenario = build(name, 1).unwrap();
            assert_eq!(scenario.name, name);
            if let Clients::Closed { counts, .. } = &scenario.setup.clients {
                let expected =
                    counts.iter().map(|(at, count)| (scenario.load[(at / SECOND) as usize], f64::from(*count)));
                assert!(expected.into_iter().all(|(load, count)| load.to_bits() == count.to_bits()), "{name}");
                continue;
            }
            assert!(scenario.requests.is_sorted_by_key(|arrival| arrival.at), "{name}");
            let sum = |loads: &[f64]| loads.iter().sum::<f64>();
            let offered = offered(&scenario);
            let ratio = sum(&offered) / sum(&scenario.load);
            assert!((0.95..1.05).contains(&ratio), "{name}: {ratio}");
            // Twenty seconds are too short to average long jobs.
            if !["bimodal", "long-jobs"].contains(&name) {
                for (measured, expected) in offered.chunks(20).zip(scenario.load.chunks(20)) {
                    let (measured, expected) = (sum(measured) / 20.0, sum(expected) / 20.0);
                    assert!(
                        (measured - expected).abs() < 0.25 * expected + 0.5,
                        "{name}: {measured} and not {expected}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_constant_load_is_constant() {
        for name in NAMES {
            let scenario = build(name, 1).unwrap();
            let Some((from, to)) = scenario.constant else { continue };
            let part = &scenario.load[from..to];
            assert!(part.iter().all(|load| load.to_bits() == part[0].to_bits()), "{name}");
        }
    }

    #[test]
    fn each_scenario_has_separate_random_numbers() {
        let indexes: std::collections::HashSet<_> = NAMES.map(index).into_iter().collect();
        assert_eq!(indexes.len(), NAMES.len());
    }

    #[test]
    fn random_arrivals_follow_the_seed() {
        let requests = |seed| build("sawtooth", seed).unwrap().requests;
        assert_eq!(requests(1), requests(1));
        assert_ne!(requests(1), requests(2));
    }
}
