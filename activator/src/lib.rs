//! The activator: the data path of Rouse.
//!
//! ```text
//!             Functions, Pods (watch)                        API server (scale patch)
//!                    │                                              ▲
//!                    ▼                                              │
//!  client ─► serve ─► route ─► admit: go, wait, or be turned away ─► wake
//!                               │   one breaker a function             │
//!                               ▼                                   ▼
//!                             proxy: forward ◄──────────── endpoints: probe, pool
//!                               │
//!                               └─► demand: what every revision has, had, and for how long ─► autoscaler
//! ```
//!
//! The order in which a request passes these is written down in one place, `proxy/chain.rs`.

pub mod admit;
pub mod args;
mod backoff;
pub mod body;
pub mod demand;
pub mod downstream;
pub mod endpoints;
mod hop_by_hop;
pub mod keepalive;
pub mod metrics;
pub mod problem;
pub mod proxy;
pub mod rate_limit;
pub mod route;
pub mod run;
pub mod serve;
mod supervise;
mod tcp;

pub mod wake;
