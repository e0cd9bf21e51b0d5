//! Step 4: writes the built objects.
//!
//! Objects are created with POST, so an existing object of another owner is never adopted. Own objects that were
//! modified are repaired. Each write depends only on the result of the writes before it, so the next call continues
//! after a crash.

mod repairs;
mod writer;

pub use repairs::Repairs;

use std::{fmt, time::Duration};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::{Resource as _, ResourceExt as _};
use rouse_crds::{
    Function,
    names::{CONTAINER_HASH_LABEL, OPERATOR_FIELD_MANAGER},
};
use tokio::time::Instant;

use super::{
    Context,
    build::{Prepared, Resources, service::Plan},
    dereference::Kind,
};
use crate::cluster::{
    key::FunctionKey,
    refusal::{Refusal, sentence},
};
use writer::{Created, Writer};

/// Result of the writes.
#[derive(Debug, Default)]
pub struct Applied {
    /// Objects that exist and have another owner.
    pub conflicts: Vec<Conflict>,
    /// Writes that failed. The status reports them, and the reconcile is retried.
    pub failures: Vec<Error>,
    /// Revision that was created, or existed although the cache did not have it yet.
    pub made: Option<Made>,
    /// Objects that another client changes again after each repair.
    pub drifting: Vec<Drift>,
    /// When the next repair is due.
    pub repair_at: Option<Instant>,
    /// Deployments that were created, or existed although the cache did not have them yet.
    pub created: Vec<String>,
}

/// An object that another client changes again after each repair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drift {
    /// Kind of the object.
    pub kind: Kind,
    /// Name of the object.
    pub name: String,
    /// Path of the first field that differs.
    pub field: String,
    /// Field manager of the other client, if known.
    pub manager: Option<String>,
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, name, field, manager } = self;
        let by = match manager.as_deref() {
            None => "another client".to_owned(),
            Some(OPERATOR_FIELD_MANAGER) => "another installation of Rouse".to_owned(),
            Some(manager) => format!("field manager {manager}"),
        };
        write!(
            f,
            "{kind:?} {name}: {by} sets {field} again after each repair, so it is repaired less and less often; stop that client from changing objects of Functions"
        )
    }
}

impl Applied {
    /// Keeps the error of a write, and returns its result.
    fn keep_error<T>(&mut self, result: Result<T, Error>) -> Option<T> {
        result
            .map_err(|error| {
                tracing::debug!(%error, "Write failed; continuing");
                self.failures.push(error);
            })
            .ok()
    }

    /// Returns why the ControllerRevision or the Deployment of this revision could not be created.
    pub fn create_failure(&self, revision: &str) -> Option<&Error> {
        self.failures.iter().find(|error| {
            let (kind, name) = error.object();
            error.is_create() && kind != Kind::Service && name == revision
        })
    }

    /// Returns why the Service could not be created.
    pub fn service_failure(&self) -> Option<&Error> {
        self.failures.iter().find(|error| error.is_create() && error.object().0 == Kind::Service)
    }

    /// Whether this revision could not be created: its objects were refused, or have another owner.
    pub fn is_blocked(&self, revision: &str) -> bool {
        self.create_failure(revision).is_some()
            || self.conflicts.iter().any(|c| c.kind != Kind::Service && c.name == revision)
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
    #[error("Failed to {verb} {kind:?} {name}: {}", sentence(.source))]
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
    #[error("Revision {name} was created from a different spec; waiting for the cache to catch up")]
    Stale {
        /// Name of the revision.
        name: String,
    },
}

impl Error {
    fn api(verb: &'static str, kind: Kind, name: &str) -> impl FnOnce(kube::Error) -> Self {
        move |source| Self::Api { verb, kind, name: name.to_owned(), source }
    }

    /// Returns the object of the write.
    #[must_use]
    pub fn object(&self) -> (Kind, &str) {
        match self {
            Self::Api { kind, name, .. } | Self::Leftover { kind, name } => (*kind, name),
            Self::Stale { name } => (Kind::ControllerRevision, name),
        }
    }

    /// Returns the class of the failure.
    #[must_use]
    pub fn refusal(&self) -> Refusal {
        match self {
            // The namespace is deleted.
            Self::Api { source: kube::Error::Api(status), .. } if status.is_not_found() => Refusal::Terminating,
            Self::Api { source, .. } => match Refusal::of(source) {
                // Only a create reports it as an error, for example when a quota changed at the same time.
                Refusal::Outdated => Refusal::Temporary,
                other => other,
            },
            Self::Leftover { .. } | Self::Stale { .. } => Refusal::Temporary,
        }
    }

    /// Whether the object was to be created.
    #[must_use]
    pub fn is_create(&self) -> bool {
        matches!(self, Self::Leftover { .. } | Self::Api { verb: "create", .. })
    }
}

/// Time for all writes of a reconcile.
const WRITES: Duration = Duration::from_secs(45);

/// Writes all objects, in the order of their dependencies. A write that fails prevents only the writes that depend on it.
///
/// # Errors
///
/// If the cache is so far behind that a status computed from it would be wrong.
pub async fn apply(
    context: &Context,
    key: &FunctionKey,
    function: &Function,
    resources: Resources<Prepared>,
) -> Result<Resources<Applied>, Error> {
    let Resources { latest, leftovers, revision, record, create, repair, service, remove, state: Prepared } = resources;
    let writer = Writer { context, key, uid: function.uid().unwrap_or_default(), until: Instant::now() + WRITES };
    let mut applied = Applied::default();
    let mut made = None;

    for leftover in &leftovers {
        let result = writer.remove(leftover).await;
        applied.keep_error(result);
    }
    if let Some(revision) = &revision {
        let result = writer.create(Kind::ControllerRevision, revision).await;
        match applied.keep_error(result) {
            Some(Created::New(new)) => {
                made = Some(revision.name_any());
                applied.made = Some(Made { image: function.spec.image.clone(), created: new.creation_timestamp });
            }
            Some(Created::Ours(found)) => {
                let hash =
                    |labels: &ObjectMeta| labels.labels.as_ref().and_then(|l| l.get(CONTAINER_HASH_LABEL)).cloned();
                if hash(&found) != hash(&revision.metadata) {
                    return Err(Error::Stale { name: revision.name_any() });
                }
                applied.made = Some(Made { image: function.spec.image.clone(), created: found.creation_timestamp });
            }
            Some(Created::Conflicting(conflict)) => applied.conflicts.push(conflict),
            None => {}
        }
    }
    if let Some(record) = &record {
        let result = writer.record_config(record).await;
        applied.keep_error(result);
    }
    for deployment in &create {
        let name = deployment.name_any();
        if name == latest && revision.is_some() && applied.made.is_none() {
            // A Deployment without a ControllerRevision could not be repaired.
            continue;
        }
        let result = writer.create(Kind::Deployment, deployment).await;
        match applied.keep_error(result) {
            Some(Created::New(_) | Created::Ours(_)) => applied.created.push(name),
            Some(Created::Conflicting(conflict)) => applied.conflicts.push(conflict),
            None => {}
        }
    }
    for repair in &repair {
        let result = writer.repair(repair, &mut applied).await;
        applied.keep_error(result);
    }
    match &service {
        Plan::Keep => {}
        Plan::Create(service) => {
            let result = writer.create(Kind::Service, &**service).await;
            if let Some(Created::Conflicting(conflict)) = applied.keep_error(result) {
                applied.conflicts.push(conflict);
            }
        }
        Plan::Repair { service, field, seen } => {
            let result = writer.apply_service(service, field, seen, &mut applied).await;
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
