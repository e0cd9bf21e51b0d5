//! Who may do what: the activator may wake Functions, the operator may change objects of Functions, and the author of a Function
//! gets no pod that he could not create himself.

use anyhow::{Context as _, Result};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::Pod,
    rbac::v1::{Role, RoleBinding},
};
use kube::{
    Api, ResourceExt as _,
    api::{Patch, PatchParams, PostParams},
};
use rouse_crds::Function;
use rouse_e2e::workspace::client_as;
use serde_json::{Value, json};

use crate::test_env::{RELEASE, TestEnv};

#[tokio::test(flavor = "multi_thread")]
async fn the_activator_is_authorized_to_wake_only() -> Result<()> {
    let env = TestEnv::new("rights").await?;
    env.ready("hello", json!({"scaling": {"initial": 0}})).await?;
    let user = format!("system:serviceaccount:{RELEASE}:rouse-activator");
    let client = client_as(&env.cluster, &user).await?;
    let scale = async |namespace: &str, deployment: &str, replicas: u32| {
        let deployments: Api<Deployment> = Api::namespaced(client.clone(), namespace);
        let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
        deployments.patch_scale(deployment, &PatchParams::default(), &patch).await.map(drop).map_err(|e| e.to_string())
    };
    assert_eq!(scale(&env.namespace, "hello-00001", 1).await, Ok(()), "the activator could not wake a function");
    env.ready("many", json!({"scaling": {"initial": 0}})).await?;
    let flood = scale(&env.namespace, "many-00001", 101).await;
    assert!(flood.as_ref().is_err_and(|printed| printed.contains("at most 100")), "from 0 to 101: {flood:?}");
    let raised = scale(&env.namespace, "hello-00001", 2).await;
    assert!(raised.as_ref().is_err_and(|printed| printed.contains("zero")), "from 1 to 2: {raised:?}");
    let lowered = scale(&env.namespace, "hello-00001", 0).await;
    assert!(lowered.as_ref().is_err_and(|printed| printed.contains("zero")), "from 1 to 0: {lowered:?}");
    let foreign = scale(RELEASE, "rouse-operator", 0).await;
    assert!(foreign.as_ref().is_err_and(|printed| printed.contains("Function")), "the operator itself: {foreign:?}");
    for (verb, what) in [("delete", "deployments"), ("create", "pods"), ("get", "secrets"), ("patch", "functions")] {
        let (_, printed) = env.kubectl(&["auth", "can-i", verb, what, "--all-namespaces", "--as", &user]).await?;
        assert!(printed.trim().starts_with("no"), "the activator may {verb} {what}: {printed}");
    }
    env.finish().await
}

