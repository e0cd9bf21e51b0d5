//! TLS: at the ingress, and at the activator.

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
    http_client::HttpClient,
    process::command,
    workspace::{TIMEOUT, until},
};
use serde_json::json;

use crate::{
    hosts::{lazy_spec, own_host, routed_to},
    release::Upgrade,
    test_env::{RELEASE, TestEnv},
};

/// Certificates in Secrets in the namespace of the release, and in files for clients that trust them.
pub(crate) struct Certificates {
    secrets: Api<Secret>,
    folder: tempfile::TempDir,
}

impl Certificates {
    pub(crate) fn new(env: &TestEnv) -> Result<Self> {
        Ok(Self { secrets: Api::namespaced(env.client.clone(), RELEASE), folder: tempfile::tempdir()? })
    }

    /// Writes a new self-signed certificate for these hosts into a Secret. Returns its file for clients.
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
            created => drop(created?),
        }
        let file = self.folder.path().join(format!("{secret}.pem"));
        std::fs::write(&file, cert.pem())?;
        Ok(file)
    }

    /// Deletes the Secrets.
    pub(crate) async fn revoke(self, secrets: &[&str]) -> Result<()> {
        for secret in secrets {
            self.secrets.delete(secret, &DeleteParams::default()).await?;
        }
        Ok(())
    }
}

/// Waits until `GET https://{host}/` at an address returns 200 with a certificate that `trusted` verifies. Returns the
/// response headers.
pub(crate) async fn serves_https(address: SocketAddr, host: &str, trusted: &std::path::Path) -> Result<String> {
    until(&format!("https://{host} at {address}"), TIMEOUT, || async {
        let mut curl =
            command("curl", ["--silent", "--show-error", "--fail", "--max-time", "60", "--dump-header", "-"]);
        curl.arg("--cacert").arg(trusted);
        curl.args(["--connect-to", &format!("::{address}"), &format!("https://{host}/")]);
        let output = curl.output().await?;
        Ok(output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned()))
    })
    .await
}

/// Waits until plain HTTP requests for a host are redirected to HTTPS.
async fn redirects(http_client: &HttpClient, host: &str, status: u16) -> Result<()> {
    until(&format!("http://{host} to https"), TIMEOUT, || async {
        let response = http_client.get(host, "/x").await?;
        let location = response.header("location").unwrap_or_default().to_owned();
        Ok((response.status == status && location == format!("https://{host}/x")).then_some(()))
    })
    .await
}

/// Waits until the status of `hello` has this URL.
async fn has_url(env: &TestEnv, url: String) -> Result<()> {
    let wanted = Some(url);
    until(&format!("hello to have the URL {wanted:?}"), TIMEOUT, || async {
        let status = env.functions().get("hello").await?.status.unwrap_or_default();
        Ok((status.url == wanted).then_some(()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn https_through_the_ingress_with_redirect() -> Result<()> {
    let env = TestEnv::exclusive("tls").await?;
    // Without a route to the node, its port 443 is unreachable.
    let Some(node) = env.cluster.node else { return env.finish().await };
    let custom = own_host(&env, "shop");
    let certificates = Certificates::new(&env)?;
    let of_default = certificates.issue("e2e-wildcard", &[format!("*.{}.{}", env.namespace, env.domain)]).await?;
    let of_custom = certificates.issue("e2e-shop", std::slice::from_ref(&custom)).await?;
    let tls = json!({"secretName": "e2e-wildcard", "perHost": {custom.clone(): "e2e-shop"}, "redirect": true});
    let upgrade = Upgrade::with(&env, json!({"ingress": {"tls": tls}})).await?;
    env.apply("hello", lazy_spec(&json!({"hosts": [custom]}))).await?;
    env.condition("hello", "Ready", "True").await?;
    let host = env.host("hello");
    has_url(&env, format!("https://{host}")).await?;
    for (host, trusted) in [(&host, of_default), (&custom, of_custom)] {
        let head = serves_https((node, 443).into(), host, &trusted).await?;
        ensure!(head.contains("hello-pod: hello-0000"), "{head}");
        redirects(&env.http_client, host, 301).await?;
    }
    upgrade.undo(&env).await?;
    routed_to(&env, &host, "/", "hello").await?;
    certificates.revoke(&["e2e-wildcard", "e2e-shop"]).await?;
    let ingress: Ingress =
        Api::namespaced(env.client.clone(), RELEASE).get(&format!("rouse-http1-{}", env.namespace)).await?;
    ensure!(ingress.spec.and_then(|s| s.tls).is_none(), "the certificates are still named");
    env.finish().await
}

/// Returns the node port of a port of the activators' public Service.
async fn node_port(env: &TestEnv, name: &str) -> Result<u16> {
    let services: Api<Service> = Api::namespaced(env.client.clone(), RELEASE);
    let ports = services.get("rouse-activator-public").await?.spec.unwrap_or_default().ports.unwrap_or_default();
    let port = ports.iter().find(|port| port.name.as_deref() == Some(name)).and_then(|port| port.node_port);
    Ok(u16::try_from(port.with_context(|| format!("there is no port {name} on the node: {ports:?}"))?)?)
}

/// Makes the kubelets sync the volumes of the activators now, which otherwise takes a minute or two.
async fn refresh_mounts(env: &TestEnv) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(env.client.clone(), RELEASE);
    for pod in pods.list(&ListParams::default().labels("app.kubernetes.io/component=activator")).await? {
        let touch =
            json!({"metadata": {"annotations": {"rouse-e2e/touched": format!("{:?}", tokio::time::Instant::now())}}});
        pods.patch(&pod.name_any(), &PatchParams::default(), &Patch::Merge(touch)).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_activator_terminates_tls_and_reloads_its_certificate() -> Result<()> {
    let env = TestEnv::exclusive("ownertls").await?;
    let Some(node) = env.cluster.node else { return env.finish().await };
    let host = env.host("hello");
    let certificates = Certificates::new(&env)?;
    let first = certificates.issue("e2e-activator", std::slice::from_ref(&host)).await?;
    // A copy, since the second certificate replaces the file.
    let kept = first.with_extension("first");
    std::fs::copy(&first, &kept)?;
    let values = json!({
        "ingress": {"mode": "none"},
        "activator": {
            "tls": {"secretName": "e2e-activator", "redirect": true},
            "publicService": {"enabled": true, "type": "NodePort"},
        },
    });
    let upgrade = Upgrade::with(&env, values).await?;
    env.apply("hello", lazy_spec(&json!({}))).await?;
    env.condition("hello", "Ready", "True").await?;
    has_url(&env, format!("https://{host}")).await?;
    let (secure, plain) = (node_port(&env, "public-tls").await?, node_port(&env, "public").await?);
    let head = serves_https((node, secure).into(), &host, &kept).await?;
    ensure!(head.starts_with("HTTP/2 200") && head.contains("hello-pod: hello-0000"), "{head}");
    redirects(&HttpClient::new((node, plain).into()), &host, 308).await?;

    let pods = env.of_activators("/metrics").await?.len();
    let second = certificates.issue("e2e-activator", std::slice::from_ref(&host)).await?;
    refresh_mounts(&env).await?;
    serves_https((node, secure).into(), &host, &second).await?;
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
    let (_, counts) = env.kubectl(&restarts).await?;
    ensure!(counts.split_whitespace().eq(std::iter::repeat_n("0", pods)), "an activator was restarted: {counts}");

    upgrade.undo(&env).await?;
    routed_to(&env, &host, "/", "hello").await?;
    certificates.revoke(&["e2e-activator"]).await?;
    env.finish().await
}
