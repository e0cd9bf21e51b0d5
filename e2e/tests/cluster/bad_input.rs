//! Output of `kubectl apply` for invalid Functions.

use anyhow::Result;

use crate::test_env::TestEnv;

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_function_is_rejected_with_field_and_fix() -> Result<()> {
    let env = TestEnv::new("bad").await?;
    let cases: [(&str, &str, &str, &[&str]); 13] = [
        ("a name that is no label", "9lives", "{image: x}", &["metadata.name", "starts with a letter"]),
        (
            "a negative count",
            "a",
            "{image: x, scaling: {min: -1}}",
            &["spec.scaling.min", "greater than or equal to 0"],
        ),
        (
            "min above max",
            "a",
            "{image: x, scaling: {min: 5, max: 2}}",
            &["spec.scaling.min must not be more than spec.scaling.max"],
        ),
        ("no duration", "a", "{image: x, scaling: {idleTimeout: 10x}}", &["spec.scaling.idleTimeout", "such as 30s"]),
        (
            "a duration out of bounds",
            "a",
            "{image: x, timeouts: {coldStart: 2h}}",
            &["spec.timeouts.coldStart must be between 1s and 1h"],
        ),
        ("an unknown field", "a", "{image: x, scalling: {}}", &["unknown field", "spec.scalling"]),
        (
            "percents that miss 100",
            "a",
            "{image: x, traffic: [{latest: true, percent: 50}]}",
            &["spec.traffic", "add up to 100"],
        ),
        ("two ports", "a", "{image: x, port: [80, 81]}", &["spec.port", "must be of type integer"]),
        ("two ports in another way", "a", "{image: x, ports: [80, 81]}", &["unknown field", "spec.ports"]),
        ("PORT twice", "a", "{image: x, env: [{name: PORT, value: '1'}]}", &["PORT is set from spec.port"]),
        ("a host that is none", "a", "{image: x, hosts: ['http://x']}", &["spec.hosts", "lower-case DNS name"]),
        ("an address for a host", "a", "{image: x, hosts: [10.0.0.1]}", &["spec.hosts", "no IP address"]),
        ("no image", "a", "{}", &["spec.image", "Required"]),
    ];
    for (what, name, spec, expected) in cases {
        let (accepted, printed) = env.kubectl_apply(name, spec).await?;
        assert!(!accepted, "{what} was accepted: {printed}");
        for part in expected {
            assert!(printed.contains(part), "{what}: no `{part}` in: {printed}");
        }
    }
    env.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_pod_template_affects_only_its_function() -> Result<()> {
    let env = TestEnv::new("template").await?;
    env.apply("bad", serde_json::json!({"podTemplate": {"spec": {"containers": "none"}}})).await?;
    let (reason, message) = env.condition("bad", "Ready", "False").await?;
    assert_eq!(reason, "Invalid");
    assert!(message.contains("podTemplate"), "{message}");
    env.ready("good", serde_json::json!({})).await?;
    env.finish().await
}
