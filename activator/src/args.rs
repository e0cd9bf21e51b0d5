//! Flags and environment variables.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Parser, ValueEnum};
use rouse_crds::{
    duration::ParseDurationError,
    hosts::{AllowedHosts, BadTemplate, DEFAULT_TEMPLATE, HostTemplate, ownership},
    quantity,
};

use tokio::sync::Semaphore;

use crate::{
    admit::{Bounds, Caps},
    downstream::TrustedProxies,
    rate_limit::Rate,
    resources::{Chosen, Sizing},
    serve::Limits,
};

/// The data path of Rouse: routes a request, wakes its function from zero, and forwards it.
#[derive(Clone, Debug, Parser)]
#[command(version)]
pub struct Args {
    /// Domain of the public hosts: `{name}.{namespace}.{domain}`.
    #[arg(long, env = "ROUSE_DOMAIN", default_value = "example.com", value_parser = domain)]
    pub domain: String,
    /// Template of default hosts, such as `{name}-{namespace}.{domain}`.
    #[arg(long, env = "ROUSE_HOST_TEMPLATE", default_value = DEFAULT_TEMPLATE)]
    pub host_template: String,
    /// Which namespaces may claim which custom hosts, as JSON: `[{"domains": ["*.shop.example.org"], "namespaces":
    /// ["shop-*"]}]`. Without any rule no namespace may claim any.
    #[arg(long, env = "ROUSE_ALLOWED_HOSTS", default_value = "", value_parser = str::parse::<AllowedHosts>)]
    pub allowed_hosts: AllowedHosts,
    /// Domain of the cluster's DNS.
    #[arg(long, env = "ROUSE_CLUSTER_DOMAIN", default_value = "cluster.local", value_parser = domain)]
    pub cluster_domain: String,
    /// Address for requests from the ingress. It serves only public functions by their public hosts. `[::]` is every
    /// address, of IPv4 too.
    #[arg(long, env = "ROUSE_PUBLIC_ADDR", default_value = "[::]:8080")]
    pub public_addr: SocketAddr,
    /// Address for requests from inside the cluster.
    #[arg(long, env = "ROUSE_CLUSTER_ADDR", default_value = "[::]:8081")]
    pub cluster_addr: SocketAddr,
    /// Address for TLS requests from outside the cluster. It serves only public functions by their public hosts. Off by
    /// default.
    #[arg(long, env = "ROUSE_TLS_ADDR", requires_all = ["tls_cert_file", "tls_key_file"])]
    pub tls_addr: Option<SocketAddr>,
    /// TLS certificate with its chain, in PEM: `tls.crt` of a mounted Secret. Reloaded when it changes.
    #[arg(long, env = "ROUSE_TLS_CERT_FILE")]
    pub tls_cert_file: Option<PathBuf>,
    /// Private key of the TLS certificate, in PEM: `tls.key` of a mounted Secret.
    #[arg(long, env = "ROUSE_TLS_KEY_FILE")]
    pub tls_key_file: Option<PathBuf>,
    /// Trusted proxies on the public listener: networks, addresses and the word `private` (all private networks), separated
    /// by commas. Their `Forwarded`, `X-Forwarded-*`, `X-Real-IP` and `X-Request-Id` are passed on, those of other peers are
    /// replaced. By default none.
    #[arg(long, env = "ROUSE_TRUSTED_PROXIES", default_value = "")]
    pub trusted_proxies: TrustedProxies,
    /// Trusted proxies on the TLS listener. By default none: the peer is the client.
    #[arg(long, env = "ROUSE_TRUSTED_PROXIES_TLS", default_value = "")]
    pub trusted_proxies_tls: TrustedProxies,
    /// Trusted proxies on the cluster listener. By default none: the peer is any pod.
    #[arg(long, env = "ROUSE_TRUSTED_PROXIES_CLUSTER", default_value = "")]
    pub trusted_proxies_cluster: TrustedProxies,
    /// Redirects public requests that used TLS neither here nor at a trusted proxy (`X-Forwarded-Proto`) to `https://` with
    /// status 308.
    #[arg(long, env = "ROUSE_HTTPS_REDIRECT")]
    pub https_redirect: bool,
    /// Address for health, metrics and the demand stream.
    #[arg(long, env = "ROUSE_ADMIN_ADDR", default_value = "[::]:9090")]
    pub admin_addr: SocketAddr,
    /// Address for `/livez` and `/readyz` alone, which no other client of the admin port can keep busy. Off by default: both
    /// are on the admin port too.
    #[arg(long, env = "ROUSE_HEALTH_ADDR")]
    pub health_addr: Option<SocketAddr>,
    /// User that may read the demand stream with a bearer token for the audience `rouse-activator`, such as
    /// `system:serviceaccount:rouse-system:rouse-operator`. By default the stream is served on loopback only.
    #[arg(long, env = "ROUSE_DEMAND_READER")]
    pub demand_reader: Option<String>,
    /// Name of this pod; part of the identity of this process in the demand stream.
    #[arg(long, env = "POD_NAME", default_value = "rouse-activator")]
    pub pod_name: String,
    /// How long connections are still accepted after SIGTERM, while endpoints are being updated.
    #[arg(long, env = "ROUSE_SHUTDOWN_DELAY", default_value = "5s", value_parser = duration)]
    pub shutdown_delay: Duration,
    /// Maximum duration of a graceful shutdown after SIGTERM; less than the pod's terminationGracePeriodSeconds.
    #[arg(long, env = "ROUSE_SHUTDOWN_GRACE", default_value = "25s", value_parser = duration)]
    pub shutdown_grace: Duration,
    /// Number of worker threads. By default as many as the process may use cores, at most 4.
    #[arg(long, env = "ROUSE_THREADS", value_parser = threads)]
    pub threads: Option<usize>,
    /// Memory that the process may use, in bytes. By default the memory limit of its control group, or half of the
    /// machine's memory without one. The limits of queues and connections follow from it, and the activator rejects load
    /// before it is reached.
    #[arg(long, env = "ROUSE_MEMORY_LIMIT", value_parser = memory)]
    pub memory_limit: Option<u64>,
    /// Maximum number of queued requests, over all functions. By default as many as fit half of the memory.
    #[arg(long, env = "ROUSE_MAX_QUEUED_REQUESTS", value_parser = at_least_one)]
    pub max_queued_requests: Option<u64>,
    /// Maximum number of queued requests per namespace. By default half of those of the process.
    #[arg(long, env = "ROUSE_MAX_QUEUED_REQUESTS_PER_NAMESPACE", value_parser = at_least_one)]
    pub max_queued_requests_per_namespace: Option<u64>,
    /// Maximum number of bytes that all queued requests may hold. By default a sixth of the memory.
    #[arg(long, env = "ROUSE_MAX_QUEUED_BYTES", value_parser = bytes)]
    pub max_queued_bytes: Option<u64>,
    /// Maximum number of bytes that the queued requests of one namespace may hold. By default half of those of the
    /// process.
    #[arg(long, env = "ROUSE_MAX_QUEUED_BYTES_PER_NAMESPACE", value_parser = bytes)]
    pub max_queued_bytes_per_namespace: Option<u64>,
    /// Rate limit of wakes per function: a burst, and one more after each interval.
    #[arg(long, env = "ROUSE_WAKES", default_value = "10/3s", value_parser = rate)]
    pub wakes: Rate,
    /// Rate limit of wakes per namespace, over all its functions.
    #[arg(long, env = "ROUSE_WAKES_PER_NAMESPACE", default_value = "200/200ms", value_parser = rate)]
    pub wakes_per_namespace: Rate,
    /// Rate limit of all wakes of this process. By default 20 a second, which is the most pods that the controllers of a
    /// cluster create with their default limit of requests to the API server.
    #[arg(long, env = "ROUSE_WAKES_TOTAL", default_value = "500/50ms", value_parser = rate)]
    pub wakes_total: Rate,
    /// How long requests wait for an unschedulable pod. With a cluster autoscaler: as long as a new node takes.
    #[arg(long, env = "ROUSE_UNSCHEDULABLE_GRACE", default_value = "10s", value_parser = duration)]
    pub unschedulable_grace: Duration,
    /// Maximum number of concurrent connections per listener. Further ones wait. By default, and over all listeners, as
    /// many as fit a third of the memory, and half of the open files that the process may have.
    #[arg(long, env = "ROUSE_MAX_CONNECTIONS", value_parser = connections)]
    pub max_connections: Option<usize>,
    /// Maximum number of concurrent connections of one client, by IPv4 address or IPv6 /64 network. Further ones are
    /// refused with 503. In any case one client may have at most four times as many as are still free.
    #[arg(long, env = "ROUSE_MAX_CONNECTIONS_PER_CLIENT", value_parser = at_least_one)]
    pub max_connections_per_client: Option<u64>,
    /// Maximum size of a request head, and of its trailers, in bytes. More is rejected with 431.
    #[arg(long, env = "ROUSE_MAX_HEAD_BYTES", default_value = "64Ki", value_parser = head_bytes)]
    pub max_head_bytes: usize,
    /// Maximum number of request headers, and of trailers. More are rejected with 431.
    #[arg(long, env = "ROUSE_MAX_HEADERS", default_value = "100", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub max_headers: u16,
    /// Maximum length of a request line in bytes. A longer one is rejected with 414.
    #[arg(long, env = "ROUSE_MAX_REQUEST_LINE", default_value = "16Ki", value_parser = head_bytes)]
    pub max_request_line: usize,
    /// Timeout of a request head, from its first byte on. A slower one is rejected with 408.
    #[arg(long, env = "ROUSE_HEAD_TIMEOUT", default_value = "10s", value_parser = duration)]
    pub head_timeout: Duration,
    /// Timeout of a new connection until the first byte of its first request.
    #[arg(long, env = "ROUSE_FIRST_REQUEST_TIMEOUT", default_value = "30s", value_parser = duration)]
    pub first_request_timeout: Duration,
    /// Time for which a client is waited for that sends nothing of a request body: at most this long in all, and as much
    /// longer as its bytes take at --min-body-rate. A slower one is rejected with 408. Only time in which the function
    /// waits for the body counts. 0s disables it. Functions with `protocol: h2c` are exempt, since gRPC clients may
    /// stream for ever.
    #[arg(long, env = "ROUSE_BODY_TIMEOUT", default_value = "60s", value_parser = duration)]
    pub body_timeout: Duration,
    /// Minimum rate of a request body in bytes per second, at least 1; see --body-timeout.
    #[arg(long, env = "ROUSE_MIN_BODY_RATE", default_value = "1Ki", value_parser = body_rate)]
    pub min_body_rate: u64,
    /// Timeout of a client that does not read: no byte of a response is taken for this long. The connection is reset; over
    /// HTTP/2 a stream without window is.
    #[arg(long, env = "ROUSE_SEND_TIMEOUT", default_value = "60s", value_parser = duration)]
    pub send_timeout: Duration,
    /// Age at which a client connection is closed, give or take a tenth: by `Connection: close` in its next response, or
    /// over HTTP/2 by GOAWAY. Requests in flight end first. So the connections of proxies are spread over new activators.
    /// 0s means no limit.
    #[arg(long, env = "ROUSE_MAX_CONNECTION_AGE", default_value = "1h", value_parser = duration)]
    pub max_connection_age: Duration,
    /// Idle timeout of a connection between requests. Proxies in front keep their connections for up to an hour
    /// (Envoy's default) and should be the ones to close, since a request that crosses a close is lost.
    #[arg(long, env = "ROUSE_IDLE_CONNECTION_TIMEOUT", default_value = "3605s", value_parser = duration)]
    pub idle_connection_timeout: Duration,
    /// Maximum number of concurrent requests on one HTTP/2 connection.
    #[arg(long, env = "ROUSE_MAX_STREAMS", default_value = "1000", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_streams: u32,
    /// Maximum number of HTTP/2 requests that a client may start and reset before they are accepted. More end the
    /// connection.
    #[arg(long, env = "ROUSE_MAX_STREAM_RESETS", default_value = "50", value_parser = clap::value_parser!(u16).range(1..))]
    pub max_stream_resets: u16,
    /// Allows pods on loopback addresses, for tests whose pods are local servers.
    #[arg(long, env = "ROUSE_ALLOW_LOCAL_PODS", hide = true)]
    pub allow_local_pods: bool,
    /// Format of log lines.
    #[arg(long, env = "ROUSE_LOG_FORMAT", default_value = "json")]
    pub log_format: LogFormat,
}

