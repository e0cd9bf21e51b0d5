//! Ingress mode `gateway`: the same Contour and Envoy, with HTTPRoutes instead of Ingresses.

use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use rouse_e2e::{
    addons::{CONTOUR_NAMESPACE, GATEWAY, INGRESS_CLASS, gateway_reference},
    workspace::{TIMEOUT, until},
};
use serde_json::{Value, json};

use crate::{
    grpc::{self, Server},
    https::{self, Certificates},
    release::Upgrade,
    test_env::{RELEASE, TestEnv},
};

fn values(gateway: &str) -> Value {
    json!({"ingress": {"mode": "gateway", "gateway": {"name": gateway, "namespace": CONTOUR_NAMESPACE, "sectionName": "http"}}})
}

/// Returns the names of the objects of a kind that Rouse manages in the namespace of the release.
async fn managed(env: &TestEnv, kind: &str) -> Result<Vec<String>> {
    let selector = "app.kubernetes.io/managed-by=rouse";
    let args =
        ["get", kind, "--namespace", RELEASE, "--selector", selector, "--output", "jsonpath={.items[*].metadata.name}"];
    let (succeeded, printed) = env.kubectl(&args).await?;
    ensure!(succeeded, "{printed}");
    Ok(printed.split_whitespace().map(str::to_owned).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn switching_between_ingress_and_gateway_interrupts_no_traffic() -> Result<()> {
    let env = TestEnv::exclusive("gateway").await?;
    let host = format!("shop.{}.example.org", env.namespace);
    env.ready("hello", json!({"hosts": [host]})).await?;
    ensure!(managed(&env, "ingresses").await?.contains(&format!("rouse-http1-{}", env.namespace)), "no Ingress exists");
    let upgrade = Upgrade::with(&env, values(GATEWAY)).await?;
    until("HTTPRoutes in place of the Ingress", TIMEOUT, || async {
        let (routes, ingresses) = (managed(&env, "httproutes").await?, managed(&env, "ingresses").await?);
        Ok((routes.contains(&"rouse-0".to_owned()) && ingresses.is_empty()).then_some(()))
    })
    .await?;
    env.routed("hello").await?;
    assert_eq!(env.condition("hello", "Routable", "True").await?.0, "Routed");
    for host in [&host, &env.host("hello")] {
        let response = env.http_client.get(host, "/").await?;
        assert_eq!(response.status, 200, "{host}: {}", response.text());
    }
    // The default timeout of Envoy is 15 s.
    let response = env.http_client.get(&host, "/?sleep=20s").await?;
    assert_eq!(response.status, 200, "{}", response.text());
    assert!(response.took >= Duration::from_secs(19), "the response was too early: {:?}", response.took);

    // Twenty more hosts need a second HTTPRoute.
    let hosts: Vec<_> = (0..20).map(|n| format!("h{n:02}.{}.example.org", env.namespace)).collect();
    env.apply("many", json!({"hosts": hosts, "scaling": {"initial": 0}})).await?;
    env.condition("many", "Routable", "True").await?;
    for host in [&hosts[0], &hosts[19]] {
        until(&format!("a route for {host}"), TIMEOUT, || async {
            Ok((env.http_client.get(host, "/").await?.status == 200).then_some(()))
        })
        .await?;
    }
    let routes = managed(&env, "httproutes").await?;
    ensure!(routes.len() >= 2, "{routes:?}");
    env.delete("many").await?;
    until("fewer HTTPRoutes", TIMEOUT, || async {
        Ok((managed(&env, "httproutes").await?.len() < routes.len()).then_some(()))
    })
    .await?;
    assert_eq!(env.http_client.get(&host, "/").await?.status, 200);

    upgrade.undo(&env).await?;
    until("the Ingress in place of HTTPRoutes", TIMEOUT, || async {
        let (routes, ingresses) = (managed(&env, "httproutes").await?, managed(&env, "ingresses").await?);
        Ok((routes.is_empty() && ingresses.contains(&format!("rouse-http1-{}", env.namespace))).then_some(()))
    })
    .await?;
    env.routed("hello").await?;
    env.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_gateway_is_reported_and_traffic_continues() -> Result<()> {
    let env = TestEnv::exclusive("nogateway").await?;
    env.ready("hello", json!({})).await?;
    let upgrade = Upgrade::with(&env, values("nobody")).await?;
    let (reason, message) = env.condition("hello", "Routable", "False").await?;
    assert_eq!(reason, "GatewayNotReady");
    assert!(
        message.contains(&format!("{CONTOUR_NAMESPACE}/nobody")) && message.contains("does not exist"),
        "{message}"
    );
    // The Ingress stays until the HTTPRoutes are accepted, and the activator keeps serving.
    env.get("hello", "/").await?;
    let direct = env.direct().await?;
    let response = rouse_e2e::http_client::HttpClient::new(direct.address).get(&env.host("hello"), "/").await?;
    assert_eq!(response.status, 200, "{}", response.text());
    let (_, events) =
        env.kubectl(&["get", "events", "--namespace", RELEASE, "--field-selector", "reason=GatewayNotReady"]).await?;
    ensure!(events.contains("rouse-operator"), "no Event of the operator:\n{events}");
    upgrade.undo(&env).await?;
    env.condition("hello", "Routable", "True").await?;
    env.routed("hello").await?;
    env.finish().await
}

/// Reconfigures Contour to serve another Gateway. It serves one, by name.
async fn contour_serves(env: &TestEnv, from: (&str, &str), to: (&str, &str)) -> Result<()> {
    let configs: Api<ConfigMap> = Api::namespaced(env.client.clone(), CONTOUR_NAMESPACE);
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
        let (succeeded, printed) =
            env.kubectl(&[&["rollout"], args, &["--namespace", CONTOUR_NAMESPACE]].concat()).await?;
        ensure!(succeeded, "{printed}");
    }
    Ok(())
}

/// Checks HTTP, HTTPS and gRPC through a Gateway that the chart created.
async fn check_chart_gateway(env: &TestEnv, certificate: &std::path::Path) -> Result<()> {
    let (reason, message) = env.condition("hello", "Routable", "True").await?;
    ensure!(reason == "Routed", "{reason}: {message}");
    let url = env.functions().get("hello").await?.status.unwrap_or_default().url;
    let host = env.host("hello");
    ensure!(url == Some(format!("https://{host}")), "{url:?}");
    env.routed("hello").await?;
    let response = env.get("hello", "/").await?;
    ensure!(response.status == 200, "{} {}", response.status, response.text());
    if let Some(node) = env.cluster.node {
        let head = https::serves_https((node, 443).into(), &host, certificate).await?;
        ensure!(head.contains("hello-pod: hello-0000"), "{head}");
    }
    let [ingress, _] = env.entry_points().await?;
    grpc::all_cases(env, &ingress).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_created_by_the_chart_serves_http_https_and_grpc() -> Result<()> {
    let env = TestEnv::exclusive("ownway").await?;
    let certificates = Certificates::new(&env)?;
    let certificate = certificates.issue("e2e-gateway", &[env.host("hello")]).await?;
    let (former, chart) = ((GATEWAY, CONTOUR_NAMESPACE), ("rouse", RELEASE));
    let values = json!({"ingress": {
        "mode": "gateway", "gateway": {"create": true, "className": INGRESS_CLASS}, "tls": {"secretName": "e2e-gateway"},
    }});
    env.apply("hello", json!({"scaling": {"initial": 0}})).await?;
    Server::apply(&env).await?;
    let upgrade = Upgrade::with(&env, values).await?;
    let result = async {
        contour_serves(&env, former, chart).await?;
        check_chart_gateway(&env, &certificate).await
    }
    .await;
    // Also after a failure: without its Gateway, Contour serves nothing, and later tests would fail too.
    contour_serves(&env, chart, former).await?;
    upgrade.undo(&env).await?;
    result?;
    until("deletion of the Gateway of the chart", TIMEOUT, || async {
        let (_, printed) = env.kubectl(&["get", "gateways", "--namespace", RELEASE, "--output", "name"]).await?;
        Ok(printed.trim().is_empty().then_some(()))
    })
    .await?;
    env.routed("hello").await?;
    certificates.revoke(&["e2e-gateway"]).await?;
    env.finish().await
}
