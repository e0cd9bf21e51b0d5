//! The server's side: listeners, connections, and the admin endpoints.

mod admin;
mod certificates;
mod connection;
mod departure;
mod head;
mod heads;
mod limits;
mod listener;
mod socket;
mod tls;

pub use admin::{Admin, router as admin_router};
pub use certificates::Certificates;
#[cfg(any(test, fuzzing))]
pub(crate) use connection::builders;
pub use heads::{HeadReader, Refused, Verdict};
pub use limits::Limits;
pub use listener::Listener;
