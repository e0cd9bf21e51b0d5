//! Entry point of the operator: parses flags, sets up logging, and runs until a termination signal.

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

/// Time after `--shutdown-grace` until the process exits forcibly.
const EXIT_DELAY: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let args = Args::read();
    init_logging(args.log_format);
    match start(args) {
        Ok(()) => {
            tracing::info!("Operator stopped");
            ExitCode::SUCCESS
        }
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "Operator failed");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn start(args: Args) -> anyhow::Result<()> {
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        anyhow::bail!("failed to install the TLS provider: another one is already installed");
    }
    tracing::info!(version = env!("CARGO_PKG_VERSION"), ?args, "Starting operator");
    let metrics = Metrics::default();
    let client = client::client(&metrics).await?;
    let stop = CancellationToken::new();
    let stop_on_signal = stop.clone();
    let grace = args.shutdown_grace;
    let mut signals = tokio::task::JoinSet::new();
    signals.spawn(async move {
        match shutdown::signal_received().await {
            Ok(signal) => tracing::info!(signal, "Received signal; shutting down"),
            // Without signal handlers a graceful shutdown is impossible, so stop now and let the kubelet restart the
            // container.
            Err(error) => tracing::error!(%error, "Failed to install signal handlers; shutting down"),
        }
        stop_on_signal.cancel();
        // Shutdown has a deadline of its own; this is for a task that blocks and would not notice it.
        tokio::time::sleep(grace + EXIT_DELAY).await;
        tracing::error!("Shutdown is stuck; exiting");
        std::process::exit(1);
    });
    operator::run(args, client, metrics, stop).await
}

fn init_logging(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Json => lines.json().flatten_event(true).init(),
        LogFormat::Text => lines.init(),
    }
}
