//! Readiness check of a pod: what an activator may find out by itself, before the kubelet reports it.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{Container, FunctionPod, PodSpec};
use crate::names::{CONTAINER_PORT, READINESS_ANNOTATION};

/// How an activator finds a pod ready before the kubelet reports it.
///
/// The check is never weaker than the readiness of the pod. Where an activator cannot run the same check, it waits for
/// the kubelet.
///
/// The text form is the value of [`READINESS_ANNOTATION`]: `tcp`, `http /path`, `grpc service` or `kubelet`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadinessCheck {
    /// A TCP connection to the function's port.
    Tcp,
    /// An HTTP GET of this path on the function's port that returns 2xx or 3xx.
    Http(Box<str>),
    /// A call of `grpc.health.v1.Health/Check` on the function's port that returns `SERVING`. The service may be empty.
    Grpc(Box<str>),
    /// None: only the kubelet's report counts.
    Kubelet,
}

/// The text is of no known check. The operator may be newer than this program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownCheck;

impl fmt::Display for ReadinessCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp => f.write_str("tcp"),
            Self::Http(path) => write!(f, "http {path}"),
            Self::Grpc(service) if service.is_empty() => f.write_str("grpc"),
            Self::Grpc(service) => write!(f, "grpc {service}"),
            Self::Kubelet => f.write_str("kubelet"),
        }
    }
}

impl FromStr for ReadinessCheck {
    type Err = UnknownCheck;

    fn from_str(text: &str) -> Result<Self, UnknownCheck> {
        match text.split_once(' ').unwrap_or((text, "")) {
            ("tcp", "") => Ok(Self::Tcp),
            ("http", path) if path.starts_with('/') => Ok(Self::Http(path.into())),
            ("grpc", service) => Ok(Self::Grpc(service.into())),
            ("kubelet", "") => Ok(Self::Kubelet),
            _ => Err(UnknownCheck),
        }
    }
}

/// A readiness or startup probe of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerProbe {
    /// HTTP GET.
    pub http_get: Option<HttpGet>,
    /// TCP connection.
    pub tcp_socket: Option<TcpSocket>,
    /// gRPC health check.
    pub grpc: Option<GrpcHealth>,
}

/// HTTP GET of a probe.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpGet {
    /// Path.
    pub path: Option<String>,
    /// Port.
    pub port: ProbePort,
    /// `HTTP` or `HTTPS`.
    pub scheme: Option<String>,
    /// Address to connect to instead of the pod's.
    pub host: Option<String>,
    /// Headers to send. Only their presence is read.
    pub http_headers: Option<Vec<Present>>,
}

/// TCP connection of a probe.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TcpSocket {
    /// Port.
    pub port: ProbePort,
    /// Address to connect to instead of the pod's.
    pub host: Option<String>,
}

/// gRPC health check of a probe.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GrpcHealth {
    /// Port number.
    pub port: ProbePort,
    /// Service to check; empty for the whole server.
    pub service: Option<String>,
}

/// Port of a probe: a number, or the name of a port of the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ProbePort {
    /// Number.
    Number(u16),
    /// Name.
    Name(String),
}

/// An object that is there, whatever it contains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Present {}

impl Default for ProbePort {
    fn default() -> Self {
        Self::Number(0)
    }
}

impl ContainerProbe {
    /// Returns the check that is equivalent to this probe. `port` is the function's.
    fn check(&self, port: Option<u16>) -> ReadinessCheck {
        let own = |of: &ProbePort| match of {
            ProbePort::Name(name) => name == CONTAINER_PORT,
            ProbePort::Number(number) => Some(*number) == port,
        };
        let unset = |text: &Option<String>| text.as_deref().is_none_or(str::is_empty);
        match self {
            Self { http_get: Some(get), .. } => {
                let plain = get.scheme.as_deref().is_none_or(|scheme| scheme.eq_ignore_ascii_case("HTTP"));
                let headers = get.http_headers.as_ref().is_some_and(|headers| !headers.is_empty());
                let path = get.path.as_deref().filter(|path| path.starts_with('/')).unwrap_or("/");
                if own(&get.port) && plain && unset(&get.host) && !headers {
                    ReadinessCheck::Http(path.into())
                } else {
                    ReadinessCheck::Kubelet
                }
            }
            Self { tcp_socket: Some(socket), .. } if own(&socket.port) && unset(&socket.host) => ReadinessCheck::Tcp,
            Self { grpc: Some(grpc), .. } if own(&grpc.port) => {
                ReadinessCheck::Grpc(grpc.service.as_deref().unwrap_or_default().into())
            }
            // Another port or host, or a handler of a later Kubernetes release.
            _ => ReadinessCheck::Kubelet,
        }
    }
}

impl Container {
    /// Whether the pod's readiness depends on more than the container running.
    pub(super) fn decides_readiness(&self) -> bool {
        self.readiness_probe.is_some() || self.startup_probe.is_some() || self.post_start()
    }

