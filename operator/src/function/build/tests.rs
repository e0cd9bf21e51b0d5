use std::sync::Arc;

use super::{fixtures::*, *};
use crate::function::validate::validate;
use kube::ResourceExt;
use rouse_crds::Function;
use rstest::rstest;
use serde_json::{Value, json};

fn built(function: &Function, found: &Dereferenced) -> Resources<Prepared> {
    build(&validate(function).unwrap(), found, &names(), &PodDefaults::default()).unwrap()
}

/// Updates `found` as the cache would be after `resources` were written, with the defaults that an API server adds.
fn written(resources: &Resources<Prepared>, found: &mut Dereferenced) {
    if let Some(revision) = &resources.revision {
        let mut value = serde_json::to_value(revision).unwrap();
        value["metadata"]["resourceVersion"] = json!("1");
        found.revisions.insert(revision.name_any(), Arc::new(serde_json::from_value(value).unwrap()));
    }
    for deployment in &resources.create {
        let mut value = serde_json::to_value(deployment).unwrap();
        value["metadata"]["uid"] = json!("deployment-uid");
        value["metadata"]["resourceVersion"] = json!("1");
        value["spec"]["strategy"] = json!({"type": "RollingUpdate"});
        value["spec"]["template"]["spec"]["restartPolicy"] = json!("Always");
        value["spec"]["template"]["spec"]["containers"][0]["imagePullPolicy"] = json!("IfNotPresent");
        found.workloads.deployments.insert(deployment.name_any(), Arc::new(serde_json::from_value(value).unwrap()));
    }
    if let service::Plan::Create(service) | service::Plan::Repair { service, .. } = &resources.service {
        found.service = Some(Arc::new(serde_json::from_value(serde_json::to_value(service).unwrap()).unwrap()));
    }
}

fn quiet(resources: &Resources<Prepared>) -> bool {
    resources.revision.is_none()
        && resources.record.is_none()
        && resources.create.is_empty()
        && resources.repair.is_empty()
        && resources.remove.is_empty()
        && resources.leftovers.is_empty()
        && matches!(resources.service, service::Plan::Keep)
}

fn edit(deployment: &mut Arc<crate::cluster::children::DeploymentObject>, edit: impl FnOnce(&mut Value)) {
    let mut changed = (**deployment).clone();
    let mut rest = changed.spec.rest.value();
    edit(&mut rest);
    changed.spec.rest = (&rest).into();
    *deployment = Arc::new(changed);
}

#[test]
fn the_first_revision() {
    let resources = built(&hello(), &Dereferenced::default());
    insta::assert_yaml_snapshot!("minimal_revision", resources.revision);
    insta::assert_yaml_snapshot!("minimal_deployment", resources.create);
    let service::Plan::Create(service) = resources.service else { panic!("no Service") };
    insta::assert_yaml_snapshot!("minimal_service", service);
}

