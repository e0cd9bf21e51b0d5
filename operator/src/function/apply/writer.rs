//! Single writes of the apply step, with their preconditions and the interpretation of refusals.

use std::{fmt, time::Duration};

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
use rouse_crds::names::{ACTIVATOR_FIELD_MANAGER, AUTOSCALER_FIELD_MANAGER, CONFIG_ANNOTATION, OPERATOR_FIELD_MANAGER};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;
use tokio::time::Instant;

use super::{
    Applied, Conflict, Drift, Error,
    repairs::{Next, REPORTED},
};
use crate::{
    cluster::{
        children::{CompactJson, DeploymentObject, controller, owned_by},
        key::FunctionKey,
        refusal::Refusal,
    },
    function::{
        Context,
        build::{ConfigRecord, deployment::Repair},
        dereference::{Kind, Removal, is_leftover},
    },
};

/// Writes the objects of one Function.
pub(super) struct Writer<'a> {
    pub(super) context: &'a Context,
    pub(super) key: &'a FunctionKey,
    /// `uid` of the Function.
    pub(super) uid: String,
    /// Deadline of all writes. The rest of the time of a reconcile is for the status.
    pub(super) until: Instant,
}

/// Result of a create request.
pub(super) enum Created {
    /// Created.
    New(Box<ObjectMeta>),
    /// The object existed and belongs to the Function: the cache is behind.
    Ours(Box<ObjectMeta>),
    /// The object exists and has another owner.
    Conflicting(Conflict),
}

