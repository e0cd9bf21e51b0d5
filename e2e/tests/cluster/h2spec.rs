//! HTTP/2 as its specification has it: h2spec, in a pod, against the activators' Service.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{LogParams, PostParams},
};
use rouse_e2e::world::{PATIENCE, until};
use serde_json::json;

use crate::scene::Scene;

/// Cases that a server cannot pass, as h2spec names them, each with the reason.
const CANNOT: [(&str, &str); 1] = [
    // The same port takes HTTP/1.1: what is no preface of HTTP/2 is a bad request of HTTP/1.1, gets its 400 and then the
    // connection is closed. h2spec wants it closed without a word.
    ("3.5. HTTP/2 Connection Preface", "2: Sends invalid connection preface"),
];

#[tokio::test(flavor = "multi_thread")]
async fn h2spec_finds_nothing() -> Result<()> {
    let scene = Scene::new("h2spec").await?;
    let image = scene.cluster.images.get("rouse-suites").context("the cluster has no image of the suites")?;
    for (name, protocol) in [("one", "http1"), ("two", "h2c")] {
        scene.ready(name, json!({"protocol": protocol, "scaling": {"min": 1}})).await?;
        let report = h2spec(&scene, image, name).await?;
        let failures = failures(&report);
        let expected: Vec<_> = CANNOT.map(|(section, case)| (section.to_owned(), case.to_owned())).into();
        ensure!(failures == expected, "{protocol}: h2spec found {failures:#?}\n{report}");
        // 145 cases are in this version; that none is left out.
        ensure!(report.contains("145 tests, 144 passed, 0 skipped, 1 failed"), "{protocol}:\n{report}");
    }
    scene.done().await
}

/// Runs it to its end and gives its report.
async fn h2spec(scene: &Scene, image: &str, function: &str) -> Result<String> {
    let host = format!("{function}.{}.svc.cluster.local", scene.namespace);
    // Some cases have their say after a request of which the end is still to come, so the answer must not come before.
    let command = ["/h2spec", "--host", &host, "--port", "80", "--path", "/?sleep_ms=50", "--timeout", "5"];
    let name = format!("h2spec-{function}");
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": false,
            "containers": [{"name": "h2spec", "image": image, "command": command}],
        },
    }))?;
    let pods: Api<Pod> = Api::namespaced(scene.client.clone(), &scene.namespace);
    pods.create(&PostParams::default(), &pod).await?;
    until("h2spec to come to its end", PATIENCE, || async {
        let phase = pods.get(&name).await?.status.and_then(|s| s.phase).unwrap_or_default();
        Ok(["Succeeded", "Failed"].contains(&phase.as_str()).then_some(()))
    })
    .await?;
    Ok(pods.logs(&name, &LogParams::default()).await?)
}

/// What stands below `Failures:`, as section and case.
fn failures(report: &str) -> Vec<(String, String)> {
    let mut section = String::new();
    let mut found = vec![];
    for line in report.split("Failures:").skip(1).flat_map(str::lines) {
        if let Some(case) = line.trim_start().strip_prefix("× ") {
            found.push((section.clone(), case.trim().to_owned()));
        } else if line.trim_start().starts_with(|c: char| c.is_ascii_digit()) {
            section = line.trim().to_owned();
        }
    }
    found
}
