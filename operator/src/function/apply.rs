//! Step four: what was built is written.
//!
//! Objects are made by POST, so that one which is there already is never taken from whoever made it; what is ours and
//! was changed is brought back. A crash between any two writes is made good by the next call: each write depends only on
//! what the ones before it left.

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
    build::{Prepared, Record, Resources, deployment::Repair, service::Plan},
    dereference::{Kind, Removal, is_leftover},
};
use crate::{
    cluster::{
        children::{DeploymentObject, controller, owned_by},
        key::FunctionKey,
    },
    spec::invalid::Invalid,
};

/// Written, with what stood in the way.
#[derive(Debug, Default)]
pub struct Applied {
    /// Names that belong to something else.
    pub conflicts: Vec<Conflict>,
    /// What the API server would not take.
    pub rejected: Option<Invalid>,
    /// The revision that was made, or found made already.
    pub made: Option<Made>,
    /// The first thing that could not be done and that nothing else waits for: it is tried again, and what is goes on being
    /// looked at. Calls may have to go back to a former revision while a webhook is down.
    pub failed: Option<Error>,
}

impl Applied {
    /// Goes on after something that nothing else waits for.
    fn note(&mut self, done: Result<(), Error>) {
        if let Err(error) = done {
            tracing::debug!(%error, "Goes on without");
            self.failed.get_or_insert(error);
        }
    }
}

/// A revision that the cache does not know yet.
#[derive(Debug)]
pub struct Made {
    /// The image, as the user wrote it.
    pub image: String,
    /// When it was made.
    pub created: Option<Time>,
}

/// An object that is needed exists and is not the Function's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// Kind and name of its owner, if it has one.
    pub owner: Option<String>,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, name, owner } = self;
        let owner = owner.as_ref().map_or_else(|| "not made by Rouse".to_owned(), |owner| format!("owned by {owner}"));
        write!(f, "the {kind:?} {name} exists already and is {owner}; delete or rename it, or rename the Function")
    }
}

/// Why not everything could be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused, or could not be reached.
    #[error("cannot {verb} {kind:?} {name}: {source}")]
    Api {
        /// What was tried.
        verb: &'static str,
        /// On what kind.
        kind: Kind,
        /// On which.
        name: String,
        /// What came of it.
        source: kube::Error,
    },
    /// An object of a former Function of the same name is still there.
    #[error("{kind:?} {name} of a former Function of this name is still being deleted")]
    Leftover {
        /// Its kind.
        kind: Kind,
        /// Its name.
        name: String,
    },
    /// There is a newer revision than the cache knows.
    #[error("revision {name} has been made from another state of the Function; waiting for the cache to catch up")]
    Stale {
        /// Its name.
        name: String,
    },
}

impl Error {
    fn api(verb: &'static str, kind: Kind, name: &str) -> impl FnOnce(kube::Error) -> Self {
        move |source| Self::Api { verb, kind, name: name.to_owned(), source }
    }
}

