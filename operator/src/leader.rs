//! Leader election with a Lease. Only the leader reconciles and scales.
//!
//! A Lease is not a lock: a paused leader that resumes may still send a write. So every write of the operator is
//! idempotent or conditional, and the election only keeps two replicas from working against each other for long.
//!
//! Every write of the Lease carries its `resourceVersion`. Expiry is measured from the last change that this process
//! observed and not from the times in the Lease, so clocks may differ.

pub mod decide;

use std::time::Duration;

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference},
    jiff::Timestamp,
};
use kube::{Api, Client, api::PostParams};
use rand::Rng as _;
use rouse_crds::names::OPERATOR_FIELD_MANAGER;
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::runtime::progress::Beat;
use decide::{Action, Seen, decide};

/// Duration of the Lease after its last renewal.
pub const LEASE: Duration = Duration::from_secs(15);
/// Time without renewal after which a leader resigns, well before another replica may take over.
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// Interval of renewals by the leader and of checks by the other replicas.
const RETRY_PERIOD: Duration = Duration::from_secs(3);
/// Timeout of a single request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(4);

/// Candidate in the leader election.
#[allow(missing_debug_implementations, reason = "kube's Api has none of use")]
pub struct Candidate {
    api: Api<Lease>,
    name: String,
    /// Identity: the pod's name and a random part, so that a restarted container is another candidate.
    identity: String,
    owner: Option<OwnerReference>,
    seen: Option<Seen>,
    lease: Option<Lease>,
}

/// Reason why this replica lost the leadership.
#[derive(Debug, thiserror::Error)]
pub enum Lost {
    /// Another replica holds the Lease.
    #[error("the Lease is held by {0}")]
    Taken(String),
    /// The Lease was not renewed in time.
    #[error("failed to renew the Lease within {RENEW_DEADLINE:?}: {0}")]
    NotRenewed(String),
}

impl Candidate {
    /// Creates a candidate for the Lease `name`.
    pub fn new(client: Client, namespace: &str, name: &str, pod: &str, owner: Option<OwnerReference>) -> Self {
        let identity = format!("{pod}_{:08x}", rand::rng().random::<u32>());
        let api = Api::namespaced(client, namespace);
        Self { api, name: name.to_owned(), identity, owner, seen: None, lease: None }
    }

