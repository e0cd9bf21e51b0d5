//! Step 4: writes the built objects.
//!
//! Objects are created with POST, so an existing object of another owner is never adopted. Own objects that were modified are
//! repaired. Each write depends only on the result of the writes before it, so the next call continues after a crash.

use std::fmt;

use k8s_openapi::{
    api::{
        apps::v1::{ControllerRevision, Deployment},
        core::v1::Service,
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use kube::{
    Api, Resource, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
    core::{NamespaceResourceScope, PartialObjectMeta},
};
use rouse_crds::{
    Function,
    names::{CONFIG_ANNOTATION, CONTAINER_HASH_LABEL, OPERATOR_FIELD_MANAGER},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;

use super::{
    Context,
    build::{ConfigRecord, Prepared, Resources, deployment::Repair, service::Plan},
    dereference::{Kind, Removal, is_leftover},
};
use crate::{
    cluster::{
        children::{DeploymentObject, controller, owned_by},
        key::FunctionKey,
    },
    spec::invalid::Invalid,
};

/// Result of the writes.
#[derive(Debug, Default)]
pub struct Applied {
    /// Objects that exist and have another owner.
    pub conflicts: Vec<Conflict>,
    /// Object that the API server rejected.
    pub rejected: Option<Invalid>,
    /// Revision that was created, or existed although the cache did not have it yet.
    pub made: Option<Made>,
    /// First error of a write that no other write depends on. The reconcile is retried, but the status is still updated: a rollback
    /// must work while a webhook is down.
    pub failed: Option<Error>,
}

impl Applied {
    /// Keeps the first error of a write that no other write depends on.
    fn keep_error(&mut self, result: Result<(), Error>) {
        if let Err(error) = result {
            tracing::debug!(%error, "Write failed; continuing");
            self.failed.get_or_insert(error);
        }
    }
}

/// A created revision that is not in the cache yet.
#[derive(Debug)]
pub struct Made {
    /// Image of the spec.
    pub image: String,
    /// Creation time.
    pub created: Option<Time>,
}

/// Name conflict: an object that the Function needs exists and has another owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Kind of the object.
    pub kind: Kind,
    /// Name of the object.
    pub name: String,
    /// Kind and name of its owner, if it has one.
    pub owner: Option<String>,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, name, owner } = self;
        let owner =
            owner.as_ref().map_or_else(|| "not managed by Rouse".to_owned(), |owner| format!("owned by {owner}"));
        write!(f, "{kind:?} {name} already exists and is {owner}; delete or rename it, or rename the Function")
    }
}

/// Error of a write.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused the request or could not be reached.
    #[error("failed to {verb} {kind:?} {name}: {source}")]
    Api {
        /// Verb of the request.
        verb: &'static str,
        /// Kind of the object.
        kind: Kind,
        /// Name of the object.
        name: String,
        /// Error of the request.
        source: kube::Error,
    },
    /// An object of a deleted Function with the same name still exists.
    #[error("{kind:?} {name} of a deleted Function with this name still exists; waiting for its deletion")]
    Leftover {
        /// Kind of the object.
        kind: Kind,
        /// Name of the object.
        name: String,
    },
    /// A newer revision exists than the cache has.
    #[error("revision {name} was created from a different spec; waiting for the cache to catch up")]
    Stale {
        /// Name of the revision.
        name: String,
    },
}

impl Error {
    fn api(verb: &'static str, kind: Kind, name: &str) -> impl FnOnce(kube::Error) -> Self {
        move |source| Self::Api { verb, kind, name: name.to_owned(), source }
    }
}

