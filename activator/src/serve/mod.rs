//! The server's side: listeners, connections, and the admin endpoints.

mod admin;
mod heads;
mod listener;
mod socket;

pub use admin::{Admin, router as admin_router};
#[cfg(any(test, fuzzing))]
pub(crate) use heads::HeadReader;
pub use heads::HeadVerdict;
#[cfg(any(test, fuzzing))]
pub(crate) use listener::server;
pub use listener::{Limits, Listener};
