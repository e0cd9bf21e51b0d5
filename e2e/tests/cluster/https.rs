//! Calls by TLS: through the ingress, and to an activator that takes them itself.

use std::{net::SocketAddr, path::PathBuf};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::{
    core::v1::{Pod, Secret, Service},
    networking::v1::Ingress,
};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use rouse_e2e::{
    caller::Caller,
    process::command,
    world::{PATIENCE, until},
};
use serde_json::json;

use crate::{
    hosts::{asleep, leads, own_host},
    release::Upgrade,
    scene::{RELEASE, Scene},
};

/// Certificates in Secrets of the release's namespace, and copies in a folder for those who are to trust them.
pub(crate) struct Certificates {
    secrets: Api<Secret>,
    folder: tempfile::TempDir,
}

impl Certificates {
    pub(crate) fn new(scene: &Scene) -> Result<Self> {
        Ok(Self { secrets: Api::namespaced(scene.client.clone(), RELEASE), folder: tempfile::tempdir()? })
    }

    /// Puts a new certificate for these hosts, which signs itself, into a Secret. Yields the file of those who trust it.
    pub(crate) async fn issue(&self, secret: &str, hosts: &[String]) -> Result<PathBuf> {
        let rcgen::CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(hosts.to_vec())?;
        let object = json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": secret},
            "type": "kubernetes.io/tls",
            "stringData": {"tls.crt": cert.pem(), "tls.key": signing_key.serialize_pem()},
        });
        match self.secrets.create(&PostParams::default(), &serde_json::from_value(object.clone())?).await {
            Err(kube::Error::Api(refused)) if refused.is_already_exists() => {
                self.secrets.patch(secret, &PatchParams::default(), &Patch::Merge(object)).await?;
            }
            made => drop(made?),
        }
        let file = self.folder.path().join(format!("{secret}.pem"));
        std::fs::write(&file, cert.pem())?;
        Ok(file)
    }

    /// Takes the Secrets away.
    pub(crate) async fn revoke(self, secrets: &[&str]) -> Result<()> {
        for secret in secrets {
            self.secrets.delete(secret, &DeleteParams::default()).await?;
        }
        Ok(())
    }
}

/// Waits until `https://{host}/` at an address is answered with 200 under a certificate that `trusted` vouches for. Yields
/// the head of the answer.
pub(crate) async fn answers(address: SocketAddr, host: &str, trusted: &std::path::Path) -> Result<String> {
    until(&format!("https://{host} at {address}"), PATIENCE, || async {
        let mut curl =
            command("curl", ["--silent", "--show-error", "--fail", "--max-time", "60", "--dump-header", "-"]);
        curl.arg("--cacert").arg(trusted);
        curl.args(["--connect-to", &format!("::{address}"), &format!("https://{host}/")]);
        let output = curl.output().await?;
        Ok(output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned()))
    })
    .await
}

/// Waits until plain calls of a host are sent to https.
async fn redirected(caller: &Caller, host: &str, status: u16) -> Result<()> {
    until(&format!("http://{host} to https"), PATIENCE, || async {
        let answer = caller.get(host, "/x").await?;
        let location = answer.header("location").unwrap_or_default().to_owned();
        Ok((answer.status == status && location == format!("https://{host}/x")).then_some(()))
    })
    .await
}

