//! The server's side: listeners, connections, and the admin endpoints.

mod admin;
mod certificates;
mod connection;
mod departure;
mod fault;
mod head;
mod heads;
mod limits;
mod listener;
mod socket;
mod tls;

pub use admin::{Admin, router as admin_router};
pub use certificates::Certificates;
pub(crate) use connection::STREAM_WINDOW;
#[cfg(any(test, fuzzing))]
pub(crate) use connection::builders;
pub(crate) use fault::REFUSED;
pub use fault::{Fault, HeadVerdict};
pub use heads::{HeadReader, Refused, Verdict};
pub use limits::Limits;
pub use listener::Listener;