/// Writes all objects, in the order of their dependencies.
pub async fn apply(
    context: &Context,
    key: &FunctionKey,
    function: &Function,
    resources: Resources<Prepared>,
) -> Result<Resources<Applied>, Error> {
    let Resources { latest, leftovers, revision, record, create, repair, service, remove, state: Prepared } = resources;
    let writer = Writer { context, key, uid: function.uid().unwrap_or_default() };
    let mut applied = Applied::default();
    let mut made = None;

    for leftover in &leftovers {
        writer.remove(leftover).await?;
    }
    if let Some(revision) = &revision {
        match writer.create(Kind::ControllerRevision, revision).await? {
            Created::New(new) => {
                made = Some(revision.name_any());
                applied.made = Some(Made { image: function.spec.image.clone(), created: new.creation_timestamp });
            }
            Created::Ours(found) => {
                let hash =
                    |labels: &ObjectMeta| labels.labels.as_ref().and_then(|l| l.get(CONTAINER_HASH_LABEL)).cloned();
                if hash(&found) != hash(&revision.metadata) {
                    return Err(Error::Stale { name: revision.name_any() });
                }
                applied.made = Some(Made { image: function.spec.image.clone(), created: found.creation_timestamp });
            }
            Created::Conflicting(conflict) => applied.conflicts.push(conflict),
            Created::Rejected(invalid) => applied.rejected = Some(invalid),
        }
    }
    if let Some(record) = &record {
        let result = writer.record_config(record).await;
        applied.keep_error(result);
    }
    if applied.conflicts.is_empty() && applied.rejected.is_none() {
        for deployment in &create {
            match writer.create(Kind::Deployment, deployment).await? {
                Created::New(_) | Created::Ours(_) => {}
                Created::Conflicting(conflict) => applied.conflicts.push(conflict),
                Created::Rejected(invalid) => applied.rejected = Some(invalid),
            }
        }
    }
    for repair in &repair {
        let result = writer.repair(repair).await;
        applied.keep_error(result);
    }
    match &service {
        Plan::Keep => {}
        Plan::Create(service) => match writer.create(Kind::Service, &**service).await {
            Ok(Created::New(_) | Created::Ours(_)) => {}
            Ok(Created::Conflicting(conflict)) => applied.conflicts.push(conflict),
            Ok(Created::Rejected(invalid)) => applied.rejected = Some(invalid),
            Err(error) => applied.keep_error(Err(error)),
        },
        Plan::Repair(service) => {
            let result = writer.apply_service(service).await;
            applied.keep_error(result);
        }
    }
    for removal in &remove {
        let result = writer.remove(removal).await;
        applied.keep_error(result);
    }
    if let Some(made) = made {
        tracing::info!(function = %key, revision = made, image = function.spec.image, "Created revision");
        let note = format!("Created revision {made} from image {}", function.spec.image);
        context.events.normal(&function.object_ref(&()), "RevisionCreated", &note).await;
    }
    Ok(Resources { latest, leftovers, revision, record, create, repair, service, remove, state: applied })
}

struct Writer<'a> {
    context: &'a Context,
    key: &'a FunctionKey,
    uid: String,
}

enum Created {
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

    async fn create<K>(&self, kind: Kind, object: &K) -> Result<Created, Error>
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
        tracing::warn!(function = %self.key, ?kind, name, "Restored labels of object");
        written.map(drop).map_err(Error::api("label", kind, &name))
    }

    /// Records the versions of ConfigMaps and Secrets in the annotation of the revision. Idempotent.
    async fn record_config(&self, record: &ConfigRecord) -> Result<(), Error> {
        let ConfigRecord { name, uid, versions } = record;
        let patch = json!({"metadata": {"uid": uid, "annotations": {CONFIG_ANNOTATION: versions}}});
        match self.api::<ControllerRevision>().patch_metadata(name, &params(), &Patch::Merge(patch)).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if is_outdated(&status) => Ok(()),
            Err(error) => Err(Error::api("annotate", Kind::ControllerRevision, name)(error)),
        }
    }

    /// Repairs a Deployment. The patch tests its `resourceVersion`, so a concurrent change is never overwritten.
    async fn repair(&self, repair: &Repair) -> Result<(), Error> {
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

    async fn apply_service(&self, service: &Service) -> Result<(), Error> {
        let name = service.name_any();
        tracing::warn!(function = %self.key, service = name, "Repairing Service that was modified externally");
        let params = PatchParams::apply(OPERATOR_FIELD_MANAGER).force();
        let written = self.api::<Service>().patch(&name, &params, &Patch::Apply(service)).await;
        written.map(drop).map_err(Error::api("apply", Kind::Service, &name))
    }

    /// Deletes an object in its cached version. Ignores an object that changed since or does not exist.
    async fn remove(&self, removal: &Removal) -> Result<(), Error> {
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

/// Returns whether a write failed because the cache is behind: a failed test of a JSON patch (422), a conflict, or a deleted
/// object. The watch delivers the current state.
fn is_outdated(status: &kube::core::Status) -> bool {
    status.is_conflict() || status.is_not_found() || (status.code == 422 && status.message.contains("test"))
}