/// Waits until the status of `hello` says that it is called by this URL.
async fn has_url(scene: &Scene, url: String) -> Result<()> {
    let wanted = Some(url);
    until(&format!("hello to have the URL {wanted:?}"), PATIENCE, || async {
        let status = scene.functions().get("hello").await?.status.unwrap_or_default();
        Ok((status.url == wanted).then_some(()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn https_through_the_ingress_and_http_is_sent_there() -> Result<()> {
    let scene = Scene::alone("tls").await?;
    // Where the node is not reached from here, neither is its port 443.
    let Some(node) = scene.cluster.node else { return scene.done().await };
    let custom = own_host(&scene, "shop");
    let certificates = Certificates::new(&scene)?;
    let of_default = certificates.issue("e2e-wildcard", &[format!("*.{}.{}", scene.namespace, scene.domain)]).await?;
    let of_custom = certificates.issue("e2e-shop", std::slice::from_ref(&custom)).await?;
    let tls = json!({"secretName": "e2e-wildcard", "perHost": {custom.clone(): "e2e-shop"}, "redirect": true});
    let upgrade = Upgrade::with(&scene, json!({"ingress": {"tls": tls}})).await?;
    scene.apply("hello", asleep(&json!({"hosts": [custom]}))).await?;
    scene.condition("hello", "Ready", "True").await?;
    let host = scene.host("hello");
    has_url(&scene, format!("https://{host}")).await?;
    for (host, trusted) in [(&host, of_default), (&custom, of_custom)] {
        let head = answers((node, 443).into(), host, &trusted).await?;
        ensure!(head.contains("hello-pod: hello-0000"), "{head}");
        redirected(&scene.caller, host, 301).await?;
    }
    upgrade.undo(&scene).await?;
    leads(&scene, &host, "/", "hello").await?;
    certificates.revoke(&["e2e-wildcard", "e2e-shop"]).await?;
    let ingress: Ingress = Api::namespaced(scene.client.clone(), RELEASE).get("rouse").await?;
    ensure!(ingress.spec.and_then(|s| s.tls).is_none(), "the certificates are still named");
    scene.done().await
}

/// The port of the node that leads to this port of the activators' public Service.
async fn node_port(scene: &Scene, name: &str) -> Result<u16> {
    let services: Api<Service> = Api::namespaced(scene.client.clone(), RELEASE);
    let ports = services.get("rouse-activator-public").await?.spec.unwrap_or_default().ports.unwrap_or_default();
    let port = ports.iter().find(|port| port.name.as_deref() == Some(name)).and_then(|port| port.node_port);
    Ok(u16::try_from(port.with_context(|| format!("there is no port {name} on the node: {ports:?}"))?)?)
}

/// Makes kubelets look at what is mounted into the activators now, which they would do within a minute or two.
async fn mounted_anew(scene: &Scene) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(scene.client.clone(), RELEASE);
    for pod in pods.list(&ListParams::default().labels("app.kubernetes.io/component=activator")).await? {
        let touch =
            json!({"metadata": {"annotations": {"rouse-e2e/touched": format!("{:?}", tokio::time::Instant::now())}}});
        pods.patch(&pod.name_any(), &PatchParams::default(), &Patch::Merge(touch)).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_ingress_the_activator_takes_https_itself_and_a_renewed_certificate() -> Result<()> {
    let scene = Scene::alone("ownertls").await?;
    let Some(node) = scene.cluster.node else { return scene.done().await };
    let host = scene.host("hello");
    let certificates = Certificates::new(&scene)?;
    let first = certificates.issue("e2e-activator", std::slice::from_ref(&host)).await?;
    // A name of its own, since the second is written to the same Secret.
    let kept = first.with_extension("first");
    std::fs::copy(&first, &kept)?;
    let values = json!({
        "ingress": {"mode": "none"},
        "activator": {
            "tls": {"secretName": "e2e-activator", "redirect": true},
            "publicService": {"enabled": true, "type": "NodePort"},
        },
    });
    let upgrade = Upgrade::with(&scene, values).await?;
    scene.apply("hello", asleep(&json!({}))).await?;
    scene.condition("hello", "Ready", "True").await?;
    has_url(&scene, format!("https://{host}")).await?;
    let (secure, plain) = (node_port(&scene, "public-tls").await?, node_port(&scene, "public").await?);
    let head = answers((node, secure).into(), &host, &kept).await?;
    ensure!(head.starts_with("HTTP/2 200") && head.contains("hello-pod: hello-0000"), "{head}");
    redirected(&Caller::new((node, plain).into()), &host, 308).await?;

    let pods = scene.of_activators("/metrics").await?.len();
    let second = certificates.issue("e2e-activator", std::slice::from_ref(&host)).await?;
    mounted_anew(&scene).await?;
    answers((node, secure).into(), &host, &second).await?;
    let restarts = [
        "get",
        "pods",
        "--namespace",
        RELEASE,
        "--selector",
        "app.kubernetes.io/component=activator",
        "--output",
        "jsonpath={.items[*].status.containerStatuses[*].restartCount}",
    ];
    let (_, counts) = scene.kubectl(&restarts).await?;
    ensure!(counts.split_whitespace().eq(std::iter::repeat_n("0", pods)), "an activator was started anew: {counts}");

    upgrade.undo(&scene).await?;
    leads(&scene, &host, "/", "hello").await?;
    certificates.revoke(&["e2e-activator"]).await?;
    scene.done().await
}
