//! Flags of the operator, also read from the environment.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Parser, ValueEnum};

use rouse_crds::hosts::{AllowedHosts, BadTemplate, DEFAULT_TEMPLATE, HostTemplate};

use crate::{
    function::build::pod_defaults::PodDefaults,
    hosts::{Names, Scheme},
    ingress::{Gateway, Mode, Tls},
};

/// Operator of Rouse: reconciles Functions and scales their Deployments.
#[derive(Clone, Debug, Parser)]
#[command(name = "rouse-operator", version)]
pub struct Args {
    /// Domain of default hosts, `{name}.{namespace}.{domain}`.
    #[arg(long, env = "ROUSE_DOMAIN", default_value = "example.com", value_parser = dns_name)]
    pub domain: String,
    /// Template of default hosts, such as `{name}-{namespace}.{domain}`.
    #[arg(long, env = "ROUSE_HOST_TEMPLATE", default_value = DEFAULT_TEMPLATE)]
    pub host_template: String,
    /// Rules for which namespaces may claim which custom hosts, a JSON list such as
    /// `[{"domains": ["*.shop.example.org"], "namespaces": ["shop-*"]}]`. Empty: no namespace may claim any.
    #[arg(long, env = "ROUSE_ALLOWED_HOSTS", default_value = "")]
    pub allowed_hosts: AllowedHosts,
    /// Defaults for the pods of all Functions: a partial PodTemplateSpec as JSON, such as
    /// `{"spec": {"nodeSelector": {"pool": "functions"}}}`. Each Function overrides each field. Empty: no defaults.
    #[arg(long, env = "ROUSE_POD_DEFAULTS", default_value = "")]
    pub pod_defaults: PodDefaults,
    /// Scheme of the URLs in the status of a Function.
    #[arg(long, env = "ROUSE_URL_SCHEME", default_value = "http")]
    pub url_scheme: Scheme,
    /// DNS domain of the cluster.
    #[arg(long, env = "ROUSE_CLUSTER_DOMAIN", default_value = "cluster.local", value_parser = dns_name)]
    pub cluster_domain: String,
    /// Namespace of the operator and the activators.
    #[arg(long, env = "POD_NAMESPACE", default_value = "rouse-system")]
    pub namespace: String,
    /// Name of the pod, part of its identity in the leader election.
    #[arg(long, env = "POD_NAME", default_value = "rouse-operator")]
    pub pod_name: String,
    /// Name of the operator's Deployment, which owns the shared Ingresses.
    #[arg(long, env = "ROUSE_DEPLOYMENT", default_value = "rouse-operator")]
    pub deployment: String,
    /// Name of the activators' Service.
    #[arg(long, env = "ROUSE_ACTIVATOR_SERVICE", default_value = "rouse-activator")]
    pub activator_service: String,
    /// Name of the headless Service of the activators' admin ports, from which demand is read.
    #[arg(long, env = "ROUSE_ACTIVATOR_ADMIN_SERVICE", default_value = "rouse-activator-admin")]
    pub activator_admin_service: String,
    /// File of the ServiceAccount token, for the audience `rouse-activator`, that activators require of a reader of their
    /// demand. By default no token is sent.
    #[arg(long, env = "ROUSE_ACTIVATOR_TOKEN_FILE")]
    pub activator_token_file: Option<PathBuf>,
    /// Address of the admin endpoints: /livez, /readyz, /metrics, and, on loopback only, /debug.
    #[arg(long, env = "ROUSE_ADMIN_ADDR", default_value = "[::]:9090")]
    pub admin_addr: SocketAddr,
    /// Objects that route external requests to the activators: Ingresses, HTTPRoutes, or none.
    #[arg(long, env = "ROUSE_INGRESS_MODE", default_value = "ingress")]
    pub ingress_mode: IngressMode,
    /// Class of the Ingresses. Empty: the default class of the cluster.
    #[arg(long, env = "ROUSE_INGRESS_CLASS", default_value = "")]
    pub ingress_class: String,
    /// Annotations of the Ingresses: a JSON object of strings.
    #[arg(long, env = "ROUSE_INGRESS_ANNOTATIONS", default_value = "{}", value_parser = annotations)]
    pub ingress_annotations: Annotations,
    /// Additional annotations of the Ingress for h2c Functions, which override the others: a JSON object of strings.
    #[arg(long, env = "ROUSE_INGRESS_H2C_ANNOTATIONS", default_value = "{}", value_parser = annotations)]
    pub ingress_h2c_annotations: Annotations,
    /// TLS Secrets of the Ingresses: a JSON object with the optional fields `secretName`, `perHost` and
    /// `secretNameTemplate`. Empty: no TLS.
    #[arg(long, env = "ROUSE_INGRESS_TLS", default_value = "", value_parser = Tls::parse)]
    pub ingress_tls: Tls,
    /// Name of the Gateway that HTTPRoutes attach to. Required in mode `gateway`.
    #[arg(long, env = "ROUSE_GATEWAY_NAME", default_value = "")]
    pub gateway_name: String,
    /// Namespace of the Gateway. Empty: the namespace of the operator.
    #[arg(long, env = "ROUSE_GATEWAY_NAMESPACE", default_value = "")]
    pub gateway_namespace: String,
    /// Names of the Gateway's listeners that serve Functions, separated by commas. Empty: all listeners.
    #[arg(long, env = "ROUSE_GATEWAY_SECTIONS", default_value = "")]
    pub gateway_sections: String,
    /// Name of the Gateway's listener that redirects clients to https. Empty: none.
    #[arg(long, env = "ROUSE_GATEWAY_REDIRECT_SECTION", default_value = "")]
    pub gateway_redirect_section: String,
    /// Watch the metadata of all ConfigMaps and Secrets, for `spec.rollout.onConfigChange: NewRevision`.
    #[arg(long, env = "ROUSE_WATCH_CONFIG", default_value_t = false, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub watch_config: bool,
    /// Name of the Lease for the leader election.
    #[arg(long, env = "ROUSE_LEASE_NAME", default_value = "rouse-operator")]
    pub lease_name: String,
    /// Format of log lines.
    #[arg(long, env = "ROUSE_LOG_FORMAT", default_value = "json")]
    pub log_format: LogFormat,
    /// Deadline of a graceful shutdown after SIGTERM, such as 10s or 500ms.
    #[arg(long, env = "ROUSE_SHUTDOWN_GRACE", default_value = "10s", value_parser = duration)]
    pub shutdown_grace: Duration,
}

