//! What a cluster has before Rouse comes: DNS (where the provider brings none) and an ingress, Contour with Envoy.
//!
//! Contour's manifests are those of its own Go module, `examples/contour`; [`adapt`] says what is changed in them.

use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::cluster::{apply, rolled_out};
use crate::gomod::CONTOUR;
use crate::images::Archive;
use crate::places::{Places, hex};
use crate::progress::Progress;
use crate::provider::Node;
use crate::state::State;

/// Goes up when the same images are to be deployed differently.
const LAYOUT: &str = "1";
/// Cluster DNS; the image's name is filled in.
const DNS: &str = include_str!("../manifests/coredns.yaml");
/// The module that holds Contour's manifests.
const CONTOUR_MODULE: &str = "github.com/projectcontour/contour";
/// The class of the Ingresses that Contour serves.
pub const INGRESS_CLASS: &str = "contour";

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
    manifests.push_str(&serde_json::to_string(&contour(&examples, node, images)?)?);
    apply(kubectl, &node.kubeconfig, &manifests).await?;
    state.addons = Some(hash);
    Ok(true)
}

/// Waits until DNS and the ingress answer.
pub async fn wait(kubectl: &Path, node: &Node, images: &Images, progress: &Progress) -> Result<()> {
    let step = progress.step("Waiting for DNS and the ingress");
    if images.coredns.is_some() {
        step.detail("CoreDNS");
        rolled_out(kubectl, &node.kubeconfig, "kube-system", "deployment/coredns").await?;
    }
    for what in ["deployment/contour", "daemonset/envoy"] {
        step.detail(what);
        rolled_out(kubectl, &node.kubeconfig, "projectcontour", what).await?;
    }
    step.done();
    Ok(())
}

/// Contour's manifests as one List.
fn contour(examples: &Path, node: &Node, images: &Images) -> Result<Value> {
    let mut files: Vec<_> = std::fs::read_dir(examples)
        .with_context(|| format!("Cannot read {}", examples.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    files.sort();
    let mut items = vec![json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "IngressClass",
        "metadata": {"name": INGRESS_CLASS},
        "spec": {"controller": "projectcontour.io/ingress-controller"},
    })];
    for file in files {
        let text = std::fs::read_to_string(&file)?;
        for mut document in documents(&text).with_context(|| format!("Cannot read {}", file.display()))? {
            adapt(&mut document, node, images);
            items.push(document);
        }
    }
    Ok(json!({"apiVersion": "v1", "kind": "List", "items": items}))
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
