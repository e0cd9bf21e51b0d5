//! `rouse-activator`: see the library.

use std::{io::IsTerminal, process::ExitCode};

use clap::{Parser, error::ErrorKind};
use rouse_activator::{
    args::{Args, EXIT_USAGE, LogFormat},
    resources::{FileLimit, default_threads},
    run::run,
};
use tracing_subscriber::EnvFilter;

/// A request makes about twenty allocations of many sizes, which another task frees; this allocator takes a few percent
/// of a request's time less for them than the system's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Before any use of TLS. It fails only if a provider is installed already, which is as good.
    drop(rustls::crypto::ring::default_provider().install_default());
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            // The output may be closed, and there is no other place to report to.
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
    match FileLimit::raise() {
        Ok(FileLimit { soft, hard }) => tracing::info!(soft, hard, "Raised the limit of open files"),
        Err(error) => {
            let FileLimit { soft, hard } = FileLimit::current();
            tracing::warn!(%error, soft, hard, "Failed to raise the limit of open files");
        }
    }
    let threads = args.threads.unwrap_or_else(default_threads);
    tracing::info!(threads, "Starting");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name("rouse-worker")
        .enable_all()
        .build();
    match runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(run(args))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "Activator failed");
            ExitCode::FAILURE
        }
    }
}
