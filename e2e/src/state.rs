//! What is known of a cluster between two runs: `state.json` in its folder, written anew at each step.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::process::Process;
use crate::provider::Provider;

/// Goes up when an older file could be misread.
const VERSION: u32 = 1;

/// One cluster's record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    version: u32,
    /// Who made the cluster.
    pub provider: Provider,
    /// The place of a local cluster's addresses.
    pub index: Option<u8>,
    /// The host's port to a kind cluster's ingress.
    pub ingress_port: Option<u16>,
    /// Whether the node has been ready once.
    pub complete: bool,
    /// What runs on the host, in the order it was started.
    pub processes: Vec<Process>,
    /// Keys of the image archives that are in the cluster.
    pub loaded: BTreeSet<String>,
    /// Hash of the add-ons that were applied.
    pub addons: Option<String>,
    /// Hash of the release of Rouse that was installed.
    pub release: Option<String>,
}

impl State {
    /// Nothing has been done yet.
    pub fn new(provider: Provider) -> Self {
        Self {
            version: VERSION,
            provider,
            index: None,
            ingress_port: None,
            complete: false,
            processes: Vec::new(),
            loaded: BTreeSet::new(),
            addons: None,
            release: None,
        }
    }

    fn path(folder: &Path) -> PathBuf {
        folder.join("state.json")
    }

    /// Reads the record; none if there is no cluster, or only what a run left behind that died before it wrote one, or
    /// one of another version.
    pub fn read(folder: &Path) -> Result<Option<Self>> {
        let path = Self::path(folder);
        match std::fs::read(&path) {
            Ok(bytes) => Ok(parse(&bytes)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("Cannot read {}", path.display())),
        }
    }

    /// Replaces the record, whole or not at all.
    pub fn write(&self, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder).with_context(|| format!("Cannot create {}", folder.display()))?;
        let (path, fresh) = (Self::path(folder), folder.join("state.json.new"));
        std::fs::write(&fresh, serde_json::to_vec_pretty(self)?)?;
        std::fs::rename(&fresh, &path).with_context(|| format!("Cannot write {}", path.display()))
    }

    /// Whether the node was ready once and its processes on this machine, if it has any, are alive.
    pub fn seems_up(&self) -> bool {
        self.complete && self.processes.iter().all(Process::is_alive)
    }

    /// The process with this name.
    pub fn process(&self, name: &str) -> Option<&Process> {
        self.processes.iter().find(|process| process.name == name)
    }
}

fn parse(bytes: &[u8]) -> Option<State> {
    serde_json::from_slice::<State>(bytes).ok().filter(|state| state.version == VERSION)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("name");
        assert_eq!(State::read(&below).unwrap(), None);
        let mut state = State::new(Provider::Local);
        state.index = Some(3);
        state.loaded.insert("localhost/a:b".to_owned());
        state.processes.extend(Process::identify("me", std::process::id()));
        state.write(&below).unwrap();
        let read = State::read(&below).unwrap().unwrap();
        assert_eq!(read, state);
        assert!(read.process("me").is_some() && read.process("you").is_none());
    }

    #[test]
    fn what_cannot_be_read_is_taken_for_nothing() {
        assert_eq!(parse(b"{"), None);
        let mut other = State::new(Provider::Kind);
        other.version = 0;
        assert_eq!(parse(&serde_json::to_vec(&other).unwrap()), None);
    }
}
