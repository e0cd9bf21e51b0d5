//! One replica leads: it alone reconciles and scales. Which one is written in a Lease.
//!
//! A Lease is no lock: a leader that was stopped and goes on may still have a write on its way. So every write of the
//! operator is idempotent or conditional, and this is only what keeps two from working against each other for long.
//!
//! Every write of the Lease carries its `resourceVersion`. Whether it has expired is counted from when this process last
//! saw it change and not from the times in it, so that clocks may differ.

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

/// How long a Lease holds after its last change.
pub const LEASE: Duration = Duration::from_secs(15);
/// A leader that could not renew for so long has lost, well before another may take over.
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// How often the leader renews and the others look.
const PERIOD: Duration = Duration::from_secs(3);
/// No single request takes longer.
const REQUEST: Duration = Duration::from_secs(4);

/// Takes part in the election.
#[allow(missing_debug_implementations, reason = "kube's Api has none of use")]
pub struct Candidate {
    api: Api<Lease>,
    name: String,
    /// Who this is: the pod's name and a random part, so that a restarted container is somebody else.
    identity: String,
    owner: Option<OwnerReference>,
    seen: Option<Seen>,
    lease: Option<Lease>,
}

/// Why this replica leads no longer.
#[derive(Debug, thiserror::Error)]
pub enum Lost {
    /// Somebody else has the Lease.
    #[error("the Lease is held by {0}")]
    Taken(String),
    /// The Lease could not be renewed.
    #[error("the Lease could not be renewed for {RENEW_DEADLINE:?}: {0}")]
    NotRenewed(String),
}

impl Candidate {
    /// A candidate for the Lease `name`.
    pub fn new(client: Client, namespace: &str, name: &str, pod: &str, owner: Option<OwnerReference>) -> Self {
        let identity = format!("{pod}_{:08x}", rand::rng().random::<u32>());
        let api = Api::namespaced(client, namespace);
        Self { api, name: name.to_owned(), identity, owner, seen: None, lease: None }
    }

    /// Who this is.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Takes part until `stop` (the Lease is then released) or until a Lease that was held is lost. `leads` says whether
    /// this replica leads.
    ///
    /// # Errors
    ///
    /// If it led and does no longer: then it must not write any more, so the process has to end.
    pub async fn run(mut self, leads: &watch::Sender<bool>, stop: &CancellationToken, beat: &Beat) -> Result<(), Lost> {
        let mut renewed = None;
        loop {
            beat.now();
            // Counted from before the request was sent: when it took effect is not known any better.
            let begun = Instant::now();
            let outcome = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                outcome = timeout(REQUEST, self.round()) => outcome,
            };
            let now = Instant::now();
            let problem = match outcome {
                Ok(Ok(true)) => {
                    renewed = Some(begun);
                    if !leads.send_replace(true) {
                        tracing::info!(identity = self.identity, lease = self.name, "This replica leads");
                    }
                    None
                }
                Ok(Ok(false)) if renewed.is_some() => {
                    let holder = self.seen.as_ref().and_then(|s| s.holder.clone());
                    return Err(Lost::Taken(holder.unwrap_or_default()));
                }
                Ok(Ok(false)) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some(format!("no answer within {REQUEST:?}")),
            };
            if let Some(error) = problem {
                tracing::warn!(
                    error,
                    lease = self.name,
                    "The Lease could not be read or written and will be tried again"
                );
                if renewed.is_some_and(|at: Instant| now.duration_since(at) >= RENEW_DEADLINE) {
                    return Err(Lost::NotRenewed(error));
                }
            }
            // Candidates that started together do not keep asking together.
            let mut pause = PERIOD.mul_f64(rand::rng().random_range(0.8..1.0));
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

    /// Reads the Lease and does what it calls for. Yields whether it is held afterwards.
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
            // Somebody was faster. For a leader that renews it means that the Lease was taken or tampered with: the next
            // round reads who has it.
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => match action {
                Action::Renew => Err(kube::Error::Api(status)),
                Action::Create | Action::Acquire | Action::Wait => Ok(false),
            },
            Err(error) => Err(error),
        }
    }

    /// The Lease held by this candidate, with the `resourceVersion` of `former`.
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

    /// Gives the Lease up, so that the next one need not wait for it to expire.
    async fn release(&self) {
        let Some(mut lease) = self.lease.clone() else { return };
        if let Some(spec) = &mut lease.spec {
            spec.holder_identity = None;
            spec.acquire_time = None;
        }
        lease.metadata.managed_fields = None;
        match timeout(REQUEST, self.api.replace(&self.name, &params(), &lease)).await {
            Ok(Ok(_)) => tracing::info!(lease = self.name, "Released the Lease"),
            Ok(Err(error)) => tracing::warn!(%error, "The Lease could not be released; it expires by itself"),
            Err(_) => tracing::warn!("The Lease could not be released in time; it expires by itself"),
        }
    }
}

fn params() -> PostParams {
    PostParams { field_manager: Some(OPERATOR_FIELD_MANAGER.to_owned()), ..PostParams::default() }
}
