//! `rouse-activator`: see the library.

use std::{io::IsTerminal, process::ExitCode};

use clap::{Parser, error::ErrorKind};
use rouse_activator::{
    args::{Args, EXIT_USAGE, LogFormat},
    run::run,
};
use tracing_subscriber::EnvFilter;

/// A request is some twenty allocations, of many sizes and freed by another task than made them; this takes a few hundredths
/// of its time less for them than the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    // Before anything that may speak TLS. It fails only where a provider is there already, which is as good.
    drop(rustls::crypto::ring::default_provider().install_default());
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            // Nobody may be reading, and there is nothing else to say it to.
            drop(error.print());
            return if asked { ExitCode::SUCCESS } else { ExitCode::from(EXIT_USAGE) };
        }
    };
    if let Err(error) = args.check() {
        eprintln!("error: {error}");
        return ExitCode::from(EXIT_USAGE);
    }
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter);
    match args.log_format {
        LogFormat::Json => log.json().flatten_event(true).init(),
        LogFormat::Text => log.with_ansi(std::io::stdout().is_terminal()).init(),
    }
    match run(args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "The activator cannot go on");
            ExitCode::FAILURE
        }
    }
}
