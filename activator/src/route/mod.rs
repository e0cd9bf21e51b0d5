//! Routing: from host and path to the breaker of a Function, and the watches that update the table.

mod claims;
pub mod cors;
mod directory;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod host;
mod list_watch;
mod path;
mod pods;
mod redirect;
mod rules;
mod table;
mod watch;

pub use directory::Directory;
pub use host::{BadHost, Host};
pub use path::Ambiguous;
pub use redirect::{came_by_tls, to_https};
pub use rules::{RouteRules, RuleDecision};
pub use table::{Route, RouteError, Side, Table};
pub use watch::{Synced, follow};
