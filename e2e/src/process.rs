//! Execution of programs: in the foreground, and as daemons that outlive this process.

use std::ffi::OsStr;
use std::fs::File;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use tokio::process::Command;
use tokio::time::Instant;

/// Lines of the output of a failed program that an error shows.
const SHOWN_LINES: usize = 20;
/// Poll interval of conditions.
const POLL: Duration = Duration::from_millis(50);

/// Returns a command that is killed when its future is dropped.
pub fn command<I, S>(program: impl AsRef<OsStr>, args: I) -> Command
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    let mut command = Command::new(program);
    command.args(args).kill_on_drop(true).stdin(Stdio::null());
    command
}

/// Runs a command and returns its stdout. An error contains the command and the tail of its output.
pub async fn run(mut command: Command) -> Result<String> {
    let line = describe(&command);
    let output = command.output().await.with_context(|| format!("Cannot run {line}"))?;
    if !output.status.success() {
        let printed = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
        bail!("{line} failed ({}):\n{}", output.status, tail(&String::from_utf8_lossy(&printed)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a command without output and returns whether it succeeded.
pub async fn succeeds(mut command: Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.status().await.is_ok_and(|status| status.success())
}

/// Polls until `look` returns a value.
///
/// # Errors
///
/// If it times out after `limit`, or `look` fails.
pub async fn until<T, F>(what: &str, limit: Duration, mut look: F) -> Result<T>
where
    F: AsyncFnMut() -> Result<Option<T>>,
{
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = look().await.with_context(|| format!("Waiting for {what}"))? {
            return Ok(found);
        }
        if Instant::now() >= deadline {
            bail!("{what}: timed out after {} s", limit.as_secs());
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Polls until a condition holds; the errors are those of [`until`].
pub async fn wait_for<F>(what: &str, limit: Duration, mut holds: F) -> Result<()>
where
    F: AsyncFnMut() -> Result<bool>,
{
    until(what, limit, async || Ok(holds().await?.then_some(()))).await
}

/// Returns the last lines of a text, for an error.
pub fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n")
}

fn describe(command: &Command) -> String {
    let std = command.as_std();
    let mut line = std.get_program().to_string_lossy().into_owned();
    for arg in std.get_args() {
        line.push(' ');
        line.push_str(&arg.to_string_lossy());
    }
    line
}

/// A process, identified by PID and start time, since PIDs are reused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Name for messages.
    pub name: String,
    /// PID on the host.
    pub pid: u32,
    /// Start time in clock ticks since boot.
    pub started: u64,
    /// Boot ID of the machine.
    pub boot: String,
}

impl Process {
    /// Starts a program in a new session, so that neither Ctrl-C nor a closed terminal stops it. `log` receives its output.
    pub fn daemon<S: AsRef<OsStr>>(name: &str, argv: &[S], log: &Path) -> Result<Self> {
        let log_file = File::create(log).with_context(|| format!("Cannot create {}", log.display()))?;
        let child = Command::new("setsid")
            .args(argv)
            .stdin(Stdio::null())
            .stdout(log_file.try_clone()?)
            .stderr(log_file)
            .spawn()
            .with_context(|| format!("Cannot start {name}"))?;
        // setsid does not fork here, since the process is no group leader, so the PID is that of the daemon.
        let pid = child.id().with_context(|| format!("{name} exited immediately"))?;
        Self::identify(name, pid).with_context(|| format!("{name} exited immediately, see {}", log.display()))
    }

    /// Identifies a running process.
    pub fn identify(name: &str, pid: u32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (_, started) = parse_stat(&stat)?;
        Some(Self { name: name.to_owned(), pid, started, boot: boot_id() })
    }

    /// Returns whether this process is running and not a zombie. A reused PID is detected.
    pub fn is_alive(&self) -> bool {
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)) else { return false };
        self.boot == boot_id()
            && parse_stat(&stat).is_some_and(|(state, started)| state != 'Z' && started == self.started)
    }

    /// Kills the process, unless its PID was reused.
    pub async fn kill(&self) -> Result<()> {
        if self.is_alive() {
            kill(self.pid, "KILL").await;
        }
        wait_for(&format!("The end of {} ({})", self.name, self.pid), Duration::from_secs(10), async || {
            Ok(!self.is_alive())
        })
        .await
    }
}

/// Sends a signal; ignores a process that has exited.
pub async fn kill(pid: u32, signal: &str) {
    succeeds(command("kill", [format!("-{signal}"), pid.to_string()])).await;
}

/// Parses the state letter and the start time in `/proc/<pid>/stat`. The second field may hold spaces and parentheses.
fn parse_stat(stat: &str) -> Option<(char, u64)> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    // Field 22 of the file; the state is field 3.
    let started = fields.nth(18)?.parse().ok()?;
    Some((state, started))
}

fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_process_name_does_not_move_the_fields() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4242 9 9";
        assert_eq!(parse_stat(stat), Some(('S', 4242)));
        assert_eq!(parse_stat("7 (x"), None);
    }

    #[tokio::test]
    async fn a_reused_pid_is_not_the_process() {
        let me = Process::identify("me", std::process::id()).unwrap();
        assert!(me.is_alive());
        let other = Process { started: me.started + 1, ..me.clone() };
        assert!(!other.is_alive());
        // Would kill this test without the check.
        other.kill().await.unwrap();
        let earlier = Process { boot: "before the reboot".to_owned(), ..me };
        assert!(!earlier.is_alive());
    }

    #[tokio::test]
    async fn a_daemon_is_killed_and_its_output_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let daemon = Process::daemon("d", &["sh", "-c", "echo here; exec sleep 1000"], &log).unwrap();
        wait_for("output", Duration::from_secs(10), async || Ok(std::fs::read_to_string(&log)?.contains("here")))
            .await
            .unwrap();
        assert!(daemon.is_alive());
        daemon.kill().await.unwrap();
        assert!(!daemon.is_alive());
    }

    #[tokio::test]
    async fn an_error_shows_the_command_and_its_output() {
        let error = run(command("sh", ["-c", "echo because >&2; exit 3"])).await.unwrap_err().to_string();
        assert!(error.contains("because") && error.contains("exit 3"), "{error}");
    }
}
