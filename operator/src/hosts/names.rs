//! Names and URLs of the installation: default hosts, the cluster domain and the activators' Services.

use rouse_crds::hosts::HostTemplate;

/// What the five steps need beside the Function.
#[derive(Clone, Debug)]
pub struct Names {
    /// Default hosts.
    pub hosts: HostTemplate,
    /// By what the ingress answers.
    pub scheme: Scheme,
    /// Domain of the cluster's own names.
    pub cluster_domain: String,
    /// Where the activators' Service is.
    pub namespace: String,
    /// The activators' Service.
    pub activator_service: String,
}

/// By what the ingress answers, as far as the URLs in a status say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Scheme {
    /// In the clear.
    #[default]
    Http,
    /// With TLS.
    Https,
}

impl Names {
    /// Where the ingress answers for a host.
    pub fn url(&self, host: &str) -> String {
        let scheme = match self.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        format!("{scheme}://{host}")
    }

    /// The activators' Service for an ingress that has to speak HTTP/2 to them: the same pods and port, declared as h2c.
    /// A Service of its own, because some ingress controllers take the protocol from an annotation of the whole Service.
    pub fn h2c_service(&self) -> String {
        format!("{}-h2c", self.activator_service)
    }
}
