//! Reconciliation as a whole, against an API server in memory.

mod fake_api;
mod properties;
mod refusals;
mod world;
