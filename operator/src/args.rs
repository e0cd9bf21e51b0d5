//! What the operator is told when it starts: flags, or the environment.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use clap::{Parser, ValueEnum};

use rouse_crds::hosts::{AllowedHosts, BadTemplate, DEFAULT_TEMPLATE, HostTemplate};

use crate::{
    hosts::{Names, Scheme},
    ingress::{Gateway, Mode, Tls},
};

/// Turns Functions into Deployments, Services and an Ingress, and demand into replicas.
#[derive(Clone, Debug, Parser)]
#[command(name = "rouse-operator", version)]
pub struct Args {
    /// Domain of the default hosts, `{name}.{namespace}.{domain}`.
    #[arg(long, env = "ROUSE_DOMAIN", default_value = "example.com", value_parser = dns_name)]
    pub domain: String,
    /// How default hosts are made, such as `{name}-{namespace}.{domain}`.
    #[arg(long, env = "ROUSE_HOST_TEMPLATE", default_value = DEFAULT_TEMPLATE)]
    pub host_template: String,
    /// Which namespaces may claim which custom hosts: a JSON list such as
    /// `[{"domains": ["*.shop.example.org"], "namespaces": ["shop", "shop-*"]}]`. Empty: every namespace every host.
    #[arg(long, env = "ROUSE_ALLOWED_HOSTS", default_value = "")]
    pub allowed_hosts: AllowedHosts,
    /// By what the ingress answers, for the URLs in a status.
    #[arg(long, env = "ROUSE_URL_SCHEME", default_value = "http")]
    pub url_scheme: Scheme,
    /// Domain of the cluster's own names.
    #[arg(long, env = "ROUSE_CLUSTER_DOMAIN", default_value = "cluster.local", value_parser = dns_name)]
    pub cluster_domain: String,
    /// Namespace that the operator and the activators run in.
    #[arg(long, env = "POD_NAMESPACE", default_value = "rouse-system")]
    pub namespace: String,
    /// Name of the pod: part of the name under which it holds the Lease.
    #[arg(long, env = "POD_NAME", default_value = "rouse-operator")]
    pub pod_name: String,
    /// The operator's own Deployment, which owns the shared Ingresses.
    #[arg(long, env = "ROUSE_DEPLOYMENT", default_value = "rouse-operator")]
    pub deployment: String,
    /// The activators' Service.
    #[arg(long, env = "ROUSE_ACTIVATOR_SERVICE", default_value = "rouse-activator")]
    pub activator_service: String,
    /// Where /livez, /readyz and /metrics are served.
    #[arg(long, env = "ROUSE_ADMIN_ADDR", default_value = "0.0.0.0:9090")]
    pub admin_addr: SocketAddr,
    /// How calls reach the activators from outside: by Ingresses or HTTPRoutes of Rouse's, or by nothing of Rouse's.
    #[arg(long, env = "ROUSE_INGRESS_MODE", default_value = "ingress")]
    pub ingress_mode: IngressMode,
    /// Class of the Ingresses; empty for the cluster's default class.
    #[arg(long, env = "ROUSE_INGRESS_CLASS", default_value = "")]
    pub ingress_class: String,
    /// Annotations of the Ingresses: a JSON object of strings.
    #[arg(long, env = "ROUSE_INGRESS_ANNOTATIONS", default_value = "{}", value_parser = annotations)]
    pub ingress_annotations: Annotations,
    /// Annotations of the Ingress of functions that speak h2c, beside or in place of the others: a JSON object of strings.
    #[arg(long, env = "ROUSE_INGRESS_H2C_ANNOTATIONS", default_value = "{}", value_parser = annotations)]
    pub ingress_h2c_annotations: Annotations,
    /// Where the certificates of the Ingresses are: a JSON object with `secretName`, `perHost` and `secretNameTemplate`, each
    /// of them optional. Empty: no TLS.
    #[arg(long, env = "ROUSE_INGRESS_TLS", default_value = "", value_parser = Tls::parse)]
    pub ingress_tls: Tls,
    /// The Gateway that HTTPRoutes hang on. Needed in mode `gateway`.
    #[arg(long, env = "ROUSE_GATEWAY_NAME", default_value = "")]
    pub gateway_name: String,
    /// Its namespace; empty for that of the operator.
    #[arg(long, env = "ROUSE_GATEWAY_NAMESPACE", default_value = "")]
    pub gateway_namespace: String,
    /// Names of its listeners by which functions are called, with commas between; empty for all of them.
    #[arg(long, env = "ROUSE_GATEWAY_SECTIONS", default_value = "")]
    pub gateway_sections: String,
    /// Name of its listener whose callers are sent to https; empty for none.
    #[arg(long, env = "ROUSE_GATEWAY_REDIRECT_SECTION", default_value = "")]
    pub gateway_redirect_section: String,
    /// Follow the metadata of all ConfigMaps and Secrets, for `spec.rollout.onConfigChange: NewRevision`.
    #[arg(long, env = "ROUSE_WATCH_CONFIG", default_value_t = false, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub watch_config: bool,
    /// Name of the Lease that decides who leads.
    #[arg(long, env = "ROUSE_LEASE_NAME", default_value = "rouse-operator")]
    pub lease_name: String,
    /// How log lines look.
    #[arg(long, env = "ROUSE_LOG_FORMAT", default_value = "json")]
    pub log_format: LogFormat,
    /// How long the end may take after SIGTERM, such as 10s or 500ms.
    #[arg(long, env = "ROUSE_SHUTDOWN_GRACE", default_value = "10s", value_parser = duration)]
    pub shutdown_grace: Duration,
}

