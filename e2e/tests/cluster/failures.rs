//! Functions that fail to start: the response to the client, the conditions, and the backoff of wakes.

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
    http_client::Response,
    workspace::{TIMEOUT, until},
};
use serde_json::json;

use crate::test_env::TestEnv;

fn assert_problem(response: &Response, status: u16, reason: &str) {
    assert_eq!(response.status.as_u16(), status, "{}", response.text());
    assert_eq!(response.header("content-type"), Some("application/problem+json"));
    let problem = response.json();
    assert_eq!(problem["status"], status);
    assert!(problem["type"].as_str().is_some_and(|t| t.starts_with("https://rouse.dev/problems/")), "{problem}");
    assert_eq!(problem["reason"], reason, "{problem}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_does_not_exist() -> Result<()> {
    let env = TestEnv::new("image").await?;
    env.ready("other", json!({"scaling": {"initial": 0}})).await?;
    let spec = json!({"image": "localhost/no-such-image:1", "scaling": {"idleTimeout": "3s"}, "timeouts": {"coldStart": "50s"}});
    env.apply("broken", spec).await?;
    // The registry may be back soon, so the revision has the time of a cold start.
    let (reason, message) = env.condition("broken", "RevisionReady", "False").await?;
    assert!(["ErrImagePull", "ImagePullBackOff"].contains(&reason.as_str()), "{reason}: {message}");
    env.condition("broken", "Ready", "False").await?;

    // A request fails as soon as the kubelet reports the reason again.
    let response = env.get("broken", "/").await?;
    let reason = response.json()["reason"].as_str().unwrap_or_default().to_owned();
    assert!(["ErrImagePull", "ImagePullBackOff"].contains(&reason.as_str()), "{}", response.text());
    assert_problem(&response, 503, &reason);
    assert!(response.took < Duration::from_secs(60), "failed after {:?}", response.took);
    // The next request fails immediately.
    let response = env.get("broken", "/").await?;
    assert_eq!(response.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(response.header("retry-after").is_some_and(|s| s.parse::<u64>().is_ok()), "{:?}", response.headers);
    assert!(response.took < Duration::from_secs(5), "{:?}", response.took);

    // With a valid image, the Function responds.
    env.ready("broken", json!({"scaling": {"idleTimeout": "3s"}})).await?;
    assert_eq!(env.get("broken", "/").await?.status, StatusCode::OK);
    env.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_exits_at_once() -> Result<()> {
    let env = TestEnv::new("exit").await?;
    let spec =
        json!({"env": [{"name": "HELLO_EXIT_AT_START", "value": "3"}], "scaling": {"initial": 0, "idleTimeout": "3s"}});
    env.ready("crash", spec).await?;
    let response = env.get("crash", "/").await?;
    let reason = response.json()["reason"].as_str().unwrap_or_default().to_owned();
    assert!(["Error", "CrashLoopBackOff"].contains(&reason.as_str()), "{}", response.text());
    assert_problem(&response, 503, &reason);
    assert!(response.took < Duration::from_secs(30), "{:?}", response.took);
    let (_, message) = env.condition("crash", "RevisionReady", "False").await?;
    assert!(message.contains("exited with status 3"), "{message}");
    env.without_pods("crash").await?;
    // The failure stays visible at zero.
    let (_, message) = env.condition("crash", "RevisionReady", "False").await?;
    assert!(message.contains("exited with status 3"), "{message}");
    env.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_never_listens() -> Result<()> {
    let env = TestEnv::new("listen").await?;
    let spec = json!({
        "env": [{"name": "HELLO_NEVER_LISTEN", "value": "1"}],
        "scaling": {"initial": 0, "idleTimeout": "3s"}, "timeouts": {"coldStart": "6s"},
    });
    env.ready("deaf", spec).await?;
    let response = env.get("deaf", "/").await?;
    assert_eq!(response.status, StatusCode::GATEWAY_TIMEOUT, "{}", response.text());
    assert!(response.took >= Duration::from_secs(5) && response.took < Duration::from_secs(20), "{:?}", response.took);
    let (reason, _) = env.condition("deaf", "RevisionReady", "False").await?;
    assert_eq!(reason, "ReadinessTimeout");
    // It may still start: it is not removed after the idle timeout.
    assert!(!env.pods("deaf").await?.is_empty());
    env.finish().await
}

/// Waits until a condition of the Function has these words. Clients outside the cluster get the reason only.
async fn reported(env: &TestEnv, name: &str, words: &str) -> Result<()> {
    until(&format!("a condition of {name} with `{words}`"), TIMEOUT, || async {
        let status = env.functions().get(name).await?.status.unwrap_or_default();
        Ok(status.conditions.iter().any(|condition| condition.message.contains(words)).then_some(()))
    })
    .await
}

/// Checks that a request fails with this reason long before the cold start timeout, and that the words are reported.
async fn assert_cold_start_fails(env: &TestEnv, name: &str, reason: &str, words: &str) -> Result<()> {
    let response = env.get(name, "/").await?;
    assert_problem(&response, 503, reason);
    assert!(!response.text().contains(words), "a client outside the cluster gets: {}", response.text());
    reported(env, name, words).await?;
    assert!(
        response.header("retry-after").is_some_and(|s| s.parse::<u64>().is_ok_and(|s| s > 0)),
        "{:?}",
        response.headers
    );
    assert!(response.took < Duration::from_secs(60), "failed after {:?}, with a coldStart of 110 s", response.took);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_fits_no_node() -> Result<()> {
    let env = TestEnv::new("node").await?;
    let spec = json!({
        "podTemplate": {"spec": {"nodeSelector": {"rouse.dev/no-such-node": "x"}}},
        "scaling": {"initial": 0, "idleTimeout": "3s"}, "timeouts": {"coldStart": "50s"},
    });
    env.ready("nowhere", spec).await?;
    assert_cold_start_fails(&env, "nowhere", "Unschedulable", "didn't match").await?;
    let (reason, _) = env.condition("nowhere", "RevisionReady", "False").await?;
    assert_eq!(reason, "Unschedulable");
    env.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exhausted_quota() -> Result<()> {
    let env = TestEnv::new("quota").await?;
    let spec = json!({"scaling": {"initial": 0, "idleTimeout": "3s"}, "timeouts": {"coldStart": "110s"}});
    env.ready("hello", spec).await?;
    let quotas: Api<ResourceQuota> = Api::namespaced(env.client.clone(), &env.namespace);
    let quota = json!({"metadata": {"name": "no-pods"}, "spec": {"hard": {"pods": "0"}}});
    quotas.create(&PostParams::default(), &serde_json::from_value(quota)?).await?;
    until("the quota to hold", TIMEOUT, || async {
        Ok(quotas.get("no-pods").await?.status.and_then(|status| status.hard).map(|_| ()))
    })
    .await?;
    assert_cold_start_fails(&env, "hello", "PodCreationFailed", "exceeded quota").await?;
    env.scaled_to_zero("hello").await?;
    // The second time the condition of the revision does not change, and requests fail with the reason nevertheless.
    until("another attempt", TIMEOUT, || async {
        let response = env.get("hello", "/").await?;
        assert_problem(&response, 503, "PodCreationFailed");
        Ok((response.took > Duration::from_millis(20)).then_some(()))
    })
    .await?;
    env.scaled_to_zero("hello").await?;
    // Without the quota it starts.
    quotas.delete("no-pods", &DeleteParams::default()).await?;
    until("a response", TIMEOUT, || async {
        Ok((env.get("hello", "/").await?.status == StatusCode::OK).then_some(()))
    })
    .await?;
    env.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_denies_the_pods() -> Result<()> {
    let env = TestEnv::new("policy").await?;
    let spec = json!({"scaling": {"initial": 0, "idleTimeout": "3s"}, "timeouts": {"coldStart": "110s"}});
    env.ready("hello", spec).await?;
    let name = format!("no-pods-{}", env.namespace);
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(env.client.clone());
    let policy = json!({"metadata": {"name": name}, "spec": {
        "failurePolicy": "Fail",
        "matchConstraints": {"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"]}]},
        "validations": [{"expression": "false", "message": "pods are not welcome here"}],
    }});
    policies.create(&PostParams::default(), &serde_json::from_value(policy)?).await?;
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(env.client.clone());
    let binding = json!({"metadata": {"name": name}, "spec": {
        "policyName": name, "validationActions": ["Deny"],
        "matchResources": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": env.namespace}}},
    }});
    bindings.create(&PostParams::default(), &serde_json::from_value(binding)?).await?;
    let pods: Api<Pod> = Api::namespaced(env.client.clone(), &env.namespace);
    let try_one = json!({"metadata": {"name": "x"}, "spec": {"containers": [{"name": "x", "image": "localhost/x:1"}]}});
    let try_one: Pod = serde_json::from_value(try_one)?;
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    until("the policy to hold", TIMEOUT, || async {
        Ok(pods.create(&dry, &try_one).await.is_err_and(|e| e.to_string().contains("not welcome")).then_some(()))
    })
    .await?;
    assert_cold_start_fails(&env, "hello", "PodCreationFailed", "pods are not welcome here").await?;
    env.scaled_to_zero("hello").await?;
    bindings.delete(&name, &DeleteParams::default()).await?;
    policies.delete(&name, &DeleteParams::default()).await?;
    env.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_host() -> Result<()> {
    let env = TestEnv::new("host").await?;
    env.ready("hello", json!({"scaling": {"initial": 0}})).await?;
    let unknown = |n: u32| env.host(&format!("nobody-{n}"));
    for n in 0..5 {
        let response = env.http_client.get(&unknown(n), "/").await?;
        assert_eq!(response.status, StatusCode::NOT_FOUND);
        assert_eq!(response.header("content-type"), Some("application/problem+json"));
    }
    for text in env.of_activators("/metrics").await? {
        assert!(!text.contains("nobody"), "an unknown host became a label");
    }
    env.finish().await
}
