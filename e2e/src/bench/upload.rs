//! `upload`: throughput of an upload over HTTP/1 and HTTP/2, from a client that is 50 ms away.
//!
//! A relay delays each direction by 25 ms, at 200 Mbit/s. The versions alternate in every round, and each figure is the median.
//! An upload over HTTP/2 has one window per round trip, which the activator grows while the pod reads.

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde_json::json;

use super::{
    Figures,
    daemon::{Core, Start},
    loopback::Loopback,
};
use crate::process::{command, run as run_command};

const FUNCTION: &str = "upload";
const DELAY_MS: u32 = 25;
const MB_PER_S: u32 = 25;
const BYTES: usize = 64 << 20;
const ROUNDS: usize = 3;
/// Lowest throughput of HTTP/2, as a part of that of HTTP/1.
const LEAST: f64 = 0.8;

#[derive(Debug, Deserialize)]
struct Report {
    mb_s: f64,
}

pub(super) async fn run(loopback: &Loopback, figures: &mut Figures) -> Result<()> {
    let daemon = |name: &'static str, args: Vec<String>| Start {
        name,
        program: &loopback.load,
        args: args.into_iter().map(Into::into).collect(),
        env: vec![],
        core: Core::Measuring,
        folder: loopback.folder(),
        callgrind: None,
    };
    let (_sink, sink) = daemon("sink", vec!["sink".to_owned()]).start_and_read_line().await?;
    loopback.function(FUNCTION, json!({})).await?;
    loopback.pod(FUNCTION, sink.parse().with_context(|| format!("the sink printed `{sink}`"))?).await?;
    let activator = loopback.activator(&[]).await?;
    let link = ["relay", "--target", &activator.public.to_string()].map(str::to_owned);
    let flags = [format!("--delay-ms={DELAY_MS}"), format!("--mb-per-s={MB_PER_S}")];
    let (_relay, relay) = daemon("relay", [&link[..], &flags].concat()).start_and_read_line().await?;
    let mut measured = [("http1", vec![]), ("http2", vec![])];
    for _ in 0..ROUNDS {
        for (version, values) in &mut measured {
            let host = loopback.host(FUNCTION);
            let bytes = BYTES.to_string();
            let args = ["upload", "--target", &relay, "--host", &host, "--bytes", &bytes, "--version", version];
            let report = run_command(command(&loopback.load, args)).await.with_context(|| format!("by {version}"))?;
            values.push(serde_json::from_str::<Report>(&report).with_context(|| report.clone())?.mb_s);
        }
    }
    let [(_, http1), (_, http2)] = measured;
    let (http1, http2) = (median(http1), median(http2));
    figures.note("upload.h1_mb_s", http1, "MB/s");
    figures.note("upload.h2_mb_s", http2, "MB/s");
    figures.floor("upload.ratio", http2 / http1, "×", LEAST);
    drop(activator);
    loopback.clear().await
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