/// Writes everything, in the order in which the next depends on the former.
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
            Created::Taken(conflict) => applied.conflicts.push(conflict),
            Created::Rejected(invalid) => applied.rejected = Some(invalid),
        }
    }
    if let Some(record) = &record {
        let done = writer.record(record).await;
        applied.note(done);
    }
    if applied.conflicts.is_empty() && applied.rejected.is_none() {
        for deployment in &create {
            match writer.create(Kind::Deployment, deployment).await? {
                Created::New(_) | Created::Ours(_) => {}
                Created::Taken(conflict) => applied.conflicts.push(conflict),
                Created::Rejected(invalid) => applied.rejected = Some(invalid),
            }
        }
    }
    for repair in &repair {
        let done = writer.repair(repair).await;
        applied.note(done);
    }
    match &service {
        Plan::Keep => {}
        Plan::Create(service) => match writer.create(Kind::Service, &**service).await {
            Ok(Created::New(_) | Created::Ours(_)) => {}
            Ok(Created::Taken(conflict)) => applied.conflicts.push(conflict),
            Ok(Created::Rejected(invalid)) => applied.rejected = Some(invalid),
            Err(error) => applied.note(Err(error)),
        },
        Plan::Repair(service) => {
            let done = writer.apply_service(service).await;
            applied.note(done);
        }
    }
    for removal in &remove {
        let done = writer.remove(removal).await;
        applied.note(done);
    }
    if let Some(made) = made {
        tracing::info!(function = %key, revision = made, image = function.spec.image, "Made a revision");
        let note = format!("Made revision {made} from image {}", function.spec.image);
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
    /// Made.
    New(Box<ObjectMeta>),
    /// It was there already and is ours: the cache is late.
    Ours(Box<ObjectMeta>),
    /// It is somebody else's.
    Taken(Conflict),
    /// The API server would not take it.
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
            Err(kube::Error::Api(status)) if status.is_already_exists() => self.examine(kind, object).await,
            Err(kube::Error::Api(status)) if matches!(status.code, 403 | 422) => {
                tracing::warn!(function = %self.key, ?kind, name, error = %status.message, "The API server would not take an object");
                Ok(Created::Rejected(Invalid::new(format!("{kind:?} {name}"), status.message)))
            }
            Err(error) => Err(Error::api("create", kind, &name)(error)),
        }
    }

    /// Finds out whose the object is that has the name of `wanted`.
    async fn examine<K>(&self, kind: Kind, wanted: &K) -> Result<Created, Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + fmt::Debug + DeserializeOwned,
    {
        let name = wanted.name_any();
        let api = self.api::<K>();
        let found: PartialObjectMeta<K> = match api.get_metadata_opt(&name).await {
            Ok(Some(found)) => found,
            // It went in the meantime; the next call makes it.
            Ok(None) => return Err(Error::Leftover { kind, name }),
            Err(error) => return Err(Error::api("read", kind, &name)(error)),
        };
        let owner = controller(&found.metadata);
        if owned_by(&found.metadata, &self.uid) {
            if found.metadata.deletion_timestamp.is_some() {
                return Err(Error::Leftover { kind, name });
            }
            self.relabel(kind, wanted, &found).await?;
            return Ok(Created::Ours(Box::new(found.metadata)));
        }
        if is_leftover(owner, self.key, &self.uid) {
            self.remove(&Removal::of(kind, &found)).await?;
            return Err(Error::Leftover { kind, name });
        }
        let owner = owner.map(|o| format!("{} {}", o.kind, o.name));
        Ok(Created::Taken(Conflict { kind, name, owner }))
    }

    /// An object of ours that has lost its labels is out of sight of the caches until it has them again.
    async fn relabel<K>(&self, kind: Kind, wanted: &K, found: &PartialObjectMeta<K>) -> Result<(), Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + fmt::Debug + DeserializeOwned,
    {
        if wanted.labels().iter().all(|(name, value)| found.labels().get(name) == Some(value)) {
            return Ok(());
        }
        let name = wanted.name_any();
        let patch = json!({"metadata": {"uid": found.uid(), "labels": wanted.labels()}});
        let written = self.api::<K>().patch_metadata(&name, &params(), &Patch::Merge(patch)).await;
        tracing::warn!(function = %self.key, ?kind, name, "An object had lost its labels, and has them again");
        written.map(drop).map_err(Error::api("label", kind, &name))
    }

    /// Notes down the versions of the configuration with their revision. Twice is as good as once.
    async fn record(&self, record: &Record) -> Result<(), Error> {
        let Record { name, uid, versions } = record;
        let patch = json!({"metadata": {"uid": uid, "annotations": {CONFIG_ANNOTATION: versions}}});
        match self.api::<ControllerRevision>().patch_metadata(name, &params(), &Patch::Merge(patch)).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if is_outdated(&status) => Ok(()),
            Err(error) => Err(Error::api("annotate", Kind::ControllerRevision, name)(error)),
        }
    }

    /// Cannot hurt a Deployment that has changed since it was seen: the patch tests its `resourceVersion`.
    async fn repair(&self, repair: &Repair) -> Result<(), Error> {
        let Repair { name, uid, patch, difference, seen } = repair;
        if self.context.insisted.lock().get(uid) == Some(seen) {
            return Ok(());
        }
        let patch: Patch<()> = match serde_json::from_value(patch.clone()) {
            Ok(patch) => Patch::Json(patch),
            // The operations are written out in one place and covered by tests.
            Err(error) => return Err(Error::api("repair", Kind::Deployment, name)(kube::Error::SerdeError(error))),
        };
        tracing::warn!(function = %self.key, deployment = name, difference, "A Deployment was changed by somebody and is brought back");
        match self.api::<DeploymentObject>().patch(name, &params(), &patch).await {
            Ok(after) => {
                // Should something change it each time it is written (an admission webhook), one try for each state is enough.
                let mut insisted = self.context.insisted.lock();
                if insisted.len() >= INSISTED {
                    insisted.clear();
                }
                insisted.insert(uid.clone(), after.spec.rest);
                Ok(())
            }
            Err(kube::Error::Api(status)) if is_outdated(&status) => Ok(()),
            Err(error) => Err(Error::api("repair", Kind::Deployment, name)(error)),
        }
    }

    async fn apply_service(&self, service: &Service) -> Result<(), Error> {
        let name = service.name_any();
        tracing::warn!(function = %self.key, service = name, "A Service was changed by somebody and is brought back");
        let params = PatchParams::apply(OPERATOR_FIELD_MANAGER).force();
        let written = self.api::<Service>().patch(&name, &params, &Patch::Apply(service)).await;
        written.map(drop).map_err(Error::api("apply", Kind::Service, &name))
    }

    /// Deletes an object as it was seen; one that has changed since, or is gone, is left.
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
                tracing::info!(function = %self.key, ?kind, name, "Removed an object that is not needed any more");
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(()),
            Err(error) => Err(Error::api("delete", *kind, name)(error)),
        }
    }
}

/// Most Deployments that something insists on changing; beyond that they are tried again.
const INSISTED: usize = 1000;

fn params() -> PatchParams {
    PatchParams { field_manager: Some(OPERATOR_FIELD_MANAGER.to_owned()), ..PatchParams::default() }
}

/// A JSON patch whose test failed (422), a conflict, or an object that is gone: the watch will bring what is there now.
fn is_outdated(status: &kube::core::Status) -> bool {
    status.is_conflict() || status.is_not_found() || (status.code == 422 && status.message.contains("test"))
}
