//! What the activator may do to the cluster: wake functions, and nothing else.

use anyhow::Result;
use serde_json::json;

use crate::scene::{RELEASE, Scene};

#[tokio::test(flavor = "multi_thread")]
async fn the_activator_may_wake_and_nothing_else() -> Result<()> {
    let scene = Scene::new("rights").await?;
    scene.ready("hello", json!({"scaling": {"initial": 0}})).await?;
    let user = format!("system:serviceaccount:{RELEASE}:rouse-activator");
    let patch = |namespace: String, deployment: &'static str, replicas: u32| {
        let (scene, user) = (&scene, &user);
        async move {
            let patch = format!("{{\"spec\":{{\"replicas\":{replicas}}}}}");
            let args = [
                "--as",
                user,
                "--namespace",
                &namespace,
                "patch",
                "deployment",
                deployment,
                "--subresource=scale",
                "--type=merge",
                "--patch",
                &patch,
            ];
            scene.kubectl(&args).await
        }
    };
    let (woken, said) = patch(scene.namespace.clone(), "hello-00001", 1).await?;
    assert!(woken, "the activator could not wake a function: {said}");
    let (raised, said) = patch(scene.namespace.clone(), "hello-00001", 2).await?;
    assert!(!raised && said.contains("zero"), "from 1 to 2: {said}");
    let (lowered, said) = patch(scene.namespace.clone(), "hello-00001", 0).await?;
    assert!(!lowered, "from 1 to 0: {said}");
    let (foreign, said) = patch(RELEASE.to_owned(), "rouse-operator", 0).await?;
    assert!(!foreign, "the operator itself: {said}");
    for (verb, what) in [("delete", "deployments"), ("create", "pods"), ("get", "secrets"), ("patch", "functions")] {
        let (_, said) = scene.kubectl(&["auth", "can-i", verb, what, "--all-namespaces", "--as", &user]).await?;
        assert!(said.trim().starts_with("no"), "the activator may {verb} {what}: {said}");
    }
    scene.done().await
}
