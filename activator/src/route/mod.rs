//! Routing: from a host and a path to the gate of a function, and the watches that keep it true.

mod claims;
pub mod cors;
mod directory;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod host;
mod path;
mod redirect;
mod rules;
mod table;
mod watch;

pub use directory::Directory;
pub use host::{BadHost, Host};
pub use path::Ambiguous;
pub use redirect::{said_tls, to_https};
pub use rules::{Rules, Verdict};
pub use table::{Route, Side, Table, Unrouted};
pub use watch::{Synced, follow};
