//! The way in by the Gateway API: the same Contour and Envoy, HTTPRoutes in place of Ingresses.

use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use rouse_e2e::{
    addons::{CONTOUR_NAMESPACE, GATEWAY, INGRESS_CLASS, gateway_reference},
    world::{PATIENCE, until},
};
use serde_json::{Value, json};

use crate::{
    grpc::{self, Server},
    https::{self, Certificates},
    release::Upgrade,
    scene::{RELEASE, Scene},
};

fn values(gateway: &str) -> Value {
    json!({"ingress": {"mode": "gateway", "gateway": {"name": gateway, "namespace": CONTOUR_NAMESPACE, "sectionName": "http"}}})
}

/// Names of the objects of a kind in the namespace of the release that Rouse keeps.
async fn kept(scene: &Scene, kind: &str) -> Result<Vec<String>> {
    let selector = "app.kubernetes.io/managed-by=rouse";
    let args =
        ["get", kind, "--namespace", RELEASE, "--selector", selector, "--output", "jsonpath={.items[*].metadata.name}"];
    let (good, said) = scene.kubectl(&args).await?;
    ensure!(good, "{said}");
    Ok(said.split_whitespace().map(str::to_owned).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_answer_through_a_gateway_and_the_way_changes_without_a_gap() -> Result<()> {
    let scene = Scene::alone("gateway").await?;
    let host = format!("shop.{}.example.org", scene.namespace);
    scene.ready("hello", json!({"hosts": [host]})).await?;
    ensure!(kept(&scene, "ingresses").await?.contains(&"rouse".to_owned()), "there was no Ingress");
    let upgrade = Upgrade::with(&scene, values(GATEWAY)).await?;
    until("HTTPRoutes in place of the Ingress", PATIENCE, || async {
        let (routes, ingresses) = (kept(&scene, "httproutes").await?, kept(&scene, "ingresses").await?);
        Ok((routes.contains(&"rouse-0".to_owned()) && ingresses.is_empty()).then_some(()))
    })
    .await?;
    scene.routed("hello").await?;
    assert_eq!(scene.condition("hello", "Routable", "True").await?.0, "Routed");
    for host in [&host, &scene.host("hello")] {
        let answer = scene.caller.get(host, "/").await?;
        assert_eq!(answer.status, 200, "{host}: {}", answer.text());
    }
    // Envoy's own limit would be 15 s.
    let answer = scene.caller.get(&host, "/?sleep=20s").await?;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(answer.took >= Duration::from_secs(19), "it did not take as long as it was asked to: {:?}", answer.took);

    // Twenty hosts more are two routes, one of which was there; one host less is one write.
    let hosts: Vec<_> = (0..20).map(|n| format!("h{n:02}.{}.example.org", scene.namespace)).collect();
    scene.apply("many", json!({"hosts": hosts, "scaling": {"initial": 0}})).await?;
    scene.condition("many", "Routable", "True").await?;
    for host in [&hosts[0], &hosts[19]] {
        until(&format!("{host} to lead"), PATIENCE, || async {
            Ok((scene.caller.get(host, "/").await?.status == 200).then_some(()))
        })
        .await?;
    }
    let routes = kept(&scene, "httproutes").await?;
    ensure!(routes.len() >= 2, "{routes:?}");
    scene.delete("many").await?;
    until("fewer HTTPRoutes", PATIENCE, || async {
        Ok((kept(&scene, "httproutes").await?.len() < routes.len()).then_some(()))
    })
    .await?;
    assert_eq!(scene.caller.get(&host, "/").await?.status, 200);

    upgrade.undo(&scene).await?;
    until("the Ingress in place of HTTPRoutes", PATIENCE, || async {
        let (routes, ingresses) = (kept(&scene, "httproutes").await?, kept(&scene, "ingresses").await?);
        Ok((routes.is_empty() && ingresses.contains(&"rouse".to_owned())).then_some(()))
    })
    .await?;
    scene.routed("hello").await?;
    scene.done().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_not_there_is_said_and_the_cluster_goes_on() -> Result<()> {
    let scene = Scene::alone("nogateway").await?;
    scene.ready("hello", json!({})).await?;
    let upgrade = Upgrade::with(&scene, values("nobody")).await?;
    let (reason, message) = scene.condition("hello", "Routable", "False").await?;
    assert_eq!(reason, "GatewayNotReady");
    assert!(
        message.contains(&format!("{CONTOUR_NAMESPACE}/nobody")) && message.contains("does not exist"),
        "{message}"
    );
    // The way that there was is left alone as long as the new one leads nowhere, and inside nothing has changed.
    scene.get("hello", "/").await?;
    let direct = scene.direct().await?;
    let answer = rouse_e2e::caller::Caller::new(direct.address).get(&scene.host("hello"), "/").await?;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let (_, events) =
        scene.kubectl(&["get", "events", "--namespace", RELEASE, "--field-selector", "reason=GatewayNotReady"]).await?;
    ensure!(events.contains("rouse-operator"), "no Event of the operator:\n{events}");
    upgrade.undo(&scene).await?;
    scene.condition("hello", "Routable", "True").await?;
    scene.routed("hello").await?;
    scene.done().await
}

/// Lets Contour serve another Gateway: it knows one, by name.
async fn contour_serves(scene: &Scene, from: (&str, &str), to: (&str, &str)) -> Result<()> {
    let configs: Api<ConfigMap> = Api::namespaced(scene.client.clone(), CONTOUR_NAMESPACE);
    let mut data = configs.get("contour").await?.data.unwrap_or_default();
    let config = data.get("contour.yaml").cloned().unwrap_or_default();
    let changed = config.replace(&gateway_reference(from.0, from.1), &gateway_reference(to.0, to.1));
    ensure!(
        changed.contains(&gateway_reference(to.0, to.1)),
        "Contour's configuration names another Gateway:\n{config}"
    );
    data.insert("contour.yaml".to_owned(), changed);
    configs.patch("contour", &PatchParams::default(), &Patch::Merge(json!({"data": data}))).await?;
    for args in [&["restart", "deployment/contour"][..], &["status", "deployment/contour", "--timeout=120s"]] {
        let (good, said) = scene.kubectl(&[&["rollout"], args, &["--namespace", CONTOUR_NAMESPACE]].concat()).await?;
        ensure!(good, "{said}");
    }
    Ok(())
}

/// What there is to see through a Gateway that the chart has made.
async fn seen_through_the_charts_gateway(scene: &Scene, certificate: &std::path::Path) -> Result<()> {
    let (reason, message) = scene.condition("hello", "Routable", "True").await?;
    ensure!(reason == "Routed", "{reason}: {message}");
    let url = scene.functions().get("hello").await?.status.unwrap_or_default().url;
    let host = scene.host("hello");
    ensure!(url == Some(format!("https://{host}")), "{url:?}");
    scene.routed("hello").await?;
    let answer = scene.get("hello", "/").await?;
    ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
    if let Some(node) = scene.cluster.node {
        let head = https::answers((node, 443).into(), &host, certificate).await?;
        ensure!(head.contains("hello-pod: hello-0000"), "{head}");
    }
    let [ingress, _] = scene.ways().await?;
    grpc::all_cases(scene, &ingress).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_the_chart_makes_serves_http_https_and_grpc() -> Result<()> {
    let scene = Scene::alone("ownway").await?;
    let certificates = Certificates::new(&scene)?;
    let certificate = certificates.issue("e2e-gateway", &[scene.host("hello")]).await?;
    let (theirs, ours) = ((GATEWAY, CONTOUR_NAMESPACE), ("rouse", RELEASE));
    let values = json!({"ingress": {
        "mode": "gateway", "gateway": {"create": true, "className": INGRESS_CLASS}, "tls": {"secretName": "e2e-gateway"},
    }});
    scene.apply("hello", json!({"scaling": {"initial": 0}})).await?;
    Server::apply(&scene).await?;
    let upgrade = Upgrade::with(&scene, values).await?;
    let seen = async {
        contour_serves(&scene, theirs, ours).await?;
        seen_through_the_charts_gateway(&scene, &certificate).await
    }
    .await;
    // Whatever was seen: without its Gateway Contour serves nobody, and everything after this would fail too.
    contour_serves(&scene, ours, theirs).await?;
    upgrade.undo(&scene).await?;
    seen?;
    until("the chart's Gateway to be gone", PATIENCE, || async {
        let (_, said) = scene.kubectl(&["get", "gateways", "--namespace", RELEASE, "--output", "name"]).await?;
        Ok(said.trim().is_empty().then_some(()))
    })
    .await?;
    scene.routed("hello").await?;
    certificates.revoke(&["e2e-gateway"]).await?;
    scene.done().await
}
