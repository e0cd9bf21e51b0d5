//! Every manifest below `examples/` is one that works.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use http::StatusCode;
use rouse_crds::{Function, function::Visibility};
use rouse_e2e::Places;

use crate::scene::Scene;

fn manifests() -> Result<Vec<PathBuf>> {
    let mut folders = vec![Places::discover()?.repo.join("examples")];
    let mut found = vec![];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "yaml") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_example_is_applied_and_answers() -> Result<()> {
    let scene = Scene::new("examples").await?;
    let manifests = manifests()?;
    assert!(manifests.len() >= 6, "{} examples found", manifests.len());
    for path in manifests {
        let name = path.display().to_string();
        let (applied, said) = scene.kubectl(&["apply", "--namespace", &scene.namespace, "--filename", &name]).await?;
        assert!(applied, "{name}: {said}");
        let text = std::fs::read_to_string(&path)?;
        for document in text.split("\n---\n").filter(|d| d.contains("kind: Function")) {
            let function: Function = serde_saphyr::from_str(document).with_context(|| name.clone())?;
            let function_name = function.metadata.name.context("an example without a name")?;
            scene.condition(&function_name, "Ready", "True").await.with_context(|| name.clone())?;
            if function.spec.visibility() == Visibility::Public {
                scene.routed(&function_name).await?;
                let answer = scene.get(&function_name, "/").await?;
                assert_eq!(answer.status, StatusCode::OK, "{name}: {}", answer.text());
                for host in function.spec.hosts.iter().flatten() {
                    let answer = rouse_e2e::world::until(
                        &format!("{host} to be routed"),
                        rouse_e2e::world::PATIENCE,
                        || async {
                            let answer = scene.caller.get(host, "/").await?;
                            Ok((answer.status != StatusCode::NOT_FOUND).then_some(answer))
                        },
                    )
                    .await?;
                    assert_eq!(answer.status, StatusCode::OK, "{host}: {}", answer.text());
                }
            }
        }
        let (deleted, said) = scene.kubectl(&["delete", "--namespace", &scene.namespace, "--filename", &name]).await?;
        assert!(deleted, "{name}: {said}");
    }
    scene.done().await
}
