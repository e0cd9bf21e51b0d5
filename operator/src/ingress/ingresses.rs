//! Reconciliation of the Ingresses: one for each namespace and protocol, so that what one namespace claims does not decide whether
//! the hosts of another are routed.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::networking::v1::Ingress;
use kube::ResourceExt as _;
use rouse_crds::{conditions::INGRESS_REJECTED, names::OPERATOR_FIELD_MANAGER};
use tokio::time::Instant;

use super::{
    IngressReconciler, Tls,
    names::{h2c_name, http1_name, is_ours},
    objects::Applied,
    public_hosts::{ByNamespace, Hosts},
    rejections::{Divided, Division, Rejections},
    rules,
};
use crate::{
    cluster::key::FunctionKey,
    hosts::{LostHost, Won},
};

/// Settings of the Ingresses.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings<'a> {
    pub(super) class: Option<&'a String>,
    pub(super) annotations: &'a BTreeMap<String, String>,
    pub(super) h2c_annotations: &'a BTreeMap<String, String>,
    pub(super) tls: &'a Tls,
}

impl IngressReconciler {
    /// Writes the Ingress of each namespace and protocol, and deletes those without hosts. Returns the Functions whose hosts the
    /// API server rejects. A failure of one Ingress does not keep the others from being written; the first one is returned in
    /// place of `Ok(())`.
    pub(super) async fn apply_ingresses(
        &self,
        public: &ByNamespace,
        won: &Won,
        settings: Settings<'_>,
        rejections: &mut Rejections,
    ) -> (BTreeMap<FunctionKey, LostHost>, kube::Result<()>) {
        let (mut lost, mut outcome, mut names) = (BTreeMap::new(), Ok(()), BTreeSet::new());
        for (namespace, public) in public {
            let objects = [
                (http1_name(namespace), &public.http1, self.names.activator_service.clone(), settings.annotations),
                (h2c_name(namespace), &public.h2c, self.names.h2c_service(), settings.h2c_annotations),
            ];
            for (name, hosts, service, annotations) in objects {
                if hosts.is_empty() {
                    continue;
                }
                let object = |hosts: &Hosts| {
                    let spec = rules::build(hosts, &service, settings.class.cloned(), settings.tls, &self.names.hosts)?;
                    let mut wanted = Ingress { metadata: self.metadata(&name), spec: Some(spec), ..Ingress::default() };
                    if !annotations.is_empty() {
                        wanted.annotations_mut().clone_from(annotations);
                    }
                    Some(wanted)
                };
                match self.apply_ingress(&name, namespace, hosts, won, &object, rejections).await {
                    Ok(rejected) => lost.extend(rejected),
                    Err(error) => {
                        tracing::warn!(name, %error, "Failed to write Ingress; will retry");
                        outcome = outcome.and(Err(error));
                    }
                }
                names.insert(name);
            }
        }
        rejections.retain(|name| names.contains(name));
        // After the writes, so that a host that moved is always in an Ingress.
        for live in self.caches.ingresses.all() {
            let name = live.name_any();
            if is_ours(&name)
                && !names.contains(&name)
                && outcome.is_ok()
                && let Err(error) = self.delete::<Ingress>(&*live).await
            {
                outcome = Err(error);
            }
        }
        (lost, outcome)
    }

    /// Writes one Ingress. If the API server rejects it, writes it with the hosts that it accepts.
    async fn apply_ingress(
        &self,
        name: &str,
        namespace: &str,
        hosts: &Hosts,
        won: &Won,
        object: &(impl Fn(&Hosts) -> Option<Ingress> + Sync),
        rejections: &mut Rejections,
    ) -> kube::Result<BTreeMap<FunctionKey, LostHost>> {
        let now = Instant::now();
        let divided = match rejections.known(name, hosts, now) {
            Some(known) => known,
            None => match self.write_ingress(name, object(hosts)).await? {
                Applied::Written | Applied::Unchanged => return Ok(BTreeMap::new()),
                Applied::Rejected(message) => {
                    tracing::error!(name, detail = message, "API server rejected an Ingress");
                    let owners = owners(namespace, hosts, won);
                    let mut division = Division::new(hosts, &owners);
                    while let Some(wanted) = division.next().map(object) {
                        let answer = match wanted {
                            Some(wanted) => self.would_accept(&wanted).await?,
                            None => Ok(()),
                        };
                        division.answer(answer);
                    }
                    let result = division.finish();
                    rejections.remember(name, hosts, &result, now);
                    result
                }
            },
        };
        let Divided { accepted, mut rejected } = divided;
        if let Applied::Rejected(message) = self.write_ingress(name, object(&accepted)).await? {
            rejected.extend(owners(namespace, hosts, won).into_keys().map(|key| (key, message.clone())));
        }
        let lost = |message: &String| LostHost {
            host: None,
            reason: INGRESS_REJECTED,
            message: format!(
                "The API server rejected the hosts of the Function in Ingress {}/{name}, so the ingress does not serve them: {message}",
                self.names.namespace
            ),
        };
        Ok(rejected.iter().map(|(key, message)| (key.clone(), lost(message))).collect())
    }

    /// Writes an Ingress if it differs from the live one. `None` has no hosts, and is not written.
    async fn write_ingress(&self, name: &str, wanted: Option<Ingress>) -> kube::Result<Applied> {
        let Some(wanted) = wanted else { return Ok(Applied::Unchanged) };
        let live = self.caches.ingresses.get(&FunctionKey::new(&self.names.namespace, name), name);
        let same = live.as_deref().filter(|live| !has_surplus(&wanted, live));
        let applied = self.apply_if_changed(&wanted, same).await?;
        if matches!(applied, Applied::Written) {
            tracing::info!(name, "Applied Ingress");
        }
        Ok(applied)
    }
}

/// Returns the hosts that each Function of a namespace has among `hosts`.
fn owners(namespace: &str, hosts: &Hosts, won: &Won) -> BTreeMap<FunctionKey, BTreeSet<String>> {
    let functions = won.iter().filter(|(key, _)| namespace.is_empty() || key.namespace == namespace);
    functions
        .map(|(key, claims)| {
            let own = claims.iter().map(|claim| claim.host.to_string()).filter(|host| hosts.contains_key(host));
            (key.clone(), own.collect())
        })
        .collect()
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
