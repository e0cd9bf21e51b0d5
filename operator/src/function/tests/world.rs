//! A Function, its operator and its API server in memory, and the steps of a scenario.

use std::{collections::BTreeSet, sync::Arc};

use kube::runtime::watcher::Event;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use rouse_crds::{
    conditions::SYNCED,
    demand,
    function::FunctionStatus,
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
        config_versions::ConfigVersions,
        key::FunctionKey,
    },
    function::{Context, build::fixtures::names, reconcile},
    hosts::Claims,
    telemetry::{events::Events, metrics::Metrics},
    workloads::outcomes::Outcomes,
};

/// A step of a scenario.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Image(u32),
    Scale(u32),
    Rollout(Value),
    Traffic(Traffic),
    /// The ConfigMap that the container uses changes.
    Config,
    /// The pods of this number of newest revisions become ready.
    Ready(usize),
    /// A pod of the newest revision crashes.
    Crash,
    /// Revisions without traffic are scaled to zero.
    Idle,
    /// Completed requests of the newest revision, and how many of them failed.
    Requests(u64, u64),
    /// Time passes, in seconds.
    Pass(i64),
    /// Pods become ready, unused ones are deleted, and time passes.
    Calm,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Traffic {
    Latest,
    /// All traffic to the revision this number before the newest.
    Back(usize),
    /// Most traffic to that revision, the rest to the latest.
    Split(usize),
    Missing,
}

/// Environment of the operator, and the expected results.
pub(super) struct World {
    pub(super) api: FakeApi,
    pub(super) context: Arc<Context>,
    pub(super) configs: Arc<ConfigVersions>,
    /// Decides when the caches are stale.
    pub(super) stale: StdRng,
    pub(super) requests: (u64, u64),
    pub(super) config: u32,
    /// Revisions that were ready at some time, or need not be.
    pub(super) verified: BTreeSet<String>,
    pub(super) spec: Value,
    /// Expected number of revisions.
    pub(super) created: i64,
    /// Version of the ConfigMap at the creation of the newest revision, if recorded; 0 if it did not exist.
    pub(super) created_with: Option<u32>,
    pub(super) crashes: u64,
    /// Number of refused writes that the status reported.
    pub(super) reported: usize,
}

pub(super) fn key() -> FunctionKey {
    FunctionKey::new("default", "hello")
}

