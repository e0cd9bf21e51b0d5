//! Writing and removing the shared objects, of whatever kind.

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

use super::{H2C_NAME, Keeper, Mode, NAME, gateway::Family};
use crate::cluster::{drift, httproute::HTTPRoute};

/// What a shared object can be.
pub(super) trait Shared:
    Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + Serialize + DeserializeOwned
{
}

impl Shared for Ingress {}
impl Shared for HTTPRoute {}

impl Keeper {
    /// Name, namespace, label and owner of a shared object.
    pub(super) fn metadata(&self, name: &str) -> ObjectMeta {
        ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(self.names.namespace.clone()),
            labels: Some(BTreeMap::from([(MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned())])),
            owner_references: self.owner.clone().map(|owner| vec![owner]),
            ..ObjectMeta::default()
        }
    }

    /// Makes an object what is wanted. Writes nothing if it is so; tells whether it wrote.
    pub(super) async fn keep<K: Shared>(&self, wanted: &K, live: Option<&K>) -> kube::Result<bool> {
        if live.is_some_and(|live| holds(wanted, live)) {
            return Ok(false);
        }
        let api: Api<K> = Api::namespaced(self.client.clone(), &self.names.namespace);
        let name = wanted.name_any();
        api.patch(&name, &PatchParams::apply(OPERATOR_FIELD_MANAGER).force(), &Patch::Apply(wanted)).await?;
        Ok(true)
    }

    /// Takes an object away, as it was seen: one that has changed since is looked at again.
    pub(super) async fn remove<K: Shared>(&self, live: &impl Resource<DynamicType = ()>) -> kube::Result<()> {
        let api: Api<K> = Api::namespaced(self.client.clone(), &self.names.namespace);
        let (name, kind) = (live.name_any(), K::kind(&()));
        let preconditions = Preconditions { uid: live.uid(), resource_version: live.resource_version() };
        match api.delete(&name, &DeleteParams::background().preconditions(preconditions)).await {
            Ok(_) => {
                tracing::info!(name, %kind, "Removed what no public function is left for");
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Removes what was written in another mode.
    pub(super) async fn sweep(&self) -> kube::Result<()> {
        if !matches!(self.mode, Mode::Ingress { .. }) {
            self.sweep_kind::<Ingress>(|name| [NAME, H2C_NAME].contains(&name)).await?;
        }
        if !matches!(self.mode, Mode::Gateway(_)) {
            self.sweep_kind::<HTTPRoute>(|name| Family::of(name).is_some()).await?;
        }
        Ok(())
    }

    async fn sweep_kind<K: Shared>(&self, is_ours: impl Fn(&str) -> bool) -> kube::Result<()> {
        let api: Api<K> = Api::namespaced(self.client.clone(), &self.names.namespace);
        let ours = ListParams::default().labels(&format!("{MANAGED_BY_LABEL}={MANAGED_BY}"));
        let found = match api.list_metadata(&ours).await {
            Ok(found) => found,
            // A cluster without the Gateway API, or a role that was not made for it: then there is nothing of ours. That a
            // kind is not known is said in plain text, without the reason that `is_not_found` looks for.
            Err(kube::Error::Api(status)) if status.code == 404 || status.is_forbidden() => {
                tracing::debug!(kind = %K::kind(&()), "Nothing to sweep");
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        for object in found.items.iter().filter(|object| is_ours(&object.name_any())) {
            let api: Api<K> = Api::namespaced(self.client.clone(), &self.names.namespace);
            let (name, kind) = (object.name_any(), K::kind(&()));
            match api.delete(&name, &DeleteParams::background()).await {
                Ok(_) => tracing::info!(name, %kind, "Removed what another ingress.mode has left"),
                Err(kube::Error::Api(status)) if status.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Whether `live` is what is wanted, beside what the API server and others have added.
fn holds(wanted: &impl Serialize, live: &impl Serialize) -> bool {
    // What is made of structs of strings and numbers can always be written as JSON.
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
    fn what_others_add_is_no_difference() {
        let wanted = ingress(
            json!({"metadata": {"name": "rouse", "annotations": {"a": "1"}}, "spec": {"rules": [{"host": "*.a.example.com"}]}}),
        );
        let mut live = json!({
            "metadata": {"name": "rouse", "uid": "u", "annotations": {"a": "1", "b": "2"}},
            "spec": {"rules": [{"host": "*.a.example.com"}]},
            "status": {"loadBalancer": {}},
        });
        assert!(holds(&wanted, &ingress(live.clone())));
        live["spec"]["rules"] = json!([{"host": "*.a.example.com"}, {"host": "b"}]);
        assert!(!holds(&wanted, &ingress(live)));
    }
}
