//! Callgrind: runs a program and counts its instructions in user space.
//!
//! What it counts depends on the program and not on the machine or on what else runs there.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::{
    process::{command, run},
    progress::Progress,
    requirements::{find_program, meet_programs},
};

/// Callgrind for one run of a program.
#[derive(Debug)]
pub(super) struct Callgrind {
    /// `valgrind`.
    pub(super) program: PathBuf,
    folder: tempfile::TempDir,
}

/// Prefix of the pipes between a program and `vgdb`, in the folder.
const PIPES: &str = "vgdb";

impl Callgrind {
    /// Finds or installs Valgrind.
    ///
    /// # Errors
    ///
    /// If it is missing and cannot be installed here.
    pub(super) async fn find(progress: &Progress) -> Result<Self> {
        meet_programs(&[("valgrind", "valgrind")], progress).await?;
        let program = find_program("valgrind").context("valgrind not found")?;
        Ok(Self { program, folder: tempfile::Builder::new().prefix("rouse-callgrind").tempdir()? })
    }

    /// Returns the arguments in front of the program. Nothing is counted until [`Self::begin`], so that its start is
    /// faster.
    pub(super) fn args(&self) -> Vec<OsString> {
        let output = |option: &str, path: PathBuf| [option.as_ref(), path.as_os_str()].join("=".as_ref());
        vec![
            "--tool=callgrind".into(),
            "--instr-atstart=no".into(),
            output("--callgrind-out-file", self.output()),
            output("--vgdb-prefix", self.folder.path().join(PIPES)),
        ]
    }

    /// Starts counting.
    ///
    /// # Errors
    ///
    /// If the program has exited.
    pub(super) async fn begin(&self, pid: u32) -> Result<()> {
        self.send(pid, &["instrumentation", "on"]).await
    }

    /// Returns the number of instructions since the last reading, or since counting started. `reading` is 1 for the
    /// first one, 2 for the next, and so on.
    ///
    /// # Errors
    ///
    /// If the program has exited.
    pub(super) async fn read(&self, pid: u32, reading: u32) -> Result<u64> {
        self.send(pid, &["dump"]).await?;
        let path = self.profile(reading);
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        total(&text).with_context(|| format!("no total in {}", path.display()))
    }

    /// Returns the profile of a reading, for `callgrind_annotate`.
    pub(super) fn profile(&self, reading: u32) -> PathBuf {
        self.output().with_extension(format!("out.{reading}"))
    }

    fn output(&self) -> PathBuf {
        self.folder.path().join("callgrind.out")
    }

    async fn send(&self, pid: u32, words: &[&str]) -> Result<()> {
        let prefix: &Path = &self.folder.path().join(PIPES);
        let mut vgdb = command("vgdb", [format!("--vgdb-prefix={}", prefix.display()), format!("--pid={pid}")]);
        vgdb.args(words);
        run(vgdb).await.map(drop)
    }
}

/// Parses the number of instructions of a profile.
fn total(profile: &str) -> Option<u64> {
    profile.lines().rev().find_map(|line| line.strip_prefix("totals: "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_is_parsed() {
        assert_eq!(total("summary: 7\n\nfn=(1) x\n12 5\n\ntotals: 5174\n"), Some(5174));
        assert_eq!(total("summary: 7\n"), None);
    }
}
