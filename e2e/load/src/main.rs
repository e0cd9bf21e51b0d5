//! The other side of the benchmarks: an origin that costs next to nothing, and clients that measure it through whatever
//! stands between.
//!
//! It is a program of its own because it has to be compiled for speed while `cargo e2e` need not be, and because it is
//! pinned to another core than what is measured.
#![allow(clippy::disallowed_types, reason = "no runtime is used here whose time could be paused")]

use std::net::SocketAddr;

use anyhow::Result;
use clap::{Parser, Subcommand};

mod closed;
mod connection;
mod message;
mod open;
mod origin;
mod park;
mod report;

#[derive(Debug, Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Answers every request with 200 and a hundred bytes. Prints its address, and runs until it is killed.
    Origin {
        /// Where to listen; port 0 takes a free one.
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: SocketAddr,
    },
    /// Keeps one request under way on each of some connections, and prints what came of it as JSON.
    Closed {
        #[command(flatten)]
        plan: report::Plan,
    },
    /// Sends requests at a constant rate, whether answers come or not. A latency counts from when a request was to be sent.
    Open {
        #[command(flatten)]
        plan: report::Plan,
        /// Requests per second.
        #[arg(long)]
        rate: u32,
    },
    /// Sends requests that will wait, and holds them. For each line on stdin prints what has become of them, as JSON.
    Park {
        #[command(flatten)]
        crowd: park::Crowd,
    },
}

fn main() -> Result<()> {
    match Cli::parse().verb {
        Verb::Origin { listen } => origin::serve(listen),
        Verb::Closed { plan } => closed::run(&plan)?.print(),
        Verb::Park { crowd } => park::run(crowd),
        Verb::Open { plan, rate } => open::run(&plan, rate)?.print(),
    }
}
