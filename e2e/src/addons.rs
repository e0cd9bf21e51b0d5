//! What a cluster has before Rouse comes: DNS (where the provider brings none) and an ingress, Contour with Envoy.
//!
//! Contour's manifests are those of its own Go module, `examples/contour`; [`adapt`] says what is changed in them. The same
//! Contour and Envoy serve Ingresses and the routes of one Gateway, by plain HTTP and with TLS.

use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::cluster::{apply, rolled_out};
use crate::gomod::CONTOUR;
use crate::images::Archive;
use crate::places::{Places, hex};
use crate::plan::title;
use crate::progress::Progress;
use crate::provider::Node;
use crate::state::State;

/// Goes up when the same images are to be deployed differently.
const LAYOUT: &str = "2";
/// Cluster DNS; the image's name is filled in.
const DNS: &str = include_str!("../manifests/coredns.yaml");
/// The module that holds Contour's manifests.
const CONTOUR_MODULE: &str = "github.com/projectcontour/contour";
/// The module that holds the resources of the Gateway API, of the version that Contour is built with.
const GATEWAY_API_MODULE: &str = "sigs.k8s.io/gateway-api";
/// The class of the Ingresses that Contour serves, and of the Gateway.
pub const INGRESS_CLASS: &str = "contour";
/// Namespace of Contour and of its Gateway.
pub const CONTOUR_NAMESPACE: &str = "projectcontour";
/// The Gateway whose routes Contour serves, with listeners `http` and `https`.
pub const GATEWAY: &str = "contour";
/// The Secret with the certificate of the listener `https`.
const GATEWAY_SECRET: &str = "rouse-e2e-gateway";
/// Contour would wait for these, which the standard channel of the Gateway API lacks.
const ABSENT: [&str; 3] = ["tcproutes", "tlsroutes", "backendtlspolicies"];

/// The images of the add-ons.
#[derive(Clone, Debug)]
pub struct Images {
    /// Cluster DNS, if the provider does not bring its own.
    pub coredns: Option<Archive>,
    /// The ingress controller.
    pub contour: Archive,
    /// Its data plane.
    pub envoy: Archive,
}

impl Images {
    /// All archives.
    pub fn archives(&self) -> Vec<Archive> {
        self.coredns.iter().chain([&self.contour, &self.envoy]).cloned().collect()
    }

    fn hash(&self, node: &Node) -> String {
        let references: Vec<String> = self.archives().into_iter().map(|archive| archive.reference).collect();
        hex(&Sha256::digest(format!("{LAYOUT} {} {} {DNS}", references.join(" "), node.ingress.ip())))
    }
}

/// Deploys the add-ons, unless these very ones are there already. [`wait`] for them afterwards.
pub async fn deploy(places: &Places, kubectl: &Path, node: &Node, images: &Images, state: &mut State) -> Result<bool> {
    let hash = images.hash(node);
    if state.addons.as_ref() == Some(&hash) {
        return Ok(false);
    }
    let mut manifests = String::new();
    if let Some(coredns) = &images.coredns {
        manifests = DNS.replace("COREDNS_IMAGE", &coredns.reference);
        manifests.push_str("---\n");
    }
    let examples = CONTOUR.dependency(places, CONTOUR_MODULE).await?.join("examples/contour");
    let gateway_api = CONTOUR.dependency(places, GATEWAY_API_MODULE).await?.join("config/crd/standard");
    // Resources come first, and Contour ends if one that it is to watch is not there.
    let mut items: Vec<Value> = all_documents(&gateway_api)?;
    items.extend(gateway()?);
    items.extend(contour(&examples, node, images)?);
    manifests.push_str(&serde_json::to_string(&json!({"apiVersion": "v1", "kind": "List", "items": items}))?);
    apply(kubectl, &node.kubeconfig, &manifests).await?;
    state.addons = Some(hash);
    Ok(true)
}

/// Waits until DNS and the ingress answer.
pub async fn wait(kubectl: &Path, node: &Node, images: &Images, progress: &Progress) -> Result<()> {
    let step = progress.step(title::ADDONS);
    if images.coredns.is_some() {
        step.detail("CoreDNS");
        rolled_out(kubectl, &node.kubeconfig, "kube-system", "deployment/coredns").await?;
    }
    for what in ["deployment/contour", "daemonset/envoy"] {
        step.detail(what);
        rolled_out(kubectl, &node.kubeconfig, CONTOUR_NAMESPACE, what).await?;
    }
    step.done();
    Ok(())
}

