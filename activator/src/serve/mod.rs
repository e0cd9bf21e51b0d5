//! Downstream server: listeners, connections, head guard, TLS, and the admin endpoints.

mod admin;
mod beside;
mod certificates;
mod connection;
mod disconnect;
mod head_guard;
mod head_parser;
mod http2_socket;
mod limits;
mod listener;
mod send_timeout;
mod socket;
mod stream_tags;
mod streams;
mod target;
mod tls;
mod window_writer;

pub use admin::{Admin, router as admin_router};
pub use certificates::Certificates;
#[cfg(any(test, fuzzing))]
pub(crate) use connection::{http1_builder, http2_builder};
pub use head_guard::{HeadGuard, Inspected, Rejected};
pub use limits::Limits;
pub use listener::Listener;
