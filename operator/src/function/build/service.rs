//! Service of a Function for clients inside the cluster: an alias of the activators' Service.

use k8s_openapi::{
    api::core::v1::{Service, ServicePort, ServiceSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};
use serde_json::Value;

use super::{labels, labels_missing, metadata};
use crate::{
    cluster::{
        children::{CompactJson, ServiceObject},
        drift,
    },
    function::validate::ValidatedFunction,
    hosts::Names,
};

/// Change to the Service.
#[derive(Debug)]
pub enum Plan {
    /// None.
    Keep,
    /// Create the missing Service.
    Create(Box<Service>),
    /// Repair a Service that was modified externally.
    Repair {
        /// The Service as it should be.
        service: Box<Service>,
        /// Path of the first difference.
        field: String,
        /// Live spec.
        seen: CompactJson,
    },
}

/// Compares the live Service with the wanted one.
pub fn plan(function: &ValidatedFunction<'_>, live: Option<&ServiceObject>, names: &Names) -> Plan {
    let wanted = Box::new(build(function, names));
    let Some(live) = live else { return Plan::Create(wanted) };
    // Structs of strings and numbers always serialize to JSON.
    let spec = serde_json::to_value(&wanted.spec).unwrap_or(Value::Null);
    let field = drift::missing(&spec, &live.spec.value()).map(|path| format!("spec{path}"));
    let labels = || labels_missing(&wanted.metadata, live).then(|| "metadata.labels".to_owned());
    match field.or_else(labels) {
        Some(field) => Plan::Repair { service: wanted, field, seen: live.spec.clone() },
        None => Plan::Keep,
    }
}

/// Builds an ExternalName Service for the activators' Service. It needs no cluster IP and no kube-proxy rules, and does
/// not change with the set of activators.
fn build(function: &ValidatedFunction<'_>, names: &Names) -> Service {
    let Names { hosts: _, scheme: _, cluster_domain, namespace, activator_service } = names;
    let port = ServicePort {
        name: Some("http".to_owned()),
        port: 80,
        target_port: Some(IntOrString::Int(80)),
        protocol: Some("TCP".to_owned()),
        ..ServicePort::default()
    };
    Service {
        metadata: metadata(function, &function.key.name, labels(function)),
        spec: Some(ServiceSpec {
            type_: Some("ExternalName".to_owned()),
            external_name: Some(format!("{activator_service}.{namespace}.svc.{cluster_domain}")),
            ports: Some(vec![port]),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}
