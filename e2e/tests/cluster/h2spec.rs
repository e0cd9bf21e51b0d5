//! HTTP/2 conformance: h2spec, in a pod, against the activators' Service.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{LogParams, PostParams},
};
use rouse_e2e::workspace::{TIMEOUT, until};
use serde_json::json;

use crate::test_env::TestEnv;

/// Cases that are expected to fail, with section and name in h2spec.
const EXPECTED_FAILURES: [(&str, &str); 1] = [
    // The port also accepts HTTP/1.1: an invalid HTTP/2 preface is an invalid HTTP/1.1 request and gets a 400. h2spec
    // expects a close without a response.
    ("3.5. HTTP/2 Connection Preface", "2: Sends invalid connection preface"),
];

#[tokio::test(flavor = "multi_thread")]
async fn h2spec_passes() -> Result<()> {
    let env = TestEnv::new("h2spec").await?;
    let image = env.cluster.images.get("rouse-suites").context("the cluster has no image of the suites")?;
    for (name, protocol) in [("one", "http1"), ("two", "h2c")] {
        env.ready(name, json!({"protocol": protocol, "scaling": {"min": 1}})).await?;
        let report = h2spec(&env, image, name).await?;
        let failures = failures(&report);
        let expected: Vec<_> = EXPECTED_FAILURES.map(|(section, case)| (section.to_owned(), case.to_owned())).into();
        ensure!(failures == expected, "{protocol}: h2spec found {failures:#?}\n{report}");
        // This version has 145 cases; none is skipped.
        ensure!(report.contains("145 tests, 144 passed, 0 skipped, 1 failed"), "{protocol}:\n{report}");
    }
    env.finish().await
}

/// Runs h2spec and returns its report.
async fn h2spec(env: &TestEnv, image: &str, function: &str) -> Result<String> {
    let host = format!("{function}.{}.svc.cluster.local", env.namespace);
    // Some cases send frames after an unfinished request, so the response must be delayed.
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
    let pods: Api<Pod> = Api::namespaced(env.client.clone(), &env.namespace);
    pods.create(&PostParams::default(), &pod).await?;
    until("the end of h2spec", TIMEOUT, || async {
        let phase = pods.get(&name).await?.status.and_then(|s| s.phase).unwrap_or_default();
        Ok(["Succeeded", "Failed"].contains(&phase.as_str()).then_some(()))
    })
    .await?;
    Ok(pods.logs(&name, &LogParams::default()).await?)
}

/// Parses the list below `Failures:` into section and case.
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
