//! Writing and deleting shared objects of any kind.

use std::{collections::BTreeMap, fmt::Debug};

use k8s_openapi::{api::networking::v1::Ingress, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{
    Api, Resource, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, Preconditions},
    core::NamespaceResourceScope,
};
use rouse_crds::names::{MANAGED_BY, MANAGED_BY_LABEL, OPERATOR_FIELD_MANAGER};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{IngressReconciler, Mode, gateway::Family, names};
use crate::cluster::{
    drift,
    httproute::HTTPRoute,
    refusal::{Refusal, sentence},
};

/// Kind of a shared object.
pub(super) trait Shared:
    Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + Serialize + DeserializeOwned
{
}

impl Shared for Ingress {}
impl Shared for HTTPRoute {}

impl IngressReconciler {
    /// Returns the metadata of a shared object.
    pub(super) fn metadata(&self, name: &str) -> ObjectMeta {
        ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(self.names.namespace.clone()),
            labels: Some(BTreeMap::from([(MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned())])),
            owner_references: self.owner.clone().map(|owner| vec![owner]),
            ..ObjectMeta::default()
        }
    }

    /// Applies an object if it differs from the live one.
    pub(super) async fn apply_if_changed<K: Shared>(&self, wanted: &K, live: Option<&K>) -> kube::Result<Applied> {
        if live.is_some_and(|live| contains(wanted, live)) {
            return Ok(Applied::Unchanged);
        }
        let params = PatchParams::apply(OPERATOR_FIELD_MANAGER).force();
        Ok(match self.patch(wanted, &params).await? {
            Ok(()) => Applied::Written,
            Err(message) => Applied::Rejected(message),
        })
    }

    /// Returns whether the API server would accept an object, or else its message.
    pub(super) async fn would_accept<K: Shared>(&self, wanted: &K) -> kube::Result<Result<(), String>> {
        self.patch(wanted, &PatchParams::apply(OPERATOR_FIELD_MANAGER).force().dry_run()).await
    }

    async fn patch<K: Shared>(&self, wanted: &K, params: &PatchParams) -> kube::Result<Result<(), String>> {
        let api: Api<K> = Api::namespaced(self.client.clone(), &self.names.namespace);
        match api.patch(&wanted.name_any(), params, &Patch::Apply(wanted)).await {
            Ok(_) => Ok(Ok(())),
            Err(error) if is_rejection(&error) => Ok(Err(sentence(&error))),
            Err(error) => Err(error),
        }
    }

    /// Deletes an object in its cached version. An object that changed since stays until the next reconcile.
    pub(super) async fn delete<K: Shared>(&self, live: &impl Resource<DynamicType = ()>) -> kube::Result<()> {
        let api: Api<K> = Api::namespaced(self.client.clone(), &self.names.namespace);
        let (name, kind) = (live.name_any(), K::kind(&()));
        let preconditions = Preconditions { uid: live.uid(), resource_version: live.resource_version() };
        match api.delete(&name, &DeleteParams::background().preconditions(preconditions)).await {
            Ok(_) => {
                tracing::info!(name, %kind, "Deleted shared object without hosts");
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Deletes the objects of other ingress modes.
    pub(super) async fn clean_up(&self) -> kube::Result<()> {
        if !matches!(self.mode, Mode::Ingress { .. }) {
            self.clean_up_kind::<Ingress>(names::is_ours).await?;
        }
        if !matches!(self.mode, Mode::Gateway(_)) {
            self.clean_up_kind::<HTTPRoute>(|name| Family::of(name).is_some()).await?;
        }
        Ok(())
    }

    async fn clean_up_kind<K: Shared>(&self, is_ours: impl Fn(&str) -> bool) -> kube::Result<()> {
        let api: Api<K> = Api::namespaced(self.client.clone(), &self.names.namespace);
        let ours = ListParams::default().labels(&format!("{MANAGED_BY_LABEL}={MANAGED_BY}"));
        let found = match api.list_metadata(&ours).await {
            Ok(found) => found,
            // Without the Gateway API, or without permission for it, no such objects exist. The response for an unknown
            // kind is plain text without the reason that `is_not_found` checks.
            Err(kube::Error::Api(status)) if status.code == 404 || status.is_forbidden() => {
                tracing::debug!(kind = %K::kind(&()), "Nothing to delete");
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        for object in found.items.iter().filter(|object| is_ours(&object.name_any())) {
            let api: Api<K> = Api::namespaced(self.client.clone(), &self.names.namespace);
            let (name, kind) = (object.name_any(), K::kind(&()));
            match api.delete(&name, &DeleteParams::background()).await {
                Ok(_) => tracing::info!(name, %kind, "Deleted resource of the previous ingress.mode"),
                Err(kube::Error::Api(status)) if status.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Result of an apply.
#[derive(Debug)]
pub(super) enum Applied {
    /// The object was written.
    Written,
    /// The live object has the wanted fields.
    Unchanged,
    /// The API server rejected the object, with this message.
    Rejected(String),
}

/// Largest request that the API server sends to etcd, by default. It answers a larger one with status 500.
const TOO_LARGE: &str = "etcdserver: request is too large";

/// Returns whether the API server will reject the same object again.
fn is_rejection(error: &kube::Error) -> bool {
    // No reason distinguishes a size from other failures of the store.
    let too_large = matches!(error, kube::Error::Api(status) if status.code == 500 && status.message == TOO_LARGE);
    too_large || Refusal::of(error) == Refusal::Rejected
}

/// Returns whether `live` contains every field of `wanted`.
fn contains(wanted: &impl Serialize, live: &impl Serialize) -> bool {
    // Structs of strings and numbers always serialize to JSON.
    fn json(object: &impl Serialize) -> Value {
        serde_json::to_value(object).unwrap_or(Value::Null)
    }
    drift::missing(&json(wanted), &json(live)).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn ingress(value: Value) -> Ingress {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn an_object_that_is_too_large_is_rejected() {
        let error = |code, message: &str| {
            kube::Error::Api(kube::core::Status { code, message: message.into(), ..Default::default() }.boxed())
        };
        for (code, message, rejected) in [
            (500, TOO_LARGE, true),
            (500, "failed calling webhook", false),
            (400, "admission webhook \"x\" denied the request", true),
            (404, "namespace not found", false),
        ] {
            assert_eq!(is_rejection(&error(code, message)), rejected, "{code} {message}");
        }
    }

    #[test]
    fn additional_fields_are_no_difference() {
        let wanted = ingress(
            json!({"metadata": {"name": "rouse", "annotations": {"a": "1"}}, "spec": {"rules": [{"host": "*.a.example.com"}]}}),
        );
        let mut live = json!({
            "metadata": {"name": "rouse", "uid": "u", "annotations": {"a": "1", "b": "2"}},
            "spec": {"rules": [{"host": "*.a.example.com"}]},
            "status": {"loadBalancer": {}},
        });
        assert!(contains(&wanted, &ingress(live.clone())));
        live["spec"]["rules"] = json!([{"host": "*.a.example.com"}, {"host": "b"}]);
        assert!(!contains(&wanted, &ingress(live)));
    }
}
