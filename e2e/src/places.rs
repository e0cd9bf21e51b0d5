//! Where things are: the checkout, what is built once (the cache) and what runs now (the state).

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};

/// The longest name of a cluster: it becomes part of a socket's path and of a network namespace's name.
const LONGEST_NAME: usize = 30;

/// The folders that this tool works in.
#[derive(Clone, Debug)]
pub struct Places {
    /// The checkout of Rouse.
    pub repo: PathBuf,
    /// What was built and may be used again by every clone on this machine.
    pub cache: PathBuf,
    /// Cargo's output for images and benchmarks. It belongs to this checkout: cargo would take another one's crates for its own.
    pub target: PathBuf,
    /// One folder per cluster that is up, removed by `down`.
    pub state: PathBuf,
}

impl Places {
    /// Finds the folders: `ROUSE_E2E_CACHE` and `ROUSE_E2E_STATE` if set, else below `/var` for root and below the home
    /// folder for others; `ROUSE_E2E_TARGET` if set, else `target` in the checkout.
    pub fn discover() -> Result<Self> {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
        let repo = manifest.parent().context("The crate has no parent folder")?.canonicalize()?;
        let (cache, state) = if is_root() {
            (PathBuf::from("/var/cache/rouse-e2e"), PathBuf::from("/var/lib/rouse-e2e"))
        } else {
            let home = PathBuf::from(std::env::var_os("HOME").context("HOME is not set")?);
            (home.join(".cache/rouse-e2e"), home.join(".local/state/rouse-e2e"))
        };
        let from_env = |name: &str, default| std::env::var_os(name).map_or(default, PathBuf::from);
        Ok(Self {
            cache: from_env("ROUSE_E2E_CACHE", cache),
            target: from_env("ROUSE_E2E_TARGET", repo.join("target")),
            state: from_env("ROUSE_E2E_STATE", state),
            repo,
        })
    }

    /// The folder of one cluster.
    pub fn cluster(&self, name: &str) -> PathBuf {
        self.state.join(name)
    }

    /// The name of this checkout's cluster, the same each time and another one in another clone.
    pub fn default_name(&self) -> String {
        let hash = hex(&Sha256::digest(self.repo.as_os_str().as_encoded_bytes()));
        format!("dev-{}", &hash[..6])
    }
}

/// Refuses names that could not be part of a namespace's, a node's and a cgroup's name.
pub fn check_name(name: &str) -> Result<()> {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let mut chars = name.chars();
    if name.len() > LONGEST_NAME || !name.chars().all(good) || !edge(chars.next()) || !edge(name.chars().last()) {
        bail!("Invalid cluster name `{name}`: use up to {LONGEST_NAME} of a-z, 0-9 and -, with no - at either end");
    }
    Ok(())
}

/// Whether this process may do what only root may.
pub fn is_root() -> bool {
    std::fs::read_to_string("/proc/self/status").is_ok_and(|s| {
        s.lines().find_map(|l| l.strip_prefix("Uid:")).and_then(|l| l.split_whitespace().nth(1)) == Some("0")
    })
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let both = |byte: &u8| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]].map(char::from);
    bytes.iter().flat_map(both).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(repo: &str) -> Places {
        Places { repo: repo.into(), cache: "/c".into(), target: "/t".into(), state: "/s".into() }
    }

    #[test]
    fn two_clones_have_two_names() {
        let (a, b) = (places("/src/rouse").default_name(), places("/src/rouse2").default_name());
        assert_ne!(a, b);
        assert_eq!(a, places("/src/rouse").default_name());
        assert!(check_name(&a).is_ok());
    }

    #[test]
    fn names_that_would_break_paths_are_refused() {
        for bad in ["", "-a", "a-", "A", "a/b", "..", "a b", "0123456789012345678901234567890"] {
            assert!(check_name(bad).is_err(), "{bad:?} was accepted");
        }
        assert!(check_name("a").is_ok());
    }

    #[test]
    fn hex_is_two_digits_each() {
        assert_eq!(hex(&[0, 15, 255]), "000fff");
    }
}