/// See [`Args::ingress_mode`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum IngressMode {
    /// Shared Ingresses: one, and another where a function speaks h2c.
    Ingress,
    /// Shared HTTPRoutes of the Gateway API.
    Gateway,
    /// Nothing: somebody else routes hosts to the activators.
    None,
}

/// See [`Args::log_format`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// Annotations by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Annotations(pub BTreeMap<String, String>);

impl Args {
    /// Reads the command line and the environment. Bad configuration ends the process with status 64 and a message;
    /// `--help` and `--version` end it with 0.
    pub fn read() -> Self {
        let fail = |error: clap::Error| -> ! {
            // Nothing can be done about a closed stderr on the way out.
            drop(error.print());
            std::process::exit(if error.use_stderr() { EX_USAGE } else { 0 })
        };
        match Self::try_parse().and_then(Self::check) {
            Ok(args) => args,
            Err(error) => fail(error),
        }
    }

    fn check(self) -> Result<Self, clap::Error> {
        use clap::{CommandFactory as _, error::ErrorKind::ValueValidation};
        if self.ingress_mode == IngressMode::Gateway && self.gateway_name.is_empty() {
            let message = "--ingress-mode gateway needs --gateway-name: the Gateway that the HTTPRoutes hang on";
            return Err(Self::command().error(ValueValidation, message));
        }
        if self.sections().is_empty() && !self.gateway_redirect_section.is_empty() {
            let message = "--gateway-redirect-section needs --gateway-sections: or else functions would hang on the listener that redirects, too";
            return Err(Self::command().error(ValueValidation, message));
        }
        if let Err(error) = self.hosts() {
            return Err(Self::command().error(ValueValidation, format!("--host-template: {error}")));
        }
        Ok(self)
    }

    /// Default hosts.
    ///
    /// # Errors
    ///
    /// If `--host-template` is no template, which [`Args::read`] refuses.
    pub fn hosts(&self) -> Result<HostTemplate, BadTemplate> {
        HostTemplate::new(&self.host_template, &self.domain)
    }

    /// The names that everything is built with.
    ///
    /// # Errors
    ///
    /// As of [`Args::hosts`].
    pub fn names(&self) -> Result<Names, BadTemplate> {
        Ok(Names {
            hosts: self.hosts()?,
            scheme: self.url_scheme,
            cluster_domain: self.cluster_domain.clone(),
            namespace: self.namespace.clone(),
            activator_service: self.activator_service.clone(),
        })
    }

    fn sections(&self) -> Vec<String> {
        let names = self.gateway_sections.split(',').map(str::trim);
        names.filter(|name| !name.is_empty()).map(str::to_owned).collect()
    }

    /// How the cluster's ingress is used.
    pub fn mode(&self) -> Mode {
        let said = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
        match self.ingress_mode {
            IngressMode::Gateway => Mode::Gateway(Gateway {
                name: self.gateway_name.clone(),
                namespace: said(&self.gateway_namespace).unwrap_or_else(|| self.namespace.clone()),
                sections: self.sections(),
                redirect_section: said(&self.gateway_redirect_section),
            }),
            IngressMode::Ingress => Mode::Ingress {
                class: said(&self.ingress_class),
                annotations: self.ingress_annotations.0.clone(),
                h2c_annotations: self
                    .ingress_annotations
                    .0
                    .iter()
                    .chain(&self.ingress_h2c_annotations.0)
                    .map(|(name, value)| (name.clone(), value.clone()))
                    .collect(),
                tls: self.ingress_tls.clone(),
            },
            IngressMode::None => Mode::None,
        }
    }
}

