//! Names and URLs of the installation: default hosts, the cluster domain and the activators' Services.

use rouse_crds::hosts::HostTemplate;

/// Names and URLs of the installation.
#[derive(Clone, Debug)]
pub struct Names {
    /// Template of default hosts.
    pub hosts: HostTemplate,
    /// Scheme of public URLs.
    pub scheme: Scheme,
    /// DNS domain of the cluster.
    pub cluster_domain: String,
    /// Namespace of the activators' Service.
    pub namespace: String,
    /// Name of the activators' Service.
    pub activator_service: String,
}

/// Scheme of public URLs in a status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Scheme {
    /// Without TLS.
    #[default]
    Http,
    /// With TLS.
    Https,
}

impl Names {
    /// Returns the public URL of a host.
    pub fn url(&self, host: &str) -> String {
        let scheme = match self.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        format!("{scheme}://{host}")
    }

    /// Returns the name of the activators' h2c Service: the same pods and port, declared as h2c. It is a separate
    /// Service, because some ingress controllers read the protocol from an annotation of the Service.
    pub fn h2c_service(&self) -> String {
        format!("{}-h2c", self.activator_service)
    }
}
