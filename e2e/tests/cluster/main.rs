//! What users do, on a real Kubernetes with Rouse installed by Helm: apply, call through the ingress, change, break,
//! delete. `cargo e2e test --tier 3` brings the cluster up and runs this.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod bad_input;
mod chart;
mod clients;
mod deletion;
mod examples;
mod failures;
mod gateway;
mod grpc;
mod h2spec;
mod hosts;
mod https;
mod idle;
mod leaders;
mod load;
mod name_server;
mod network;
mod operator_down;
mod queue;
mod release;
mod restart;
mod revisions;
mod rights;
mod rollouts;
mod scaling;
mod scene;
mod streams;
mod volume;
mod wake;
mod way;
mod websocket;
