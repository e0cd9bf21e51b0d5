//! Admission webhooks that refuse objects of Functions: a server with a certificate, which the API server asks.
//!
//! A policy (ValidatingAdmissionPolicy) responds with 422 or 403. A webhook that denies without a code leads to 400, one that
//! fails to 500, and one that does not respond to a timeout.

use std::{sync::Arc, time::Duration};

use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::api::{
    admissionregistration::v1::ValidatingWebhookConfiguration, apps::v1::Deployment, core::v1::Service,
    networking::v1::Ingress,
};
use kube::{
    Api,
    api::{DeleteParams, PostParams},
};
use parking_lot::Mutex;
use rustls::pki_types::{PrivateKeyDer, pem::PemObject as _};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_rustls::TlsAcceptor;

use crate::rig::{Rig, condition, message};

/// What the webhook responds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Allow,
    /// Denies without a code, as most webhooks do.
    Deny,
    /// Fails with status 500.
    Fail,
    /// Does not respond within its timeout.
    Hang,
}

/// A webhook for one resource in the namespace of a rig.
struct Webhook {
    verdict: Arc<Mutex<Verdict>>,
    configurations: Api<ValidatingWebhookConfiguration>,
    name: String,
    server: JoinHandle<()>,
}

impl Webhook {
    async fn new(rig: &Rig, group: &str, resource: &str, namespace: &str) -> Self {
        let certified = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        let key = PrivateKeyDer::from_pem_slice(certified.signing_key.serialize_pem().as_bytes()).unwrap();
        let tls = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certified.cert.der().clone()], key)
            .unwrap();
        let (acceptor, socket) = (TlsAcceptor::from(Arc::new(tls)), TcpListener::bind(("127.0.0.1", 0)).await.unwrap());
        let port = socket.local_addr().unwrap().port();
        let verdict = Arc::new(Mutex::new(Verdict::Allow));
        let decides = Arc::clone(&verdict);
        let server = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = socket.accept().await else { return };
                let (acceptor, decides) = (acceptor.clone(), Arc::clone(&decides));
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = hyper::service::service_fn(move |request| review(request, Arc::clone(&decides)));
                    let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    drop(server.serve_connection(TokioIo::new(stream), service).await);
                });
            }
        });
        let configuration: ValidatingWebhookConfiguration = serde_json::from_value(json!({
            "metadata": {"name": format!("{resource}.{namespace}")},
            "webhooks": [{
                "name": "policy.example.org",
                "clientConfig": {"url": format!("https://127.0.0.1:{port}/"), "caBundle": base64(certified.cert.pem().as_bytes())},
                "rules": [{"apiGroups": [group], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": [resource]}],
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
                "sideEffects": "None", "admissionReviewVersions": ["v1"], "timeoutSeconds": 1,
            }],
        }))
        .unwrap();
        let configurations: Api<ValidatingWebhookConfiguration> = Api::all(rig.client.clone());
        configurations.create(&PostParams::default(), &configuration).await.unwrap();
        let webhook = Self { verdict, configurations, name: format!("{resource}.{namespace}"), server };
        webhook.set(Verdict::Deny);
        webhook
    }

    fn set(&self, verdict: Verdict) {
        *self.verdict.lock() = verdict;
    }

    /// Waits until the API server asks the webhook.
    async fn applies<K>(&self, api: &Api<K>, object: &Value)
    where
        K: kube::Resource + serde::Serialize + serde::de::DeserializeOwned + Clone + std::fmt::Debug,
    {
        let object: K = serde_json::from_value(object.clone()).unwrap();
        let params = PostParams { dry_run: true, ..PostParams::default() };
        crate::rig::eventually(
            "the webhook is asked",
            async || matches!(api.create(&params, &object).await, Err(kube::Error::Api(status)) if status.code == 400),
        )
        .await;
    }

    async fn remove(self) {
        self.configurations.delete(&self.name, &DeleteParams::default()).await.unwrap();
        self.server.abort();
    }
}

async fn review(
    request: Request<Incoming>,
    decides: Arc<Mutex<Verdict>>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let body = request.into_body().collect().await?.to_bytes();
    let review: Value = serde_json::from_slice(&body).unwrap_or_default();
    let verdict = *decides.lock();
    if verdict == Verdict::Hang {
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    let mut response = json!({"uid": review["request"]["uid"], "allowed": verdict == Verdict::Allow});
    if verdict == Verdict::Deny {
        response["status"] = json!({"message": "not on Fridays"});
    }
    let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response});
    let code = if verdict == Verdict::Fail { 500 } else { 200 };
    Ok(Response::builder().status(code).body(Full::from(review.to_string())).unwrap())
}

/// Base64, as a `caBundle` needs it.
fn base64(bytes: &[u8]) -> Value {
    json!(k8s_openapi::ByteString(bytes.to_vec()))
}

