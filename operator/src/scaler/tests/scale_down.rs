//! Scale-down with draining, against a Kubernetes that deletes pods in the order of the real one.

use std::collections::BTreeMap;

use super::*;
use rouse_crds::pod::FunctionPod;
use rstest::rstest;

/// Pods by name: deletion cost, and the requests of each of two activators.
struct World<'a> {
    rig: &'a Rig,
    pods: BTreeMap<String, (i64, [u64; 2])>,
    desired: u32,
    version: u32,
}

fn activators() -> [Source; 2] {
    [1, 2].map(|n| Source { address: ([10, 0, 0, n], 9090).into(), pod: None })
}

impl<'a> World<'a> {
    /// Pods `p1` and so on with these requests.
    fn new(rig: &'a Rig, loads: &[[u64; 2]]) -> Self {
        rig.scaler.set_sources(&activators().into_iter().map(|source| (source, true)).collect());
        let pods = (1..).zip(loads).map(|(n, load)| (format!("p{n}"), (0, *load))).collect();
        let mut world = Self { rig, pods, desired: u32::try_from(loads.len()).unwrap(), version: 0 };
        world.update_caches();
        world
    }

    /// Updates the caches and sends a frame of each activator.
    fn update_caches(&mut self) {
        self.version += 1;
        let count = u32::try_from(self.pods.len()).unwrap();
        self.rig.deployment(&self.version.to_string(), self.desired, count);
        for (name, (cost, _)) in &self.pods {
            self.rig.pod(name, "2026-01-01T00:00:00Z", (*cost != 0).then(|| cost.to_string()).as_deref());
        }
        self.send_frames();
    }

    fn send_frames(&self) {
        for (n, source) in activators().iter().enumerate() {
            let pods = self.pods.iter().map(|(name, (cost, load))| (name.as_str(), load[n], *cost < 0));
            let pods: Vec<_> = pods.filter(|(_, load, draining)| *load > 0 || *draining).collect();
            self.rig.pods_frame(source, 1000, &pods);
        }
    }

    /// Reconciles and deletes pods as Kubernetes does. Panics if a deleted pod has requests.
    async fn reconcile(&mut self) -> Vec<u64> {
        self.rig.reconcile().await;
        for (pod, cost) in self.rig.take_costs() {
            if let Some(pod) = self.pods.get_mut(&pod) {
                pod.0 = cost.map_or(0, |cost| cost.parse().unwrap());
            }
        }
        let counts = self.rig.take_counts();
        if let Some(count) = counts.last() {
            self.desired = u32::try_from(*count).unwrap();
        }
        while self.pods.len() > self.desired as usize {
            let (name, (_, load)) = self.pods.iter().min_by_key(|(_, (cost, _))| *cost).unwrap();
            assert_eq!(*load, [0, 0], "{name} was deleted with requests in it");
            let (name, deleted) = (name.clone(), FunctionPod::default());
            self.pods.remove(&name);
            let metadata = serde_json::from_value(json!({
                "namespace": "ns", "name": name, "labels": {FUNCTION_LABEL: "f"},
            }));
            let deleted = FunctionPod { metadata: metadata.unwrap(), ..deleted };
            self.rig.scaler.caches.pods.apply(Event::Delete(deleted));
        }
        self.update_caches();
        counts
    }

