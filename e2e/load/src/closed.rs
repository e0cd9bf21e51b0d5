//! Closed loop: each connection sends the next request after the response to the last.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use mio::{Events, Poll, Token};

use crate::{
    connection::{Connection, Received},
    report::{Cpu, Plan, Report, Tally},
};

/// Upper bound of responses per second, so that recording a latency never allocates.
const EXPECTED_PER_SECOND: usize = 200_000;
/// Connection attempts for one request.
const TRIES: usize = 3;
/// Resolution of the end of a phase without events.
const TICK: Duration = Duration::from_millis(20);

/// Runs the plan.
///
/// # Errors
///
/// If the target cannot be connected to. A request that fails is counted.
pub(crate) fn run(plan: &Plan) -> Result<Report> {
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(plan.connections.max(16));
    let request = plan.request();
    let mut connections = (0..plan.connections)
        .map(|n| Connection::open(plan.target, Token(n), poll.registry()))
        .collect::<Result<Vec<_>>>()?;
    let room = EXPECTED_PER_SECOND * (plan.measured().as_secs() as usize + 1);
    let mut tally = Tally { latencies: Vec::with_capacity(room), ..Tally::default() };
    let send = |connection: &mut Connection, poll: &Poll, tally: &mut Tally| -> Result<()> {
        for _ in 0..TRIES {
            let Err(why) = connection.send(&request, Instant::now()) else { return Ok(()) };
            tally.failed(|| why);
            connection.reopen(poll.registry())?;
        }
        bail!("{TRIES} new connections in a row could not be written to")
    };
    for connection in &mut connections {
        send(connection, &poll, &mut tally)?;
    }
    let mut phase = Phase { ends: Instant::now() + plan.warm_up(), started: None, cpu: Cpu::default() };
    loop {
        let now = Instant::now();
        if now >= phase.ends {
            let Some(started) = phase.started else {
                tally.latencies.clear();
                phase = Phase { ends: now + plan.measured(), started: Some(now), cpu: plan.cpu()? };
                continue;
            };
            let cpu = plan.cpu()?.since(phase.cpu);
            return Ok(tally.report(now - started, cpu));
        }
        if let Err(error) = poll.poll(&mut events, Some(TICK))
            && error.kind() != std::io::ErrorKind::Interrupted
        {
            return Err(error.into());
        }
        for event in &events {
            let connection = &mut connections[event.token().0];
            match connection.receive(event.is_read_closed()) {
                Received::Nothing => continue,
                Received::Response { closes } => {
                    if let Some(since) = connection.since.take() {
                        tally.latencies.push(since.elapsed().as_nanos() as u64);
                    }
                    if closes {
                        tally.reconnects += 1;
                        connection.reopen(poll.registry())?;
                    }
                }
                Received::Broken(why) => {
                    tally.failed(|| why);
                    connection.reopen(poll.registry())?;
                }
            }
            send(connection, &poll, &mut tally)?;
        }
    }
}

/// The warm-up or the measurement.
struct Phase {
    ends: Instant,
    /// `None` during the warm-up.
    started: Option<Instant>,
    cpu: Cpu,
}
