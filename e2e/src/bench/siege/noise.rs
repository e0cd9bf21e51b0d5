//! Processes of the noisy tenants.

use std::{net::SocketAddr, path::Path, process::Stdio, time::Duration};

use anyhow::{Context as _, Result};
use serde::Deserialize;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout},
    time::timeout,
};

use crate::bench::daemon::Core;

const TIMEOUT: Duration = Duration::from_secs(60);

/// One process of a role. Its connections are closed when it is dropped.
#[derive(Debug)]
pub(super) struct Noise {
    pub(super) role: &'static str,
    _process: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

/// State of its connections.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct State {
    pub(super) open: usize,
    pub(super) opened: usize,
    pub(super) closed: usize,
    pub(super) unconnected: usize,
    pub(super) refused: usize,
}

impl Noise {
    /// Starts a process; `source` is the last part of its first loopback address.
    pub(super) fn start(
        load: &Path,
        (role, connections, source): (&'static str, usize, u8),
        target: SocketAddr,
        host: &str,
    ) -> Result<Self> {
        let mut start = Core::Measuring.background(load);
        start.args(["noise", "--role", role, "--connections", &connections.to_string(), "--host", host]);
        start.args(["--target", &target.to_string(), "--source", &source.to_string()]);
        let mut process = start.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("cannot start noise")?;
        let stdin = process.stdin.take().context("no stdin")?;
        let lines = BufReader::new(process.stdout.take().context("no stdout")?).lines();
        Ok(Self { role, _process: process, stdin, lines })
    }

    /// Requests the state.
    pub(super) async fn state(&mut self) -> Result<State> {
        self.stdin.write_all(b"\n").await.context("the process exited")?;
        let line = timeout(TIMEOUT, self.lines.next_line()).await.context("no response")??;
        serde_json::from_str(&line.context("the process exited")?).context("the state of the connections")
    }
}