/// See [`Args::ingress_mode`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum IngressMode {
    /// Shared Ingresses: one for HTTP/1.1 and one for h2c Functions.
    Ingress,
    /// Shared HTTPRoutes of the Gateway API.
    Gateway,
    /// None: the platform routes hosts to the activators itself.
    None,
}

/// See [`Args::log_format`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// Human-readable text.
    Text,
}

/// Annotations by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Annotations(pub BTreeMap<String, String>);

impl Args {
    /// Parses the command line and the environment. Exits with status 64 and a message if the configuration is invalid,
    /// and with 0 after `--help` and `--version`.
    pub fn read() -> Self {
        let fail = |error: clap::Error| -> ! {
            // A closed stderr is ignored on exit.
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
            let message = "--ingress-mode gateway needs --gateway-name: the Gateway that HTTPRoutes attach to";
            return Err(Self::command().error(ValueValidation, message));
        }
        if self.sections().is_empty() && !self.gateway_redirect_section.is_empty() {
            let message = "--gateway-redirect-section needs --gateway-sections: otherwise Functions would also attach to the listener that redirects";
            return Err(Self::command().error(ValueValidation, message));
        }
        match self.hosts() {
            Err(error) => return Err(Self::command().error(ValueValidation, format!("--host-template: {error}"))),
            Ok(hosts) if hosts.is_ambiguous() && self.allowed_hosts == AllowedHosts::default() => {
                let message = "--host-template does not separate the name of a Function from its namespace, so two namespaces may share a default host; state who may claim which hosts with --allowed-hosts, or put a dot between {name} and {namespace}";
                return Err(Self::command().error(ValueValidation, message));
            }
            Ok(_) => {}
        }
        Ok(self)
    }

    /// Returns the template of default hosts.
    ///
    /// # Errors
    ///
    /// If `--host-template` is invalid, which [`Args::read`] rejects.
    pub fn hosts(&self) -> Result<HostTemplate, BadTemplate> {
        HostTemplate::new(&self.host_template, &self.domain)
    }

    /// Returns the names and URLs of the installation.
    ///
    /// # Errors
    ///
    /// See [`Args::hosts`].
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

    /// Returns the ingress mode.
    pub fn mode(&self) -> Mode {
        let non_empty = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
        match self.ingress_mode {
            IngressMode::Gateway => Mode::Gateway(Gateway {
                name: self.gateway_name.clone(),
                namespace: non_empty(&self.gateway_namespace).unwrap_or_else(|| self.namespace.clone()),
                sections: self.sections(),
                redirect_section: non_empty(&self.gateway_redirect_section),
            }),
            IngressMode::Ingress => Mode::Ingress {
                class: non_empty(&self.ingress_class),
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

/// Exit status for a usage error (`sysexits.h`).
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
    fn parses_flags() {
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
    fn parses_gateway_flags() {
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
    #[case(&["--host-template", "{name}.{domain}"], "not a host template")]
    #[case(&["--host-template", "{name}-{namespace}.{domain}"], "put a dot")]
    #[case(&["--shutdown-grace", "10"], "not a duration")]
    #[case(&["--admin-addr", "9090"], "admin-addr")]
    fn rejects(#[case] flags: &[&str], #[case] message: &str) {
        let error = parse(flags).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
}