/// Lets a user do everything with Functions of the namespace, and create what `more` names.
async fn author(env: &TestEnv, user: &str, more: &[(&str, &str)]) -> Result<Api<Function>> {
    let mut rules = vec![json!({"apiGroups": ["rouse.dev"], "resources": ["functions"], "verbs": ["*"]})];
    rules.extend(
        more.iter().map(|(group, what)| json!({"apiGroups": [group], "resources": [what], "verbs": ["create"]})),
    );
    let role: Role = serde_json::from_value(json!({"metadata": {"name": user}, "rules": rules}))?;
    let binding: RoleBinding = serde_json::from_value(json!({
        "metadata": {"name": user},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": user},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
    }))?;
    Api::namespaced(env.client.clone(), &env.namespace).create(&PostParams::default(), &role).await?;
    Api::namespaced(env.client.clone(), &env.namespace).create(&PostParams::default(), &binding).await?;
    Ok(Api::namespaced(client_as(&env.cluster, user).await?, &env.namespace))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_gives_its_author_no_pod_that_he_could_not_create() -> Result<()> {
    let env = TestEnv::new("authors").await?;
    // `lea` may change Functions only; `pia` may create pods as well, and `dan` Deployments.
    let lea = author(&env, "lea", &[]).await?;
    let pia = author(&env, "pia", &[("", "pods")]).await?;
    let dan = author(&env, "dan", &[("apps", "deployments")]).await?;
    let secret = json!({"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}});
    let config = json!({"name": "KEY", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k", "optional": true}}});
    let account = json!({"spec": {"serviceAccountName": "admin", "automountServiceAccountToken": true}});
    let host = json!({"spec": {"hostNetwork": true}});
    let cases: &[(&str, &Api<Function>, Value, Option<&str>)] = &[
        ("an image", &lea, json!({}), None),
        ("a ConfigMap", &lea, json!({"env": [config]}), None),
        ("a variable of a Secret", &lea, json!({"env": [secret]}), Some("Secrets")),
        ("a Secret of variables", &lea, json!({"envFrom": [{"secretRef": {"name": "s"}}]}), Some("Secrets")),
        ("a Secret, by pia", &pia, json!({"env": [secret]}), None),
        ("another account", &lea, json!({"podTemplate": account}), Some("podTemplate")),
        ("a label", &lea, json!({"podTemplate": {"metadata": {"labels": {"app": "shop"}}}}), Some("podTemplate")),
        ("another account, by pia", &pia, json!({"podTemplate": account}), None),
        ("another account, by dan", &dan, json!({"podTemplate": account}), None),
        ("the network of the node, by dan", &dan, json!({"podTemplate": host}), Some("hostNetwork")),
    ];
    let named = |name: &str, more: &Value| -> Result<Function> {
        let mut spec = json!({"image": "localhost/rouse-hello:dev", "scaling": {"initial": 0}});
        let fields = spec.as_object_mut().context("an object")?;
        fields.extend(more.as_object().cloned().context("an object")?);
        let object =
            json!({"apiVersion": "rouse.dev/v1alpha1", "kind": "Function", "metadata": {"name": name}, "spec": spec});
        Ok(serde_json::from_value(object)?)
    };
    for (i, (what, functions, spec, refused)) in cases.iter().enumerate() {
        let name = format!("f{i}");
        match (functions.create(&PostParams::default(), &named(&name, spec)?).await, refused) {
            (Ok(_), None) => {}
            (Err(error), Some(word)) => assert!(error.to_string().contains(word), "{what}: {error}"),
            (other, _) => panic!("{what}: {:?}", other.map(|f| f.name_any())),
        }
    }

    // What another author was allowed to write stays, and can be scaled; whoever changes its container needs the rights for it.
    let given = named("given", &json!({"podTemplate": account}))?;
    dan.create(&PostParams::default(), &given).await?;
    let patch = async |spec: Value| {
        let patch = Patch::Merge(json!({"spec": spec}));
        lea.patch("given", &PatchParams::default(), &patch).await.map(drop).map_err(|error| error.to_string())
    };
    assert_eq!(patch(json!({"scaling": {"max": 3}})).await, Ok(()));
    let image = patch(json!({"image": "registry.example.org/mine"})).await;
    assert!(image.as_ref().is_err_and(|error| error.contains("podTemplate")), "another image: {image:?}");
    assert_eq!(patch(json!({"image": "registry.example.org/mine", "podTemplate": null})).await, Ok(()));
    env.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_is_authorized_for_objects_of_functions_only() -> Result<()> {
    let env = TestEnv::new("operator-rights").await?;
    env.ready("hello", json!({"scaling": {"min": 1}})).await?;
    let client = client_as(&env.cluster, &format!("system:serviceaccount:{RELEASE}:rouse-operator")).await?;
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), &env.namespace);
    let pods: Api<Pod> = Api::namespaced(client.clone(), &env.namespace);
    let refused = |what: &str, result: Result<(), kube::Error>, word: &str| match result {
        Err(error) if error.to_string().contains(word) => {}
        other => panic!("{what}: {other:?}"),
    };

    let mut foreign: Deployment = serde_json::from_value(json!({
        "metadata": {"name": "foreign", "labels": {"app.kubernetes.io/managed-by": "rouse"}},
        "spec": {
            "selector": {"matchLabels": {"app": "foreign"}},
            "template": {"metadata": {"labels": {"app": "foreign"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
        },
    }))?;
    let made = deployments.create(&PostParams::default(), &foreign).await.map(drop);
    refused("a Deployment without an owner", made, "a Function owns");
    // One that exists, of somebody else.
    env.deployments().create(&PostParams::default(), &foreign).await?;
    let owner = json!({"metadata": {"ownerReferences": [{
        "apiVersion": "rouse.dev/v1alpha1", "kind": "Function", "name": "hello", "uid": "0", "controller": true,
    }]}});
    let adopted = deployments.patch("foreign", &PatchParams::default(), &Patch::Merge(owner)).await.map(drop);
    refused("adopting it", adopted, "a Function owns");
    refused(
        "deleting it",
        deployments.delete("foreign", &kube::api::DeleteParams::default()).await.map(drop),
        "a Function owns",
    );
    let count = Patch::Merge(json!({"spec": {"replicas": 0}}));
    let scaled = deployments.patch_scale("foreign", &PatchParams::default(), &count).await.map(drop);
    refused("scaling it", scaled, "Deployments of Functions");
    foreign.metadata.labels = None;
    foreign.metadata.name = Some("unlabelled".to_owned());
    let made = deployments.create(&PostParams::default(), &foreign).await.map(drop);
    refused("a Deployment without the label", made, "managed-by");
    let system: Api<Deployment> = Api::namespaced(client.clone(), RELEASE);
    let scaled = system.patch_scale("rouse-activator", &PatchParams::default(), &count).await.map(drop);
    refused("scaling the activator", scaled, "Deployments of Functions");

    let pod = env.pods("hello").await?.first().context("hello has no pod")?.name_any();
    let patch = async |metadata: Value| {
        pods.patch(&pod, &PatchParams::default(), &Patch::Merge(json!({"metadata": metadata}))).await.map(drop)
    };
    let annotation = json!({"annotations": {"controller.kubernetes.io/pod-deletion-cost": "-1"}});
    patch(annotation).await.context("the order of deletion")?;
    refused("a label of a pod", patch(json!({"labels": {"app": "shop"}})).await, "only the annotation");
    refused("an annotation of a pod", patch(json!({"annotations": {"a": "b"}})).await, "only the annotation");
    let image = Patch::Strategic(json!({"spec": {"containers": [{"name": "function", "image": "other"}]}}));
    refused("an image", pods.patch(&pod, &PatchParams::default(), &image).await.map(drop), "only the annotation");
    env.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demand_of_all_tenants_is_for_the_operator_only() -> Result<()> {
    let env = TestEnv::new("demand-rights").await?;
    // The API server forwards the request without the credentials of its client, as a pod without a token would send it.
    let refused = env.of_activators("/v1/demand").await;
    assert!(refused.as_ref().is_err_and(|error| format!("{error:#}").contains("not allowed")), "{refused:?}");
    let refused = env.of_operators("/debug/functions/default/hello").await;
    assert!(refused.as_ref().is_err_and(|error| format!("{error:#}").contains("loopback")), "{refused:?}");
    env.finish().await
}
