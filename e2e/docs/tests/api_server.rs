//! Every object in the pages is accepted by an API server, bounds and rules included: a server-side dry run.
//!
//! `cargo e2e test --tier 2` starts the server and sets `ROUSE_TEST_KUBECONFIG`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client, Config,
    api::{ApiResource, DynamicObject, Patch, PatchParams, ValidationDirective},
    config::{KubeConfigOptions, Kubeconfig},
    core::GroupVersionKind,
    runtime::{conditions, wait::await_condition},
};
use rouse_docs::{
    checkout,
    examples::{Kind, examples},
};

const LIMIT: Duration = Duration::from_secs(60);

async fn client() -> Client {
    drop(rustls::crypto::ring::default_provider().install_default());
    let path = std::env::var("ROUSE_TEST_KUBECONFIG")
        .expect("ROUSE_TEST_KUBECONFIG is not set: this test needs an API server; run `cargo e2e test --tier 2`");
    let kubeconfig = Kubeconfig::read_from(path).unwrap();
    Client::try_from(Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap()).unwrap()
}

#[tokio::test]
async fn every_object_passes_a_dry_run() {
    let client = client().await;
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    let params = PatchParams::apply("rouse-test").force();
    crds.patch("functions.rouse.dev", &params, &Patch::Apply(&rouse_crds::function::crd())).await.unwrap();
    let established = await_condition(crds, "functions.rouse.dev", conditions::is_crd_established());
    tokio::time::timeout(LIMIT, established).await.expect("the CRD is not established").unwrap();

    let mut refused = vec![];
    let mut count = 0;
    for example in examples(&checkout()).unwrap().into_iter().filter(|e| e.kind != Kind::Values) {
        count += 1;
        let text = |name: &str| example.object[name].as_str().unwrap_or_default().to_owned();
        let (group, version) = match text("apiVersion").split_once('/') {
            Some((group, version)) => (group.to_owned(), version.to_owned()),
            None => (String::new(), text("apiVersion")),
        };
        let resource = ApiResource::from_gvk(&GroupVersionKind { group, version, kind: text("kind") });
        let namespace = example.object["metadata"]["namespace"].as_str().unwrap_or("default");
        let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
        let name = example.object["metadata"]["name"].as_str().unwrap_or_default();
        let params = PatchParams {
            dry_run: true,
            field_validation: Some(ValidationDirective::Strict),
            ..PatchParams::apply("rouse-docs")
        };
        if let Err(error) = api.patch(name, &params, &Patch::Apply(&example.object)).await {
            refused.push(format!("{}: {error}", example.at));
        }
    }
    assert!(count > 10, "only {count} objects were found");
    assert!(refused.is_empty(), "{}", refused.join("\n"));
}