    /// Returns the identity of the candidate.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Takes part in the election until `stop`, and then releases the Lease. Sets `leads` when this replica becomes the
    /// leader.
    ///
    /// # Errors
    ///
    /// If it loses the leadership. The process must then exit, because it must not write any more.
    pub async fn run(mut self, leads: &watch::Sender<bool>, stop: &CancellationToken, beat: &Beat) -> Result<(), Lost> {
        let mut renewed = None;
        loop {
            beat.now();
            // Measured from before the request, because the time when it takes effect is unknown.
            let start = Instant::now();
            let outcome = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                outcome = timeout(REQUEST_TIMEOUT, self.round()) => outcome,
            };
            let now = Instant::now();
            let problem = match outcome {
                Ok(Ok(true)) => {
                    renewed = Some(start);
                    if !leads.send_replace(true) {
                        tracing::info!(identity = self.identity, lease = self.name, "Became leader");
                    }
                    None
                }
                Ok(Ok(false)) if renewed.is_some() => {
                    let holder = self.seen.as_ref().and_then(|s| s.holder.clone());
                    return Err(Lost::Taken(holder.unwrap_or_default()));
                }
                Ok(Ok(false)) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some(format!("no response within {REQUEST_TIMEOUT:?}")),
            };
            if let Some(error) = problem {
                tracing::warn!(error, lease = self.name, "Failed to read or renew the Lease; will retry");
                if renewed.is_some_and(|at: Instant| now.duration_since(at) >= RENEW_DEADLINE) {
                    return Err(Lost::NotRenewed(error));
                }
            }
            // Jitter spreads the requests of candidates that started together.
            let mut pause = RETRY_PERIOD.mul_f64(rand::rng().random_range(0.8..1.0));
            if let Some(at) = renewed {
                pause = pause.min((at + RENEW_DEADLINE).saturating_duration_since(now)).max(Duration::from_millis(200));
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = tokio::time::sleep(pause) => {}
            }
        }
        if renewed.is_some() {
            self.release().await;
        }
        Ok(())
    }

    /// Reads the Lease and creates, acquires or renews it. Returns whether this replica holds it.
    async fn round(&mut self) -> kube::Result<bool> {
        let lease = self.api.get_opt(&self.name).await?;
        let now = Instant::now();
        self.seen = Seen::of(lease.as_ref(), self.seen.take(), now);
        self.lease = lease;
        let action = decide(self.seen.as_ref(), &self.identity, now, LEASE);
        let written = match action {
            Action::Wait => return Ok(false),
            Action::Create => {
                let lease = self.object(None, self.owner.clone());
                self.api.create(&params(), &lease).await
            }
            Action::Acquire | Action::Renew => {
                let lease = self.object(self.lease.as_ref(), None);
                self.api.replace(&self.name, &params(), &lease).await
            }
        };
        match written {
            Ok(lease) => {
                self.seen = Seen::of(Some(&lease), self.seen.take(), Instant::now());
                self.lease = Some(lease);
                Ok(true)
            }
            // Another client was faster. For a leader that renews, the Lease was taken or modified; the next round
            // reads its holder.
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => match action {
                Action::Renew => Err(kube::Error::Api(status)),
                Action::Create | Action::Acquire | Action::Wait => Ok(false),
            },
            Err(error) => Err(error),
        }
    }

    /// Builds the Lease with this candidate as the holder and the `resourceVersion` of `former`.
    fn object(&self, former: Option<&Lease>, owner: Option<OwnerReference>) -> Lease {
        let now = MicroTime(Timestamp::now());
        let former_spec = former.and_then(|l| l.spec.clone()).unwrap_or_default();
        let held = former_spec.holder_identity.as_deref() == Some(&self.identity);
        let metadata = former.map(|l| l.metadata.clone()).unwrap_or_else(|| ObjectMeta {
            name: Some(self.name.clone()),
            owner_references: owner.map(|o| vec![o]),
            ..ObjectMeta::default()
        });
        let transitions = former_spec.lease_transitions.unwrap_or(0);
        Lease {
            metadata: ObjectMeta { managed_fields: None, ..metadata },
            spec: Some(LeaseSpec {
                holder_identity: Some(self.identity.clone()),
                lease_duration_seconds: i32::try_from(LEASE.as_secs()).ok(),
                acquire_time: if held { former_spec.acquire_time } else { Some(now.clone()) },
                renew_time: Some(now),
                lease_transitions: Some(if held { transitions } else { transitions.saturating_add(1) }),
                ..LeaseSpec::default()
            }),
        }
    }

    /// Releases the Lease, so that another replica need not wait for its expiry.
    async fn release(&self) {
        let Some(mut lease) = self.lease.clone() else { return };
        if let Some(spec) = &mut lease.spec {
            spec.holder_identity = None;
            spec.acquire_time = None;
        }
        lease.metadata.managed_fields = None;
        match timeout(REQUEST_TIMEOUT, self.api.replace(&self.name, &params(), &lease)).await {
            Ok(Ok(_)) => tracing::info!(lease = self.name, "Released the Lease"),
            Ok(Err(error)) => tracing::warn!(%error, "Failed to release the Lease; it will expire"),
            Err(_) => tracing::warn!("Timed out releasing the Lease; it will expire"),
        }
    }
}

fn params() -> PostParams {
    PostParams { field_manager: Some(OPERATOR_FIELD_MANAGER.to_owned()), ..PostParams::default() }
}
