//! A fixed number of requests, for costs that are counted and not timed.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow, bail, ensure};
use clap::Args;
use mio::{Events, Poll, Token};

use crate::{
    connection::{Connection, Received},
    report,
};

/// How long nothing may arrive. The target may run many times slower than usual.
const LIMIT: Duration = Duration::from_secs(60);

/// Parameters of a run.
#[derive(Args, Clone, Debug)]
pub(crate) struct Count {
    /// Address to measure.
    #[arg(long)]
    pub(crate) target: SocketAddr,
    /// `Host` of the requests.
    #[arg(long)]
    pub(crate) host: String,
    /// Number of keep-alive connections; each has one request in flight.
    #[arg(long)]
    pub(crate) connections: usize,
    /// Number of requests.
    #[arg(long)]
    pub(crate) requests: usize,
}

/// Sends the requests, and returns when the last response is complete.
///
/// # Errors
///
/// If any request fails: the cost of the run would not be that of the requests.
pub(crate) fn run(count: &Count) -> Result<()> {
    ensure!(count.connections <= count.requests, "there are more connections than requests");
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(count.connections.max(16));
    let request = report::request(&count.host);
    let mut connections = (0..count.connections)
        .map(|n| Connection::open(count.target, Token(n), poll.registry()))
        .collect::<Result<Vec<_>>>()?;
    let (mut unsent, mut responses) = (count.requests, 0);
    let mut send = |connection: &mut Connection| {
        let sends = unsent > 0;
        unsent -= usize::from(sends);
        if sends { connection.send(&request, Instant::now()).map_err(|why| anyhow!(why)) } else { Ok(()) }
    };
    connections.iter_mut().try_for_each(&mut send)?;
    while responses < count.requests {
        if let Err(error) = poll.poll(&mut events, Some(LIMIT))
            && error.kind() != std::io::ErrorKind::Interrupted
        {
            return Err(error.into());
        }
        ensure!(!events.is_empty(), "{responses} responses, and then none for {LIMIT:?}");
        for event in &events {
            let connection = &mut connections[event.token().0];
            match connection.receive(event.is_read_closed()) {
                Received::Nothing => {}
                Received::Response { closes: false } => {
                    connection.since = None;
                    responses += 1;
                    send(connection)?;
                }
                Received::Response { closes: true } => bail!("the target closes a connection"),
                Received::Broken(why) => bail!(why),
            }
        }
    }
    Ok(())
}
