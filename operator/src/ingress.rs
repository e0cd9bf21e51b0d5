//! The Ingresses that lead every public function's hosts to the activators, and who owns which custom host.
//!
//! There is one for all, and one for the hosts of functions that speak h2c: gRPC needs HTTP/2 all the way and WebSocket
//! needs HTTP/1.1, and ingress controllers take the protocol of a backend from its port, from an annotation of its Service
//! or from one of the whole Ingress. So each of the two has an Ingress and a Service of its own.
//!
//! They are in the release namespace, away from the Functions, so no owner reference ties them to those: they are built from
//! all of them together each time one changes. Their own owner is the operator's Deployment, so that they go with the
//! release.

pub mod rules;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        networking::v1::{Ingress, IngressRule, IngressSpec},
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::{
    Api, Client, Resource as _, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};
use rouse_crds::{
    Function,
    names::{MANAGED_BY, MANAGED_BY_LABEL, OPERATOR_FIELD_MANAGER},
};
use rules::Rules;
use serde_json::Value;
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    backoff, caches::Caches, drift, function::Names, hosts, hosts::Claims, key::FunctionKey, progress::Beat,
    queue::WorkQueue,
};

/// Name of the Ingress.
pub const NAME: &str = "rouse";

/// Name of the Ingress of the hosts whose functions speak h2c.
pub const H2C_NAME: &str = "rouse-h2c";

/// After a pass, changes are gathered for so long before the next: with ten thousand Functions a pass is milliseconds of
/// work, and a user does not see a tenth of a second.
const GATHER: Duration = Duration::from_millis(100);

/// A pass is made this often even if nothing changes.
const REVIEW: Duration = Duration::from_secs(60);

/// How the cluster's ingress is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// By Ingresses of ours.
    Ingress {
        /// `spec.ingressClassName`.
        class: Option<String>,
        /// Annotations for the ingress controller.
        annotations: BTreeMap<String, String>,
        /// The same for the hosts whose functions speak h2c.
        h2c_annotations: BTreeMap<String, String>,
    },
    /// Not by us: somebody routes hosts to the activators.
    None,
}

/// Keeps the Ingresses and the claims.
#[allow(missing_debug_implementations, reason = "kube's Client has none of use")]
pub struct Keeper {
    /// For the Ingress.
    pub client: Client,
    /// The Functions.
    pub caches: Caches,
    /// Kept here.
    pub claims: Claims,
    /// Domains and the activators' Service.
    pub names: Names,
    /// How the cluster's ingress is used.
    pub mode: Mode,
    /// The operator's own Deployment, if it runs in one.
    pub owner: Option<OwnerReference>,
    /// Told of every change of a Function or of an Ingress.
    pub changed: Arc<Notify>,
    /// Told of Functions whose claims have become other ones.
    pub reconciler: Arc<WorkQueue<FunctionKey>>,
}

