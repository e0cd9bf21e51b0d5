//! A lock between processes: two `cargo e2e up` of one cluster, or two clones that build the same tool.

use std::fs::{File, TryLockError};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::progress::note;

/// A held lock. Dropping it releases the lock and removes the file.
#[derive(Debug)]
pub struct FileLock {
    path: PathBuf,
    _file: File,
}

impl FileLock {
    /// Waits for the lock at `path`, and prints a note if another process holds it. The kernel releases it when its
    /// holder dies.
    pub async fn acquire(path: &Path) -> Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).with_context(|| format!("Cannot create {}", folder.display()))?;
        }
        loop {
            let file = File::create(path).with_context(|| format!("Cannot create {}", path.display()))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    note(&format!("Waiting for another process that holds {}", path.display()));
                    let waiting = file.try_clone()?;
                    tokio::task::spawn_blocking(move || waiting.lock()).await??;
                }
                Err(TryLockError::Error(error)) => return Err(error).context("Cannot lock"),
            }
            // The former holder may have removed the file after it was opened here and before it was locked.
            let ours = file.metadata()?.ino();
            if std::fs::metadata(path).is_ok_and(|now| now.ino() == ours) {
                return Ok(Self { path: path.to_owned(), _file: file });
            }
        }
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        // Removed while locked, so that another process detects the removal after it gets the lock.
        if let Err(error) = std::fs::remove_file(&self.path) {
            note(&format!("Cannot remove the lock file {}: {error}", self.path.display()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_second_waits_for_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let first = FileLock::acquire(&path).await.unwrap();
        let second = tokio::spawn({
            let path = path.clone();
            async move { FileLock::acquire(&path).await }
        });
        tokio::task::yield_now().await;
        assert!(!second.is_finished());
        drop(first);
        let second = second.await.unwrap().unwrap();
        assert!(path.exists());
        drop(second);
        assert!(!path.exists());
    }
}
