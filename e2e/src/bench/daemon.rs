//! A process that a benchmark starts, on a core of its own if it is to have one, and what `/proc` says of it.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    time::timeout,
};

use crate::process::{command, tail};

/// Where a process may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Core {
    /// The core of what is measured.
    Measured,
    /// The core of all that measures: clients, the origin, the API server.
    Measuring,
}

impl Core {
    /// Its number as the kernel counts.
    pub(super) fn number(self) -> &'static str {
        match self {
            Self::Measured => "0",
            Self::Measuring => "1",
        }
    }

    /// A command that runs on this core, before whatever else the machine does there if it may.
    pub(super) fn command(self, program: &Path) -> Command {
        // A session of its own is what the kernel shares the processor out to, where it groups automatically, and the group
        // has a priority of its own. Each of these replaces itself by what follows, so the number stays the program's.
        let first = "echo -15 2>&- >/proc/self/autogroup; exec nice --adjustment=-15 \"$@\"";
        let mut start = command("setpriv", ["--pdeathsig", "KILL", "--", "setsid", "sh", "-c", first, "sh"]);
        start.args(["taskset", "--cpu-list", self.number()]).arg(program);
        start
    }
}

/// A running process. It ends when this is dropped, and when this process dies.
#[derive(Debug)]
pub(super) struct Daemon {
    pub(super) name: String,
    pub(super) pid: u32,
    log: PathBuf,
    child: Child,
}

/// How a process is started.
#[derive(Debug)]
pub(super) struct Start<'a> {
    pub(super) name: &'a str,
    pub(super) program: &'a Path,
    pub(super) args: Vec<OsString>,
    pub(super) env: Vec<(&'a str, OsString)>,
    pub(super) core: Core,
    /// Its log is put here.
    pub(super) folder: &'a Path,
}

impl Start<'_> {
    /// Starts it with its output in its log.
    pub(super) fn start(self) -> Result<Daemon> {
        let log = self.folder.join(format!("{}.log", self.name));
        let file = std::fs::File::create(&log).with_context(|| format!("cannot create {}", log.display()))?;
        let out = Stdio::from(file.try_clone()?);
        let child = self.spawn(out, file.into())?;
        daemon(self.name, child, log)
    }

    /// Starts it and gives the first line that it prints, which says that it is ready.
    pub(super) async fn start_and_hear(self) -> Result<(Daemon, String)> {
        let log = self.folder.join(format!("{}.log", self.name));
        let file = std::fs::File::create(&log).with_context(|| format!("cannot create {}", log.display()))?;
        let mut child = self.spawn(Stdio::piped(), file.into())?;
        let mut lines = BufReader::new(child.stdout.take().context("no stdout")?).lines();
        let daemon = daemon(self.name, child, log)?;
        match timeout(Duration::from_secs(20), lines.next_line()).await {
            Ok(Ok(Some(line))) => Ok((daemon, line)),
            _ => bail!("{} says nothing: {}", self.name, daemon.said()),
        }
    }

    fn spawn(&self, out: Stdio, err: Stdio) -> Result<Child> {
        let mut start = self.core.command(self.program);
        start.args(&self.args).envs(self.env.iter().map(|(name, value)| (name, value)));
        start.stdout(out).stderr(err).spawn().with_context(|| format!("cannot start {}", self.name))
    }
}

fn daemon(name: &str, child: Child, log: PathBuf) -> Result<Daemon> {
    let pid = child.id().with_context(|| format!("{name} ended at once"))?;
    Ok(Daemon { name: name.to_owned(), pid, log, child })
}

impl Daemon {
    /// An error with what it said if it has ended.
    pub(super) fn alive(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} has ended ({status}): {}", self.name, self.said()),
        }
    }

    /// The end of its log.
    pub(super) fn said(&self) -> String {
        tail(&std::fs::read_to_string(&self.log).unwrap_or_default())
    }

    /// What it holds of memory.
    pub(super) fn memory(&self) -> Result<Memory> {
        let path = format!("/proc/{}/smaps_rollup", self.pid);
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        Memory::parse(&text).with_context(|| format!("{path} is not understood"))
    }
}

/// What a process holds of memory, in KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Memory {
    /// All that is resident.
    pub(super) rss: u64,
    /// With what is shared with others counted in parts.
    pub(super) pss: u64,
    /// What is no file's: heap and stacks.
    pub(super) anonymous: u64,
}

impl Memory {
    /// Reads `/proc/<pid>/smaps_rollup`.
    fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| {
            let rest = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            rest.trim().strip_suffix("kB")?.trim().parse().ok()
        };
        Some(Self { rss: field("Rss")?, pss: field("Pss")?, anonymous: field("Anonymous")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_sums_are_read() {
        let text = "5581-7ffd ---p 00000000 00:00 0   [rollup]\nRss:    884 kB\nPss:  385 kB\nPss_Dirty: 1 kB\nAnonymous:   180 kB\n";
        assert_eq!(Memory::parse(text), Some(Memory { rss: 884, pss: 385, anonymous: 180 }));
        assert_eq!(Memory::parse("Rss: 1 kB"), None);
    }

    #[tokio::test]
    async fn a_daemon_is_heard_and_ends_with_its_value() {
        let folder = tempfile::tempdir().unwrap();
        let start = |script: &str| Start {
            name: "d",
            program: Path::new("sh"),
            args: ["-c", script].map(OsString::from).to_vec(),
            env: vec![("WORD", "ready".into())],
            core: Core::Measured,
            folder: folder.path(),
        };
        let (mut daemon, line) = start("echo $WORD; exec sleep 1000").start_and_hear().await.unwrap();
        assert_eq!(line, "ready");
        daemon.alive().unwrap();
        assert!(daemon.memory().unwrap().rss > 0);
        let stays = crate::process::Process::identify("d", daemon.pid).unwrap();
        drop(daemon);
        crate::process::wait_for("its end", Duration::from_secs(10), async || Ok(!stays.is_alive())).await.unwrap();
        let error = start("echo why >&2").start_and_hear().await.unwrap_err().to_string();
        assert!(error.contains("why"), "{error}");
    }
}
