//! Routing: from a host to the gate of a function, and the watches that keep it true.

mod directory;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod host;
mod table;
mod watch;

pub use directory::Directory;
pub use host::{BadHost, Host};
pub use table::{Side, Table};
pub use watch::{Synced, follow};