/// Everything in the YAML files of a folder, in their order.
fn all_documents(folder: &Path) -> Result<Vec<Value>> {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .with_context(|| format!("Cannot read {}", folder.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    files.sort();
    let mut all = vec![];
    for file in files {
        let text = std::fs::read_to_string(&file)?;
        all.extend(documents(&text).with_context(|| format!("Cannot read {}", file.display()))?);
    }
    Ok(all)
}

/// The Gateway, with a certificate that signs itself. Ingresses with TLS need its listener `https`, too: a Contour that has a
/// Gateway has no other listeners.
fn gateway() -> Result<[Value; 4]> {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(vec!["*.gateway.rouse.test".to_owned()])?;
    let allowed = json!({"namespaces": {"from": "All"}});
    let tls = json!({"mode": "Terminate", "certificateRefs": [{"kind": "Secret", "name": GATEWAY_SECRET}]});
    Ok([
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": CONTOUR_NAMESPACE}}),
        json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "kubernetes.io/tls",
            "metadata": {"name": GATEWAY_SECRET, "namespace": CONTOUR_NAMESPACE},
            "stringData": {"tls.crt": cert.pem(), "tls.key": signing_key.serialize_pem()},
        }),
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "GatewayClass",
            "metadata": {"name": INGRESS_CLASS},
            "spec": {"controllerName": "projectcontour.io/gateway-controller"},
        }),
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "Gateway",
            "metadata": {"name": GATEWAY, "namespace": CONTOUR_NAMESPACE},
            "spec": {"gatewayClassName": INGRESS_CLASS, "listeners": [
                {"name": "http", "protocol": "HTTP", "port": 80, "allowedRoutes": allowed},
                {"name": "https", "protocol": "HTTPS", "port": 443, "allowedRoutes": allowed, "tls": tls},
            ]},
        }),
    ])
}

/// What says in Contour's configuration which Gateway it serves.
pub fn gateway_reference(name: &str, namespace: &str) -> String {
    format!("gateway:\n  gatewayRef:\n    name: {name}\n    namespace: {namespace}\n")
}

/// Contour's manifests.
fn contour(examples: &Path, node: &Node, images: &Images) -> Result<Vec<Value>> {
    let mut items = vec![json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "IngressClass",
        "metadata": {"name": INGRESS_CLASS},
        "spec": {"controller": "projectcontour.io/ingress-controller"},
    })];
    for mut document in all_documents(examples)? {
        adapt(&mut document, node, images);
        items.push(document);
    }
    Ok(items)
}

fn documents(text: &str) -> Result<Vec<Value>> {
    let read = text
        .split("\n---")
        .map(|part| part.trim_start_matches("---"))
        .filter(|part| part.lines().any(|line| !line.trim().is_empty() && !line.starts_with('#')));
    // As Kubernetes reads YAML: a file mode `0644` is octal.
    let options = || serde_saphyr::options! { legacy_octal_numbers: true };
    read.map(|part| Ok(serde_saphyr::from_str_with_options::<Value>(part, options())?)).collect()
}

/// Our images (which have no PATH to search), one replica, no load balancer, and probes that a person need not wait for.
fn adapt(document: &mut Value, node: &Node, images: &Images) {
    let kind = document["kind"].as_str().unwrap_or_default().to_owned();
    match kind.as_str() {
        "Deployment" => document["spec"]["replicas"] = json!(1),
        "Service" => {
            document["spec"]["type"] = json!("ClusterIP");
            if let Some(spec) = document["spec"].as_object_mut() {
                spec.remove("externalTrafficPolicy");
            }
            return;
        }
        "ConfigMap" => {
            if let Some(Value::String(config)) = document["data"].get_mut("contour.yaml") {
                config.insert_str(0, &gateway_reference(GATEWAY, CONTOUR_NAMESPACE));
            }
            return;
        }
        "DaemonSet" => {}
        "Job" => {
            // A Job cannot be changed, so another image is another Job.
            let tag: String = images.contour.reference.rsplit(':').next().unwrap_or_default().to_owned();
            document["metadata"]["name"] = json!(format!("contour-certgen-{tag}"));
        }
        _ => return,
    }
    adapt_pod(&mut document["spec"]["template"]["spec"], node, images);
}