/// Format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// Plain text for people.
    Text,
}

const MAX_PERMITS: usize = Semaphore::MAX_PERMITS;

/// A bucket that fills more slowly is most likely a mistake.
const LONGEST_INTERVAL: Duration = Duration::from_secs(3600);

/// Exit status for an invalid configuration (`EX_USAGE`).
pub const EXIT_USAGE: u8 = 64;

impl Args {
    /// Checks combinations of flags.
    ///
    /// # Errors
    ///
    /// A sentence that names the flags and the fix.
    pub fn check(&self) -> Result<(), String> {
        if self.shutdown_delay >= self.shutdown_grace {
            return Err(format!(
                "--shutdown-delay ({:?}) must be shorter than --shutdown-grace ({:?}): requests need time to end after the delay",
                self.shutdown_delay, self.shutdown_grace
            ));
        }
        self.rules().map_err(|error| format!("--host-template: {error}"))?;
        let exceeds = |part: Option<u64>, whole: Option<u64>| part.zip(whole).is_some_and(|(part, whole)| part > whole);
        if exceeds(self.max_queued_bytes_per_namespace, self.max_queued_bytes) {
            return Err("--max-queued-bytes-per-namespace must not be more than --max-queued-bytes".to_owned());
        }
        if exceeds(self.max_queued_requests_per_namespace, self.max_queued_requests) {
            return Err("--max-queued-requests-per-namespace must not be more than --max-queued-requests".to_owned());
        }
        if self.max_request_line > self.max_head_bytes {
            return Err(
                "--max-request-line must not be more than --max-head-bytes: a request line is part of its head"
                    .to_owned(),
            );
        }
        for (flag, timeout) in [
            ("--head-timeout", self.head_timeout),
            ("--first-request-timeout", self.first_request_timeout),
            ("--idle-connection-timeout", self.idle_connection_timeout),
            ("--send-timeout", self.send_timeout),
        ] {
            if timeout.is_zero() {
                return Err(format!("{flag} must be greater than zero"));
            }
        }
        Ok(())
    }

