//! Single writes of the apply step, with their preconditions and the interpretation of refusals.

use std::fmt;

use k8s_openapi::{
    api::{
        apps::v1::{ControllerRevision, Deployment},
        core::v1::Service,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Resource, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
    core::{NamespaceResourceScope, PartialObjectMeta},
};
use rouse_crds::names::{CONFIG_ANNOTATION, OPERATOR_FIELD_MANAGER};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;

use super::{Conflict, Error};
use crate::{
    cluster::{
        children::{DeploymentObject, controller, owned_by},
        key::FunctionKey,
    },
    function::{
        Context,
        build::{ConfigRecord, deployment::Repair},
        dereference::{Kind, Removal, is_leftover},
    },
    spec::invalid::Invalid,
};

/// Writes the objects of one Function.
pub(super) struct Writer<'a> {
    pub(super) context: &'a Context,
    pub(super) key: &'a FunctionKey,
    /// `uid` of the Function.
    pub(super) uid: String,
}

/// Result of a create request.
pub(super) enum Created {
    /// Created.
    New(Box<ObjectMeta>),
    /// The object existed and belongs to the Function: the cache is behind.
    Ours(Box<ObjectMeta>),
    /// The object exists and has another owner.
    Conflicting(Conflict),
    /// The API server rejected the object.
    Rejected(Invalid),
}

