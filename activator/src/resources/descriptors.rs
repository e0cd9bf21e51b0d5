//! File descriptors: the limit of open files, and spare ones for when it is reached.

use std::{fs::File, io};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The limit of open files of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileLimit {
    /// The limit in effect (soft).
    pub soft: u64,
    /// The highest value that this process may set (hard).
    pub hard: u64,
}

impl FileLimit {
    /// Reads the limit.
    #[must_use]
    pub fn current() -> Self {
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        Self { soft: current.unwrap_or(u64::MAX), hard: maximum.unwrap_or(u64::MAX) }
    }

    /// Raises the soft limit to the hard one. Container runtimes start processes with the soft limit that programs need
    /// which use `select`, 1,024, and expect others to raise it.
    ///
    /// # Errors
    ///
    /// If the system refuses; the limit is unchanged then.
    pub fn raise() -> io::Result<Self> {
        let before = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: before.maximum, maximum: before.maximum })?;
        Ok(Self::current())
    }
}

/// Open files that are closed when no descriptor is left, so that a connection can be accepted all the same: to be
/// served, or to be refused in place of a client that waits for nothing.
#[derive(Debug)]
pub struct Spare {
    files: Vec<File>,
    most: usize,
}

impl Spare {
    /// Opens `most` spare files, or as many as the system allows.
    #[must_use]
    pub fn new(most: usize) -> Self {
        let mut spare = Self { files: Vec::with_capacity(most), most };
        spare.refill();
        spare
    }

    /// Closes one. Returns whether there was one.
    pub fn release(&mut self) -> bool {
        self.files.pop().is_some()
    }

    /// Opens what is missing, as far as the system allows.
    pub fn refill(&mut self) {
        while self.files.len() < self.most
            && let Ok(file) = File::open("/dev/null")
        {
            self.files.push(file);
        }
    }
}

/// Whether no descriptor was left, in this process or on the node.
#[must_use]
pub fn is_exhausted(error: &io::Error) -> bool {
    let errno = rustix::io::Errno::from_io_error(error);
    matches!(errno, Some(rustix::io::Errno::MFILE | rustix::io::Errno::NFILE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_is_within_the_hard_one() {
        let limit = FileLimit::current();
        assert!(limit.soft > 0 && limit.soft <= limit.hard, "{limit:?}");
    }

    #[test]
    fn a_spare_file_is_released_once_and_refilled() {
        let mut spare = Spare::new(2);
        assert_eq!([spare.release(), spare.release(), spare.release()], [true, true, false]);
        spare.refill();
        assert!(spare.release());
    }

    #[test]
    fn only_a_lack_of_descriptors_is_exhaustion() {
        let of = |errno: rustix::io::Errno| is_exhausted(&io::Error::from(errno));
        assert!(of(rustix::io::Errno::MFILE) && of(rustix::io::Errno::NFILE));
        assert!(!of(rustix::io::Errno::CONNABORTED) && !is_exhausted(&io::Error::other("x")));
    }
}
