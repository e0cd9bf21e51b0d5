//! Against a naive model: the last object of each pod, from which everything is computed anew.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::json;

use super::*;

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// What an object of the watch says of a pod.
#[derive(Clone, Debug)]
struct Object {
    /// Which one of those with its name it is.
    pod: u8,
    function: u8,
    uid: u8,
    revision: u8,
    /// The last byte of its address.
    address: Option<u8>,
    draining: bool,
    /// The ReplicaSet of its revision is its controller.
    owned: bool,
}

#[derive(Clone, Debug)]
enum Act {
    /// It was created, or has changed in any way: other labels, another address, recreated under its name.
    Seen(usize, Object),
    Gone(usize),
    /// A relist returns all pods except this one, and that one as unreadable.
    Listed {
        without: usize,
        unreadable: usize,
    },
}

type Model = BTreeMap<usize, Object>;

/// What breakers know: by Function, uid, revision and pod the address.
type Told = BTreeMap<(String, String, String, String), Option<u8>>;

fn object() -> impl Strategy<Value = Object> {
    let labels = (0..2_u8, 0..2_u8, 0..2_u8);
    (0..2_u8, labels, prop::option::weighted(0.8, 1..4_u8), prop::bool::weighted(0.2), prop::bool::weighted(0.9))
        .prop_map(|(pod, (function, uid, revision), address, draining, owned)| Object {
            pod,
            function,
            uid,
            revision,
            address,
            draining,
            owned,
        })
}

fn act() -> impl Strategy<Value = Act> {
    let which = 0..NAMES.len();
    prop_oneof![
        8 => (which.clone(), object()).prop_map(|(which, object)| Act::Seen(which, object)),
        2 => which.clone().prop_map(Act::Gone),
        1 => (which.clone(), which).prop_map(|(without, unreadable)| Act::Listed { without, unreadable }),
    ]
}

/// Creation time. All differ, so that the newest pod is one.
fn second(which: usize, object: &Object) -> usize {
    usize::from(object.pod) * 10 + which * 7 % 10
}

fn json_of(which: usize, object: &Object) -> FunctionPod {
    let revision = format!("f{}-0000{}", object.function, object.revision);
    let owner = if object.owned { format!("{revision}-5d9f") } else { "copy-5d9f".to_owned() };
    serde_json::from_value(json!({
        "metadata": {
            "namespace": "ns", "name": NAMES[which], "uid": object.pod.to_string(),
            "creationTimestamp": format!("2026-01-01T00:00:{:02}Z", second(which, object)),
            "labels": {
                "rouse.dev/function": format!("f{}", object.function), "rouse.dev/function-uid": object.uid.to_string(),
                "rouse.dev/revision": revision, "pod-template-hash": "5d9f",
            },
            "annotations": object.draining.then(|| json!({"controller.kubernetes.io/pod-deletion-cost": "-1"})),
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": owner, "uid": "u", "controller": true}],
        },
        "status": {"podIP": object.address.map(|address| format!("10.0.0.{address}"))},
    }))
    .unwrap()
}

fn expected(model: &Model) -> Told {
    let owned = || model.iter().filter(|(_, object)| object.owned);
    let told = owned().map(|(which, object)| {
        let newer = |(other, of): (&usize, &Object)| {
            of.address == object.address && !of.draining && second(*other, of) > second(*which, object)
        };
        let lost = !object.draining && owned().any(newer);
        let key = (
            format!("ns/f{}", object.function),
            object.uid.to_string(),
            format!("f{}-0000{}", object.function, object.revision),
            format!("{}/{}", NAMES[*which], object.pod),
        );
        (key, object.address.filter(|_| !lost))
    });
    told.collect()
}

fn apply(told: &mut Told, changes: Vec<PodChange>) {
    for change in changes {
        match change {
            PodChange::Removed(Membership { function, uid, revision, id }) => {
                let key = (format!("{}/{}", function.namespace, function.name), uid.into(), revision.into(), id.into());
                assert!(told.remove(&key).is_some(), "{key:?} was not there");
            }
            PodChange::Updated { function, uid, facts } => {
                let key = (
                    format!("{}/{}", function.namespace, function.name),
                    uid.into(),
                    facts.revision.into(),
                    facts.id.into(),
                );
                let last = |ip: std::net::IpAddr| ip.to_string().rsplit('.').next().unwrap().parse().unwrap();
                told.insert(key, facts.ip.map(last));
            }
        }
    }
}

proptest! {
    /// After any sequence of events, each breaker knows the pods of the model, each with its own address.
    #[test]
    fn breakers_know_the_pods_that_exist(acts in prop::collection::vec(act(), 1..40)) {
        let (mut pods, mut model, mut told) = (Pods::default(), Model::new(), Told::new());
        for act in acts {
            match act {
                Act::Seen(which, object) => {
                    apply(&mut told, pods.update(&json_of(which, &object)));
                    model.insert(which, object);
                }
                Act::Gone(which) => {
                    apply(&mut told, pods.delete(Some("ns"), Some(NAMES[which])));
                    model.remove(&which);
                }
                Act::Listed { without, unreadable } => {
                    pods.relist_started();
                    for (which, object) in model.iter().filter(|(which, _)| **which != without && **which != unreadable) {
                        apply(&mut told, pods.update(&json_of(*which, object)));
                    }
                    pods.unreadable(Some("ns"), Some(NAMES[unreadable]));
                    apply(&mut told, pods.relist_finished());
                    if without != unreadable {
                        model.remove(&without);
                    }
                }
            }
            prop_assert_eq!(&told, &expected(&model));
            for function in 0..2 {
                for uid in 0..2 {
                    let (key, uid) = (FunctionKey::new("ns", &format!("f{function}")), uid.to_string());
                    let known = told.keys().filter(|(of, u, ..)| *of == format!("ns/f{function}") && *u == uid).count();
                    prop_assert_eq!(pods.of(&key, &uid).count(), known);
                }
            }
        }
        for name in NAMES {
            apply(&mut told, pods.delete(Some("ns"), Some(name)));
        }
        prop_assert!(told.is_empty() && pods.is_empty());
    }
}

#[test]
fn of_pods_created_in_the_same_second_the_last_one_reported_has_the_address() {
    let object = |address| Object { pod: 0, function: 0, uid: 0, revision: 0, address, draining: false, owned: true };
    let mut pods = Pods::default();
    let shown = |which: usize, address| {
        let mut pod = json_of(which, &object(address));
        pod.metadata.creation_timestamp = None;
        pod
    };
    let addresses = |pods: &Pods| -> BTreeMap<String, bool> {
        pods.of(&FunctionKey::new("ns", "f0"), "0").map(|facts| (facts.id.into(), facts.ip.is_some())).collect()
    };
    pods.update(&shown(0, Some(1)));
    pods.update(&shown(1, Some(2)));
    // The sandbox of the second one is recreated, and has the address of the first one.
    pods.update(&shown(1, Some(1)));
    pods.update(&shown(0, Some(1)));
    assert_eq!(addresses(&pods), [("a/0".into(), false), ("b/0".into(), true)].into());
    pods.update(&shown(0, Some(2)));
    assert_eq!(addresses(&pods), [("a/0".into(), true), ("b/0".into(), true)].into());
}