impl Keeper {
    /// Runs until `stop`.
    pub async fn run(&self, stop: &CancellationToken, beat: &Beat) {
        let mut failures = 0;
        loop {
            beat.now();
            let wait = match self.pass().await {
                Ok(()) => {
                    failures = 0;
                    REVIEW
                }
                Err(error) => {
                    failures += 1;
                    let wait = backoff::RECONCILE.after(failures).min(REVIEW);
                    tracing::warn!(%error, failures, retry_in = ?wait, "The shared Ingresses could not be written and will be tried again");
                    wait
                }
            };
            let earliest = Instant::now() + if failures == 0 { GATHER } else { wait };
            let again = async {
                tokio::select! {
                    () = self.changed.notified() => tokio::time::sleep_until(earliest).await,
                    () = tokio::time::sleep(wait) => {}
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = again => {}
            }
        }
    }

    /// Brings claims and Ingresses in line with the Functions. Writes nothing if they are.
    async fn pass(&self) -> kube::Result<()> {
        let wanted = {
            let all = self.caches.functions.all();
            let functions = || all.iter().filter_map(|f| f.0.as_ref().ok()).filter(|f| alive(f));
            let owners = hosts::owners(functions(), &self.names.hosts);
            let changed = self.claims.replace(owners);
            if !changed.is_empty() {
                let touched = functions().filter(|f| f.spec.hosts.iter().flatten().any(|h| changed.contains(h)));
                for function in touched {
                    if let Some(namespace) = &function.metadata.namespace {
                        self.reconciler
                            .add(FunctionKey::new(namespace, function.metadata.name.clone().unwrap_or_default()));
                    }
                }
            }
            let owns = |f: &Function, host: &str| {
                self.claims.owner(host).is_some_and(|o| {
                    Some(&o.namespace) == f.metadata.namespace.as_ref() && Some(&o.name) == f.metadata.name.as_ref()
                })
            };
            match &self.mode {
                Mode::None => return Ok(()),
                Mode::Ingress { class, annotations, h2c_annotations } => {
                    let Rules { http1, h2c } = rules::build(functions(), owns, &self.names);
                    [
                        (NAME, self.object(NAME, class.clone(), annotations.clone(), http1)),
                        (H2C_NAME, self.object(H2C_NAME, class.clone(), h2c_annotations.clone(), h2c)),
                    ]
                }
            }
        };
        for (name, wanted) in wanted {
            self.keep(name, wanted).await?;
        }
        Ok(())
    }

    /// Makes the Ingress `name` what is wanted, or takes it away. Writes nothing if it is so.
    async fn keep(&self, name: &str, wanted: Option<Ingress>) -> kube::Result<()> {
        let api: Api<Ingress> = Api::namespaced(self.client.clone(), &self.names.namespace);
        let live = self.caches.ingresses.get(&FunctionKey::new(&self.names.namespace, name), name);
        match (wanted, live) {
            (None, None) => Ok(()),
            (None, Some(live)) => {
                let preconditions = Preconditions { uid: live.uid(), resource_version: live.resource_version() };
                let deleted = api.delete(name, &DeleteParams::background().preconditions(preconditions)).await;
                tracing::info!(name, "Removed a shared Ingress: no public function is left for it");
                match deleted {
                    Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(()),
                    other => other.map(drop),
                }
            }
            (Some(wanted), live) => {
                if live.as_ref().is_some_and(|live| holds(&wanted, live)) {
                    return Ok(());
                }
                let rules = wanted.spec.as_ref().and_then(|s| s.rules.as_ref()).map_or(0, Vec::len);
                api.patch(name, &PatchParams::apply(OPERATOR_FIELD_MANAGER).force(), &Patch::Apply(&wanted)).await?;
                tracing::info!(name, rules, "Wrote a shared Ingress");
                Ok(())
            }
        }
    }

    /// `None` without rules: an Ingress needs one.
    fn object(
        &self,
        name: &str,
        class: Option<String>,
        annotations: BTreeMap<String, String>,
        rules: Vec<IngressRule>,
    ) -> Option<Ingress> {
        (!rules.is_empty()).then(|| Ingress {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                namespace: Some(self.names.namespace.clone()),
                labels: Some(BTreeMap::from([(MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned())])),
                annotations: (!annotations.is_empty()).then_some(annotations),
                owner_references: self.owner.clone().map(|owner| vec![owner]),
                ..ObjectMeta::default()
            },
            spec: Some(IngressSpec { ingress_class_name: class, rules: Some(rules), ..IngressSpec::default() }),
            status: None,
        })
    }
}

fn alive(function: &Function) -> bool {
    function.metadata.deletion_timestamp.is_none()
}

/// Whether `live` is what is wanted, beside what the API server and others have added.
fn holds(wanted: &Ingress, live: &Ingress) -> bool {
    // What is made of structs of strings and numbers can always be written as JSON.
    let json = |ingress: &Ingress| serde_json::to_value(ingress).unwrap_or(Value::Null);
    drift::missing(&json(wanted), &json(live)).is_none()
}

/// A reference to the operator's own Deployment, so that what is made in its namespace goes with it. `None` if it does not
/// run in one, as in a developer's shell.
///
/// # Errors
///
/// If the API server cannot be asked.
pub async fn own_deployment(client: &Client, namespace: &str, name: &str) -> kube::Result<Option<OwnerReference>> {
    let api: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    // `controller` would tell tools that the Deployment manages it; it only takes it along.
    let owner = api.get_metadata_opt(name).await?.and_then(|d| d.owner_ref(&()));
    if owner.is_none() {
        tracing::warn!(
            namespace,
            name,
            "The operator's own Deployment does not exist, so the shared Ingresses will not go with it"
        );
    }
    Ok(owner)
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
