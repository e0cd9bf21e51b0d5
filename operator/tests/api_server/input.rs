//! Validation of Functions by the API server and the operator.

use serde_json::{Value, json};

use crate::rig::Rig;

#[tokio::test]
async fn invalid_input_is_rejected_with_the_field_and_the_fix() {
    let rig = Rig::new("input").await;
    let with = |field: &str, value: Value| {
        let mut spec = json!({"image": "i"});
        spec[field] = value;
        spec
    };
    let container = |fields: Value| json!({"spec": {"containers": [fields]}});
    let long = "x".repeat(46);
    let cases: Vec<(&str, &str, Value, &[&str])> = vec![
        (
            "1digit",
            "a name that starts with a digit",
            with("image", json!("i")),
            &["metadata.name", "starts with a letter"],
        ),
        ("dotted.name", "a name with a dot", with("image", json!("i")), &["metadata.name", "DNS label"]),
        (&long, "a long name", with("image", json!("i")), &["metadata.name", "at most 45"]),
        (
            "f",
            "a negative count",
            with("scaling", json!({"min": -1})),
            &["spec.scaling.min", "greater than or equal to 0"],
        ),
        (
            "f",
            "min above max",
            with("scaling", json!({"min": 5, "max": 2})),
            &["spec.scaling.min must not be more than spec.scaling.max"],
        ),
        (
            "f",
            "a duration without a known unit",
            with("timeouts", json!({"coldStart": "10x"})),
            &["spec.timeouts.coldStart", "must be a duration such as 30s"],
        ),
        ("f", "an unknown field", with("imgae", json!("i")), &["imgae", "not declared in schema"]),
        (
            "f",
            "percents that do not add up",
            with("traffic", json!([{"latest": true, "percent": 90}])),
            &["the percents of spec.traffic must add up to 100"],
        ),
        ("f", "a port out of range", with("port", json!(70000)), &["spec.port", "less than or equal to 65535"]),
        (
            "f",
            "PORT as a variable",
            with("env", json!([{"name": "PORT", "value": "1"}])),
            &["PORT is set from spec.port", "remove it"],
        ),
        ("f", "no image", json!({}), &["spec.image", "Required value"]),
    ];
    for (name, what, spec, words) in cases {
        let error = rig.try_apply(name, &spec).await.expect_err(what).to_string();
        for word in words {
            assert!(error.contains(word), "{what}: `{word}` is not in: {error}");
        }
    }
    // The schema cannot detect a second port, so the operator reports it.
    let operator = rig.operator().await;
    let ports = container(json!({"name": "function", "ports": [{"containerPort": 8080}]}));
    rig.apply("ports", &with("podTemplate", ports)).await;
    let invalid = rig.function("ports", "is invalid", |f| crate::rig::condition(f, "Ready").1 == "Invalid").await;
    let message = crate::rig::message(&invalid, "Ready");
    assert!(message.contains("containers[function].ports") && message.contains("set spec.port instead"), "{message}");
    rig.end(Some(operator)).await;
}

/// Helm, Flux and Argo CD send nulls with server-side apply. `kubectl apply` drops them.
#[tokio::test]
async fn null_means_that_an_optional_field_is_not_set() {
    let rig = Rig::new("nulls").await;
    let spec = json!({
        "image": "i", "command": null, "env": null, "resources": {"limits": null}, "port": null, "protocol": null,
        "podTemplate": null, "visibility": null, "hosts": null, "traffic": null, "mirror": null, "routes": null,
        "scaling": {"metric": null, "prewarm": null, "min": null, "schedules": null},
        "rollout": {"steps": null, "onConfigChange": null, "abortOn": null, "affinity": null},
        "timeouts": {"coldStart": null}, "queue": {"maxBytes": null}, "readiness": {"path": null},
    });
    rig.apply("hello", &spec).await;
    let operator = rig.operator().await;
    rig.function("hello", "has a first status", |f| f.status.is_some()).await;
    let error =
        rig.try_apply("other", &json!({"image": "i", "visibility": "Secret"})).await.expect_err("a typo").to_string();
    assert!(error.contains("spec.visibility") && error.contains("must be one of Public, Cluster"), "{error}");
    // Rules see a null as a field that is not set.
    let traffic = json!([{"latest": true, "revision": null, "percent": 100, "tag": null}]);
    rig.apply("split", &json!({"image": "i", "traffic": traffic})).await;
    rig.function("split", "has a first status", |f| f.status.is_some()).await;
    rig.end(Some(operator)).await;
}