    fn post_start(&self) -> bool {
        self.lifecycle.as_ref().is_some_and(|lifecycle| lifecycle.post_start.is_some())
    }
}

impl PodSpec {
    /// Returns the check that is equivalent to the readiness of the pod.
    #[must_use]
    pub fn readiness_check(&self) -> ReadinessCheck {
        if self.others_decide_readiness() {
            return ReadinessCheck::Kubelet;
        }
        let Some(container) = self.function_container() else { return ReadinessCheck::Tcp };
        if container.post_start() {
            return ReadinessCheck::Kubelet;
        }
        let port = self.port();
        let check = container.readiness_probe.as_ref().map_or(ReadinessCheck::Tcp, |probe| probe.check(port));
        match container.startup_probe.as_ref().map(|probe| probe.check(port)) {
            // The startup probe must have succeeded as well, and is another check.
            Some(startup) if startup != check => ReadinessCheck::Kubelet,
            _ => check,
        }
    }

    /// Whether readiness depends on something beside the function's container: a readiness gate, or a probe of another
    /// container, such as the proxy of a service mesh.
    fn others_decide_readiness(&self) -> bool {
        !self.readiness_gates.is_empty() || self.other_containers().any(Container::decides_readiness)
    }
}

impl FunctionPod {
    /// Returns how an activator finds the pod ready; `None` if the pod does not declare more than a TCP connection and
    /// was created from a template of an older operator, so that `spec.readiness` of the Function applies.
    ///
    /// The annotation has precedence over the probe, because admission webhooks rewrite probes: Istio redirects them to
    /// its agent's port. Containers that a webhook added count in any case.
    #[must_use]
    pub fn readiness_check(&self) -> Option<ReadinessCheck> {
        if self.spec.others_decide_readiness() {
            return Some(ReadinessCheck::Kubelet);
        }
        match self.annotation(READINESS_ANNOTATION) {
            Some(text) => Some(text.parse().unwrap_or(ReadinessCheck::Kubelet)),
            None => Some(self.spec.readiness_check()).filter(|check| *check != ReadinessCheck::Tcp),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    fn http(path: &str) -> ReadinessCheck {
        ReadinessCheck::Http(path.into())
    }

    fn grpc(service: &str) -> ReadinessCheck {
        ReadinessCheck::Grpc(service.into())
    }

    /// A pod spec whose function container has these fields.
    fn spec(container: &Value) -> Value {
        let mut whole =
            json!({"name": "function", "ports": [{"name": "function", "containerPort": 8080, "protocol": "TCP"}]});
        whole.as_object_mut().unwrap().extend(container.as_object().unwrap().clone());
        json!({"containers": [whole]})
    }

    #[rstest]
    #[case::no_probe(json!({}), ReadinessCheck::Tcp)]
    #[case::tcp(json!({"readinessProbe": {"tcpSocket": {"port": "function"}, "periodSeconds": 1}}), ReadinessCheck::Tcp)]
    #[case::tcp_by_number(json!({"readinessProbe": {"tcpSocket": {"port": 8080}}}), ReadinessCheck::Tcp)]
    #[case::tcp_on_another_port(json!({"readinessProbe": {"tcpSocket": {"port": 8081}}}), ReadinessCheck::Kubelet)]
    #[case::tcp_of_a_mesh(json!({"readinessProbe": {"httpGet": {"path": "/app-health/function/readyz", "port": 15020}}}), ReadinessCheck::Kubelet)]
    #[case::http(json!({"readinessProbe": {"httpGet": {"path": "/ok?a=b", "port": 8080, "scheme": "HTTP"}}}), http("/ok?a=b"))]
    #[case::http_without_path(json!({"readinessProbe": {"httpGet": {"port": "function"}}}), http("/"))]
    #[case::another_name(json!({"readinessProbe": {"httpGet": {"path": "/ok", "port": "metrics"}}}), ReadinessCheck::Kubelet)]
    #[case::https(json!({"readinessProbe": {"httpGet": {"path": "/ok", "port": 8080, "scheme": "HTTPS"}}}), ReadinessCheck::Kubelet)]
    #[case::headers(json!({"readinessProbe": {"httpGet": {"path": "/ok", "port": 8080, "httpHeaders": [{"name": "A", "value": "b"}]}}}), ReadinessCheck::Kubelet)]
    #[case::host(json!({"readinessProbe": {"httpGet": {"path": "/ok", "port": 8080, "host": "127.0.0.1"}}}), ReadinessCheck::Kubelet)]
    #[case::grpc(json!({"readinessProbe": {"grpc": {"port": 8080, "service": "shop.Cart"}}}), grpc("shop.Cart"))]
    #[case::grpc_of_the_server(json!({"readinessProbe": {"grpc": {"port": 8080}}}), grpc(""))]
    #[case::grpc_on_another_port(json!({"readinessProbe": {"grpc": {"port": 8081}}}), ReadinessCheck::Kubelet)]
    #[case::exec(json!({"readinessProbe": {"exec": {"command": ["x"]}}}), ReadinessCheck::Kubelet)]
    #[case::handler_of_a_later_release(json!({"readinessProbe": {"oracle": {"port": 8080}}}), ReadinessCheck::Kubelet)]
    #[case::another_startup_probe(json!({"startupProbe": {"exec": {"command": ["x"]}}}), ReadinessCheck::Kubelet)]
    #[case::the_same_startup_probe(json!({"startupProbe": {"tcpSocket": {"port": 8080}}}), ReadinessCheck::Tcp)]
    #[case::post_start(json!({"lifecycle": {"postStart": {"exec": {"command": ["x"]}}}}), ReadinessCheck::Kubelet)]
    #[case::pre_stop(json!({"lifecycle": {"preStop": {"sleep": {"seconds": 2}}}}), ReadinessCheck::Tcp)]
    fn the_check_is_equivalent_to_the_probe(#[case] container: Value, #[case] expected: ReadinessCheck) {
        let spec: PodSpec = serde_json::from_value(spec(&container)).unwrap();
        assert_eq!(spec.readiness_check(), expected);
    }

    #[rstest]
    #[case::sidecar(json!({"containers": [{"name": "side"}]}), ReadinessCheck::Tcp)]
    #[case::probe_of_a_sidecar(json!({"containers": [{"name": "side", "readinessProbe": {"httpGet": {"port": 1}}}]}), ReadinessCheck::Kubelet)]
    #[case::native_sidecar(json!({"initContainers": [{"name": "proxy", "restartPolicy": "Always", "startupProbe": {"httpGet": {"port": 1}}}]}), ReadinessCheck::Kubelet)]
    #[case::init_container(json!({"initContainers": [{"name": "init"}]}), ReadinessCheck::Tcp)]
    #[case::gate(json!({"readinessGates": [{"conditionType": "x/y"}]}), ReadinessCheck::Kubelet)]
    fn what_others_decide_is_left_to_the_kubelet(#[case] other: Value, #[case] expected: ReadinessCheck) {
        let mut spec = spec(&json!({"readinessProbe": {"tcpSocket": {"port": "function"}}}));
        for (name, list) in other.as_object().unwrap() {
            let mut all = spec[name].as_array().cloned().unwrap_or_default();
            all.extend(list.as_array().unwrap().clone());
            spec[name] = all.into();
        }
        let spec: PodSpec = serde_json::from_value(spec).unwrap();
        assert_eq!(spec.readiness_check(), expected);
        // The annotation is of the template, which does not have what a webhook added.
        let mut pod = FunctionPod { spec, ..FunctionPod::default() };
        pod.metadata.annotations = Some([(READINESS_ANNOTATION.to_owned(), "tcp".to_owned())].into());
        super::super::prune(&mut pod);
        assert_eq!(pod.readiness_check(), Some(expected));
    }

    #[rstest]
    #[case::rewritten_by_a_mesh(Some("tcp"), json!({"httpGet": {"path": "/app-health/function/readyz", "port": 15020}}), Some(ReadinessCheck::Tcp))]
    #[case::annotation(Some("http /a b"), json!({"tcpSocket": {"port": 8080}}), Some(http("/a b")))]
    #[case::of_a_newer_operator(Some("quic"), json!({"tcpSocket": {"port": 8080}}), Some(ReadinessCheck::Kubelet))]
    #[case::of_an_older_operator(None, json!({"tcpSocket": {"port": 8080}}), None)]
    #[case::of_an_older_operator_with_a_mesh(None, json!({"httpGet": {"path": "/app-health/function/readyz", "port": 15020}}), Some(ReadinessCheck::Kubelet))]
    #[case::of_an_older_operator_with_a_path(None, json!({"httpGet": {"path": "/ok", "port": "function"}}), Some(http("/ok")))]
    fn the_annotation_has_precedence_over_the_live_probe(
        #[case] annotation: Option<&str>,
        #[case] probe: Value,
        #[case] expected: Option<ReadinessCheck>,
    ) {
        let spec = serde_json::from_value(spec(&json!({"readinessProbe": probe}))).unwrap();
        let mut pod = FunctionPod { spec, ..FunctionPod::default() };
        pod.metadata.annotations = annotation.map(|text| [(READINESS_ANNOTATION.to_owned(), text.to_owned())].into());
        super::super::prune(&mut pod);
        assert_eq!(pod.readiness_check(), expected);
    }

    #[rstest]
    #[case("tcp", Some(ReadinessCheck::Tcp))]
    #[case("http /a b?c", Some(http("/a b?c")))]
    #[case("grpc", Some(grpc("")))]
    #[case("grpc shop.Cart", Some(grpc("shop.Cart")))]
    #[case("kubelet", Some(ReadinessCheck::Kubelet))]
    #[case("http", None)]
    #[case("http ok", None)]
    #[case("tcp 80", None)]
    #[case("", None)]
    fn the_text_form(#[case] text: &str, #[case] check: Option<ReadinessCheck>) {
        assert_eq!(text.parse().ok(), check);
        if let Some(check) = check {
            assert_eq!(check.to_string(), text);
        }
    }
}
