//! `crowd1000`: a thousand calls at once to one function at zero.

use anyhow::Result;
use futures::future::join_all;
use serde_json::json;

use super::Figures;
use crate::{Cluster, world::World};

const CROWD: usize = 1000;

pub(super) async fn run(cluster: &Cluster, figures: &mut Figures) -> Result<()> {
    let world = World::new(cluster, &format!("bench-crowd-{}", std::process::id())).await?;
    world.ready("crowd", json!({"scaling": {"initial": 0}})).await?;
    world.zero("crowd").await?;
    let answers = join_all((0..CROWD).map(|_| world.get("crowd", "/"))).await;
    let mut failures: Vec<String> = vec![];
    let mut samples = vec![];
    for answer in answers {
        match answer {
            Ok(answer) if answer.status == http::StatusCode::OK => samples.push(answer.took),
            Ok(answer) => failures.push(format!("{} {}", answer.status, answer.text())),
            Err(error) => failures.push(format!("{error:#}")),
        }
    }
    if let Some(first) = failures.first() {
        eprintln!("    the first failure: {first}");
    }
    figures.bar("crowd1000.failures", failures.len() as f64, "requests", 0.0);
    figures.percentiles("crowd1000.ms", &samples, &[50]);
    figures.note("crowd1000.max_ms", samples.iter().max().map_or(0.0, |d| d.as_secs_f64() * 1000.0), "ms");
    world.leave().await
}
