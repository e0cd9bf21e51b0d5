//! The activator: the data path of Rouse.
//!
//! ```text
//!           watch of Functions and pods                     API server
//!                     │                                         ▲
//!                     ▼                                         │ scale patch
//!  client ─► serve ─► route ─► admit: forward, queue or reject ─► wake
//!                               │   one breaker per Function
//!                               ▼
//!                             proxy: forward ─► endpoints: connections, probes
//!                               │
//!                               └─► demand: requests per revision ─► autoscaler
//! ```
//!
//! `proxy/chain.rs` composes the steps of a request. Modules import each other in this order only; `tests/rooms.rs` lists every
//! import between modules with its reason, and fails on any other.

pub mod admit;
pub mod args;
mod backoff;
pub mod body;
pub mod demand;
pub mod downstream;
pub mod endpoints;
pub mod function_id;
mod hop_by_hop;
mod http2;
pub mod keepalive;
pub mod metrics;
pub mod overload;
pub mod problem;
pub mod proxy;
pub mod rate_limit;
pub mod resources;
pub mod route;
pub mod run;
pub mod serve;
mod supervise;
mod tcp;

pub mod wake;
