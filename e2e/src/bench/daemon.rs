//! Processes of a benchmark, pinned to a core, and their memory from `/proc`.

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

use super::callgrind::Callgrind;
use crate::process::{command, tail};

/// Environment variable with the folder of the control group that a process starts in.
pub(super) const GROUP_ENV: &str = "ROUSE_BENCH_GROUP";

/// Core of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Core {
    /// Core of the program that is measured.
    Measured,
    /// Core of everything else: clients, the origin, the API server.
    Measuring,
}

impl Core {
    /// Returns the number of the core.
    pub(super) fn number(self) -> &'static str {
        match self {
            Self::Measured => "0",
            Self::Measuring => "1",
        }
    }

    /// Returns a command that runs on this core, with a high priority if permitted.
    pub(super) fn command(self, program: &Path) -> Command {
        // With autogroup, the kernel schedules sessions, and each has a priority. Each command execs the next, so the PID is
        // that of the program.
        self.with_priority(program, -15)
    }

    /// Like [`Self::command`], with a low priority: it must not take time from what is measured on the same core.
    pub(super) fn background(self, program: &Path) -> Command {
        self.with_priority(program, 15)
    }

    fn with_priority(self, program: &Path, priority: i32) -> Command {
        // A process in a control group counts there from its first page on.
        let first = format!(
            "[ -z \"${GROUP_ENV}\" ] || echo $$ >\"${GROUP_ENV}/cgroup.procs\" || exit 1; \
             echo {priority} 2>&- >/proc/self/autogroup; exec nice --adjustment={priority} \"$@\""
        );
        let mut start = command("setpriv", ["--pdeathsig", "KILL", "--", "setsid", "sh", "-c", &first, "sh"]);
        start.args(["taskset", "--cpu-list", self.number()]).arg(program);
        start
    }
}

/// A running process. It is killed when this is dropped, and when this process dies.
#[derive(Debug)]
pub(super) struct Daemon {
    pub(super) name: String,
    pub(super) pid: u32,
    log: PathBuf,
    child: Child,
}

/// Start parameters of a process.
#[derive(Debug)]
pub(super) struct Start<'a> {
    pub(super) name: &'a str,
    pub(super) program: &'a Path,
    pub(super) args: Vec<OsString>,
    pub(super) env: Vec<(&'a str, OsString)>,
    pub(super) core: Core,
    /// Folder of its log.
    pub(super) folder: &'a Path,
    /// Callgrind, if the process runs under it.
    pub(super) callgrind: Option<&'a Callgrind>,
}

impl Start<'_> {
    /// Starts the process with its output in the log.
    pub(super) fn start(self) -> Result<Daemon> {
        let log = self.folder.join(format!("{}.log", self.name));
        let file = std::fs::File::create(&log).with_context(|| format!("cannot create {}", log.display()))?;
        let out = Stdio::from(file.try_clone()?);
        let child = self.spawn(out, file.into())?;
        daemon(self.name, child, log)
    }

    /// Starts the process and returns the first line that it prints, which reports its readiness.
    pub(super) async fn start_and_read_line(self) -> Result<(Daemon, String)> {
        let log = self.folder.join(format!("{}.log", self.name));
        let file = std::fs::File::create(&log).with_context(|| format!("cannot create {}", log.display()))?;
        let mut child = self.spawn(Stdio::piped(), file.into())?;
        let mut lines = BufReader::new(child.stdout.take().context("no stdout")?).lines();
        let daemon = daemon(self.name, child, log)?;
        match timeout(Duration::from_secs(20), lines.next_line()).await {
            Ok(Ok(Some(line))) => Ok((daemon, line)),
            _ => bail!("{} printed nothing: {}", self.name, daemon.log_tail()),
        }
    }

    fn spawn(&self, out: Stdio, err: Stdio) -> Result<Child> {
        let mut start = match self.callgrind {
            None => self.core.command(self.program),
            Some(callgrind) => {
                let mut start = self.core.command(&callgrind.program);
                start.args(callgrind.args()).arg(self.program);
                start
            }
        };
        start.args(&self.args).envs(self.env.iter().map(|(name, value)| (name, value)));
        start.stdout(out).stderr(err).spawn().with_context(|| format!("cannot start {}", self.name))
    }
}

fn daemon(name: &str, child: Child, log: PathBuf) -> Result<Daemon> {
    let pid = child.id().with_context(|| format!("{name} exited immediately"))?;
    Ok(Daemon { name: name.to_owned(), pid, log, child })
}

impl Daemon {
    /// Returns an error with the tail of the log if the process has exited.
    pub(super) fn check_alive(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} exited ({status}): {}", self.name, self.log_tail()),
        }
    }

    /// Returns the tail of the log.
    pub(super) fn log_tail(&self) -> String {
        tail(&std::fs::read_to_string(&self.log).unwrap_or_default())
    }

    /// Reads its memory.
    pub(super) fn memory(&self) -> Result<Memory> {
        let path = format!("/proc/{}/smaps_rollup", self.pid);
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        Memory::parse(&text).with_context(|| format!("cannot parse {path}"))
    }
}

/// Memory of a process, in KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Memory {
    /// Resident memory.
    pub(super) rss: u64,
    /// Proportional memory: shared pages count in parts.
    pub(super) pss: u64,
    /// Anonymous memory: heap and stacks.
    pub(super) anonymous: u64,
}

impl Memory {
    /// Parses `/proc/<pid>/smaps_rollup`.
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
    fn smaps_rollup_is_parsed() {
        let text = "5581-7ffd ---p 00000000 00:00 0   [rollup]\nRss:    884 kB\nPss:  385 kB\nPss_Dirty: 1 kB\nAnonymous:   180 kB\n";
        assert_eq!(Memory::parse(text), Some(Memory { rss: 884, pss: 385, anonymous: 180 }));
        assert_eq!(Memory::parse("Rss: 1 kB"), None);
    }

    #[tokio::test]
    async fn a_daemon_is_started_and_killed_on_drop() {
        let folder = tempfile::tempdir().unwrap();
        let start = |script: &str| Start {
            name: "d",
            program: Path::new("sh"),
            args: ["-c", script].map(OsString::from).to_vec(),
            env: vec![("WORD", "ready".into())],
            core: Core::Measured,
            folder: folder.path(),
            callgrind: None,
        };
        let (mut daemon, line) = start("echo $WORD; exec sleep 1000").start_and_read_line().await.unwrap();
        assert_eq!(line, "ready");
        daemon.check_alive().unwrap();
        assert!(daemon.memory().unwrap().rss > 0);
        let stays = crate::process::Process::identify("d", daemon.pid).unwrap();
        drop(daemon);
        crate::process::wait_for("its end", Duration::from_secs(10), async || Ok(!stays.is_alive())).await.unwrap();
        let error = start("echo why >&2").start_and_read_line().await.unwrap_err().to_string();
        assert!(error.contains("why"), "{error}");
    }
}
