//! Kubernetes client and local caches: everything that the operator reads from the API server.
//!
//! Both flows read from [`caches`] alone and write through [`client`]. Every queue, cache and table is keyed by
//! [`key::FunctionKey`].

pub mod cache;
pub mod caches;
pub mod children;
pub mod client;
pub mod config_versions;
pub mod drift;
pub mod httproute;
pub mod key;
pub mod refusal;