    /// Returns the ownership rules of hosts.
    ///
    /// # Errors
    ///
    /// If `--host-template` is invalid, which [`Args::check`] rejects.
    pub fn rules(&self) -> Result<ownership::Rules, BadTemplate> {
        let template = HostTemplate::new(&self.host_template, &self.domain)?;
        Ok(ownership::Rules { template, allowed: self.allowed_hosts.clone() })
    }

    /// Returns the limits that flags set, for [`Sizing::derive`].
    #[must_use]
    pub fn chosen(&self) -> Chosen {
        // One more listener with TLS. A limit per listener that is chosen is meant for each of them.
        let listeners = 2 + usize::from(self.tls_addr.is_some());
        Chosen {
            connections: self.max_connections.map(|each| each.saturating_mul(listeners) as u64),
            queued_requests: self.max_queued_requests,
            namespace_requests: self.max_queued_requests_per_namespace,
            queued_bytes: self.max_queued_bytes,
            namespace_bytes: self.max_queued_bytes_per_namespace,
        }
    }

    /// Returns the limits of the process.
    #[must_use]
    pub fn bounds(&self, sizing: &Sizing) -> Bounds {
        Bounds {
            process: Caps { requests: sizing.queued_requests, bytes: sizing.queued_bytes },
            namespace: Caps { requests: sizing.namespace_requests, bytes: sizing.namespace_bytes },
            function_wakes: self.wakes,
            namespace_wakes: self.wakes_per_namespace,
            process_wakes: self.wakes_total,
            unschedulable_grace: self.unschedulable_grace,
        }
    }