fn adapt_pod(pod: &mut Value, node: &Node, images: &Images) {
    for list in ["initContainers", "containers"] {
        for container in pod[list].as_array_mut().into_iter().flatten() {
            let is_envoy = container["image"].as_str().is_some_and(|image| image.contains("/envoy:"));
            let (image, program) =
                if is_envoy { (&images.envoy, "/usr/local/bin/envoy") } else { (&images.contour, "/bin/contour") };
            container["image"] = json!(image.reference);
            if let Some(first) = container["command"].get_mut(0) {
                *first = json!(program);
            }
            if container["args"][0] == "serve"
                && let Some(args) = container["args"].as_array_mut()
            {
                args.push(json!(format!("--ingress-status-address={}", node.ingress.ip())));
                args.extend(ABSENT.map(|kind| json!(format!("--disable-feature={kind}"))));
            }
            if let Some(probe) = container["readinessProbe"].as_object_mut() {
                probe.remove("initialDelaySeconds");
                probe.insert("periodSeconds".to_owned(), json!(1));
            }
        }
    }
    // Tests take the ingress down and up; it need not wait five minutes for its last connection.
    if pod["terminationGracePeriodSeconds"].is_number() {
        pod["terminationGracePeriodSeconds"] = json!(10);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn images() -> Images {
        let archive = |name: &str| Archive {
            name: name.to_owned(),
            reference: format!("localhost/rouse-e2e/{name}:k-1"),
            path: format!("/{name}.tar").into(),
        };
        Images { coredns: Some(archive("coredns")), contour: archive("contour"), envoy: archive("envoy") }
    }

    fn node(address: [u8; 4]) -> Node {
        Node { kubeconfig: "/k".into(), ingress: (address, 80).into(), address: None }
    }

    #[test]
    fn no_image_of_a_registry_is_left() {
        let text = "---\nkind: DaemonSet\nspec:\n  template:\n    spec:\n      terminationGracePeriodSeconds: 300\n      initContainers:\n      \
                    - {name: init, image: \"ghcr.io/projectcontour/contour:v1\", command: [contour], args: [bootstrap]}\n      containers:\n      \
                    - {name: envoy, image: \"docker.io/envoyproxy/envoy:v1\", command: [envoy], \
                    readinessProbe: {initialDelaySeconds: 3, periodSeconds: 4}}\n";
        let mut all = documents(text).unwrap();
        assert_eq!(all.len(), 1);
        adapt(&mut all[0], &node([10, 0, 0, 1]), &images());
        let pod = &all[0]["spec"]["template"]["spec"];
        assert_eq!(pod["initContainers"][0]["image"], "localhost/rouse-e2e/contour:k-1");
        assert_eq!(pod["initContainers"][0]["command"][0], "/bin/contour");
        assert_eq!(pod["containers"][0]["image"], "localhost/rouse-e2e/envoy:k-1");
        assert_eq!(pod["containers"][0]["readinessProbe"], json!({"periodSeconds": 1}));
        assert_eq!(pod["terminationGracePeriodSeconds"], 10);
    }

    #[test]
    fn contour_is_told_of_the_gateway() {
        let mut config = json!({"kind": "ConfigMap", "data": {"contour.yaml": "# words\ntls: {}\n"}});
        adapt(&mut config, &node([10, 0, 0, 1]), &images());
        let said: Value = serde_saphyr::from_str(config["data"]["contour.yaml"].as_str().unwrap()).unwrap();
        assert_eq!(said["gateway"]["gatewayRef"], json!({"name": GATEWAY, "namespace": CONTOUR_NAMESPACE}));
        assert_eq!(said["tls"], json!({}));
        let mut serve = json!({"kind": "Deployment", "spec": {"template": {"spec": {"containers": [
            {"image": "ghcr.io/projectcontour/contour:v1", "command": ["contour"], "args": ["serve"]},
        ]}}}});
        adapt(&mut serve, &node([10, 0, 0, 1]), &images());
        let args = serve["spec"]["template"]["spec"]["containers"][0]["args"].clone();
        assert_eq!(args.as_array().unwrap().iter().filter(|arg| arg.as_str().unwrap().contains("disable")).count(), 3);
    }

    #[test]
    fn the_gateway_has_a_certificate() {
        let [_, secret, _, gateway] = gateway().unwrap();
        let listener = &gateway["spec"]["listeners"][1];
        assert_eq!(listener["tls"]["certificateRefs"][0]["name"], secret["metadata"]["name"]);
        assert!(secret["stringData"]["tls.key"].as_str().unwrap().contains("PRIVATE KEY"));
    }

    #[test]
    fn comments_between_documents_are_no_documents() {
        assert_eq!(documents("# only\n# words\n---\na: 1\n---\n# more\nb: 2\n---\n").unwrap().len(), 2);
    }

    #[test]
    fn file_modes_are_octal() {
        assert_eq!(documents("mode: 0644").unwrap()[0]["mode"], 0o644);
    }

    #[test]
    fn another_address_or_image_is_another_deployment() {
        let hash = images().hash(&node([10, 0, 0, 1]));
        assert_ne!(hash, images().hash(&node([10, 0, 0, 2])));
        assert_ne!(hash, Images { coredns: None, ..images() }.hash(&node([10, 0, 0, 1])));
    }

    #[test]
    fn dns_is_valid_yaml_and_takes_our_image() {
        assert_eq!(DNS.matches("COREDNS_IMAGE").count(), 1);
        assert_eq!(documents(DNS).unwrap().len(), 6);
    }
}