pub(super) fn context(api: &FakeApi, configs: &Arc<ConfigVersions>) -> Arc<Context> {
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

pub(super) fn fill<K: Cached + DeserializeOwned>(cache: &Cache<K>, objects: Vec<Value>) {
    cache.apply(Event::Init);
    for object in objects {
        cache.apply(Event::InitApply(serde_json::from_value(object).unwrap()));
    }
    cache.apply(Event::InitDone);
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let (api, configs) = (FakeApi::default(), Arc::new(ConfigVersions::default()));
        Self {
            context: context(&api, &configs),
            api,
            configs,
            stale: StdRng::seed_from_u64(seed),
            requests: (0, 0),
            config: 0,
            verified: BTreeSet::new(),
            spec: json!({"image": "i:0", "revisionHistoryLimit": 2, "envFrom": [{"configMapRef": {"name": "c"}}]}),
            created: 0,
            created_with: None,
            crashes: 0,
            reported: 0,
        }
    }

    pub(super) fn sync(&self) {
        let caches = &self.context.caches;
        fill(&caches.functions, self.api.all("functions"));
        fill(&caches.revisions, self.api.all("controllerrevisions"));
        fill(&caches.deployments, self.api.all("deployments"));
        fill(&caches.services, self.api.all("services"));
        fill(&caches.pods, self.api.all("pods"));
    }

    pub(super) fn status(&self) -> FunctionStatus {
        let function = self.api.get("functions", "hello").unwrap();
        serde_json::from_value(function.get("status").cloned().unwrap_or_else(|| json!({}))).unwrap()
    }

    pub(super) fn revisions(&self) -> Vec<String> {
        let all = self.api.all("deployments");
        all.iter().map(|d| d["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    }

    /// Reports the requests of the newest revision.
    pub(super) fn report_requests(&self) {
        if let Some(revision) = self.revisions().last() {
            let counters = demand::Outcomes { answered: self.requests.0, failed: self.requests.1, latencies: vec![] };
            self.context.outcomes.take("activator", &key(), revision, &counters);
        }
    }

    /// Reconciles some times, with current caches.
    pub(super) async fn turns(&self, number: usize) {
        for _ in 0..number {
            self.sync();
            self.report_requests();
            reconcile(Arc::clone(&self.context), key()).await;
        }
    }

    /// Returns status, reason and message of a condition.
    pub(super) fn condition(&self, type_: &str) -> (String, String, String) {
        let status = self.status();
        let found = status.conditions.into_iter().find(|c| c.type_ == type_);
        found.map(|c| (c.status, c.reason, c.message)).unwrap_or_default()
    }

    /// Returns the revisions with traffic, and their percentages.
    pub(super) fn traffic(&self) -> Vec<(String, i32)> {
        self.status().traffic.into_iter().map(|t| (t.revision, t.percent)).collect()
    }

    /// Reconciles until nothing is written any more.
    pub(super) async fn settle(&mut self) {
        let mut quiet = 0;
        let mut rounds = 0;
        while quiet < 1 {
            rounds += 1;
            assert!(rounds < 60, "it does not settle: {:#?}", self.status());
            let before = self.api.writes();
            let stale = quiet == 0 && rounds > 1 && self.stale.random_bool(0.3);
            if !stale {
                self.sync();
            }
            self.report_requests();
            let dead = self.api.dead.clone();
            let died = tokio::select! {
                biased;
                () = dead.notified() => true,
                _ = reconcile(Arc::clone(&self.context), key()) => false,
            };
            if died {
                assert!(self.api.is_dead());
                self.api.die_after(None);
                self.crashes += 1;
                self.context = context(&self.api, &self.configs);
            }
            self.check_invariants();
            self.check_reported();
            let wrote = self.api.writes() != before;
            quiet = if wrote || died || stale { 0 } else { quiet + 1 };
        }
    }

    /// Checks that the status reports the writes that were refused in the last reconcile.
    pub(super) fn check_reported(&mut self) {
        for refusal in self.api.take_refusals() {
            let (status, _, message) = self.condition(SYNCED);
            // A conflict means that the cache is behind, which the next event mends.
            if status == "True" && self.api.refused_with(409) {
                continue;
            }
            assert!(status != "True" && message.contains(&refusal), "{refusal} is not reported: {:#?}", self.status());
            self.reported += 1;
        }
    }

    /// Checks what must hold at any time.
    pub(super) fn check_invariants(&self) {
        let status = self.status();
        if status.traffic.is_empty() {
            return;
        }
        let sum: i32 = status.traffic.iter().map(|entry| entry.percent).sum();
        assert_eq!(sum, 100, "{status:#?}");
        let existing = self.revisions();
        for entry in &status.traffic {
            assert!(existing.contains(&entry.revision), "{} has traffic and does not exist", entry.revision);
            let may = !entry.latest || entry.percent == 0 || self.verified.contains(&entry.revision);
            assert!(may, "{} was never ready and has traffic: {status:#?}", entry.revision);
        }
        if let Some(rollout) = &status.rollout {
            assert!(existing.contains(&rollout.from) && rollout.revision != rollout.from, "{rollout:?}");
        }
    }

    /// Checks what must hold after settling.
    pub(super) fn check_settled(&self) {
        let status = self.status();
        let deployments = self.revisions();
        let revisions: Vec<_> = self
            .api
            .all("controllerrevisions")
            .iter()
            .map(|r| r["metadata"]["name"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(deployments, revisions, "orphaned object");
        let latest = format!("hello-{:05}", self.created);
        assert_eq!(status.latest_revision.as_ref(), Some(&latest), "one revision for each change of the container");
        assert_eq!(deployments.last(), Some(&latest));
        let listed: Vec<_> = status.revisions.iter().rev().map(|r| r.name.clone()).collect();
        assert_eq!(listed, deployments);
        // Named revisions have their percentages at once.
        if let Some(wanted) = self.spec["traffic"].as_array() {
            let named = |t: &Value| t["revision"].as_str().map(|r| (r.to_owned(), t["percent"].as_i64()));
            let wanted: Vec<_> = wanted.iter().filter_map(named).collect();
            if wanted.iter().all(|(revision, _)| deployments.contains(revision)) {
                for (revision, percent) in wanted {
                    let has = status.traffic.iter().find(|entry| !entry.latest && entry.revision == revision);
                    assert_eq!(has.map(|entry| i64::from(entry.percent)), percent);
                }
            } else {
                let routable = status.conditions.iter().find(|c| c.type_ == "Routable").unwrap();
                assert_eq!(routable.reason, "RevisionMissing");
            }
        }
    }

    pub(super) fn write_spec(&mut self) {
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

    pub(super) async fn step(&mut self, step: &Step) {
        self.perform(step);
        self.expect_config();
        self.allow_unverified();
        self.settle().await;
        self.check_settled();
    }

    pub(super) fn perform(&mut self, step: &Step) {
        match step {
            Step::Image(number) => {
                let image = json!(format!("i:{number}"));
                if self.spec["image"] != image {
                    self.created += 1;
                    self.created_with = self.watches_config().then_some(self.config);
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
                let existing = self.revisions();
                let back = |n: usize| existing[existing.len().saturating_sub(n + 1)].clone();
                self.spec["traffic"] = match traffic {
                    Traffic::Latest => json!(null),
                    Traffic::Back(n) => json!([{"revision": back(*n), "percent": 100}]),
                    Traffic::Split(n) => {
                        json!([{"revision": back(*n), "percent": 60}, {"latest": true, "percent": 40, "tag": "t"}])
                    }
                    Traffic::Missing => json!([{"revision": "hello-00099", "percent": 100}]),
                };
                // A named revision needs no verification, also after its name is removed.
                let named = self.spec["traffic"].as_array().into_iter().flatten();
                let named = named.filter_map(|t| t["revision"].as_str().map(str::to_owned));
                self.verified.extend(named);
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
                        // The scaler provides the pods that a rollout requests.
                        let replicas = deployment["spec"]["replicas"].as_i64().unwrap_or(0).max(1);
                        deployment["spec"]["replicas"] = json!(replicas);
                        deployment["status"] = json!({"replicas": replicas, "readyReplicas": replicas});
                        ready = true;
                    });
                    if ready {
                        self.verified.insert(revision.clone());
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
                        json!({FUNCTION_LABEL: "hello", FUNCTION_UID_LABEL: uid, REVISION_LABEL: revision, "pod-template-hash": "5d9f"});
                    pod["metadata"]["ownerReferences"] = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{revision}-5d9f"), "uid": "u", "controller": true}]);
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
            Step::Requests(completed, failed) => {
                self.requests.0 += completed.max(failed);
                self.requests.1 += failed;
            }
            Step::Pass(seconds) => self.api.pass(*seconds),
            Step::Calm => {
                self.perform(&Step::Ready(3));
                self.perform(&Step::Idle);
                self.api.pass(90);
            }
        }
    }

    pub(super) fn watches_config(&self) -> bool {
        self.spec["rollout"]["onConfigChange"] == "NewRevision"
    }

    /// A change of the ConfigMap creates a revision, if the ConfigMap existed when the newest revision was created.
    pub(super) fn expect_config(&mut self) {
        if !self.watches_config() {
            return;
        }
        self.created += i64::from(self.created_with.is_some_and(|version| version > 0 && version != self.config));
        self.created_with = Some(self.config);
    }

    /// Adds revisions that may have traffic without being ready: the first, and those without verification.
    pub(super) fn allow_unverified(&mut self) {
        if self.verified.is_empty() || self.spec["scaling"]["initial"] == 0 {
            self.verified.insert(format!("hello-{:05}", self.created));
        }
    }
}

pub(super) fn references() -> crate::cluster::config_versions::Reference {
    crate::cluster::config_versions::Reference {
        kind: crate::cluster::config_versions::Kind::ConfigMap,
        name: "c".into(),
    }
}

/// Final objects, without the fields that differ between two runs.
pub(super) fn result(world: &World) -> Value {
    let kinds = ["functions", "controllerrevisions", "deployments", "services"];
    let all: Vec<_> = kinds.iter().map(|kind| json!(world.api.all(kind))).collect();
    scrub(json!(all))
}

pub(super) fn scrub(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let varies = |name: &str| name == "uid" || name == "resourceVersion" || name == FUNCTION_UID_LABEL;
            map.into_iter().filter(|(name, _)| !varies(name)).map(|(name, value)| (name, scrub(value))).collect()
        }
        Value::Array(list) => list.into_iter().map(scrub).collect(),
        other => other,
    }
}