impl Writer<'_> {
    fn api<K: Resource<DynamicType = (), Scope = NamespaceResourceScope>>(&self) -> Api<K> {
        Api::namespaced(self.context.client.clone(), &self.key.namespace)
    }

    /// Creates an object.
    pub(super) async fn create<K>(&self, kind: Kind, object: &K) -> Result<Created, Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + fmt::Debug
            + Serialize
            + DeserializeOwned,
    {
        let name = object.name_any();
        let params = PostParams { field_manager: Some(OPERATOR_FIELD_MANAGER.to_owned()), ..PostParams::default() };
        match self.api::<K>().create(&params, object).await {
            Ok(new) => Ok(Created::New(Box::new(new.meta().clone()))),
            Err(kube::Error::Api(status)) if status.is_already_exists() => self.check_owner(kind, object).await,
            Err(kube::Error::Api(status)) if matches!(status.code, 403 | 422) => {
                tracing::warn!(function = %self.key, ?kind, name, error = %status.message, "API server rejected the object");
                Ok(Created::Rejected(Invalid::new(format!("{kind:?} {name}"), status.message)))
            }
            Err(error) => Err(Error::api("create", kind, &name)(error)),
        }
    }

    /// Determines the owner of the existing object with the name of `wanted`.
    async fn check_owner<K>(&self, kind: Kind, wanted: &K) -> Result<Created, Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + fmt::Debug + DeserializeOwned,
    {
        let name = wanted.name_any();
        let api = self.api::<K>();
        let found: PartialObjectMeta<K> = match api.get_metadata_opt(&name).await {
            Ok(Some(found)) => found,
            // It was deleted in the meantime; the next call creates it.
            Ok(None) => return Err(Error::Leftover { kind, name }),
            Err(error) => return Err(Error::api("read", kind, &name)(error)),
        };
        let owner = controller(&found.metadata);
        if owned_by(&found.metadata, &self.uid) {
            if found.metadata.deletion_timestamp.is_some() {
                return Err(Error::Leftover { kind, name });
            }
            self.restore_labels(kind, wanted, &found).await?;
            return Ok(Created::Ours(Box::new(found.metadata)));
        }
        if is_leftover(owner, self.key, &self.uid) {
            self.remove(&Removal::of(kind, &found)).await?;
            return Err(Error::Leftover { kind, name });
        }
        let owner = owner.map(|o| format!("{} {}", o.kind, o.name));
        Ok(Created::Conflicting(Conflict { kind, name, owner }))
    }

    /// Restores the labels of an own object. Without them, the caches do not see it.
    async fn restore_labels<K>(&self, kind: Kind, wanted: &K, found: &PartialObjectMeta<K>) -> Result<(), Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + fmt::Debug + DeserializeOwned,
    {
        if wanted.labels().iter().all(|(name, value)| found.labels().get(name) == Some(value)) {
            return Ok(());
        }
        let name = wanted.name_any();
        let patch = json!({"metadata": {"uid": found.uid(), "labels": wanted.labels()}});
        let written = self.api::<K>().patch_metadata(&name, &params(), &Patch::Merge(patch)).await;
        tracing::warn!(function = %self.key, ?kind, name, "Restoring labels of object");
        written.map(drop).map_err(Error::api("label", kind, &name))
    }

    /// Records the versions of ConfigMaps and Secrets in the annotation of the revision. Idempotent.
    pub(super) async fn record_config(&self, record: &ConfigRecord) -> Result<(), Error> {
        let ConfigRecord { name, uid, versions } = record;
        let patch = json!({"metadata": {"uid": uid, "annotations": {CONFIG_ANNOTATION: versions}}});
        match self.api::<ControllerRevision>().patch_metadata(name, &params(), &Patch::Merge(patch)).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if is_outdated(&status) => Ok(()),
            Err(error) => Err(Error::api("annotate", Kind::ControllerRevision, name)(error)),
        }
    }

    /// Repairs a Deployment. The patch tests its `resourceVersion`, so a concurrent change is never overwritten.
    pub(super) async fn repair(&self, repair: &Repair) -> Result<(), Error> {
        let Repair { name, uid, patch, difference, seen } = repair;
        if self.context.overridden.lock().get(uid) == Some(seen) {
            return Ok(());
        }
        let patch: Patch<()> = match serde_json::from_value(patch.clone()) {
            Ok(patch) => Patch::Json(patch),
            // The operations are defined in one place and covered by tests.
            Err(error) => return Err(Error::api("repair", Kind::Deployment, name)(kube::Error::SerdeError(error))),
        };
        tracing::warn!(function = %self.key, deployment = name, difference, "Repairing Deployment that was modified externally");
        match self.api::<DeploymentObject>().patch(name, &params(), &patch).await {
            Ok(after) => {
                // If something modifies it on each write (an admission webhook), one attempt for each state is enough.
                let mut overridden = self.context.overridden.lock();
                if overridden.len() >= MAX_OVERRIDDEN {
                    overridden.clear();
                }
                overridden.insert(uid.clone(), after.spec.rest);
                Ok(())
            }
            Err(kube::Error::Api(status)) if is_outdated(&status) => Ok(()),
            Err(error) => Err(Error::api("repair", Kind::Deployment, name)(error)),
        }
    }

    /// Repairs a Service with server-side apply.
    pub(super) async fn apply_service(&self, service: &Service) -> Result<(), Error> {
        let name = service.name_any();
        tracing::warn!(function = %self.key, service = name, "Repairing Service that was modified externally");
        let params = PatchParams::apply(OPERATOR_FIELD_MANAGER).force();
        let written = self.api::<Service>().patch(&name, &params, &Patch::Apply(service)).await;
        written.map(drop).map_err(Error::api("apply", Kind::Service, &name))
    }

    /// Deletes an object in its cached version. Ignores an object that changed since or does not exist.
    pub(super) async fn remove(&self, removal: &Removal) -> Result<(), Error> {
        let Removal { kind, name, uid, resource_version } = removal;
        let preconditions = Preconditions { uid: uid.clone(), resource_version: resource_version.clone() };
        let params = DeleteParams::background().preconditions(preconditions);
        let result = match kind {
            Kind::ControllerRevision => self.api::<ControllerRevision>().delete(name, &params).await.map(drop),
            Kind::Deployment => self.api::<Deployment>().delete(name, &params).await.map(drop),
            Kind::Service => self.api::<Service>().delete(name, &params).await.map(drop),
        };
        match result {
            Ok(()) => {
                tracing::info!(function = %self.key, ?kind, name, "Deleted object");
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(()),
            Err(error) => Err(Error::api("delete", *kind, name)(error)),
        }
    }
}

/// Maximum number of remembered Deployments whose repair was reverted. Beyond it, all of them are repaired again.
const MAX_OVERRIDDEN: usize = 1000;

fn params() -> PatchParams {
    PatchParams { field_manager: Some(OPERATOR_FIELD_MANAGER.to_owned()), ..PatchParams::default() }
}

/// Returns whether a write failed because the cache is behind: a failed test of a JSON patch (422), a conflict, or a
/// deleted object. The watch delivers the current state.
fn is_outdated(status: &kube::core::Status) -> bool {
    status.is_conflict() || status.is_not_found() || (status.code == 422 && status.message.contains("test"))
}