    /// Returns the limits of each listener.
    #[must_use]
    pub fn limits(&self, sizing: &Sizing) -> Limits {
        let all = usize::try_from(sizing.connections).unwrap_or(usize::MAX).min(MAX_PERMITS);
        Limits {
            connections: self.max_connections.unwrap_or(all).min(all),
            head_bytes: self.max_head_bytes,
            headers: self.max_headers.into(),
            request_line: self.max_request_line,
            head_time: self.head_timeout,
            first_request: self.first_request_timeout,
            idle: self.idle_connection_timeout,
            send: self.send_timeout,
            body_time: self.body_timeout,
            body_rate: self.min_body_rate,
            age: Some(self.max_connection_age).filter(|age| !age.is_zero()),
            streams: self.max_streams,
            resets: self.max_stream_resets.into(),
        }
    }
}

fn at_least_one(text: &str) -> Result<u64, String> {
    text.parse().ok().filter(|n| *n > 0).ok_or_else(|| "must be a number of at least 1".to_owned())
}

fn threads(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| (1..=1024).contains(n)).ok_or_else(|| "must be a number from 1 to 1024".to_owned())
}

/// Less memory than this serves nothing.
const LEAST_MEMORY: u64 = 16 << 20;

fn memory(text: &str) -> Result<u64, String> {
    let count = bytes(text).map_err(|error| error.to_string())?;
    if count < LEAST_MEMORY { Err("must be at least 16Mi".to_owned()) } else { Ok(count) }
}

