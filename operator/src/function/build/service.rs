//! The Service by which pods of the cluster call a function: another name of the activators' Service.

use k8s_openapi::{
    api::core::v1::{Service, ServicePort, ServiceSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};
use serde_json::Value;

use super::{labels, labels_missing, metadata};
use crate::{
    cluster::{children::ServiceObject, drift},
    function::validate::ValidatedFunction,
    hosts::Names,
};

/// What is to be done about the Service.
#[derive(Debug)]
pub enum Plan {
    /// It is as it should be.
    Keep,
    /// There is none.
    Create(Box<Service>),
    /// Somebody has changed it.
    Repair(Box<Service>),
}

/// Compares what there is with what there should be.
pub fn plan(function: &ValidatedFunction<'_>, live: Option<&ServiceObject>, names: &Names) -> Plan {
    let wanted = Box::new(build(function, names));
    let Some(live) = live else { return Plan::Create(wanted) };
    // What is made of a struct of strings and numbers can always be written as JSON.
    let spec = serde_json::to_value(&wanted.spec).unwrap_or(Value::Null);
    if drift::missing(&spec, &live.spec.value()).is_some() || labels_missing(&wanted.metadata, live) {
        Plan::Repair(wanted)
    } else {
        Plan::Keep
    }
}

/// It names the activators' Service: no cluster IP, no kube-proxy rule, and nothing to rewrite when activators come and go.
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
