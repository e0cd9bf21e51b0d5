//! Random lives of a Function, against an API server in memory: what must hold after every step, and that an operator
//! which dies after any write leaves a state from which its successor comes to the same end.

use std::{collections::BTreeSet, sync::Arc};

use kube::runtime::watcher::Event;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use rouse_crds::{
    demand,
    function::{FunctionStatus, RolloutPhase},
    hosts::{AllowedHosts, ownership::Rules},
    names::{FUNCTION_LABEL, FUNCTION_UID_LABEL, REVISION_LABEL},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::fake_api::FakeApi;
use crate::{
    cluster::{
        cache::{Cache, Cached},
        caches::Caches,
        config_versions::Configs,
        key::FunctionKey,
    },
    function::{Context, build::fixtures::names, reconcile},
    hosts::Claims,
    telemetry::{events::Events, metrics::Metrics},
    workloads::outcomes::Outcomes,
};

/// Something that happens.
#[derive(Clone, Debug)]
enum Step {
    Image(u32),
    Scale(u32),
    Rollout(Value),
    Traffic(Traffic),
    /// A ConfigMap that the container uses is written.
    Config,
    /// The pods of the newest revisions get ready; of so many.
    Ready(usize),
    /// A pod of the newest revision crashes.
    Crash,
    /// What carries nothing goes to zero.
    Idle,
    /// So many calls of the newest revision end, of which so many fail.
    Calls(u64, u64),
    Pass(i64),
    /// Pods get ready, others go, and time passes.
    Calm,
}

#[derive(Clone, Copy, Debug)]
enum Traffic {
    Latest,
    /// All to the revision that is so many before the newest.
    Back(usize),
    /// Most of it there, the rest to the latest.
    Split(usize),
    Missing,
}

fn story(rng: &mut StdRng) -> Vec<Step> {
    let mut image = 1;
    let mut steps = vec![Step::Image(1)];
    for _ in 0..9 {
        steps.push(match rng.random_range(0..15u32) {
            0..=2 => {
                // Now and then the same again, which is no change.
                image += u32::from(rng.random_bool(0.85));
                Step::Image(image)
            }
            3 => Step::Scale(rng.random_range(0..3)),
            4 | 5 => Step::Rollout(
                [
                    json!(null),
                    json!({"steps": [10, 50], "interval": "30s", "abortOn": {"errorRate": "5%"}}),
                    json!({"steps": [20], "abortOn": {"errorRate": "5%"}, "onConfigChange": "NewRevision"}),
                ][rng.random_range(0..3usize)]
                .clone(),
            ),
            6 => Step::Traffic(Traffic::Latest),
            7 => Step::Traffic(Traffic::Back(rng.random_range(0..3))),
            8 => Step::Traffic([Traffic::Split(rng.random_range(0..2)), Traffic::Missing][rng.random_range(0..2usize)]),
            9 | 10 => Step::Ready(rng.random_range(1..3)),
            11 => [Step::Crash, Step::Config][rng.random_range(0..2usize)].clone(),
            12 => Step::Idle,
            13 => Step::Calls(rng.random_range(0..60), rng.random_range(0..4)),
            _ => Step::Pass(rng.random_range(1..100)),
        });
    }
    // At the end all is well, and time passes.
    steps.push(Step::Traffic(Traffic::Latest));
    steps.extend([const { Step::Calm }; 5]);
    steps
}

/// The world around the operator, and what is expected of it.
struct World {
    api: FakeApi,
    context: Arc<Context>,
    configs: Arc<Configs>,
    /// Whether the caches are late now and then.
    late: StdRng,
    calls: (u64, u64),
    config: u32,
    /// Revisions that have ever been ready, or needed not be.
    proven: BTreeSet<String>,
    spec: Value,
    /// Revisions there have to have been.
    made: i64,
    /// The version of the ConfigMap that the newest one was made with, if that is kept; 0: there was none.
    made_with: Option<u32>,
    deaths: u64,
}

fn key() -> FunctionKey {
    FunctionKey::new("default", "hello")
}

fn context(api: &FakeApi, configs: &Arc<Configs>) -> Arc<Context> {
    let client = api.client();
    let caches = Caches { configs: Some(Arc::clone(configs)), ..Caches::default() };
    let events = Events::new(client.clone(), "test");
    let outcomes = Arc::new(Outcomes::default());
    let claims = Claims::new(Rules { template: names().hosts, allowed: AllowedHosts::default() });
    let mut context = Context::new(client, caches, claims, names(), events, Metrics::default(), outcomes);
    let clock = api.clone();
    context.clock = Box::new(move || clock.now());
    Arc::new(context)
}

fn fill<K: Cached + DeserializeOwned>(cache: &Cache<K>, objects: Vec<Value>) {
    cache.apply(Event::Init);
    for object in objects {
        cache.apply(Event::InitApply(serde_json::from_value(object).unwrap()));
    }
    cache.apply(Event::InitDone);
}

impl World {
    fn new(seed: u64) -> Self {
        let (api, configs) = (FakeApi::default(), Arc::new(Configs::default()));
        Self {
            context: context(&api, &configs),
            api,
            configs,
            late: StdRng::seed_from_u64(seed),
            calls: (0, 0),
            config: 0,
            proven: BTreeSet::new(),
            spec: json!({"image": "i:0", "revisionHistoryLimit": 2, "envFrom": [{"configMapRef": {"name": "c"}}]}),
            made: 0,
            made_with: None,
            deaths: 0,
        }
    }

    fn sync(&self) {
        let caches = &self.context.caches;
        fill(&caches.functions, self.api.all("functions"));
        fill(&caches.revisions, self.api.all("controllerrevisions"));
        fill(&caches.deployments, self.api.all("deployments"));
        fill(&caches.services, self.api.all("services"));
        fill(&caches.pods, self.api.all("pods"));
    }

    fn status(&self) -> FunctionStatus {
        let function = self.api.get("functions", "hello").unwrap();
        serde_json::from_value(function.get("status").cloned().unwrap_or_else(|| json!({}))).unwrap()
    }

    fn revisions(&self) -> Vec<String> {
        let all = self.api.all("deployments");
        all.iter().map(|d| d["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    }

    /// Tells what the activators have counted of the newest revision.
    fn tell(&self) {
        if let Some(revision) = self.revisions().last() {
            let said = demand::Outcomes { answered: self.calls.0, failed: self.calls.1, latencies: vec![] };
            self.context.outcomes.take("activator", &key(), revision, &said);
        }
    }

    /// Until nothing is written any more.
    async fn settle(&mut self) {
        let mut quiet = 0;
        let mut rounds = 0;
        while quiet < 1 {
            rounds += 1;
            assert!(rounds < 60, "it does not come to rest: {:#?}", self.status());
            let before = self.api.writes();
            let late = quiet == 0 && rounds > 1 && self.late.random_bool(0.3);
            if !late {
                self.sync();
            }
            self.tell();
            let dead = self.api.dead.clone();
            let died = tokio::select! {
                biased;
                () = dead.notified() => true,
                _ = reconcile(Arc::clone(&self.context), key()) => false,
            };
            if died {
                assert!(self.api.is_dead());
                self.api.die_after(None);
                self.deaths += 1;
                self.context = context(&self.api, &self.configs);
            }
            self.holds();
            let wrote = self.api.writes() != before;
            quiet = if wrote || died || late { 0 } else { quiet + 1 };
        }
    }

    /// What holds at any time.
    fn holds(&self) {
        let status = self.status();
        if status.traffic.is_empty() {
            return;
        }
        let sum: i32 = status.traffic.iter().map(|share| share.percent).sum();
        assert_eq!(sum, 100, "{status:#?}");
        let there = self.revisions();
        for share in &status.traffic {
            assert!(there.contains(&share.revision), "{} has calls and is not there", share.revision);
            let may = !share.latest || share.percent == 0 || self.proven.contains(&share.revision);
            assert!(may, "{} was never ready and has calls: {status:#?}", share.revision);
        }
        if let Some(rollout) = &status.rollout {
            assert!(there.contains(&rollout.from) && rollout.revision != rollout.from, "{rollout:?}");
        }
    }

    /// What holds when it has come to rest.
    fn rests(&self) {
        let status = self.status();
        let deployments = self.revisions();
        let revisions: Vec<_> = self
            .api
            .all("controllerrevisions")
            .iter()
            .map(|r| r["metadata"]["name"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(deployments, revisions, "one is an orphan");
        let latest = format!("hello-{:05}", self.made);
        assert_eq!(status.latest_revision.as_ref(), Some(&latest), "one revision for each change of the container");
        assert_eq!(deployments.last(), Some(&latest));
        let told: Vec<_> = status.revisions.iter().rev().map(|r| r.name.clone()).collect();
        assert_eq!(told, deployments);
        // Named revisions have what the spec says, at once.
        if let Some(wanted) = self.spec["traffic"].as_array() {
            let named = |t: &Value| t["revision"].as_str().map(|r| (r.to_owned(), t["percent"].as_i64()));
            let wanted: Vec<_> = wanted.iter().filter_map(named).collect();
            if wanted.iter().all(|(revision, _)| deployments.contains(revision)) {
                for (revision, percent) in wanted {
                    let has = status.traffic.iter().find(|share| !share.latest && share.revision == revision);
                    assert_eq!(has.map(|share| i64::from(share.percent)), percent);
                }
            } else {
                let routable = status.conditions.iter().find(|c| c.type_ == "Routable").unwrap();
                assert_eq!(routable.reason, "RevisionMissing");
            }
        }
    }

    fn write_spec(&mut self) {
        let spec = self.spec.clone();
        let first = self.api.get("functions", "hello").is_none();
        self.api.edit("functions", "hello", |function| {
            function["apiVersion"] = json!("rouse.dev/v1alpha1");
            function["kind"] = json!("Function");
            let generation = function["metadata"]["generation"].as_i64().unwrap_or(0);
            function["metadata"]["generation"] = json!(generation + i64::from(first || function["spec"] != spec));
            function["spec"] = spec;
        });
    }

    async fn step(&mut self, step: &Step) {
        self.happens(step);
        self.expect_config();
        self.allow();
        self.settle().await;
        self.rests();
    }

    fn happens(&mut self, step: &Step) {
        match step {
            Step::Image(number) => {
                let image = json!(format!("i:{number}"));
                if self.spec["image"] != image {
                    self.made += 1;
                    self.made_with = self.asks().then_some(self.config);
                }
                self.spec["image"] = image;
                self.write_spec();
            }
            Step::Scale(initial) => {
                self.spec["scaling"] = json!({"initial": initial});
                self.write_spec();
            }
            Step::Rollout(rollout) => {
                self.spec["rollout"] = rollout.clone();
                self.write_spec();
            }
            Step::Traffic(traffic) => {
                let there = self.revisions();
                let back = |n: usize| there[there.len().saturating_sub(n + 1)].clone();
                self.spec["traffic"] = match traffic {
                    Traffic::Latest => json!(null),
                    Traffic::Back(n) => json!([{"revision": back(*n), "percent": 100}]),
                    Traffic::Split(n) => {
                        json!([{"revision": back(*n), "percent": 60}, {"latest": true, "percent": 40, "tag": "t"}])
                    }
                    Traffic::Missing => json!([{"revision": "hello-00099", "percent": 100}]),
                };
                // Who is named is trusted, and stays so when the name is taken away.
                let named = self.spec["traffic"].as_array().into_iter().flatten();
                let named = named.filter_map(|t| t["revision"].as_str().map(str::to_owned));
                self.proven.extend(named);
                self.write_spec();
            }
            Step::Config => {
                self.config += 1;
                let reference = references();
                self.configs.set_version("default", reference, &self.config.to_string());
            }
            Step::Ready(most) => {
                for revision in self.revisions().iter().rev().take(*most) {
                    self.api.remove("pods", revision);
                    let mut ready = false;
                    self.api.edit("deployments", revision, |deployment| {
                        // What a roll-out asks for, the scaler gives.
                        let replicas = deployment["spec"]["replicas"].as_i64().unwrap_or(0).max(1);
                        deployment["spec"]["replicas"] = json!(replicas);
                        deployment["status"] = json!({"replicas": replicas, "readyReplicas": replicas});
                        ready = true;
                    });
                    if ready {
                        self.proven.insert(revision.clone());
                    }
                }
            }
            Step::Crash => {
                let Some(revision) = self.revisions().pop() else { return };
                let uid = self.api.get("functions", "hello").unwrap()["metadata"]["uid"].clone();
                self.api.edit("deployments", &revision, |d| {
                    d["spec"]["replicas"] = json!(1);
                    d["status"] = json!({"replicas": 1, "readyReplicas": 0});
                });
                self.api.edit("pods", &revision, |pod| {
                    pod["metadata"]["labels"] =
                        json!({FUNCTION_LABEL: "hello", FUNCTION_UID_LABEL: uid, REVISION_LABEL: revision});
                    pod["status"] = json!({"containerStatuses": [{"name": "function", "restartCount": 3,
                        "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "exit 1"}}}]});
                });
            }
            Step::Idle => {
                let status = self.status();
                for revision in self.revisions() {
                    let busy = status.traffic.iter().any(|t| t.revision == revision && t.percent > 0)
                        || status.rollout.as_ref().is_some_and(|r| r.revision == revision);
                    if !busy {
                        self.api.remove("pods", &revision);
                        self.api.edit("deployments", &revision, |d| {
                            d["spec"]["replicas"] = json!(0);
                            d["status"] = json!({"replicas": 0});
                        });
                    }
                }
            }
            Step::Calls(answered, failed) => {
                self.calls.0 += answered.max(failed);
                self.calls.1 += failed;
            }
            Step::Pass(seconds) => self.api.pass(*seconds),
            Step::Calm => {
                self.happens(&Step::Ready(3));
                self.happens(&Step::Idle);
                self.api.pass(90);
            }
        }
    }

    fn asks(&self) -> bool {
        self.spec["rollout"]["onConfigChange"] == "NewRevision"
    }

    /// A change of the ConfigMap makes a revision, if one was there when the newest was made.
    fn expect_config(&mut self) {
        if !self.asks() {
            return;
        }
        self.made += i64::from(self.made_with.is_some_and(|version| version > 0 && version != self.config));
        self.made_with = Some(self.config);
    }

    /// Revisions that need not be ready to have calls: the first, and what is not started to be proven.
    fn allow(&mut self) {
        if self.proven.is_empty() || self.spec["scaling"]["initial"] == 0 {
            self.proven.insert(format!("hello-{:05}", self.made));
        }
    }
}

fn references() -> crate::cluster::config_versions::Reference {
    crate::cluster::config_versions::Reference {
        kind: crate::cluster::config_versions::Kind::ConfigMap,
        name: "c".into(),
    }
}

/// All that differs between two runs to the same end is taken away.
fn end(world: &World) -> Value {
    let kinds = ["functions", "controllerrevisions", "deployments", "services"];
    let all: Vec<_> = kinds.iter().map(|kind| json!(world.api.all(kind))).collect();
    scrub(json!(all))
}

fn scrub(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let varies = |name: &str| name == "uid" || name == "resourceVersion" || name == FUNCTION_UID_LABEL;
            map.into_iter().filter(|(name, _)| !varies(name)).map(|(name, value)| (name, scrub(value))).collect()
        }
        Value::Array(list) => list.into_iter().map(scrub).collect(),
        other => other,
    }
}

async fn live(seed: u64, story: &[Step], dies: Option<usize>) -> World {
    let mut world = World::new(seed);
    world.api.die_after(dies);
    for step in story {
        world.step(step).await;
    }
    world
}

#[tokio::test(start_paused = true)]
async fn after_any_write_the_successor_comes_to_the_same_end() {
    let mut deaths = 0u64;
    let lives = std::env::var("ROUSE_TEST_LIVES").map_or(LIVES, |lives| lives.parse().unwrap());
    for seed in 0..lives {
        let story = story(&mut StdRng::seed_from_u64(seed));
        let whole = live(seed, &story, None).await;
        let status = whole.status();
        let latest = status.latest_revision.clone().unwrap();
        match status.rollout.as_ref().map(|r| r.phase) {
            None => assert_eq!((status.traffic.len(), &status.traffic[0].revision), (1, &latest), "seed {seed}"),
            Some(RolloutPhase::Aborted) => assert_ne!(status.traffic[0].revision, latest),
            Some(RolloutPhase::Progressing) => panic!("seed {seed}: it has not come to an end: {status:#?}"),
        }
        let idle = whole.revisions().len() - status.traffic.len() - usize::from(status.rollout.is_some());
        assert!(idle <= 2, "seed {seed}: more are kept than spec.revisionHistoryLimit says");
        let expected = end(&whole);
        for write in 1..=whole.api.writes() {
            let world = live(seed.wrapping_add(1000), &story, Some(write)).await;
            assert_eq!(end(&world), expected, "seed {seed}, after write {write} of {story:#?}");
            deaths += world.deaths;
        }
    }
    assert!(deaths > 10 * lives, "{deaths} deaths in {lives} lives say little");
}

/// Random lives, unless `ROUSE_TEST_LIVES` says how many.
const LIVES: u64 = 3;

#[tokio::test(start_paused = true)]
async fn a_removal_that_is_refused_keeps_no_calls_from_going_back() {
    let mut world = World::new(0);
    for image in 1..=3 {
        world.step(&Step::Image(image)).await;
        world.step(&Step::Ready(1)).await;
    }
    world.step(&Step::Rollout(json!({"steps": [10], "abortOn": {"errorRate": "5%"}}))).await;
    world.step(&Step::Image(4)).await;
    world.happens(&Step::Ready(1));
    world.happens(&Step::Idle);
    world.spec["revisionHistoryLimit"] = json!(0);
    world.write_spec();
    world.api.keep_all();
    let looks = async |world: &World| {
        for _ in 0..3 {
            world.sync();
            world.tell();
            reconcile(Arc::clone(&world.context), key()).await.expect("what could not be done is tried again");
        }
    };
    looks(&world).await;
    assert_eq!(world.revisions().len(), 4, "two are too many, and may not be removed");
    assert_eq!(world.status().rollout.map(|r| r.percent), Some(10));
    world.happens(&Step::Calls(50, 50));
    looks(&world).await;
    let status = world.status();
    assert_eq!(status.rollout.map(|r| r.phase), Some(RolloutPhase::Aborted));
    assert_eq!(
        status.traffic.iter().map(|t| (t.revision.as_str(), t.percent)).collect::<Vec<_>>(),
        [("hello-00003", 100)]
    );
}
