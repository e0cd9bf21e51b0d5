//! Whose a host is, and what leads to whom: conflicts, paths, rules of the platform, templates, and hosts that nobody outside may use.

use anyhow::Result;
use kube::api::DeleteParams;
use rouse_e2e::world::{PATIENCE, World, until};
use serde_json::{Value, json};

use crate::{release::Upgrade, scene::Scene};

/// A host that no other test and no other run has.
pub(crate) fn own_host(scene: &Scene, name: &str) -> String {
    format!("{name}.{}.example.org", scene.namespace)
}

/// Waits until `GET path` of a host through the ingress is answered by a pod of the function `name`.
pub(crate) async fn leads(world: &World, host: &str, path: &str, name: &str) -> Result<()> {
    until(&format!("{host}{path} to lead to {name}"), PATIENCE, || async {
        let answer = world.caller.get(host, path).await.ok();
        Ok(answer.filter(|answer| is_from(answer.header("hello-pod"), name)).map(|_| ()))
    })
    .await
}

/// Whether a pod is one of a revision of the function.
fn is_from(pod: Option<&str>, name: &str) -> bool {
    pod.and_then(|pod| pod.strip_prefix(name)).is_some_and(|rest| rest.starts_with("-0000"))
}

/// A spec of which nothing is started before it is called.
pub(crate) fn asleep(more: &Value) -> Value {
    let mut spec = json!({"scaling": {"initial": 0}});
    if let (Some(spec), Some(more)) = (spec.as_object_mut(), more.as_object()) {
        spec.extend(more.clone());
    }
    spec
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_of_another_namespace_is_lost_by_any_path_and_got_when_it_is_free() -> Result<()> {
    let scene = Scene::new("owner").await?;
    let other = World::new(&scene.cluster, &format!("{}-other", scene.namespace)).await?;
    let host = own_host(&scene, "shop");
    scene.ready("old", asleep(&json!({"hosts": [host]}))).await?;
    leads(&scene, &host, "/", "old").await?;
    other.apply("thief", asleep(&json!({"routes": [{"host": host, "path": "/login"}]}))).await?;
    let (reason, message) = other.condition("thief", "Routable", "False").await?;
    assert_eq!(reason, "HostConflict");
    assert!(message.contains(&host) && message.contains(&format!("{}/old", scene.namespace)), "{message}");
    assert_eq!(other.condition("thief", "Ready", "False").await?.0, "HostConflict");
    leads(&scene, &host, "/login", "old").await?;
    // Its default host is its own all the same.
    leads(&other, &other.host("thief"), "/", "thief").await?;

    scene.functions().delete("old", &DeleteParams::default()).await?;
    other.condition("thief", "Routable", "True").await?;
    leads(&other, &host, "/login", "thief").await?;
    until("the rest of the host to lead nowhere", PATIENCE, || async {
        Ok((other.caller.get(&host, "/").await?.status == 404).then_some(()))
    })
    .await?;
    other.leave().await?;
    scene.done().await
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_of_one_namespace_share_a_host_by_paths() -> Result<()> {
    let scene = Scene::new("paths").await?;
    let host = own_host(&scene, "shop");
    scene.ready("web", asleep(&json!({"hosts": [host]}))).await?;
    let route = json!({"routes": [{"host": host, "path": "/api"}]});
    scene.ready("api", asleep(&route)).await?;
    for (path, name) in [("/", "web"), ("/api", "api"), ("/api/x", "api"), ("/apix", "web")] {
        leads(&scene, &host, path, name).await?;
    }
    // The same path once more is lost, and the message says which.
    scene.apply("late", asleep(&route)).await?;
    let (reason, message) = scene.condition("late", "Routable", "False").await?;
    assert_eq!(reason, "HostConflict");
    assert!(message.contains("/api") && message.contains(&format!("{}/api", scene.namespace)), "{message}");
    leads(&scene, &host, "/api", "api").await?;
    scene.done().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_default_host_cannot_be_claimed() -> Result<()> {
    let scene = Scene::new("default").await?;
    let host = scene.host("victim");
    scene.apply("thief", asleep(&json!({"hosts": [host]}))).await?;
    let (reason, message) = scene.condition("thief", "Routable", "False").await?;
    assert_eq!(reason, "HostConflict");
    assert!(message.contains(&format!("{}/victim", scene.namespace)), "{message}");
    scene.routed("thief").await?;
    assert_eq!(scene.caller.get(&host, "/").await?.status, 404, "it was claimed before its Function is there");
    scene.ready("victim", asleep(&json!({}))).await?;
    leads(&scene, &host, "/", "victim").await?;
    scene.done().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_function_is_not_there_from_outside_whatever_the_host_header_says() -> Result<()> {
    let scene = Scene::new("inside").await?;
    let custom = own_host(&scene, "secret");
    scene.ready("front", asleep(&json!({"hosts": [own_host(&scene, "front")]}))).await?;
    let hidden = json!({"visibility": "Cluster", "hosts": [custom]});
    scene.apply("secret", asleep(&hidden)).await?;
    scene.condition("secret", "Ready", "True").await?;
    leads(&scene, &scene.host("front"), "/", "front").await?;
    let within = format!("secret.{}", scene.namespace);
    let forged = [
        scene.host("secret"),
        custom,
        within.clone(),
        format!("{within}.svc"),
        format!("{within}.svc.cluster.local"),
        format!("{}:80", scene.host("secret")),
        scene.host("SECRET"),
    ];
    for way in scene.ways().await? {
        let caller = rouse_e2e::caller::Caller::new(way.address);
        for host in &forged {
            let answer = caller.get(host, "/").await?;
            assert_eq!(answer.status, 404, "{host} by {}: {}", way.name, answer.text());
            assert_eq!(answer.header("hello-pod"), None, "{host} by {}", way.name);
        }
    }
    // Nobody woke it, either.
    assert!(scene.pods("secret").await?.is_empty(), "a call from outside has started it");
    scene.done().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_platform_does_not_allow_leads_nowhere() -> Result<()> {
    let scene = Scene::alone("allowed").await?;
    let (good, bad) = (own_host(&scene, "good"), format!("bad.{}.example.net", scene.namespace));
    let rules = json!([{"domains": ["*.example.org"], "namespaces": [scene.namespace]}, {"domains": ["*.example.net"], "namespaces": ["platform-*"]}]);
    let upgrade = Upgrade::with(&scene, json!({"hosts": {"allowed": rules}})).await?;
    scene.apply("shop", asleep(&json!({"hosts": [good, bad]}))).await?;
    let (reason, message) = scene.condition("shop", "Routable", "False").await?;
    assert_eq!(reason, "HostNotAllowed");
    for part in [bad.as_str(), "rule 2", "*.example.net", "platform-*", "hosts.allowed"] {
        assert!(message.contains(part), "no {part} in: {message}");
    }
    leads(&scene, &good, "/", "shop").await?;
    leads(&scene, &scene.host("shop"), "/", "shop").await?;
    for way in scene.ways().await? {
        let answer = rouse_e2e::caller::Caller::new(way.address).get(&bad, "/").await?;
        assert_eq!(answer.status, 404, "by {}", way.name);
    }
    upgrade.undo(&scene).await?;
    scene.condition("shop", "Routable", "True").await?;
    leads(&scene, &bad, "/", "shop").await?;
    scene.done().await
}

#[tokio::test(flavor = "multi_thread")]
async fn another_template_makes_other_hosts() -> Result<()> {
    let scene = Scene::alone("template").await?;
    scene.ready("hello", asleep(&json!({}))).await?;
    let old = scene.host("hello");
    leads(&scene, &old, "/", "hello").await?;
    let upgrade = Upgrade::with(&scene, json!({"hostTemplate": "{name}-{namespace}.{domain}"})).await?;
    let new = format!("hello-{}.{}", scene.namespace, scene.domain);
    leads(&scene, &new, "/", "hello").await?;
    until("the status to say so", PATIENCE, || async {
        let url = scene.functions().get("hello").await?.status.unwrap_or_default().url;
        Ok((url == Some(format!("http://{new}"))).then_some(()))
    })
    .await?;
    // What has the form of a default host is nobody's to claim.
    scene.apply("thief", asleep(&json!({"hosts": [new]}))).await?;
    assert_eq!(scene.condition("thief", "Routable", "False").await?.0, "HostConflict");
    leads(&scene, &new, "/", "hello").await?;
    upgrade.undo(&scene).await?;
    leads(&scene, &old, "/", "hello").await?;
    scene.done().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ingress_class_that_is_not_there_is_said_and_the_cluster_goes_on() -> Result<()> {
    let scene = Scene::alone("noclass").await?;
    scene.ready("hello", asleep(&json!({}))).await?;
    let upgrade = Upgrade::with(&scene, json!({"ingress": {"className": "nobody"}})).await?;
    let (reason, message) = scene.condition("hello", "Routable", "False").await?;
    assert_eq!(reason, "IngressClassMissing");
    assert!(message.contains("nobody") && message.contains("ingress.className"), "{message}");
    let direct = scene.direct().await?;
    let answer = rouse_e2e::caller::Caller::new(direct.address).get(&scene.host("hello"), "/").await?;
    assert_eq!(answer.status, 200, "{}", answer.text());
    upgrade.undo(&scene).await?;
    scene.condition("hello", "Routable", "True").await?;
    leads(&scene, &scene.host("hello"), "/", "hello").await?;
    scene.done().await
}
