//! Reconciliation of the two shared Ingresses.

use std::collections::BTreeMap;

use k8s_openapi::api::networking::v1::Ingress;
use kube::ResourceExt as _;
use rouse_crds::names::OPERATOR_FIELD_MANAGER;

use super::{IngressReconciler, Tls, public_hosts::PublicHosts, rules};
use crate::cluster::key::FunctionKey;

/// Name of the Ingress for HTTP/1.1.
pub const NAME: &str = "rouse";

/// Name of the Ingress for h2c.
pub const H2C_NAME: &str = "rouse-h2c";

impl IngressReconciler {
    /// Writes both Ingresses, and deletes those without hosts.
    pub(super) async fn apply_ingresses(
        &self,
        public: &PublicHosts,
        class: Option<&String>,
        [annotations, h2c_annotations]: [&BTreeMap<String, String>; 2],
        tls: &Tls,
    ) -> kube::Result<()> {
        let wanted = [
            (NAME, &public.http1, self.names.activator_service.clone(), annotations),
            (H2C_NAME, &public.h2c, self.names.h2c_service(), h2c_annotations),
        ];
        for (name, hosts, service, annotations) in wanted {
            let live = self.caches.ingresses.get(&FunctionKey::new(&self.names.namespace, name), name);
            match (rules::build(hosts, &service, class.cloned(), tls, &self.names.hosts), live) {
                (None, None) => {}
                (None, Some(live)) => self.delete::<Ingress>(&*live).await?,
                (Some(spec), live) => {
                    let mut wanted = Ingress { metadata: self.metadata(name), spec: Some(spec), ..Ingress::default() };
                    if !annotations.is_empty() {
                        wanted.annotations_mut().clone_from(annotations);
                    }
                    let same = live.as_deref().filter(|live| !has_surplus(&wanted, live));
                    if self.apply_if_changed(&wanted, same).await? {
                        tracing::info!(name, hosts = hosts.len(), "Applied shared Ingress");
                    }
                }
            }
        }
        Ok(())
    }
}

/// Returns whether a live Ingress has TLS settings, or annotations of the operator, that are no longer wanted.
/// Server-side apply removes them.
fn has_surplus(wanted: &Ingress, live: &Ingress) -> bool {
    let tls = |ingress: &Ingress| ingress.spec.as_ref().and_then(|s| s.tls.as_ref()).is_some_and(|tls| !tls.is_empty());
    let ours = live.managed_fields().iter().filter(|entry| entry.manager.as_deref() == Some(OPERATOR_FIELD_MANAGER));
    let mut annotations = ours
        .filter_map(|entry| entry.fields_v1.as_ref()?.0.get("f:metadata")?.get("f:annotations")?.as_object())
        .flat_map(serde_json::Map::keys)
        .filter_map(|name| name.strip_prefix("f:"));
    (tls(live) && !tls(wanted)) || annotations.any(|name| !wanted.annotations().contains_key(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn detects_surplus_fields() {
        let ingress = |value| -> Ingress { serde_json::from_value(value).unwrap() };
        let managed = json!([
            {"manager": OPERATOR_FIELD_MANAGER, "fieldsV1": {"f:metadata": {"f:annotations": {".": {}, "f:a/b": {}}}}},
            {"manager": "kubectl", "fieldsV1": {"f:metadata": {"f:annotations": {"f:c": {}}}}},
        ]);
        let metadata = json!({"annotations": {"a/b": "1", "c": "2"}, "managedFields": managed});
        let live = ingress(json!({"metadata": metadata, "spec": {"rules": []}}));
        let kept = ingress(json!({"metadata": {"annotations": {"a/b": "1"}}}));
        let none = ingress(json!({}));
        assert!(!has_surplus(&kept, &live) && has_surplus(&none, &live));
        let tls = ingress(json!({"spec": {"tls": [{"secretName": "w"}]}}));
        assert!(has_surplus(&none, &tls) && !has_surplus(&tls, &tls) && !has_surplus(&tls, &none));
    }
}
