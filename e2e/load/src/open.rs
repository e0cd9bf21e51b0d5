//! Open loop: a request is due at each tick of a clock, whether or not earlier ones have ended, and its latency counts from
//! its due time. So a stall of the target affects every request that is due in it.

use std::{
    collections::VecDeque,
    os::fd::AsRawFd as _,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use mio::{Events, Interest, Poll, Token, unix::SourceFd};
use rustix::{
    fd::OwnedFd,
    io::{Errno, read},
    time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime},
};

use crate::{
    connection::{Connection, Received},
    report::{Cpu, Plan, Report, Tally},
};

/// Time for responses after the last request was due.
const GRACE: Duration = Duration::from_secs(5);
const CLOCK: Token = Token(usize::MAX - 1);

/// Runs the plan at `rate` requests per second.
///
/// # Errors
///
/// If the target cannot be connected to. A request that fails is counted.
pub(crate) fn run(plan: &Plan, rate: u32) -> Result<Report> {
    ensure!(rate > 0, "the rate is zero");
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(plan.connections.max(16));
    let request = plan.request();
    let interval = Duration::from_secs(1) / rate;
    let warm_up = plan.warm_up().as_nanos().div_ceil(interval.as_nanos()) as u32;
    let last = warm_up + plan.measured().as_nanos().div_ceil(interval.as_nanos()) as u32;
    let mut driver = Driver {
        connections: (0..plan.connections)
            .map(|n| Connection::open(plan.target, Token(n), poll.registry()))
            .collect::<Result<Vec<_>>>()?,
        idle: (0..plan.connections).collect(),
        due: VecDeque::new(),
        tally: Tally { latencies: Vec::with_capacity(last as usize), ..Tally::default() },
        request,
    };
    let clock = timer(interval)?;
    poll.registry().register(&mut SourceFd(&clock.as_raw_fd()), CLOCK, Interest::READABLE)?;
    let start = Instant::now();
    let mut measured_since = start;
    let mut cpu = Cpu::default();
    let mut ticks = 0;
    loop {
        let now = Instant::now();
        let over = ticks >= last;
        let waiting = driver.due.len() + plan.connections - driver.idle.len();
        let give_up = start + interval * last + GRACE;
        if over && (waiting == 0 || now >= give_up) {
            let took = now - measured_since;
            let cpu = plan.cpu()?.since(cpu);
            for _ in 0..waiting {
                driver.tally.failed(|| format!("no response within {GRACE:?} of the end"));
            }
            return Ok(driver.tally.report(took, cpu));
        }
        if let Err(error) = poll.poll(&mut events, Some(Duration::from_millis(20)))
            && error.kind() != std::io::ErrorKind::Interrupted
        {
            return Err(error.into());
        }
        for event in &events {
            if event.token() != CLOCK {
                driver.handle_event(event.token().0, event.is_read_closed(), &poll)?;
                continue;
            }
            for _ in 0..expirations(&clock)? {
                if ticks == warm_up {
                    driver.tally.latencies.clear();
                    (measured_since, cpu) = (Instant::now(), plan.cpu()?);
                }
                ticks += 1;
                if ticks <= last {
                    driver.due.push_back(start + interval * ticks);
                }
            }
        }
        driver.send_due(&poll)?;
    }
}

/// Connections and due requests. `due` is bounded by the rate and the duration of the plan.
struct Driver {
    connections: Vec<Connection>,
    idle: VecDeque<usize>,
    due: VecDeque<Instant>,
    tally: Tally,
    request: Vec<u8>,
}

impl Driver {
    fn send_due(&mut self, poll: &Poll) -> Result<()> {
        while !self.due.is_empty()
            && let Some(index) = self.idle.pop_front()
            && let Some(since) = self.due.pop_front()
        {
            let connection = &mut self.connections[index];
            if let Err(why) = connection.send(&self.request, since) {
                self.tally.failed(|| why);
                connection.reopen(poll.registry())?;
                self.idle.push_back(index);
            }
        }
        Ok(())
    }

    fn handle_event(&mut self, index: usize, closed: bool, poll: &Poll) -> Result<()> {
        let connection = &mut self.connections[index];
        let was_idle = connection.since.is_none();
        match connection.receive(closed) {
            Received::Nothing => return Ok(()),
            Received::Response { closes } => {
                if let Some(since) = connection.since.take() {
                    self.tally.latencies.push(since.elapsed().as_nanos() as u64);
                }
                if closes {
                    self.tally.reconnects += 1;
                    connection.reopen(poll.registry())?;
                }
            }
            // A close without a request in flight is not a failure.
            Received::Broken(_) if was_idle => {
                self.tally.reconnects += 1;
                connection.reopen(poll.registry())?;
                return Ok(());
            }
            Received::Broken(why) => {
                self.tally.failed(|| why);
                connection.reopen(poll.registry())?;
            }
        }
        self.idle.push_back(index);
        Ok(())
    }
}

/// Creates a clock that ticks every `interval` from now.
fn timer(interval: Duration) -> Result<OwnedFd> {
    let clock = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
    let each = Timespec { tv_sec: interval.as_secs() as i64, tv_nsec: i64::from(interval.subsec_nanos()) };
    timerfd_settime(&clock, TimerfdTimerFlags::empty(), &Itimerspec { it_interval: each, it_value: each })?;
    Ok(clock)
}

/// Returns the ticks since the last read.
fn expirations(clock: &OwnedFd) -> Result<u64> {
    let mut count = [0; 8];
    match read(clock, &mut count) {
        Ok(8) => Ok(u64::from_ne_bytes(count)),
        Err(Errno::AGAIN | Errno::INTR) => Ok(0),
        other => other.map(|_| 0).context("cannot read the clock"),
    }
}