/// The status of a process that was started wrongly (`sysexits.h`).
const EX_USAGE: i32 = 64;

fn annotations(text: &str) -> Result<Annotations, String> {
    if text.trim().is_empty() {
        return Ok(Annotations::default());
    }
    serde_json::from_str(text).map(Annotations).map_err(|error| format!("not a JSON object of strings: {error}"))
}

fn duration(text: &str) -> Result<Duration, String> {
    text.parse::<rouse_crds::Duration>().map(Into::into).map_err(|error| error.to_string())
}

fn dns_name(text: &str) -> Result<String, String> {
    let label = |label: &str| {
        let edges = label.bytes().next().into_iter().chain(label.bytes().last());
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && edges.into_iter().all(|b| b != b'-')
    };
    if text.len() <= 253 && text.split('.').all(label) {
        Ok(text.to_owned())
    } else {
        Err("not a DNS name in lower case such as fn.example.org".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn parse(flags: &[&str]) -> Result<Args, clap::Error> {
        Args::try_parse_from(std::iter::once("rouse-operator").chain(flags.iter().copied())).and_then(Args::check)
    }

    #[test]
    fn reads_flags() {
        let args = parse(&[
            "--domain",
            "fn.example.org",
            "--ingress-class",
            "contour",
            "--ingress-annotations",
            r#"{"a/b":"1","c":"2"}"#,
            "--ingress-h2c-annotations",
            r#"{"c":"3"}"#,
            "--ingress-tls",
            r#"{"secretName":"w"}"#,
            "--url-scheme",
            "https",
            "--allowed-hosts",
            r#"[{"domains":["*"],"namespaces":["shop"]}]"#,
            "--shutdown-grace",
            "500ms",
        ])
        .unwrap();
        assert_eq!(args.hosts().unwrap().host("f", "ns"), "f.ns.fn.example.org");
        assert_eq!(args.shutdown_grace, Duration::from_millis(500));
        let with_c = |c: &str| [("a/b", "1"), ("c", c)].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let (annotations, h2c_annotations) = (with_c("2"), with_c("3"));
        let tls = Tls { secret_name: "w".into(), ..Tls::default() };
        assert_eq!(args.mode(), Mode::Ingress { class: Some("contour".into()), annotations, h2c_annotations, tls });
        assert_eq!(args.names().unwrap().url("a.b"), "https://a.b");
        assert!(args.allowed_hosts.check("a.b", "shop").is_ok() && args.allowed_hosts.check("a.b", "other").is_err());
        assert_eq!(parse(&["--ingress-mode", "none"]).unwrap().mode(), Mode::None);
    }

    #[test]
    fn a_gateway_is_named() {
        let flags = ["--ingress-mode", "gateway", "--gateway-name", "edge", "--namespace", "rouse"];
        let mut gateway = Gateway { name: "edge".into(), namespace: "rouse".into(), ..Gateway::default() };
        assert_eq!(parse(&flags).unwrap().mode(), Mode::Gateway(gateway.clone()));
        let more = ["--gateway-namespace", "infra", "--gateway-sections", "https, https-0"];
        let redirect = ["--gateway-redirect-section", "http"];
        gateway.namespace = "infra".into();
        gateway.sections = vec!["https".into(), "https-0".into()];
        gateway.redirect_section = Some("http".into());
        assert_eq!(parse(&[&flags[..], &more, &redirect].concat()).unwrap().mode(), Mode::Gateway(gateway));
    }

    #[rstest]
    #[case(&["--ingress-mode", "gateway"], "needs --gateway-name")]
    #[case(&["--ingress-mode", "gateway", "--gateway-name", "g", "--gateway-redirect-section", "http"], "needs --gateway-sections")]
    #[case(&["--ingress-tls", "{\"secret\": \"x\"}"], "unknown field `secret`")]
    #[case(&["--allowed-hosts", "[{\"domains\": [\"A\"], \"namespaces\": [\"b\"]}]"], "rule 1: `A`")]
    #[case(&["--url-scheme", "ftp"], "url-scheme")]
    #[case(&["--ingress-annotations", r#"{"a": 1}"#], "JSON object of strings")]
    #[case(&["--domain", "Example.com"], "DNS name")]
    #[case(&["--domain", "a..b"], "DNS name")]
    #[case(&["--host-template", "{name}.{domain}"], "no host template")]
    #[case(&["--shutdown-grace", "10"], "not a duration")]
    #[case(&["--admin-addr", "9090"], "admin-addr")]
    fn refuses(#[case] flags: &[&str], #[case] message: &str) {
        let error = parse(flags).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
}
