//! The clients of a crowd: one process that holds them, and says when asked what has become of them.

use std::{net::SocketAddr, path::Path, process::Stdio, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout},
    time::{Instant, timeout},
};

use crate::bench::daemon::Core;

/// A generous limit for sending or answering a crowd.
const TIMEOUT: Duration = Duration::from_secs(180);
/// How long nothing changes before a crowd is taken to have settled.
const QUIET: Duration = Duration::from_secs(2);
/// How long nobody is answered before those that are left are taken for lost.
const STUCK: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(100);

/// How many, and of what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    pub(super) connections: usize,
    /// Requests on each connection.
    pub(super) streams: usize,
    /// Bytes of each body; a GET if none.
    pub(super) body: usize,
}

impl Size {
    pub(super) fn requests(self) -> usize {
        self.connections * self.streams
    }

    /// In words.
    pub(super) fn how(self) -> String {
        if self.streams == 1 { "HTTP/1.1".to_owned() } else { format!("h2c, {} each", self.streams) }
    }
}

/// What has become of a crowd.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) struct State {
    pub(super) sent: usize,
    pub(super) ok: usize,
    pub(super) too_many: usize,
    pub(super) too_many_without_retry_after: usize,
    pub(super) others: usize,
    pub(super) broken: usize,
    pub(super) unconnected: usize,
    pub(super) waiting: usize,
    /// The first response of another kind, for a person.
    pub(super) first_other: Option<String>,
}

/// A crowd. Its clients leave when it is dropped.
#[derive(Debug)]
pub(super) struct Crowd {
    _process: Child,
    asking: ChildStdin,
    responses: Lines<BufReader<ChildStdout>>,
}

impl Crowd {
    /// Sends it.
    pub(super) fn start(load: &Path, target: SocketAddr, hosts: &[String], size: Size) -> Result<Self> {
        let mut start = Core::Measuring.command(load);
        start.args(["park", "--target", &target.to_string()]);
        start.args(["--connections", &size.connections.to_string(), "--streams", &size.streams.to_string()]);
        start.args(["--body", &size.body.to_string()]);
        start.args(hosts.iter().flat_map(|host| ["--host", host]));
        let mut process =
            start.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("cannot start the crowd")?;
        let asking = process.stdin.take().context("no stdin")?;
        let responses = BufReader::new(process.stdout.take().context("no stdout")?).lines();
        Ok(Self { _process: process, asking, responses })
    }

    /// What has become of it so far.
    async fn state(&mut self) -> Result<State> {
        self.asking.write_all(b"\n").await.context("the crowd has ended")?;
        // Sending goes on beside it, on the same core.
        let line = timeout(TIMEOUT, self.responses.next_line()).await.context("the crowd does not respond")??;
        serde_json::from_str(&line.context("the crowd has ended")?).context("the crowd's response")
    }

    /// Waits until all are sent and nothing changes any more.
    pub(super) async fn settled(&mut self, requests: usize) -> Result<State> {
        let started = Instant::now();
        let mut last = (State::default(), Instant::now());
        loop {
            let state = self.state().await?;
            if state != last.0 {
                last = (state, Instant::now());
            } else if state.sent == requests && last.1.elapsed() >= QUIET {
                return Ok(state);
            }
            ensure!(last.0.unconnected == 0, "some could not connect: {:?}", last.0);
            ensure!(started.elapsed() < TIMEOUT, "the crowd does not settle: {:?}", last.0);
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until each has come to an end, or until none does any more.
    pub(super) async fn ended(&mut self, requests: usize) -> Result<State> {
        let mut last = (State::default(), Instant::now());
        loop {
            let state = self.state().await?;
            if (state.sent == requests && state.waiting == 0) || last.1.elapsed() >= STUCK {
                return Ok(state);
            }
            if state != last.0 {
                last = (state, Instant::now());
            }
            tokio::time::sleep(POLL).await;
        }
    }
}
