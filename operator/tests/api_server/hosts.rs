//! Hosts of several namespaces and Functions in Ingresses: what the API server rejects concerns nobody else.

use k8s_openapi::api::{
    admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding},
    networking::v1::Ingress,
};
use kube::{
    Api,
    api::{DeleteParams, PostParams},
};
use rouse_operator::ingress::http1_name;
use serde_json::json;

use crate::rig::{Rig, condition, eventually, message, wait_for};

/// A policy of the platform: no Ingress has a host that ends with `refused.example`.
async fn refuse(rig: &Rig, name: &str) {
    let policy: ValidatingAdmissionPolicy = serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {"resourceRules": [{
                "apiGroups": ["networking.k8s.io"], "apiVersions": ["v1"],
                "operations": ["CREATE", "UPDATE"], "resources": ["ingresses"],
            }]},
            "validations": [{
                "expression": "object.spec.rules.all(r, !r.host.endsWith('refused.example'))",
                "message": "this host is not for Ingresses",
            }],
        },
    }))
    .unwrap();
    let binding: ValidatingAdmissionPolicyBinding = serde_json::from_value(json!({
        "metadata": {"name": name}, "spec": {"policyName": name, "validationActions": ["Deny"]},
    }))
    .unwrap();
    Api::all(rig.client.clone()).create(&PostParams::default(), &policy).await.unwrap();
    Api::all(rig.client.clone()).create(&PostParams::default(), &binding).await.unwrap();
    // The API server compiles a policy in the background.
    let probe: Ingress = serde_json::from_value(json!({
        "metadata": {"name": "probe"},
        "spec": {"rules": [{"host": "probe.refused.example", "http": {"paths": [{
            "path": "/", "pathType": "Prefix", "backend": {"service": {"name": "s", "port": {"number": 80}}},
        }]}}]},
    }))
    .unwrap();
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    eventually("the policy is enforced", async || rig.ingresses().create(&dry_run, &probe).await.is_err()).await;
}

async fn allow(rig: &Rig, name: &str) {
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(rig.client.clone());
    bindings.delete(name, &DeleteParams::default()).await.unwrap();
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(rig.client.clone());
    policies.delete(name, &DeleteParams::default()).await.unwrap();
}

fn hosts(ingress: &Ingress) -> Vec<String> {
    let rules = ingress.spec.iter().flat_map(|spec| spec.rules.iter().flatten());
    rules.filter_map(|rule| rule.host.clone()).collect()
}

#[tokio::test]
async fn a_host_that_is_rejected_concerns_its_function_only() {
    let rig = Rig::new("refused").await;
    refuse(&rig, &rig.namespace).await;
    let operator = rig.operator().await;
    rig.apply("bad", &json!({"image": "i", "hosts": ["a.refused.example"], "scaling": {"initial": 0}})).await;
    rig.apply("good", &json!({"image": "i", "hosts": ["good.example.org"], "scaling": {"initial": 0}})).await;
    rig.apply("plain", &json!({"image": "i", "scaling": {"initial": 0}})).await;
    let bad = rig.function("bad", "is not routable", |f| condition(f, "Routable").1 == "IngressRejected").await;
    assert!(message(&bad, "Routable").contains("this host is not for Ingresses"), "{}", message(&bad, "Routable"));
    assert_eq!(condition(&bad, "Routable").0, "False");
    for name in ["good", "plain"] {
        rig.function(name, "is routable", |f| condition(f, "Routable").0 == "True").await;
    }
    let has_hosts = |ingress: &Ingress| hosts(ingress).contains(&"good.example.org".to_owned());
    let ingress = wait_for(&rig.ingresses(), &http1_name(&rig.namespace), "has the other hosts", has_hosts).await;
    let mut expected = vec![format!("*.{}.fn.test", rig.namespace), "good.example.org".to_owned()];
    expected.sort();
    assert_eq!(hosts(&ingress), expected);
    eventually("the metric counts it", async || operator.metric("rouse_operator_ingress_rejected_functions") == 1.0)
        .await;

    // The host is dropped from the Function.
    rig.apply("bad", &json!({"image": "i", "hosts": ["b.example.org"], "scaling": {"initial": 0}})).await;
    rig.function("bad", "is routable", |f| condition(f, "Routable").0 == "True").await;
    eventually("the metric is 0", async || operator.metric("rouse_operator_ingress_rejected_functions") == 0.0).await;
    allow(&rig, &rig.namespace).await;
    rig.end(Some(operator)).await;
}
