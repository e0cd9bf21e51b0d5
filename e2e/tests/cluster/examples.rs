//! Tests every manifest below `examples/`.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use http::StatusCode;
use rouse_crds::{Function, function::Visibility};
use rouse_e2e::Places;

use crate::test_env::TestEnv;

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
async fn every_example_is_applied_and_responds() -> Result<()> {
    let env = TestEnv::new("examples").await?;
    let manifests = manifests()?;
    assert!(manifests.len() >= 6, "{} examples found", manifests.len());
    for path in manifests {
        let name = path.display().to_string();
        let (applied, printed) = env.kubectl(&["apply", "--namespace", &env.namespace, "--filename", &name]).await?;
        assert!(applied, "{name}: {printed}");
        let text = std::fs::read_to_string(&path)?;
        for document in text.split("\n---\n").filter(|d| d.contains("kind: Function")) {
            let function: Function = serde_saphyr::from_str(document).with_context(|| name.clone())?;
            let function_name = function.metadata.name.context("an example without a name")?;
            env.condition(&function_name, "Ready", "True").await.with_context(|| name.clone())?;
            if function.spec.visibility() == Visibility::Public {
                env.routed(&function_name).await?;
                let response = env.get(&function_name, "/").await?;
                assert_eq!(response.status, StatusCode::OK, "{name}: {}", response.text());
                for host in function.spec.hosts.iter().flatten() {
                    let response = rouse_e2e::workspace::until(
                        &format!("{host} to be routed"),
                        rouse_e2e::workspace::TIMEOUT,
                        || async {
                            let response = env.http_client.get(host, "/").await?;
                            Ok((response.status != StatusCode::NOT_FOUND).then_some(response))
                        },
                    )
                    .await?;
                    assert_eq!(response.status, StatusCode::OK, "{host}: {}", response.text());
                }
            }
        }
        let (deleted, printed) = env.kubectl(&["delete", "--namespace", &env.namespace, "--filename", &name]).await?;
        assert!(deleted, "{name}: {printed}");
    }
    env.finish().await
}