#[test]
fn a_full_spec() {
    let function = function(json!({
        "image": "example.org/all:1", "command": ["/serve"], "args": ["-v"], "port": 9000, "protocol": "http1",
        "env": [{"name": "A", "value": "1"}, {"name": "S", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
        "envFrom": [{"configMapRef": {"name": "c"}}],
        "resources": {"requests": {"cpu": "100m"}, "limits": {"memory": "64Mi"}},
        "readiness": {"path": "/ready"},
        "scaling": {"initial": 0},
        "podTemplate": {
            "metadata": {"labels": {"team": "x"}, "annotations": {"note": "y"}},
            "spec": {
                "nodeSelector": {"disk": "ssd"},
                "securityContext": {"runAsUser": 1000},
                "volumes": [{"name": "tmp", "emptyDir": {}}],
                "containers": [
                    {"name": "function", "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}], "env": [{"name": "B", "value": "2"}]},
                    {"name": "sidecar", "image": "example.org/side:1"},
                ],
            },
        },
    }));
    insta::assert_yaml_snapshot!("full_deployment", built(&function, &Dereferenced::default()).create);
}

#[test]
fn an_h2c_server_is_probed_with_tcp() {
    let function = function(json!({"image": "i", "protocol": "h2c", "readiness": {"path": "/ready"}}));
    let resources = built(&function, &Dereferenced::default());
    let container = &resources.create[0].spec.as_ref().unwrap().template.spec.as_ref().unwrap().containers[0];
    let probe = container.readiness_probe.as_ref().unwrap();
    assert!(probe.http_get.is_none() && probe.tcp_socket.is_some());
}

/// What activators read is derived from the template after the merge.
#[rstest::rstest]
#[case::default(json!({}), "tcp")]
#[case::path(json!({"readiness": {"path": "/ok"}}), "http /ok")]
#[case::path_of_an_h2c_server(json!({"readiness": {"path": "/ok"}, "protocol": "h2c"}), "http /ok")]
#[case::no_probe(json!({"podTemplate": {"spec": {"containers": [{"name": "function", "readinessProbe": null}]}}}), "tcp")]
#[case::exec(json!({"podTemplate": {"spec": {"containers": [{"name": "function", "readinessProbe": {"exec": {"command": ["x"]}}}]}}}), "kubelet")]
#[case::exec_of_an_h2c_server(json!({"readiness": {"path": "/ok"}, "protocol": "h2c", "podTemplate": {"spec": {"containers": [{"name": "function", "readinessProbe": {"exec": {"command": ["x"]}}}]}}}), "kubelet")]
#[case::grpc(json!({"protocol": "h2c", "port": 9000, "podTemplate": {"spec": {"containers": [{"name": "function", "readinessProbe": {"grpc": {"port": 9000, "service": "a.B"}}}]}}}), "grpc a.B")]
#[case::another_port(json!({"podTemplate": {"spec": {"containers": [{"name": "function", "readinessProbe": {"httpGet": {"path": "/ok", "port": 9090}}}]}}}), "kubelet")]
#[case::sidecar(json!({"podTemplate": {"spec": {"containers": [{"name": "side", "image": "s", "readinessProbe": {"tcpSocket": {"port": 1}}}]}}}), "kubelet")]
#[case::gate(json!({"podTemplate": {"spec": {"readinessGates": [{"conditionType": "x/y"}]}}}), "kubelet")]
#[case::no_annotations(json!({"podTemplate": {"metadata": {"annotations": null}}}), "tcp")]
fn a_template_declares_how_a_pod_is_found_ready(#[case] fields: serde_json::Value, #[case] readiness: &str) {
    let mut spec = json!({"image": "i"});
    spec.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let resources = built(&function(spec), &Dereferenced::default());
    let template = &resources.create[0].spec.as_ref().unwrap().template;
    let annotations = template.metadata.as_ref().unwrap().annotations.as_ref().unwrap();
    assert_eq!(annotations["rouse.dev/readiness"], readiness);
    assert!(annotations.contains_key("rouse.dev/port") && annotations.contains_key("rouse.dev/protocol"));
}

#[test]
fn an_unchanged_function_causes_no_writes() {
    let (function, mut found) = (hello(), Dereferenced::default());
    written(&built(&function, &found), &mut found);
    assert!(quiet(&built(&function, &found)));
}

#[test]
fn only_a_change_of_the_container_creates_a_revision() {
    let mut found = Dereferenced::default();
    written(&built(&hello(), &found), &mut found);
    let scaled = function(
        json!({"image": "example.org/hello:1", "scaling": {"min": 2, "idleTimeout": "5s"}, "timeouts": {"response": "1s"}}),
    );
    assert!(quiet(&built(&scaled, &found)));
    let changed = built(&function(json!({"image": "example.org/hello:2"})), &found);
    assert_eq!(changed.latest, "hello-00002");
    assert_eq!(changed.revision.as_ref().unwrap().revision, 2);
    assert_eq!(changed.create.len(), 1);
    written(&changed, &mut found);
    // Reverting creates a new revision, so that the order of revisions is the order of changes.
    assert_eq!(built(&hello(), &found).latest, "hello-00003");
}

#[test]
fn continues_after_a_crash_between_the_revision_and_its_deployment() {
    let mut found = Dereferenced::default();
    written(&built(&hello(), &found), &mut found);
    found.workloads.deployments.clear();
    let again = built(&hello(), &found);
    assert!(again.revision.is_none());
    assert_eq!((again.create.len(), again.latest.as_str()), (1, "hello-00001"));
    assert_eq!(again.create[0].spec.as_ref().unwrap().replicas, Some(1));
}

#[test]
fn a_deleted_controller_revision_is_recreated_with_its_name() {
    let mut found = Dereferenced::default();
    written(&built(&hello(), &found), &mut found);
    found.revisions.clear();
    let again = built(&hello(), &found);
    assert_eq!(again.revision.as_ref().unwrap().name_any(), "hello-00001");
    assert!(again.create.is_empty() && again.remove.is_empty());
}

#[rstest]
#[case::image(|spec: &mut Value| spec["template"]["spec"]["containers"][0]["image"] = json!("evil"), "spec.template.spec.containers[0].image")]
#[case::variable(|spec: &mut Value| spec["template"]["spec"]["containers"][0]["env"].as_array_mut().unwrap().push(json!({"name": "X"})), "spec.template.spec.containers[0].env")]
#[case::history(|spec: &mut Value| { spec.as_object_mut().unwrap().remove("revisionHistoryLimit"); }, "spec.revisionHistoryLimit")]
fn a_modified_deployment_is_repaired_without_its_replicas(#[case] change: fn(&mut Value), #[case] difference: &str) {
    let mut found = Dereferenced::default();
    written(&built(&hello(), &found), &mut found);
    edit(found.workloads.deployments.get_mut("hello-00001").unwrap(), change);
    let resources = built(&hello(), &found);
    let [repair] = &resources.repair[..] else { panic!("{:?}", resources.repair) };
    assert_eq!(repair.difference, difference);
    assert!(!repair.patch.to_string().contains("replicas"));
    assert_eq!(repair.patch[0], json!({"op": "replace", "path": "/metadata/resourceVersion", "value": "1"}));
}

#[test]
fn a_template_of_an_older_version_stays() {
    let mut found = Dereferenced::default();
    written(&built(&hello(), &found), &mut found);
    // As if an older version had created the revision with another probe.
    let older = |template: &mut Value| template["spec"]["containers"][0]["readinessProbe"]["periodSeconds"] = json!(7);
    let mut revision = (*found.revisions["hello-00001"]).clone();
    let mut data = revision.data.value();
    older(&mut data["template"]);
    revision.data = (&data).into();
    found.revisions.insert("hello-00001".into(), Arc::new(revision));
    edit(found.workloads.deployments.get_mut("hello-00001").unwrap(), |spec| older(&mut spec["template"]));
    assert!(quiet(&built(&hello(), &found)));
}

#[rstest]
#[case::unknown_field(json!({"spec": {"nodeSelctor": {}}}), "spec.podTemplate.spec.nodeSelctor")]
#[case::unknown_in_a_container(json!({"spec": {"containers": [{"name": "function", "volumeMount": []}]}}), "spec.podTemplate.spec.containers[0].volumeMount")]
#[case::wrong_type(json!({"spec": {"terminationGracePeriodSeconds": "soon"}}), "spec.podTemplate")]
fn an_invalid_template_is_rejected(#[case] template: Value, #[case] field: &str) {
    let function = function(json!({"image": "i", "podTemplate": template}));
    let invalid =
        build(&validate(&function).unwrap(), &Dereferenced::default(), &names(), &PodDefaults::default()).unwrap_err();
    assert_eq!(invalid.field, field, "{invalid}");
}

#[test]
fn a_revision_without_deployment_is_deleted_when_unused() {
    let mut found = Dereferenced::default();
    written(&built(&hello(), &found), &mut found);
    written(&built(&function(json!({"image": "refused"})), &found), &mut found);
    found.workloads.deployments.remove("hello-00002");
    let back = built(&hello(), &found);
    assert_eq!(back.latest, "hello-00003");
    let created: Vec<_> = back.create.iter().map(ResourceExt::name_any).collect();
    assert_eq!(created, ["hello-00003"]);
    assert_eq!((back.remove[0].kind, back.remove[0].name.as_str()), (Kind::ControllerRevision, "hello-00002"));
}

#[test]
fn old_revisions_are_deleted_unless_they_have_traffic_or_pods() {
    let mut found = Dereferenced::default();
    for number in 1..=14 {
        let function = function(json!({"image": format!("i:{number}"), "scaling": {"initial": 0}}));
        written(&built(&function, &found), &mut found);
    }
    let mut latest = function(json!({"image": "i:14", "scaling": {"initial": 0}, "revisionHistoryLimit": 9}));
    let traffic = json!({"traffic": [{"revision": "hello-00002", "percent": 100}]});
    latest.status = Some(serde_json::from_value(traffic).unwrap());
    let busy = found.workloads.deployments.get_mut("hello-00003").unwrap();
    let mut with_pods = (**busy).clone();
    with_pods.status.replicas = 1;
    *busy = Arc::new(with_pods);
    let removed =
        |found: &Dereferenced| built(&latest, found).remove.into_iter().map(|r| (r.kind, r.name)).collect::<Vec<_>>();
    assert_eq!(
        removed(&found),
        [(Kind::Deployment, "hello-00001".to_owned()), (Kind::Deployment, "hello-00004".to_owned())]
    );
    found.workloads.deployments.remove("hello-00001");
    assert_eq!(removed(&found)[0], (Kind::ControllerRevision, "hello-00001".to_owned()));
}

#[rstest]
#[case::as_many_as_serve_the_traffic(json!({}), 7)]
#[case::for_its_first_step(json!({"rollout": {"steps": [10, 50]}}), 1)]
#[case::not_more_than_max(json!({"scaling": {"max": 3}}), 3)]
#[case::not_fewer_than_initial(json!({"rollout": {"steps": [10]}, "scaling": {"initial": 2}}), 2)]
#[case::none_while_another_has_all(json!({"traffic": [{"revision": "hello-00001", "percent": 100}], "scaling": {"initial": 0}}), 0)]
fn a_new_revision_starts_with_enough_pods_for_its_first_step(#[case] more: Value, #[case] replicas: i32) {
    let mut found = Dereferenced::default();
    written(&built(&hello(), &found), &mut found);
    let busy = found.workloads.deployments.get_mut("hello-00001").unwrap();
    let mut with_pods = (**busy).clone();
    with_pods.status.ready_replicas = 7;
    *busy = Arc::new(with_pods);
    let mut spec = json!({"image": "example.org/hello:2"});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let mut function = function(spec);
    let status = json!({"traffic": [{"revision": "hello-00001", "percent": 100, "latest": true}]});
    function.status = Some(serde_json::from_value(status).unwrap());
    let resources = built(&function, &found);
    assert_eq!(resources.create[0].spec.as_ref().unwrap().replicas, Some(replicas));
}

#[test]
fn revisions_of_a_rollout_are_retained() {
    let mut found = Dereferenced::default();
    for number in 1..=4 {
        let function = function(json!({"image": format!("i:{number}"), "scaling": {"initial": 0}}));
        written(&built(&function, &found), &mut found);
    }
    let mut latest = function(json!({"image": "i:4", "scaling": {"initial": 0}, "revisionHistoryLimit": 0}));
    let rollout =
        json!({"rollout": {"revision": "hello-00004", "from": "hello-00002", "percent": 0, "phase": "Aborted"}});
    latest.status = Some(serde_json::from_value(rollout).unwrap());
    let removed: Vec<_> = built(&latest, &found).remove.into_iter().map(|r| r.name).collect();
    assert_eq!(removed, ["hello-00001", "hello-00003"]);
}

#[test]
fn a_function_overrides_the_defaults_of_the_platform() {
    let defaults: PodDefaults = json!({
        "metadata": {"labels": {"team": "platform", "tier": "functions"}},
        "spec": {
            "nodeSelector": {"pool": "functions"},
            "priorityClassName": "low",
            "terminationGracePeriodSeconds": 60,
            "containers": [{"name": "function", "resources": {"requests": {"cpu": "10m"}}}],
        },
    })
    .to_string()
    .parse()
    .unwrap();
    let template = |spec: Value| {
        let function = function(spec);
        template::build(&validate(&function).unwrap(), "hello-00001", &defaults).unwrap()
    };
    let plain = template(json!({"image": "i"}));
    assert_eq!(plain["metadata"]["labels"]["tier"], "functions");
    assert_eq!(plain["metadata"]["labels"]["rouse.dev/revision"], "hello-00001");
    assert_eq!(plain["spec"]["nodeSelector"], json!({"pool": "functions"}));
    assert_eq!(plain["spec"]["terminationGracePeriodSeconds"], 60);
    assert_eq!(plain["spec"]["containers"][0]["image"], "i");
    assert_eq!(plain["spec"]["containers"][0]["resources"], json!({"requests": {"cpu": "10m"}}));

    let own = template(json!({
        "image": "i", "resources": {"limits": {"cpu": "5m"}},
        "podTemplate": {"metadata": {"labels": {"team": "shop"}}, "spec": {"priorityClassName": null, "nodeSelector": {"pool": "gpu"}}},
    }));
    assert_eq!(
        (&own["metadata"]["labels"]["team"], &own["metadata"]["labels"]["tier"]),
        (&json!("shop"), &json!("functions"))
    );
    assert_eq!(own["spec"]["nodeSelector"], json!({"pool": "gpu"}));
    assert_eq!(own["spec"].get("priorityClassName"), None);
    assert_eq!(
        own["spec"]["containers"][0]["resources"],
        json!({"limits": {"cpu": "5m"}}),
        "no default request above the limit"
    );
}

#[rstest]
#[case::default(json!({}), 302)]
#[case::short(json!({"timeouts": {"response": "5s"}}), 30)]
#[case::long(json!({"timeouts": {"response": "1h"}}), 600)]
#[case::own(json!({"podTemplate": {"spec": {"terminationGracePeriodSeconds": 45}}}), 45)]
fn an_evicted_pod_has_the_time_of_a_response(#[case] more: Value, #[case] seconds: i64) {
    let mut spec = json!({"image": "i"});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let function = function(spec);
    let template = template::build(&validate(&function).unwrap(), "hello-00001", &PodDefaults::default()).unwrap();
    assert_eq!(template["spec"]["terminationGracePeriodSeconds"], seconds);
}

/// Labels and ports that charts and monitoring need. The port of the function stays the first.
#[test]
fn labels_and_ports_of_users_are_added_to_the_template() {
    let function = function(json!({"image": "i", "podTemplate": {
        "metadata": {"labels": {"app.kubernetes.io/managed-by": "Helm"}},
        "spec": {"containers": [{"name": "function", "ports": [{"name": "metrics", "containerPort": 9090}]}]},
    }}));
    let resources =
        build(&validate(&function).unwrap(), &Dereferenced::default(), &names(), &PodDefaults::default()).unwrap();
    let deployment = serde_json::to_value(&resources.create[0]).unwrap();
    let template = &deployment["spec"]["template"];
    assert_eq!(template["metadata"]["labels"]["app.kubernetes.io/managed-by"], "Helm");
    assert_eq!(
        deployment["metadata"]["labels"]["app.kubernetes.io/managed-by"], "rouse",
        "the operator finds it by this label"
    );
    let ports = template["spec"]["containers"][0]["ports"].as_array().unwrap();
    let ports: Vec<_> =
        ports.iter().map(|p| (p["name"].as_str().unwrap(), p["containerPort"].as_i64().unwrap())).collect();
    assert_eq!(ports, [("function", 8080), ("metrics", 9090)]);
}
