//! Rouse itself, installed the way a user does: by Helm, from the chart of this checkout.

use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::cluster::Cluster;
use crate::places::{Places, hex};
use crate::plan::title;
use crate::process::run;
use crate::progress::Progress;
use crate::provider::Provider;
use crate::state::State;

/// The namespace and the name of the release.
pub const NAMESPACE: &str = "rouse-system";
/// The name of the release.
pub const RELEASE: &str = "rouse";

/// The chart's values for this cluster.
pub fn values(cluster: &Cluster) -> Result<Value> {
    let image = |name: &str| -> Result<Value> {
        let reference = cluster.images.get(name).with_context(|| format!("No image {name}"))?;
        let (repository, tag) = reference.rsplit_once(':').context("An image has no tag")?;
        Ok(json!({"image": {"repository": repository, "tag": tag}}))
    };
    let (class, annotations) = match cluster.provider {
        Provider::Local | Provider::Kind => {
            // Envoy ends a call after 15 s unless told otherwise, and Contour lets WebSocket through where it is told to.
            let annotations =
                json!({"projectcontour.io/response-timeout": "infinity", "projectcontour.io/websocket-routes": "/"});
            (crate::addons::INGRESS_CLASS.to_owned(), annotations)
        }
        Provider::Current => {
            let annotations = std::env::var("ROUSE_E2E_INGRESS_ANNOTATIONS").unwrap_or_else(|_| "{}".to_owned());
            let annotations = serde_json::from_str(&annotations)
                .with_context(|| format!("ROUSE_E2E_INGRESS_ANNOTATIONS is not a JSON object: {annotations}"))?;
            (std::env::var("ROUSE_E2E_INGRESS_CLASS").unwrap_or_default(), annotations)
        }
    };
    Ok(json!({
        "domain": cluster.domain,
        "hosts": {"allowed": [{"domains": ["*"], "namespaces": ["*"]}]},
        "ingress": {"mode": "ingress", "className": class, "annotations": annotations},
        "operator": image("rouse-operator")?,
        "activator": image("rouse-activator")?,
    }))
}

/// Installs or upgrades the release and waits until it is ready, unless this very release is there already.
pub async fn install(places: &Places, cluster: &Cluster, state: &mut State, progress: &Progress) -> Result<()> {
    let chart = places.repo.join("charts/rouse");
    let values = serde_json::to_vec_pretty(&values(cluster)?)?;
    let mut hash = Sha256::new();
    hash.update(&values);
    digest(&chart, &mut hash)?;
    let hash = hex(&hash.finalize());
    if state.release.as_ref() == Some(&hash)
        && run(cluster.helm(["status", RELEASE, "--namespace", NAMESPACE])).await.is_ok()
    {
        return Ok(());
    }
    let step = progress.step(title::INSTALL);
    let file = cluster.folder.join("values.json");
    std::fs::write(&file, values)?;
    let mut helm = cluster.helm(["upgrade", "--install", RELEASE]);
    helm.arg(&chart)
        .args(["--namespace", NAMESPACE, "--create-namespace", "--wait", "--timeout", "180s", "--values"])
        .arg(&file);
    if let Err(error) = run(helm).await {
        return Err(error.context(trouble(cluster).await));
    }
    state.release = Some(hash);
    step.done();
    Ok(())
}

/// What the cluster says of a release that did not get ready.
async fn trouble(cluster: &Cluster) -> String {
    let mut said = "Rouse did not become ready.".to_owned();
    for args in [
        &["get", "pods", "--output=wide"][..],
        &["get", "events", "--sort-by=.lastTimestamp", "--field-selector=type!=Normal"],
        &["logs", "--selector=app.kubernetes.io/name=rouse", "--all-containers", "--tail=20", "--prefix"],
    ] {
        let shown = run(cluster.kubectl(["--namespace", NAMESPACE].iter().chain(args))).await;
        said.push('\n');
        said.push_str(&shown.unwrap_or_else(|error| error.to_string()));
    }
    said
}

/// Feeds the names and contents of all files below a folder, in order.
fn digest(folder: &Path, hash: &mut Sha256) -> Result<()> {
    let read = std::fs::read_dir(folder).with_context(|| format!("Cannot read {}", folder.display()))?;
    let mut paths = read.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.sort();
    for path in paths {
        hash.update(path.as_os_str().as_encoded_bytes());
        if path.is_dir() {
            digest(&path, hash)?;
        } else {
            hash.update(std::fs::read(&path)?);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_or_renamed_file_is_another_chart() {
        let folder = tempfile::tempdir().unwrap();
        let hash = || {
            let mut hash = Sha256::new();
            digest(folder.path(), &mut hash).unwrap();
            hex(&hash.finalize())
        };
        std::fs::create_dir(folder.path().join("templates")).unwrap();
        std::fs::write(folder.path().join("templates/a"), "1").unwrap();
        let first = hash();
        assert_eq!(first, hash());
        std::fs::write(folder.path().join("templates/a"), "2").unwrap();
        let second = hash();
        std::fs::rename(folder.path().join("templates/a"), folder.path().join("templates/b")).unwrap();
        assert!(first != second && second != hash());
    }

    #[test]
    fn images_reach_the_chart_in_two_parts() {
        let images =
            [("rouse-operator", "localhost/rouse-operator:abc"), ("rouse-activator", "reg:5000/x/rouse-activator:def")];
        let cluster = Cluster {
            name: "n".into(),
            provider: Provider::Kind,
            kubeconfig: "/k".into(),
            ingress: ([127, 0, 0, 1], 80).into(),
            kubectl: "/kubectl".into(),
            helm: "/helm".into(),
            domain: "rouse.test".into(),
            images: images.iter().map(|(name, reference)| ((*name).to_owned(), (*reference).to_owned())).collect(),
            node: None,
            folder: "/f".into(),
        };
        let values = values(&cluster).unwrap();
        assert_eq!(values["activator"]["image"], json!({"repository": "reg:5000/x/rouse-activator", "tag": "def"}));
        assert_eq!(values["ingress"]["className"], "contour");
        assert_eq!(values["ingress"]["annotations"]["projectcontour.io/websocket-routes"], "/");
    }
}
