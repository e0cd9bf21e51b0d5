//! Functions for tests, as the API server returns them.

use rouse_crds::{
    Function,
    hosts::{DEFAULT_TEMPLATE, HostTemplate},
};
use serde_json::{Value, json};

use crate::hosts::{Names, Scheme};

pub(crate) const UID: &str = "11111111-2222-3333-4444-555555555555";

/// A Function `hello` with this spec.
pub(crate) fn function(spec: Value) -> Function {
    let mut whole = json!({
        "apiVersion": "rouse.dev/v1alpha1", "kind": "Function",
        "metadata": {"name": "hello", "namespace": "default", "uid": UID, "generation": 1, "creationTimestamp": "2026-01-01T00:00:00Z"},
    });
    whole["spec"] = spec;
    serde_json::from_value(whole).unwrap()
}

/// The smallest Function.
pub(crate) fn hello() -> Function {
    function(json!({"image": "example.org/hello:1"}))
}

pub(crate) fn names() -> Names {
    Names {
        hosts: HostTemplate::new(DEFAULT_TEMPLATE, "example.com").unwrap(),
        scheme: Scheme::Http,
        cluster_domain: "cluster.local".into(),
        namespace: "rouse-system".into(),
        activator_service: "rouse-activator".into(),
    }
}