    fn marked(&self) -> Vec<&str> {
        self.pods.iter().filter(|(_, (cost, _))| *cost < 0).map(|(name, _)| name.as_str()).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn lowering_max_under_load_drops_no_request() {
    let rig = Rig::new(&json!({"target": 1, "max": 4}));
    let mut world = World::new(&rig, &[[3, 1], [1, 1], [0, 2], [2, 2]]);
    world.reconcile().await;
    rig.function(&json!({"image": "i", "scaling": {"target": 1, "max": 2}}), None);
    for _ in 0..20 {
        advance(1).await;
        world.send_frames();
        assert!(world.reconcile().await.is_empty(), "every pod has requests");
    }
    assert_eq!(world.marked(), ["p2", "p3"], "fewest requests in flight");
    // One victim is empty for both activators.
    world.pods.get_mut("p3").unwrap().1 = [0, 0];
    world.send_frames();
    assert_eq!(world.reconcile().await, [] as [u64; 0], "Kubernetes might delete the other victim");
    assert_eq!(world.reconcile().await, [3], "the drained victim has a lower cost now");
    assert_eq!(world.marked(), ["p2"]);
    world.pods.get_mut("p2").unwrap().1 = [0, 1];
    world.send_frames();
    assert!(world.reconcile().await.is_empty(), "one activator still has a request in it");
    world.pods.get_mut("p2").unwrap().1 = [0, 0];
    world.send_frames();
    assert_eq!(world.reconcile().await, [2]);
    assert_eq!(world.pods.keys().collect::<Vec<_>>(), ["p1", "p4"]);
    for _ in 0..5 {
        advance(1).await;
        world.send_frames();
        assert!(world.reconcile().await.is_empty(), "the count stays at max");
    }
}

#[tokio::test(start_paused = true)]
async fn raising_min_during_a_scale_down_unmarks_all_victims() {
    let rig = Rig::new(&json!({"target": 1, "max": 1}));
    let mut world = World::new(&rig, &[[1, 0], [1, 0], [1, 0]]);
    world.reconcile().await;
    assert_eq!(world.marked().len(), 2);
    rig.function(&json!({"image": "i", "scaling": {"target": 1, "min": 5}}), None);
    assert_eq!(world.reconcile().await, [5]);
    assert_eq!(world.marked(), [] as [&str; 0], "all pods receive requests again");
}

#[tokio::test(start_paused = true)]
async fn returning_load_unmarks_as_many_victims_as_needed() {
    let rig = Rig::new(&json!({"target": 1, "max": 1}));
    let mut world = World::new(&rig, &[[3, 0], [1, 0], [2, 0]]);
    world.reconcile().await;
    assert_eq!(world.marked(), ["p2", "p3"]);
    rig.function(&json!({"image": "i", "scaling": {"target": 1, "max": 2}}), None);
    world.reconcile().await;
    assert_eq!(world.marked(), ["p2"], "the victim with fewer requests stays selected");
}

#[rstest]
#[case::time_of_a_response(json!({"target": 1, "max": 1}), "20s")]
#[case::own(json!({"target": 1, "max": 1, "drainTimeout": "20s"}), "5s")]
#[tokio::test(start_paused = true)]
async fn an_activator_that_reports_no_pods_delays_the_scale_down_until_the_timeout(
    #[case] scaling: Value,
    #[case] response: &str,
) {
    let spec = json!({"image": "i", "scaling": scaling, "timeouts": {"response": response}});
    let rig = Rig::of(&spec, None);
    rig.activator();
    rig.deployment("1", 2, 2);
    rig.frame(4, 4, 0);
    for pod in ["a", "b"] {
        rig.pod(pod, "2026-01-01T00:00:00Z", None);
    }
    rig.reconcile().await;
    let [(pod, Some(cost))] = &rig.take_costs()[..] else { panic!("no victim") };
    rig.pod(pod, "2026-01-01T00:00:00Z", Some(cost));
    for second in 0..=20 {
        let requeue = rig.reconcile().await.unwrap();
        assert!(requeue <= Duration::from_secs(20 - second.min(19)), "{requeue:?}");
        assert_eq!(rig.take_counts(), if second < 20 { vec![] } else { vec![1] }, "{second}");
        advance(1).await;
        rig.frame(4, 4, second * 4_000_000);
    }
}

#[tokio::test(start_paused = true)]
async fn victims_do_not_change_without_current_frames() {
    let rig = Rig::new(&json!({"target": 1, "max": 1}));
    let mut world = World::new(&rig, &[[1, 0], [1, 0]]);
    world.reconcile().await;
    let marked = world.marked().len();
    advance(10).await;
    rig.reconcile().await;
    assert_eq!((marked, rig.take_costs().len(), rig.take_counts().len()), (1, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn many_deletion_costs_are_written_in_batches() {
    let rig = Rig::new(&json!({"target": 1, "max": 1}));
    World::new(&rig, &[[1, 0]; 90]);
    let requeue = rig.reconcile().await;
    assert_eq!((rig.take_costs().len(), requeue), (50, Some(Duration::ZERO)), "requeued at once for the others");
    rig.reconcile().await;
    assert_eq!(rig.take_costs().len(), 39);
}
