//! A small HTTP function (HTTP/1.1 and HTTP/2 without TLS on one port) that returns the name of its pod and can be
//! slow, fail and stream on request; see `rouse-hello --help`.

mod behaviour;
mod bodies;
mod fetch;
mod query;
mod serve;
mod settings;
mod stats;
mod upgrade;

use std::{net::Ipv4Addr, process::ExitCode, sync::Arc};

use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};

use crate::{behaviour::Function, settings::Settings};

const HELP: &str = include_str!("help.txt");

/// Exit code for invalid settings (EX_USAGE).
const BAD_SETTINGS: u8 = 64;

fn main() -> ExitCode {
    if std::env::args().nth(1).is_some() {
        print!("{HELP}");
        return ExitCode::SUCCESS;
    }
    let settings = match Settings::read(|name| std::env::var(name).ok()) {
        Ok(settings) => settings,
        Err(reason) => {
            eprintln!("{reason}");
            return ExitCode::from(BAD_SETTINGS);
        }
    };
    if let Some(code) = settings.exit_at_start {
        eprintln!("Exiting with status {code} (HELLO_EXIT_AT_START)");
        return ExitCode::from(code);
    }
    // One thread: it starts fastest and needs little memory, and a pod rarely has a whole core.
    let run = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .and_then(|runtime| runtime.block_on(run(settings)));
    match run {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Serves until SIGTERM or SIGINT, and then until the last response is sent.
async fn run(settings: Settings) -> std::io::Result<()> {
    // First, since PID 1 of a container ignores SIGTERM without a handler.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    tokio::pin!(stop);

    if settings.never_listen {
        println!("Not listening (HELLO_NEVER_LISTEN)");
        stop.await;
        return Ok(());
    }
    if !settings.start_delay.is_zero() {
        println!("Starting in {} ms (HELLO_START_DELAY_MS)", settings.start_delay.as_millis());
        tokio::select! {
            () = tokio::time::sleep(settings.start_delay) => {}
            () = &mut stop => return Ok(()),
        }
    }
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, settings.port)).await?;
    println!("Listening on port {} as {}", settings.port, settings.pod);
    serve::serve(listener, Arc::new(Function::new(settings)), stop).await;
    println!("Stopped after the last response");
    Ok(())
}
