//! Origin and load generators for the benchmarks.
//!
//! A separate program, since it must be compiled with optimization and runs on another core than the program that is
//! measured.
#![allow(clippy::disallowed_types, reason = "no runtime with a paused clock is used here")]

use std::net::SocketAddr;

use anyhow::Result;
use clap::{Parser, Subcommand};

mod closed;
mod connection;
mod counted;
mod message;
mod noise;
mod open;
mod origin;
mod park;
mod relay;
mod report;
mod upload;

#[derive(Debug, Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Responds to every request with 200 and a hundred bytes. Prints its address, and runs until it is killed.
    Origin {
        /// Address to listen on; port 0 selects a free port.
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: SocketAddr,
    },
    /// Closed loop: keeps one request in flight on each connection. Prints the results as JSON.
    Closed {
        #[command(flatten)]
        plan: report::Plan,
    },
    /// Open loop: sends requests at a constant rate. Latency counts from the due time of a request. Prints the results
    /// as JSON.
    Open {
        #[command(flatten)]
        plan: report::Plan,
        /// Requests per second.
        #[arg(long)]
        rate: u32,
    },
    /// Sends a fixed number of requests, one in flight on each connection.
    Counted {
        #[command(flatten)]
        count: counted::Count,
    },
    /// Opens connections of noisy tenants and keeps them open. Prints their state as JSON for each line on stdin.
    Noise {
        #[command(flatten)]
        noise: noise::Noise,
    },
    /// Function of the noisy tenants. Prints its address, and runs until it is killed.
    NoiseOrigin {
        /// Address to listen on; port 0 selects a free port.
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: SocketAddr,
    },
    /// Sends requests and keeps them open. Prints their state as JSON for each line on stdin.
    Park {
        #[command(flatten)]
        crowd: park::Crowd,
    },
    /// Relays connections over a link with a delay and a bandwidth. Prints its address, and runs until it is killed.
    Relay {
        #[command(flatten)]
        link: relay::Link,
    },
    /// Reads requests to their end, and responds with the length of the body. Prints its address, and runs until it is killed.
    Sink,
    /// Uploads once. Prints the throughput as JSON.
    Upload {
        #[command(flatten)]
        upload: upload::UploadPlan,
    },
}

fn main() -> Result<()> {
    match Cli::parse().verb {
        Verb::Origin { listen } => origin::serve(listen),
        Verb::Closed { plan } => closed::run(&plan)?.print(),
        Verb::Counted { count } => counted::run(&count),
        Verb::Noise { noise } => noise::run(noise),
        Verb::NoiseOrigin { listen } => noise::serve(listen),
        Verb::Park { crowd } => park::run(crowd),
        Verb::Relay { link } => relay::serve(link),
        Verb::Sink => upload::sink(),
        Verb::Upload { upload } => upload::run(&upload),
        Verb::Open { plan, rate } => open::run(&plan, rate)?.print(),
    }
}
