//! Ownership and routing of hosts: conflicts, paths, `hosts.allowed`, host templates, and hosts that are not public.

use anyhow::Result;
use kube::api::DeleteParams;
use rouse_e2e::workspace::{TIMEOUT, Workspace, until};
use serde_json::{Value, json};

use crate::{release::Upgrade, test_env::TestEnv};

/// Returns a host that is unique for the test and the run.
pub(crate) fn own_host(env: &TestEnv, name: &str) -> String {
    format!("{name}.{}.example.org", env.namespace)
}

/// Waits until a pod of the Function `name` responds to `GET path` of a host through the ingress.
pub(crate) async fn routed_to(workspace: &Workspace, host: &str, path: &str, name: &str) -> Result<()> {
    until(&format!("route of {host}{path} to {name}"), TIMEOUT, || async {
        let response = workspace.http_client.get(host, path).await.ok();
        Ok(response.filter(|response| is_from(response.header("hello-pod"), name)).map(|_| ()))
    })
    .await
}

/// Returns whether a pod belongs to the Function.
fn is_from(pod: Option<&str>, name: &str) -> bool {
    pod.and_then(|pod| pod.strip_prefix(name)).is_some_and(|rest| rest.starts_with("-0000"))
}

/// Returns a spec whose first pod starts with the first request.
pub(crate) fn lazy_spec(more: &Value) -> Value {
    let mut spec = json!({"scaling": {"initial": 0}});
    if let (Some(spec), Some(more)) = (spec.as_object_mut(), more.as_object()) {
        spec.extend(more.clone());
    }
    spec
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_of_another_namespace_cannot_be_claimed_until_it_is_released() -> Result<()> {
    let env = TestEnv::new("owner").await?;
    let other = Workspace::new(&env.cluster, &format!("{}-other", env.namespace)).await?;
    let host = own_host(&env, "shop");
    env.ready("old", lazy_spec(&json!({"hosts": [host]}))).await?;
    routed_to(&env, &host, "/", "old").await?;
    other.apply("thief", lazy_spec(&json!({"routes": [{"host": host, "path": "/login"}]}))).await?;
    let (reason, message) = other.condition("thief", "Routable", "False").await?;
    assert_eq!(reason, "HostConflict");
    assert!(message.contains(&host) && message.contains(&format!("{}/old", env.namespace)), "{message}");
    assert_eq!(other.condition("thief", "Ready", "False").await?.0, "HostConflict");
    routed_to(&env, &host, "/login", "old").await?;
    // Its default host is not affected.
    routed_to(&other, &other.host("thief"), "/", "thief").await?;

    env.functions().delete("old", &DeleteParams::default()).await?;
    other.condition("thief", "Routable", "True").await?;
    routed_to(&other, &host, "/login", "thief").await?;
    until("404 for other paths of the host", TIMEOUT, || async {
        Ok((other.http_client.get(&host, "/").await?.status == 404).then_some(()))
    })
    .await?;
    other.delete_namespace().await?;
    env.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_of_one_namespace_share_a_host_by_paths() -> Result<()> {
    let env = TestEnv::new("paths").await?;
    let host = own_host(&env, "shop");
    env.ready("web", lazy_spec(&json!({"hosts": [host]}))).await?;
    let route = json!({"routes": [{"host": host, "path": "/api"}]});
    env.ready("api", lazy_spec(&route)).await?;
    for (path, name) in [("/", "web"), ("/api", "api"), ("/api/x", "api"), ("/apix", "web")] {
        routed_to(&env, &host, path, name).await?;
    }
    // A second claim to the path is lost, and the message names it.
    env.apply("late", lazy_spec(&route)).await?;
    let (reason, message) = env.condition("late", "Routable", "False").await?;
    assert_eq!(reason, "HostConflict");
    assert!(message.contains("/api") && message.contains(&format!("{}/api", env.namespace)), "{message}");
    routed_to(&env, &host, "/api", "api").await?;
    env.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_default_host_cannot_be_claimed() -> Result<()> {
    let env = TestEnv::new("default").await?;
    let host = env.host("victim");
    env.apply("thief", lazy_spec(&json!({"hosts": [host]}))).await?;
    let (reason, message) = env.condition("thief", "Routable", "False").await?;
    assert_eq!(reason, "HostConflict");
    assert!(message.contains(&format!("{}/victim", env.namespace)), "{message}");
    env.routed("thief").await?;
    assert_eq!(env.http_client.get(&host, "/").await?.status, 404, "it was claimed before its Function exists");
    env.ready("victim", lazy_spec(&json!({}))).await?;
    routed_to(&env, &host, "/", "victim").await?;
    env.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_function_is_unreachable_from_outside_by_any_host_header() -> Result<()> {
    let env = TestEnv::new("inside").await?;
    let custom = own_host(&env, "secret");
    env.ready("front", lazy_spec(&json!({"hosts": [own_host(&env, "front")]}))).await?;
    let hidden = json!({"visibility": "Cluster", "hosts": [custom]});
    env.apply("secret", lazy_spec(&hidden)).await?;
    env.condition("secret", "Ready", "True").await?;
    routed_to(&env, &env.host("front"), "/", "front").await?;
    let within = format!("secret.{}", env.namespace);
    let forged = [
        env.host("secret"),
        custom,
        within.clone(),
        format!("{within}.svc"),
        format!("{within}.svc.cluster.local"),
        format!("{}:80", env.host("secret")),
        env.host("SECRET"),
    ];
    for entry in env.entry_points().await? {
        let http_client = rouse_e2e::http_client::HttpClient::new(entry.address);
        for host in &forged {
            let response = http_client.get(host, "/").await?;
            assert_eq!(response.status, 404, "{host} by {}: {}", entry.name, response.text());
            assert_eq!(response.header("hello-pod"), None, "{host} by {}", entry.name);
        }
    }
    // No request woke it.
    assert!(env.pods("secret").await?.is_empty(), "a request from outside woke it");
    env.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_not_allowed_is_not_routed() -> Result<()> {
    let env = TestEnv::exclusive("allowed").await?;
    let (good, bad) = (own_host(&env, "good"), format!("bad.{}.example.net", env.namespace));
    let rules = json!([{"domains": ["*.example.org"], "namespaces": [env.namespace]}, {"domains": ["*.example.net"], "namespaces": ["platform-*"]}]);
    let upgrade = Upgrade::with(&env, json!({"hosts": {"allowed": rules}})).await?;
    env.apply("shop", lazy_spec(&json!({"hosts": [good, bad]}))).await?;
    let (reason, message) = env.condition("shop", "Routable", "False").await?;
    assert_eq!(reason, "HostNotAllowed");
    for part in [bad.as_str(), "rule 2", "*.example.net", "platform-*", "hosts.allowed"] {
        assert!(message.contains(part), "no {part} in: {message}");
    }
    routed_to(&env, &good, "/", "shop").await?;
    routed_to(&env, &env.host("shop"), "/", "shop").await?;
    for entry in env.entry_points().await? {
        let response = rouse_e2e::http_client::HttpClient::new(entry.address).get(&bad, "/").await?;
        assert_eq!(response.status, 404, "by {}", entry.name);
    }
    upgrade.undo(&env).await?;
    env.condition("shop", "Routable", "True").await?;
    routed_to(&env, &bad, "/", "shop").await?;
    env.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn another_host_template_changes_the_default_hosts() -> Result<()> {
    let env = TestEnv::exclusive("template").await?;
    env.ready("hello", lazy_spec(&json!({}))).await?;
    let old = env.host("hello");
    routed_to(&env, &old, "/", "hello").await?;
    let upgrade = Upgrade::with(&env, json!({"hostTemplate": "{name}-{namespace}.{domain}"})).await?;
    let new = format!("hello-{}.{}", env.namespace, env.domain);
    routed_to(&env, &new, "/", "hello").await?;
    until("the new URL in the status", TIMEOUT, || async {
        let url = env.functions().get("hello").await?.status.unwrap_or_default().url;
        Ok((url == Some(format!("http://{new}"))).then_some(()))
    })
    .await?;
    // A host that matches the template cannot be claimed.
    env.apply("thief", lazy_spec(&json!({"hosts": [new]}))).await?;
    assert_eq!(env.condition("thief", "Routable", "False").await?.0, "HostConflict");
    routed_to(&env, &new, "/", "hello").await?;
    upgrade.undo(&env).await?;
    routed_to(&env, &old, "/", "hello").await?;
    env.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_ingress_class_is_reported_and_traffic_continues() -> Result<()> {
    let env = TestEnv::exclusive("noclass").await?;
    env.ready("hello", lazy_spec(&json!({}))).await?;
    let upgrade = Upgrade::with(&env, json!({"ingress": {"className": "nobody"}})).await?;
    let (reason, message) = env.condition("hello", "Routable", "False").await?;
    assert_eq!(reason, "IngressClassMissing");
    assert!(message.contains("nobody") && message.contains("ingress.className"), "{message}");
    let direct = env.direct().await?;
    let response = rouse_e2e::http_client::HttpClient::new(direct.address).get(&env.host("hello"), "/").await?;
    assert_eq!(response.status, 200, "{}", response.text());
    upgrade.undo(&env).await?;
    env.condition("hello", "Routable", "True").await?;
    routed_to(&env, &env.host("hello"), "/", "hello").await?;
    env.finish().await
}
