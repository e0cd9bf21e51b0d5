//! The clients of `park`: one process that sends the requests and reports their state.

use std::{net::SocketAddr, path::Path, process::Stdio, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout},
    time::{Instant, timeout},
};

use crate::bench::daemon::Core;

/// Timeout for sending the requests, and for their responses.
const TIMEOUT: Duration = Duration::from_secs(180);
/// Time without a change after which the state is settled.
const SETTLE_TIME: Duration = Duration::from_secs(2);
/// Time without a response after which the remaining requests count as lost.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Number and size of the requests.
#[derive(Clone, Copy, Debug)]
pub(in crate::bench) struct Size {
    pub(in crate::bench) connections: usize,
    /// Requests per connection.
    pub(in crate::bench) streams: usize,
    /// Body size in bytes; 0 for a GET.
    pub(in crate::bench) body: usize,
}

impl Size {
    pub(in crate::bench) fn requests(self) -> usize {
        self.connections * self.streams
    }

    /// Returns the protocol, for the table.
    pub(in crate::bench) fn how(self) -> String {
        if self.streams == 1 { "HTTP/1.1".to_owned() } else { format!("h2c, {} each", self.streams) }
    }
}

/// State of the requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(in crate::bench) struct State {
    pub(in crate::bench) sent: usize,
    pub(in crate::bench) ok: usize,
    pub(in crate::bench) too_many: usize,
    pub(in crate::bench) too_many_without_retry_after: usize,
    pub(in crate::bench) others: usize,
    pub(in crate::bench) broken: usize,
    pub(in crate::bench) unconnected: usize,
    pub(in crate::bench) waiting: usize,
    /// First response with another status.
    pub(in crate::bench) first_other: Option<String>,
}

/// The running clients. They disconnect when it is dropped.
#[derive(Debug)]
pub(in crate::bench) struct Crowd {
    _process: Child,
    stdin: ChildStdin,
    responses: Lines<BufReader<ChildStdout>>,
}

impl Crowd {
    /// Starts the clients.
    pub(in crate::bench) fn start(load: &Path, target: SocketAddr, hosts: &[String], size: Size) -> Result<Self> {
        let mut start = Core::Measuring.command(load);
        start.args(["park", "--target", &target.to_string()]);
        start.args(["--connections", &size.connections.to_string(), "--streams", &size.streams.to_string()]);
        start.args(["--body", &size.body.to_string()]);
        start.args(hosts.iter().flat_map(|host| ["--host", host]));
        let mut process =
            start.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("cannot start the clients")?;
        let stdin = process.stdin.take().context("no stdin")?;
        let responses = BufReader::new(process.stdout.take().context("no stdout")?).lines();
        Ok(Self { _process: process, stdin, responses })
    }

    /// Requests the current state.
    pub(in crate::bench) async fn state(&mut self) -> Result<State> {
        self.stdin.write_all(b"\n").await.context("the clients exited")?;
        // Sending continues on the same core meanwhile.
        let line = timeout(TIMEOUT, self.responses.next_line()).await.context("the clients do not respond")??;
        serde_json::from_str(&line.context("the clients exited")?).context("the state of the clients")
    }

    /// Waits until all requests are sent and the state is settled.
    pub(in crate::bench) async fn settled(&mut self, requests: usize) -> Result<State> {
        let started = Instant::now();
        let mut last = (State::default(), Instant::now());
        loop {
            let state = self.state().await?;
            if state != last.0 {
                last = (state, Instant::now());
            } else if state.sent == requests && last.1.elapsed() >= SETTLE_TIME {
                return Ok(state);
            }
            ensure!(last.0.unconnected == 0, "some clients could not connect: {:?}", last.0);
            ensure!(started.elapsed() < TIMEOUT, "the state does not settle: {:?}", last.0);
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Waits until every request has ended, or the state stalls.
    pub(in crate::bench) async fn ended(&mut self, requests: usize) -> Result<State> {
        let mut last = (State::default(), Instant::now());
        loop {
            let state = self.state().await?;
            if (state.sent == requests && state.waiting == 0) || last.1.elapsed() >= STALL_TIMEOUT {
                return Ok(state);
            }
            if state != last.0 {
                last = (state, Instant::now());
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }
}
