//! Going from more pods to fewer, with a Kubernetes that takes pods as the real one does.

use std::collections::BTreeMap;

use super::*;
use rouse_crds::pod::FunctionPod;

/// Pods by name: their deletion cost, and the requests in each that each of two activators has.
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
        world.show();
        world
    }

    /// What the watches bring, and what the activators say.
    fn show(&mut self) {
        self.version += 1;
        let count = u32::try_from(self.pods.len()).unwrap();
        self.rig.deployment(&self.version.to_string(), self.desired, count);
        for (name, (cost, _)) in &self.pods {
            self.rig.pod(name, "2026-01-01T00:00:00Z", (*cost != 0).then(|| cost.to_string()).as_deref());
        }
        self.say();
    }

    fn say(&self) {
        for (n, source) in activators().iter().enumerate() {
            let pods = self.pods.iter().map(|(name, (cost, load))| (name.as_str(), load[n], *cost < 0));
            let pods: Vec<_> = pods.filter(|(_, load, draining)| *load > 0 || *draining).collect();
            self.rig.says(source, 1000, &pods);
        }
    }

    /// A look, and what Kubernetes makes of it. A pod that is taken while something is in it is a broken promise.
    async fn turn(&mut self) -> Vec<u64> {
        self.rig.look().await;
        for (pod, cost) in self.rig.marks() {
            if let Some(pod) = self.pods.get_mut(&pod) {
                pod.0 = cost.map_or(0, |cost| cost.parse().unwrap());
            }
        }
        let counts = self.rig.counts();
        if let Some(count) = counts.last() {
            self.desired = u32::try_from(*count).unwrap();
        }
        while self.pods.len() > self.desired as usize {
            let (name, (_, load)) = self.pods.iter().min_by_key(|(_, (cost, _))| *cost).unwrap();
            assert_eq!(*load, [0, 0], "{name} is taken with requests in it");
            let (name, gone) = (name.clone(), FunctionPod::default());
            self.pods.remove(&name);
            let metadata = serde_json::from_value(json!({
                "namespace": "ns", "name": name, "labels": {FUNCTION_LABEL: "f"},
            }));
            let gone = FunctionPod { metadata: metadata.unwrap(), ..gone };
            self.rig.scaler.caches.pods.apply(Event::Delete(gone));
        }
        self.show();
        counts
    }

    fn marked(&self) -> Vec<&str> {
        self.pods.iter().filter(|(_, (cost, _))| *cost < 0).map(|(name, _)| name.as_str()).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn max_lowered_below_the_count_under_load_drops_nothing() {
    let rig = Rig::new(&json!({"target": 1, "max": 4}));
    let mut world = World::new(&rig, &[[3, 1], [1, 1], [0, 2], [2, 2]]);
    world.turn().await;
    rig.function(&json!({"image": "i", "scaling": {"target": 1, "max": 2}}), None);
    for _ in 0..20 {
        advance(1).await;
        world.say();
        assert!(world.turn().await.is_empty(), "requests are in all of them");
    }
    assert_eq!(world.marked(), ["p2", "p3"], "least in flight");
    // One is empty, for both activators.
    world.pods.get_mut("p3").unwrap().1 = [0, 0];
    world.say();
    assert_eq!(world.turn().await, [] as [u64; 0], "Kubernetes could not tell it from the other");
    assert_eq!(world.turn().await, [3], "now it can");
    assert_eq!(world.marked(), ["p2"]);
    world.pods.get_mut("p2").unwrap().1 = [0, 1];
    world.say();
    assert!(world.turn().await.is_empty(), "one activator has something in it still");
    world.pods.get_mut("p2").unwrap().1 = [0, 0];
    world.say();
    assert_eq!(world.turn().await, [2]);
    assert_eq!(world.pods.keys().collect::<Vec<_>>(), ["p1", "p4"]);
    for _ in 0..5 {
        advance(1).await;
        world.say();
        assert!(world.turn().await.is_empty(), "it stays at max");
    }
}

#[tokio::test(start_paused = true)]
async fn min_above_the_count_in_the_middle_of_going_down_spares_all() {
    let rig = Rig::new(&json!({"target": 1, "max": 1}));
    let mut world = World::new(&rig, &[[1, 0], [1, 0], [1, 0]]);
    world.turn().await;
    assert_eq!(world.marked().len(), 2);
    rig.function(&json!({"image": "i", "scaling": {"target": 1, "min": 5}}), None);
    assert_eq!(world.turn().await, [5]);
    assert_eq!(world.marked(), [] as [&str; 0], "they get requests again");
}

#[tokio::test(start_paused = true)]
async fn a_load_that_comes_back_spares_as_many_as_it_needs() {
    let rig = Rig::new(&json!({"target": 1, "max": 1}));
    let mut world = World::new(&rig, &[[3, 0], [1, 0], [2, 0]]);
    world.turn().await;
    assert_eq!(world.marked(), ["p2", "p3"]);
    rig.function(&json!({"image": "i", "scaling": {"target": 1, "max": 2}}), None);
    world.turn().await;
    assert_eq!(world.marked(), ["p2"], "the one with less in it goes still");
}

#[tokio::test(start_paused = true)]
async fn an_activator_that_does_not_speak_of_pods_holds_it_up_for_a_bound() {
    let spec = json!({"image": "i", "scaling": {"target": 1, "max": 1}, "timeouts": {"response": "20s"}});
    let rig = Rig::of(&spec, None);
    rig.activator();
    rig.deployment("1", 2, 2);
    rig.frame(4, 4, 0);
    for pod in ["a", "b"] {
        rig.pod(pod, "2026-01-01T00:00:00Z", None);
    }
    rig.look().await;
    let [(pod, Some(cost))] = &rig.marks()[..] else { panic!("one is marked") };
    rig.pod(pod, "2026-01-01T00:00:00Z", Some(cost));
    for second in 0..=20 {
        let again = rig.look().await.unwrap();
        assert!(again <= Duration::from_secs(20 - second.min(19)), "{again:?}");
        assert_eq!(rig.counts(), if second < 20 { vec![] } else { vec![1] }, "{second}");
        advance(1).await;
        rig.frame(4, 4, second * 4_000_000);
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_marked_or_spared_while_an_activator_is_silent() {
    let rig = Rig::new(&json!({"target": 1, "max": 1}));
    let mut world = World::new(&rig, &[[1, 0], [1, 0]]);
    world.turn().await;
    let marked = world.marked().len();
    advance(10).await;
    rig.look().await;
    assert_eq!((marked, rig.marks().len(), rig.counts().len()), (1, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn many_marks_are_written_in_parts() {
    let rig = Rig::new(&json!({"target": 1, "max": 1}));
    World::new(&rig, &[[1, 0]; 90]);
    let again = rig.look().await;
    assert_eq!((rig.marks().len(), again), (50, Some(Duration::ZERO)), "the rest at once, if it is wanted still");
    rig.look().await;
    assert_eq!(rig.marks().len(), 39);
}
