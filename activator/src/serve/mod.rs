//! Downstream server: listeners, connections, head guard, TLS, and the admin endpoints.

mod admin;
mod admin_server;
mod beside;
mod bind;
mod certificates;
mod connection;
mod connections;
mod disconnect;
mod head_guard;
mod head_parser;
mod http2_socket;
mod limits;
mod listener;
mod pressure;
mod readers;
mod refusal;
mod send_timeout;
mod socket;
mod stream_tags;
mod streams;
mod target;
mod tls;
mod window_writer;

pub use admin::{Admin, serve as serve_admin, serve_health};
pub use bind::bind;
pub use certificates::Certificates;
#[cfg(any(test, fuzzing))]
pub(crate) use connection::{http1_builder, http2_builder};
pub use connections::Connections;
pub use head_guard::{HeadGuard, Inspected, Rejected};
pub use limits::Limits;
pub use listener::Listener;
pub use pressure::Pressure;
pub use readers::{ApiReviewer, Readers, TokenReviewer, Unauthorized};
pub use refusal::Refusal;
