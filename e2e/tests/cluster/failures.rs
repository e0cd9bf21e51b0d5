//! Functions that do not start: what the caller gets, what the Function says, and that it is not tried in a hot loop.

use std::time::Duration;

use anyhow::Result;
use http::StatusCode;
use k8s_openapi::api::{
    admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding},
    core::v1::{Pod, ResourceQuota},
};
use kube::{
    Api,
    api::{DeleteParams, PostParams},
};
use rouse_e2e::{
    caller::Answer,
    world::{PATIENCE, until},
};
use serde_json::json;

use crate::scene::Scene;

fn assert_problem(answer: &Answer, status: u16, reason: &str) {
    assert_eq!(answer.status.as_u16(), status, "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    let problem = answer.json();
    assert_eq!(problem["status"], status);
    assert!(problem["type"].as_str().is_some_and(|t| t.starts_with("https://rouse.dev/problems/")), "{problem}");
    assert_eq!(problem["reason"], reason, "{problem}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_does_not_exist() -> Result<()> {
    let scene = Scene::new("image").await?;
    scene.ready("other", json!({"scaling": {"initial": 0}})).await?;
    let spec = json!({"image": "localhost/no-such-image:1", "scaling": {"idleTimeout": "3s"}, "timeouts": {"coldStart": "110s"}});
    scene.apply("broken", spec).await?;
    let (reason, message) = scene.condition("broken", "RevisionReady", "False").await?;
    assert!(["ErrImagePull", "ImagePullBackOff"].contains(&reason.as_str()), "{reason}: {message}");
    scene.condition("broken", "Ready", "False").await?;
    scene.zero("broken").await?;

    // A call tries again, and is told as soon as the kubelet knows.
    let answer = scene.get("broken", "/").await?;
    let reason = answer.json()["reason"].as_str().unwrap_or_default().to_owned();
    assert!(["ErrImagePull", "ImagePullBackOff"].contains(&reason.as_str()), "{}", answer.text());
    assert_problem(&answer, 503, &reason);
    assert!(answer.took < Duration::from_secs(60), "told after {:?}, with a coldStart of 110 s", answer.took);
    // The one after it is told at once and starts nothing.
    let answer = scene.get("broken", "/").await?;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.header("retry-after").is_some_and(|s| s.parse::<u64>().is_ok()), "{:?}", answer.headers);
    assert!(answer.took < Duration::from_secs(5), "{:?}", answer.took);
    scene.zero("broken").await?;

    // Mended, it serves.
    scene.ready("broken", json!({"scaling": {"idleTimeout": "3s"}})).await?;
    assert_eq!(scene.get("broken", "/").await?.status, StatusCode::OK);
    scene.done().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_exits_at_once() -> Result<()> {
    let scene = Scene::new("exit").await?;
    let spec =
        json!({"env": [{"name": "HELLO_EXIT_AT_START", "value": "3"}], "scaling": {"initial": 0, "idleTimeout": "3s"}});
    scene.ready("crash", spec).await?;
    let answer = scene.get("crash", "/").await?;
    let reason = answer.json()["reason"].as_str().unwrap_or_default().to_owned();
    assert!(["Error", "CrashLoopBackOff"].contains(&reason.as_str()), "{}", answer.text());
    assert_problem(&answer, 503, &reason);
    assert!(answer.text().contains("exited with status 3"), "{}", answer.text());
    assert!(answer.took < Duration::from_secs(30), "{:?}", answer.took);
    let (_, message) = scene.condition("crash", "RevisionReady", "False").await?;
    assert!(message.contains("exited with status 3"), "{message}");
    scene.zero("crash").await?;
    // What went wrong is still to be read at zero.
    let (_, message) = scene.condition("crash", "RevisionReady", "False").await?;
    assert!(message.contains("exited with status 3"), "{message}");
    scene.done().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_never_listens() -> Result<()> {
    let scene = Scene::new("listen").await?;
    let spec = json!({
        "env": [{"name": "HELLO_NEVER_LISTEN", "value": "1"}],
        "scaling": {"initial": 0, "idleTimeout": "3s"}, "timeouts": {"coldStart": "6s"},
    });
    scene.ready("deaf", spec).await?;
    let answer = scene.get("deaf", "/").await?;
    assert_eq!(answer.status, StatusCode::GATEWAY_TIMEOUT, "{}", answer.text());
    assert!(answer.took >= Duration::from_secs(5) && answer.took < Duration::from_secs(20), "{:?}", answer.took);
    let (reason, _) = scene.condition("deaf", "RevisionReady", "False").await?;
    assert_eq!(reason, "ReadinessTimeout");
    scene.zero("deaf").await?;
    scene.done().await
}

/// A call is told what stands in the way, long before the time for a cold start is over.
async fn told(scene: &Scene, name: &str, reason: &str, words: &str) -> Result<()> {
    let answer = scene.get(name, "/").await?;
    assert_problem(&answer, 503, reason);
    assert!(answer.text().contains(words), "{}", answer.text());
    assert!(
        answer.header("retry-after").is_some_and(|s| s.parse::<u64>().is_ok_and(|s| s > 0)),
        "{:?}",
        answer.headers
    );
    assert!(answer.took < Duration::from_secs(60), "told after {:?}, with a coldStart of 110 s", answer.took);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_fits_no_node() -> Result<()> {
    let scene = Scene::new("node").await?;
    let spec = json!({
        "podTemplate": {"spec": {"nodeSelector": {"rouse.dev/no-such-node": "x"}}},
        "scaling": {"initial": 0, "idleTimeout": "3s"}, "timeouts": {"coldStart": "110s"},
    });
    scene.ready("nowhere", spec).await?;
    told(&scene, "nowhere", "Unschedulable", "node").await?;
    let (reason, _) = scene.condition("nowhere", "RevisionReady", "False").await?;
    assert_eq!(reason, "Unschedulable");
    scene.zero("nowhere").await?;
    scene.done().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_that_is_used_up() -> Result<()> {
    let scene = Scene::new("quota").await?;
    let spec = json!({"scaling": {"initial": 0, "idleTimeout": "3s"}, "timeouts": {"coldStart": "110s"}});
    scene.ready("hello", spec).await?;
    let quotas: Api<ResourceQuota> = Api::namespaced(scene.client.clone(), &scene.namespace);
    let quota = json!({"metadata": {"name": "no-pods"}, "spec": {"hard": {"pods": "0"}}});
    quotas.create(&PostParams::default(), &serde_json::from_value(quota)?).await?;
    until("the quota to hold", PATIENCE, || async {
        Ok(quotas.get("no-pods").await?.status.and_then(|status| status.hard).map(|_| ()))
    })
    .await?;
    told(&scene, "hello", "PodCreationFailed", "exceeded quota").await?;
    scene.asleep("hello").await?;
    // The second time the condition of the revision is the same as before, and the callers are told all the same.
    until("another try", PATIENCE, || async {
        let answer = scene.get("hello", "/").await?;
        assert_problem(&answer, 503, "PodCreationFailed");
        Ok((answer.took > Duration::from_millis(20)).then_some(()))
    })
    .await?;
    scene.asleep("hello").await?;
    // With room it starts.
    quotas.delete("no-pods", &DeleteParams::default()).await?;
    until("an answer", PATIENCE, || async {
        Ok((scene.get("hello", "/").await?.status == StatusCode::OK).then_some(()))
    })
    .await?;
    scene.done().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_denies_the_pods() -> Result<()> {
    let scene = Scene::new("policy").await?;
    let spec = json!({"scaling": {"initial": 0, "idleTimeout": "3s"}, "timeouts": {"coldStart": "110s"}});
    scene.ready("hello", spec).await?;
    let name = format!("no-pods-{}", scene.namespace);
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(scene.client.clone());
    let policy = json!({"metadata": {"name": name}, "spec": {
        "failurePolicy": "Fail",
        "matchConstraints": {"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"]}]},
        "validations": [{"expression": "false", "message": "pods are not welcome here"}],
    }});
    policies.create(&PostParams::default(), &serde_json::from_value(policy)?).await?;
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(scene.client.clone());
    let binding = json!({"metadata": {"name": name}, "spec": {
        "policyName": name, "validationActions": ["Deny"],
        "matchResources": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": scene.namespace}}},
    }});
    bindings.create(&PostParams::default(), &serde_json::from_value(binding)?).await?;
    let pods: Api<Pod> = Api::namespaced(scene.client.clone(), &scene.namespace);
    let try_one = json!({"metadata": {"name": "x"}, "spec": {"containers": [{"name": "x", "image": "localhost/x:1"}]}});
    let try_one: Pod = serde_json::from_value(try_one)?;
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    until("the policy to hold", PATIENCE, || async {
        Ok(pods.create(&dry, &try_one).await.is_err_and(|e| e.to_string().contains("not welcome")).then_some(()))
    })
    .await?;
    told(&scene, "hello", "PodCreationFailed", "pods are not welcome here").await?;
    scene.asleep("hello").await?;
    bindings.delete(&name, &DeleteParams::default()).await?;
    policies.delete(&name, &DeleteParams::default()).await?;
    scene.done().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_host() -> Result<()> {
    let scene = Scene::new("host").await?;
    scene.ready("hello", json!({"scaling": {"initial": 0}})).await?;
    let unknown = |n: u32| scene.host(&format!("nobody-{n}"));
    for n in 0..5 {
        let answer = scene.caller.get(&unknown(n), "/").await?;
        assert_eq!(answer.status, StatusCode::NOT_FOUND);
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    }
    for text in scene.of_activators("/metrics").await? {
        assert!(!text.contains("nobody"), "a host that nobody has became a label");
    }
    scene.done().await
}
