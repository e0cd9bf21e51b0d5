//! Entry point of the operator: reads its arguments, sets up logging, and runs it until it is told to stop.

use std::{process::ExitCode, time::Duration};

use rouse_operator::{
    args::{Args, LogFormat},
    cluster::client,
    operator,
    runtime::shutdown,
    telemetry::metrics::Metrics,
};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// How much longer than `--shutdown-grace` an end may take before it is forced.
const GRACE_OF_THE_GRACE: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let args = Args::read();
    log_as(args.log_format);
    match start(args) {
        Ok(()) => {
            tracing::info!("The operator ends");
            ExitCode::SUCCESS
        }
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "The operator ends with an error");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn start(args: Args) -> anyhow::Result<()> {
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        anyhow::bail!("another TLS provider was installed before");
    }
    tracing::info!(version = env!("CARGO_PKG_VERSION"), ?args, "The operator begins");
    let metrics = Metrics::default();
    let client = client::client(&metrics).await?;
    let stop = CancellationToken::new();
    let asked = stop.clone();
    let grace = args.shutdown_grace;
    let mut signals = tokio::task::JoinSet::new();
    signals.spawn(async move {
        match shutdown::asked().await {
            Ok(signal) => tracing::info!(signal, "Asked to end"),
            // Without signals it could not be ended in order; better to end now and be started again.
            Err(error) => tracing::error!(%error, "Signals cannot be listened to"),
        }
        asked.cancel();
        // The end is bounded where the work is; this is for a task that hangs and would not even notice.
        tokio::time::sleep(grace + GRACE_OF_THE_GRACE).await;
        tracing::error!("The operator hangs and is ended by force");
        std::process::exit(1);
    });
    operator::run(args, client, metrics, stop).await
}

fn log_as(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Json => lines.json().flatten_event(true).init(),
        LogFormat::Text => lines.init(),
    }
}