/// `BURST/INTERVAL`, such as `10/3s`.
fn rate(text: &str) -> Result<Rate, String> {
    let parsed = text
        .split_once('/')
        .and_then(|(burst, interval)| Some(Rate { burst: burst.parse().ok()?, interval: duration(interval).ok()? }));
    let usable = |rate: &Rate| rate.burst > 0 && rate.interval <= LONGEST_INTERVAL;
    parsed.filter(usable).ok_or_else(|| {
        "must be BURST/INTERVAL with a burst of at least 1 and an interval of at most 1h, such as 10/3s".to_owned()
    })
}

fn duration(text: &str) -> Result<Duration, ParseDurationError> {
    text.parse().map(rouse_crds::Duration::get)
}

fn bytes(text: &str) -> Result<u64, quantity::ParseBytesError> {
    text.parse().map(quantity::Bytes::get)
}

fn body_rate(text: &str) -> Result<u64, String> {
    let rate = bytes(text).map_err(|error| error.to_string())?;
    if rate > 0 { Ok(rate) } else { Err("must be at least 1".to_owned()) }
}

/// Parses a size of a head. The HTTP library accepts no target of more than 64 KiB.
fn head_bytes(text: &str) -> Result<usize, String> {
    let count = bytes(text).map_err(|error| error.to_string())?;
    let fits = usize::try_from(count).ok().filter(|n| (1 << 10..=1 << 20).contains(n));
    fits.ok_or_else(|| "must be from 1Ki to 1Mi".to_owned())
}