#[tokio::test]
async fn a_webhook_that_refuses_deployments_is_reported() {
    let rig = Rig::new("webhook").await;
    let webhook = Webhook::new(&rig, "apps", "deployments", &rig.namespace).await;
    let probe = json!({"metadata": {"name": "probe"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {
        "metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]},
    }}});
    webhook.applies::<Deployment>(&rig.deployments(), &probe).await;
    let operator = rig.operator().await;
    let hello = json!({"image": "i:1"});
    rig.apply("hello", &hello).await;
    let denied = rig.function("hello", "is rejected", |f| condition(f, "Ready").1 == "Invalid").await;
    let sentence = "admission webhook \"policy.example.org\" denied the request: not on Fridays";
    for type_ in ["Ready", "RevisionReady", "Synced"] {
        assert!(message(&denied, type_).contains(sentence), "{}", message(&denied, type_));
    }
    assert_eq!(condition(&denied, "Synced"), ("False".into(), "Rejected".into()));
    assert!(denied.status.unwrap().traffic.is_empty(), "nothing exists that could respond");

    // Another image is another attempt.
    for (verdict, image) in [(Verdict::Fail, "i:2"), (Verdict::Hang, "i:3")] {
        webhook.set(verdict);
        rig.apply("hello", &json!({"image": image})).await;
        let failed = rig
            .function("hello", "reports the failure", |f| {
                condition(f, "Ready") == ("Unknown".into(), "WriteFailed".into())
                    && f.status.as_ref().is_some_and(|s| s.observed_generation == f.metadata.generation)
            })
            .await;
        assert!(message(&failed, "Ready").contains("policy.example.org"), "{}", message(&failed, "Ready"));
    }
    webhook.set(Verdict::Allow);
    rig.apply("hello", &json!({"image": "i:4"})).await;
    rig.function("hello", "has no failed writes", |f| condition(f, "Synced").0 == "True").await;
    rig.pods_ready("hello-00004", 1).await;
    let ready = rig.function("hello", "is ready", |f| condition(f, "Ready").0 == "True").await;
    assert_eq!(ready.status.unwrap().traffic[0].revision, "hello-00004");

    // While it denies again, the function that runs is not affected, and what is modified is not repaired.
    webhook.set(Verdict::Deny);
    rig.apply("hello", &json!({"image": "i:5"})).await;
    let denied = rig.function("hello", "is rejected", |f| condition(f, "Ready").1 == "Invalid").await;
    assert_eq!(denied.status.unwrap().traffic[0].revision, "hello-00004");
    rig.apply("hello", &json!({"image": "i:4"})).await;
    webhook.remove().await;
    rig.end(Some(operator)).await;
}

#[tokio::test]
async fn a_webhook_that_refuses_services_is_reported() {
    let rig = Rig::new("webhook-service").await;
    let webhook = Webhook::new(&rig, "", "services", &rig.namespace).await;
    let probe = json!({"metadata": {"name": "probe"}, "spec": {"type": "ExternalName", "externalName": "a.b"}});
    webhook.applies::<Service>(&rig.api(), &probe).await;
    let operator = rig.operator().await;
    rig.apply("hello", &json!({"image": "i:1"})).await;
    let denied = rig.function("hello", "is rejected", |f| condition(f, "Routable").1 == "Invalid").await;
    assert!(message(&denied, "Routable").contains("not on Fridays"), "{}", message(&denied, "Routable"));
    assert_eq!(denied.status.unwrap().traffic[0].revision, "hello-00001", "the ingress serves it");
    rig.object("hello-00001", "is created nevertheless", |_: &Deployment| true).await;
    webhook.set(Verdict::Allow);
    // Any change of the Function is another attempt; without one, the next is within a minute.
    rig.apply("hello", &json!({"image": "i:1", "timeouts": {"response": "9s"}})).await;
    rig.function("hello", "is routable once it is allowed", |f| condition(f, "Routable").0 == "True").await;
    webhook.remove().await;
    rig.end(Some(operator)).await;
}

/// The shared Ingress is in the namespace of the release. The Functions exist and report their own objects nevertheless.
#[tokio::test]
async fn a_webhook_that_refuses_ingresses_does_not_affect_functions() {
    let rig = Rig::new("webhook-ingress").await;
    let webhook = Webhook::new(&rig, "networking.k8s.io", "ingresses", &rig.system).await;
    let probe = json!({"metadata": {"name": "probe"}, "spec": {"defaultBackend": {"service": {"name": "a", "port": {"number": 80}}}}});
    webhook.applies::<Ingress>(&rig.ingresses(), &probe).await;
    let operator = rig.operator().await;
    rig.apply("hello", &json!({"image": "i:1"})).await;
    rig.object("hello-00001", "is created", |_: &Deployment| true).await;
    rig.pods_ready("hello-00001", 1).await;
    rig.function("hello", "is verified", |f| condition(f, "RevisionReady").0 == "True").await;
    assert!(rig.ingresses().get_opt(&rig.ingress()).await.unwrap().is_none());
    webhook.set(Verdict::Allow);
    crate::rig::eventually("the Ingress is created once it is allowed", async || {
        rig.ingresses().get_opt(&rig.ingress()).await.unwrap().is_some()
    })
    .await;
    webhook.remove().await;
    rig.end(Some(operator)).await;
}
