//! Lost hosts: messages for claims that do not win.

use std::fmt;

use rouse_crds::{
    conditions::{HOST_CONFLICT, HOST_NOT_ALLOWED},
    hosts::ownership::{Claim, Claimant, Form, Loss},
};

/// A host that is claimed by a Function but not routed to it, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostHost {
    /// Host; `None` if the problem affects every public host.
    pub host: Option<Box<str>>,
    /// Reason of the condition `Routable=False`.
    pub reason: &'static str,
    /// What is wrong and how to fix it.
    pub message: String,
}

impl fmt::Display for LostHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl LostHost {
    pub(super) fn new(claim: &Claim, loss: &Loss) -> Self {
        let Claim { host, path, claimant: Claimant { namespace, .. }, .. } = claim;
        let (reason, message) = match loss {
            Loss::Taken { owner: (owner_namespace, name), whole_host } => {
                let owner = format!("Function {owner_namespace}/{name}");
                let message = match (claim.form, whole_host) {
                    (Form::Default, _) => format!(
                        "Default host {host} is also the default host of {owner}, which is older; rename one of the Functions"
                    ),
                    (Form::Tag, _) => {
                        let tag = claim.tag.as_deref().unwrap_or_default();
                        format!("Host {host} of tag {tag} belongs to {owner}; choose another tag")
                    }
                    (Form::Custom, true) => format!(
                        "Host {host} belongs to {owner}; remove it from spec.hosts and spec.routes of one of the Functions"
                    ),
                    (Form::Custom, false) => format!(
                        "Path {path} of host {host} belongs to {owner}; remove it from spec.routes, or the host from spec.hosts, of one of the Functions"
                    ),
                };
                (HOST_CONFLICT, message)
            }
            Loss::Reserved => (
                HOST_CONFLICT,
                format!(
                    "Host {host} is reserved: it has the form of a default host, or default hosts are its subdomains; remove it from spec.hosts and spec.routes"
                ),
            ),
            Loss::NotAllowed(why) => (
                HOST_NOT_ALLOWED,
                format!(
                    "Namespace {namespace} may not claim host {host}: {why}; use another host, or ask the platform team for a rule"
                ),
            ),
        };
        Self { host: Some(host.clone()), reason, message }
    }
}