fn connections(text: &str) -> Result<usize, String> {
    let fits = text.parse().ok().filter(|n| (1..=MAX_PERMITS).contains(n));
    fits.ok_or_else(|| format!("must be a number from 1 to {MAX_PERMITS}"))
}

fn domain(text: &str) -> Result<String, String> {
    let label = |l: &str| {
        !l.is_empty() && l.len() <= 63 && l.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    if text.split('.').all(label) {
        Ok(text.to_owned())
    } else {
        Err("must be a lower-case DNS name such as functions.example.com".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[test]
    fn default_flags_are_valid() {
        let args = Args::try_parse_from(["rouse-activator"]).unwrap();
        assert_eq!(args.check(), Ok(()));
        let sizing = Sizing::derive(512 << 20, 1 << 20, args.chosen());
        let bounds = args.bounds(&sizing);
        assert_eq!(bounds.function_wakes, Rate { burst: 10, interval: Duration::from_secs(3) });
        assert_eq!((args.shutdown_delay, args.chosen()), (Duration::from_secs(5), Chosen::default()));
        assert_eq!(args.limits(&sizing).connections as u64, sizing.connections);
        assert!(bounds.namespace.requests < bounds.process.requests);
    }

    #[rstest]
    #[case(&["--domain", "Example.com"])]
    #[case(&["--domain", ""])]
    #[case(&["--shutdown-delay", "5"])]
    #[case(&["--max-queued-bytes", "1MB"])]
    #[case(&["--max-connections", "0"])]
    #[case(&["--max-head-bytes", "100"])]
    #[case(&["--max-headers", "0"])]
    #[case(&["--max-streams", "0"])]
    #[case(&["--min-body-rate", "0"])]
    #[case(&["--public-addr", "8080"])]
    #[case(&["--max-queued-requests", "0"])]
    #[case(&["--threads", "0"])]
    #[case(&["--memory-limit", "1Mi"])]
    #[case(&["--wakes", "10"])]
    #[case(&["--wakes", "0/3s"])]
    #[case(&["--wakes", "10/3"])]
    #[case(&["--wakes", "10/2h"])]
    #[case(&["--allowed-hosts", "*.example.org"])]
    #[case(&["--trusted-proxies", "ingress.example"])]
    #[case(&["--tls-addr", "0.0.0.0:8443"])]
    #[case(&["--tls-addr", "0.0.0.0:8443", "--tls-cert-file", "tls.crt"])]
    fn invalid_flags_are_rejected(#[case] flags: &[&str]) {
        assert!(Args::try_parse_from(["rouse-activator"].iter().chain(flags)).is_err());
    }

    #[test]
    fn contradictory_flags_are_rejected() {
        let args = Args::try_parse_from(["rouse-activator", "--shutdown-delay", "30s"]).unwrap();
        assert!(args.check().unwrap_err().contains("--shutdown-grace"));
        let flags = ["rouse-activator", "--max-queued-requests=10", "--max-queued-requests-per-namespace=20"];
        let args = Args::try_parse_from(flags).unwrap();
        assert!(args.check().unwrap_err().contains("--max-queued-requests-per-namespace"));
        let args = Args::try_parse_from(["rouse-activator", "--max-request-line", "128Ki"]).unwrap();
        assert!(args.check().unwrap_err().contains("--max-head-bytes"));
        for flag in ["--head-timeout", "--first-request-timeout", "--idle-connection-timeout", "--send-timeout"] {
            let args = Args::try_parse_from(["rouse-activator", flag, "0s"]).unwrap();
            assert!(args.check().unwrap_err().contains(flag));
        }
        let args = Args::try_parse_from(["rouse-activator", "--body-timeout=0s", "--max-connection-age=0s"]).unwrap();
        assert_eq!(
            (args.check(), args.limits(&Sizing::derive(512 << 20, 1 << 20, Chosen::default())).age),
            (Ok(()), None)
        );
    }
}
