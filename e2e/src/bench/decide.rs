//! `decide`: CPU time of the autoscaler's decisions, measured in a separate program that is compiled with optimization.

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use super::Figures;
use crate::{Places, sim::cargo_run};

/// Figures and their upper limits.
const BARS: [(&str, f64); 3] = [("decide.busy_us", 1.0), ("decide.tick10k_ms.p50", 10.0), ("decide.idle_asks", 0.0)];

#[derive(Debug, Deserialize)]
struct Figure {
    name: String,
    value: f64,
    unit: String,
}

pub(super) async fn run(places: &Places, figures: &mut Figures) -> Result<()> {
    let output = cargo_run(places, "decide").output().await.context("cannot run cargo")?;
    ensure!(output.status.success(), "{}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    let measured: Vec<Figure> = serde_json::from_slice(&output.stdout).context("cannot parse its figures")?;
    ensure!(!measured.is_empty(), "it printed no figures");
    for Figure { name, value, unit } in measured {
        let unit = ["µs", "ms", "decisions"].into_iter().find(|known| *known == unit).context("an unknown unit")?;
        match BARS.iter().find(|(bar, _)| *bar == name) {
            Some((_, most)) => figures.bar(name, value, unit, *most),
            None => figures.note(name, value, unit),
        }
    }
    Ok(())
}
