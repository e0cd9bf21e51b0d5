//! Step 4: writes the built objects.
//!
//! Objects are created with POST, so an existing object of another owner is never adopted. Own objects that were
//! modified are repaired. Each write depends only on the result of the writes before it, so the next call continues
//! after a crash.

mod writer;

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::{Resource as _, ResourceExt as _};
use rouse_crds::{Function, names::CONTAINER_HASH_LABEL};

use super::{
    Context,
    build::{Prepared, Resources, service::Plan},
    dereference::Kind,
};
use crate::{cluster::key::FunctionKey, spec::invalid::Invalid};
use writer::{Created, Writer};

/// Result of the writes.
#[derive(Debug, Default)]
pub struct Applied {
    /// Objects that exist and have another owner.
    pub conflicts: Vec<Conflict>,
    /// Object that the API server rejected.
    pub rejected: Option<Invalid>,
    /// Revision that was created, or existed although the cache did not have it yet.
    pub made: Option<Made>,
    /// First error of a write that no other write depends on. The reconcile is retried, but the status is still
    /// updated: a rollback must work while a webhook is down.
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
