//! Which pods go when a count goes down, and which were chosen and stay after all. Pure.

use std::sync::Arc;

use kube::ResourceExt as _;
use rouse_crds::pod::FunctionPod;

/// Names of the `number` pods that are missed least: those that do not serve first, then the newest, whose connections
/// are the youngest.
pub fn choose(pods: &[Arc<FunctionPod>], number: usize) -> Vec<String> {
    let mut pods: Vec<_> = pods.iter().collect();
    pods.sort_by_key(|pod| {
        let created = pod.creation_timestamp().map_or(i64::MAX, |t| t.0.as_second());
        (pod.ready(), std::cmp::Reverse(created), pod.name_any())
    });
    pods.into_iter().take(number).map(|pod| pod.name_any()).collect()
}

/// Names of pods that were chosen to go though all of them are wanted now: they have to get requests again.
pub fn spared(pods: &[Arc<FunctionPod>], desired: u32) -> Vec<String> {
    if usize::try_from(desired).unwrap_or(usize::MAX) < pods.len() {
        return Vec::new();
    }
    pods.iter().filter(|pod| pod.draining() && !pod.ended()).map(|pod| pod.name_any()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rouse_crds::names::POD_DELETION_COST_ANNOTATION;
    use serde_json::json;

    fn pod(name: &str, created: &str, ready: bool, marked: bool) -> Arc<FunctionPod> {
        let annotations = if marked { json!({POD_DELETION_COST_ANNOTATION: "-1"}) } else { json!({}) };
        Arc::new(
            serde_json::from_value(json!({
                "metadata": {"name": name, "creationTimestamp": created, "annotations": annotations},
                "status": {"conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]},
            }))
            .unwrap(),
        )
    }

    #[test]
    fn those_that_do_not_serve_go_first_then_the_newest() {
        let pods = [
            pod("old", "2026-01-01T00:00:00Z", true, false),
            pod("new", "2026-01-03T00:00:00Z", true, false),
            pod("broken", "2026-01-02T00:00:00Z", false, false),
        ];
        assert_eq!(choose(&pods, 2), ["broken", "new"]);
        assert_eq!(choose(&pods, 9).len(), 3);
        assert!(choose(&pods, 0).is_empty());
    }

    #[test]
    fn marks_are_taken_off_when_all_are_wanted() {
        let pods = [pod("a", "2026-01-01T00:00:00Z", true, true), pod("b", "2026-01-01T00:00:00Z", true, false)];
        assert!(spared(&pods, 1).is_empty());
        assert_eq!(spared(&pods, 2), ["a"]);
        assert_eq!(spared(&pods, 5), ["a"]);
    }
}
