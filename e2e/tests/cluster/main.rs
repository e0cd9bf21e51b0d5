//! Tests of Rouse on a real Kubernetes cluster, installed by Helm, with requests through the ingress. `cargo e2e test
//! --tier 3` starts the cluster and runs them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod bad_input;
mod chart;
mod clients;
mod deletion;
mod entry_point;
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
mod streams;
mod test_env;
mod volume;
mod wake;
mod websocket;
