//! `cargo e2e demo`: scale to zero, a cold request, a warm one, and both again, printed as it happens.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::time::Instant;

use crate::{
    Cluster, Places,
    http_client::Response,
    workspace::{TIMEOUT, Workspace, until},
};

const NAMESPACE: &str = "default";
const NAME: &str = "hello";
const MANIFEST: &str = "examples/hello/function.yaml";

/// Prints lines with the time since the start.
struct Timeline {
    started: Instant,
}

impl Timeline {
    fn print(&self, what: &str) {
        println!("  {:>6.1} s  {what}", self.started.elapsed().as_secs_f64());
    }
}

/// Applies `examples/hello` and sends requests through the ingress: 0 → 1 → 0 → 1 pods.
///
/// # Errors
///
/// If a step has another result than expected.
pub async fn demo(cluster: &Cluster, places: &Places) -> Result<()> {
    let workspace = Workspace::new(cluster, NAMESPACE).await?;
    let manifest =
        std::fs::read_to_string(places.repo.join(MANIFEST)).with_context(|| format!("Cannot read {MANIFEST}"))?;
    println!();
    let timeline = Timeline { started: Instant::now() };
    cluster.apply(&with_image(&manifest, &workspace.image)).await?;
    timeline.print(&format!("kubectl apply -f {MANIFEST}"));
    workspace.condition(NAME, "Ready", "True").await?;
    workspace.routed(NAME).await?;
    timeline.print(&format!("ready at http://{}", workspace.host(NAME)));

    workspace.without_pods(NAME).await?;
    timeline.print("zero pods (verified: no pod exists, not even a terminating one)");
    request(&workspace, &timeline, "first request", true).await?;
    request(&workspace, &timeline, "second request", false).await?;
    let last = Instant::now();
    let gone = workspace.terminating(NAME, TIMEOUT).await?;
    let idle = gone.duration_since(last).as_secs_f64();
    timeline.print(&format!("no requests: the pod terminates, {idle:.1} s after the last request"));
    workspace.without_pods(NAME).await?;
    timeline.print("zero pods again");
    request(&workspace, &timeline, "third request", true).await?;
    println!(
        "\nTry it:\n\n  export KUBECONFIG={}\n  {} get functions\n  curl -i -H 'Host: {}' http://{}/\n\nRemove the cluster: cargo e2e down",
        cluster.kubeconfig.display(),
        cluster.kubectl.display(),
        workspace.host(NAME),
        cluster.ingress,
    );
    Ok(())
}

/// The example names the image that a release would publish; the cluster has the one that was just built.
fn with_image(manifest: &str, image: &str) -> String {
    let line = |line: &str| match line.trim_start().strip_prefix("image:") {
        Some(_) => format!("{}image: {image}", &line[..line.len() - line.trim_start().len()]),
        None => line.to_owned(),
    };
    manifest.lines().map(line).collect::<Vec<_>>().join("\n")
}

async fn request(workspace: &Workspace, timeline: &Timeline, what: &str, cold: bool) -> Result<()> {
    let response = workspace.get(NAME, "/").await?;
    ensure!(response.status.is_success(), "{what}: {} {}", response.status, response.text());
    let was_cold = response.header("rouse-cold-start").is_some();
    ensure!(was_cold == cold, "{what}: expected a {} start", if cold { "cold" } else { "warm" });
    timeline.print(&format!("{what:<14} {} in {}", response.status.as_u16(), describe(&response)));
    if cold {
        // One look is enough: the pod that has just answered is there.
        until("its pod", Duration::from_secs(10), || async {
            Ok((!workspace.pods(NAME).await?.is_empty()).then_some(()))
        })
        .await?;
    }
    Ok(())
}

/// `231 ms = wake 6 + schedule 21 + start 160 + probe 12 + …`
fn describe(response: &Response) -> String {
    let total = response.took.as_secs_f64() * 1000.0;
    let phases: Vec<_> = response
        .phases()
        .into_iter()
        .filter(|(name, _)| ["wake", "schedule", "start", "probe"].contains(&name.as_str()))
        .collect();
    if phases.is_empty() {
        return format!("{total:.1} ms");
    }
    let told: Vec<String> = phases.iter().map(|(name, millis)| format!("{name} {millis:.0}")).collect();
    let rest = total - phases.iter().map(|(_, millis)| millis).sum::<f64>();
    format!("{total:.0} ms  (cold start: {} · other {rest:.0})", told.join(" · "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_is_replaced_where_it_stands() {
        let manifest = "spec:\n  image: ghcr.io/x/hello:1\n  port: 8080";
        assert_eq!(with_image(manifest, "local/hello:2"), "spec:\n  image: local/hello:2\n  port: 8080");
    }
}
