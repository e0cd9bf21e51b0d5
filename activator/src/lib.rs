//! The activator: the data path of Rouse.
//!
//! ```text
//!             Functions, Pods (watch)                        API server (scale patch)
//!                    │                                              ▲
//!                    ▼                                              │
//!  client ─► serve ─► route ─► admit: go, wait, or be turned away ─► wake
//!                               │   one gate a function             │
//!                               ▼                                   ▼
//!                             proxy: forward ◄──────────── endpoints: probe, pool
//!                               │
//!                               └─► demand: what every revision has, had, and for how long ─► autoscaler
//! ```
//!
//! The order in which a request passes these is written down in one place, `proxy/chain.rs`.

pub mod admit;
pub mod args;
pub mod context;
pub mod demand;
pub mod endpoints;
pub mod keepalive;
pub mod metrics;
pub mod problem;
pub mod proxy;
pub mod route;
pub mod run;
pub mod serve;
mod tcp;
pub mod timing;
pub mod wake;
