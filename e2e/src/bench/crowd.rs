//! `crowd1000`: a thousand concurrent requests to one Function at zero, without a concurrency limit and with one.

use std::time::Duration;

use anyhow::Result;
use futures::future::join_all;
use rouse_crds::names;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{
    Figures,
    deployment_watch::{DeploymentWatch, max_replicas, missed},
};
use crate::{Cluster, http_client::HttpClient, workspace::Workspace};

const CROWD: usize = 1000;
/// Requests of 10 ms with a limit of ten per pod: one pod needs a second for all of them.
const LIMITED: &str = "/?sleep_ms=10";
/// Time after the last response in which the replica count is still observed.
const AFTERWARDS: Duration = Duration::from_secs(2);

pub(super) async fn run(cluster: &Cluster, figures: &mut Figures) -> Result<()> {
    let workspace = Workspace::new(cluster, &format!("bench-crowd-{}", std::process::id())).await?;
    at_zero(&workspace, "crowd", json!({"initial": 0})).await?;
    crowd(&workspace, "crowd", "/", "crowd1000", figures).await;
    // Its pods would affect the next measurement.
    workspace.delete("crowd").await?;

    // A client without open connections, as in the first part.
    let workspace = Workspace { http_client: HttpClient::new(cluster.ingress), ..workspace };
    at_zero(&workspace, "limited", json!({"initial": 0, "concurrencyLimit": 10})).await?;
    let deployment_watch = DeploymentWatch::start(&workspace, names::revision_name("limited", 1)).await?;
    crowd(&workspace, "limited", LIMITED, "crowd1000.limited", figures).await;
    sleep(AFTERWARDS).await;
    let observations = deployment_watch.stop(&workspace).await?;
    figures.bar("crowd1000.limited.most_pods", f64::from(max_replicas(&observations)), "pods", 3.0);
    // With missed writes, the count above may be too low.
    figures.bar("crowd1000.limited.missed_writes", missed(&observations) as f64, "writes", 0.0);
    workspace.delete_namespace().await
}

async fn at_zero(workspace: &Workspace, name: &str, scaling: Value) -> Result<()> {
    workspace.ready(name, json!({"scaling": scaling})).await?;
    workspace.without_pods(name).await
}

/// Sends all requests at once and records the results when each has a response or has failed.
async fn crowd(workspace: &Workspace, name: &str, path: &str, figure: &str, figures: &mut Figures) {
    let responses = join_all((0..CROWD).map(|_| workspace.get(name, path))).await;
    let mut failures: Vec<String> = vec![];
    let mut samples = vec![];
    for response in responses {
        match response {
            Ok(response) if response.status == http::StatusCode::OK => samples.push(response.took),
            Ok(response) => failures.push(format!("{} {}", response.status, response.text())),
            Err(error) => failures.push(format!("{error:#}")),
        }
    }
    if let Some(first) = failures.first() {
        eprintln!("    the first failure: {first}");
    }
    figures.bar(format!("{figure}.failures"), failures.len() as f64, "requests", 0.0);
    figures.percentiles(&format!("{figure}.ms"), &samples, &[50]);
    figures.note(format!("{figure}.max_ms"), samples.iter().max().map_or(0.0, |d| d.as_secs_f64() * 1000.0), "ms");
}