impl Writer<'_> {
    fn api<K: Resource<DynamicType = (), Scope = NamespaceResourceScope>>(&self) -> Api<K> {
        Api::namespaced(self.context.client.clone(), &self.key.namespace)
    }

    /// Awaits the response to a request, at most until the deadline of all writes: a webhook may take 30 s for each.
    async fn respond<T>(&self, request: impl Future<Output = kube::Result<T>>) -> kube::Result<T> {
        let deadline = self.until.min(Instant::now() + REQUEST_DEADLINE);
        tokio::time::timeout_at(deadline, request).await.unwrap_or_else(|_| {
            Err(kube::Error::Service(format!("no response within {}s", REQUEST_DEADLINE.as_secs()).into()))
        })
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
        match self.respond(self.api::<K>().create(&params, object)).await {
            Ok(new) => Ok(Created::New(Box::new(new.meta().clone()))),
            Err(kube::Error::Api(status)) if status.is_already_exists() => self.check_owner(kind, object).await,
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
        let found: PartialObjectMeta<K> = match self.respond(api.get_metadata_opt(&name)).await {
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
        if is_leftover(&found.metadata, self.key, &self.uid) {
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
        tracing::warn!(function = %self.key, ?kind, name, "Restoring labels of object");
        let (api, params) = (self.api::<K>(), params());
        let written = self.respond(api.patch_metadata(&name, &params, &Patch::Merge(patch))).await;
        written.map(drop).map_err(Error::api("label", kind, &name))
    }

    /// Records the versions of ConfigMaps and Secrets in the annotation of the revision. Idempotent.
    pub(super) async fn record_config(&self, record: &ConfigRecord) -> Result<(), Error> {
        let ConfigRecord { name, uid, versions } = record;
        let patch = json!({"metadata": {"uid": uid, "annotations": {CONFIG_ANNOTATION: versions}}});
        let (api, params) = (self.api::<ControllerRevision>(), params());
        match self.respond(api.patch_metadata(name, &params, &Patch::Merge(patch))).await {
            Ok(_) => Ok(()),
            Err(error) if Refusal::of(&error) == Refusal::Outdated => Ok(()),
            Err(error) => Err(Error::api("annotate", Kind::ControllerRevision, name)(error)),
        }
    }

    /// Repairs a Deployment. The patch contains its `resourceVersion`, so a concurrent change is never overwritten.
    pub(super) async fn repair(&self, repair: &Repair, applied: &mut Applied) -> Result<(), Error> {
        let Repair { name, patch, difference, seen, .. } = repair;
        if !self.is_repair_due::<DeploymentObject>(Kind::Deployment, name, difference, seen, applied).await {
            return Ok(());
        }
        let patch: Patch<()> = match serde_json::from_value(patch.clone()) {
            Ok(patch) => Patch::Json(patch),
            // The operations are defined in one place and covered by tests.
            Err(error) => return Err(Error::api("repair", Kind::Deployment, name)(kube::Error::SerdeError(error))),
        };
        tracing::warn!(function = %self.key, deployment = name, difference, "Repairing Deployment that was modified externally");
        let (api, params) = (self.api::<DeploymentObject>(), params());
        match self.respond(api.patch(name, &params, &patch)).await {
            Ok(after) => {
                let after = Some(after.spec.rest);
                self.context.repairs.repaired(self.key, &object(Kind::Deployment, name), after, Instant::now());
                Ok(())
            }
            Err(error) if Refusal::of(&error) == Refusal::Outdated => Ok(()),
            Err(error) => Err(Error::api("repair", Kind::Deployment, name)(error)),
        }
    }

    /// Repairs a Service with server-side apply.
    pub(super) async fn apply_service(
        &self,
        service: &Service,
        field: &str,
        seen: &CompactJson,
        applied: &mut Applied,
    ) -> Result<(), Error> {
        let name = service.name_any();
        if !self.is_repair_due::<Service>(Kind::Service, &name, field, seen, applied).await {
            return Ok(());
        }
        tracing::warn!(function = %self.key, service = name, difference = field, "Repairing Service that was modified externally");
        let params = PatchParams::apply(OPERATOR_FIELD_MANAGER).force();
        let api = self.api::<Service>();
        let written = self.respond(api.patch(&name, &params, &Patch::Apply(service))).await;
        written.map(drop).map_err(Error::api("apply", Kind::Service, &name))?;
        self.context.repairs.repaired(self.key, &object(Kind::Service, &name), None, Instant::now());
        Ok(())
    }

    /// Returns whether an object may be repaired now. Reports it if its repairs do not last.
    async fn is_repair_due<K>(
        &self,
        kind: Kind,
        name: &str,
        field: &str,
        seen: &CompactJson,
        applied: &mut Applied,
    ) -> bool
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + fmt::Debug + DeserializeOwned,
    {
        let (repairs, object) = (&self.context.repairs, object(kind, name));
        let next = repairs.next(self.key, &object, seen, Instant::now());
        let (count, mut manager) = repairs.undone(self.key, &object);
        // What the API server itself restores is the policy of the platform, and no other client.
        if count >= REPORTED && next != Next::Wait(None) {
            if manager.is_none() {
                // The caches drop `managedFields`.
                let read = self.api::<K>();
                let found = self.respond(read.get_metadata_opt(name)).await.ok().flatten();
                manager = found.and_then(|found| other_manager(&found.metadata));
                if let Some(manager) = &manager {
                    repairs.set_manager(self.key, &object, manager.clone());
                }
            }
            applied.drifting.push(Drift { kind, name: name.to_owned(), field: field.to_owned(), manager });
        }
        match next {
            Next::Repair => true,
            Next::Wait(at) => {
                applied.repair_at = [applied.repair_at, at].into_iter().flatten().min();
                false
            }
        }
    }

    /// Deletes an object in its cached version. Ignores an object that changed since or does not exist.
    pub(super) async fn remove(&self, removal: &Removal) -> Result<(), Error> {
        let Removal { kind, name, uid, resource_version } = removal;
        let preconditions = Preconditions { uid: uid.clone(), resource_version: resource_version.clone() };
        let params = DeleteParams::background().preconditions(preconditions);
        let request = async {
            match kind {
                Kind::ControllerRevision => self.api::<ControllerRevision>().delete(name, &params).await.map(drop),
                Kind::Deployment => self.api::<Deployment>().delete(name, &params).await.map(drop),
                Kind::Service => self.api::<Service>().delete(name, &params).await.map(drop),
            }
        };
        let result = self.respond(request).await;
        match result {
            Ok(()) => {
                tracing::info!(function = %self.key, ?kind, name, "Deleted object");
                Ok(())
            }
            Err(error) if Refusal::of(&error) == Refusal::Outdated => Ok(()),
            Err(error) => Err(Error::api("delete", *kind, name)(error)),
        }
    }
}

/// Deadline of one request. The API server gives a webhook 10 s by default.
const REQUEST_DEADLINE: Duration = Duration::from_secs(15);

/// Key of an object in [`super::Repairs`].
fn object(kind: Kind, name: &str) -> String {
    format!("{kind:?} {name}")
}

/// Returns the field manager that last wrote the object, except for those that write other fields: the Deployment controller
/// its status, and the scaler and activators `replicas`.
fn other_manager(metadata: &ObjectMeta) -> Option<String> {
    let known = |name: &str| [AUTOSCALER_FIELD_MANAGER, ACTIVATOR_FIELD_MANAGER].contains(&name);
    let entries = metadata.managed_fields.iter().flatten();
    let others =
        entries.filter(|entry| entry.subresource.is_none() && entry.manager.as_deref().is_some_and(|m| !known(m)));
    others.max_by_key(|entry| entry.time.as_ref().map(|time| time.0)).and_then(|entry| entry.manager.clone())
}

fn params() -> PatchParams {
    PatchParams { field_manager: Some(OPERATOR_FIELD_MANAGER.to_owned()), ..PatchParams::default() }
}
