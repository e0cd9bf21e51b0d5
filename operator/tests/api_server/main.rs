//! Tests of the operator against a real kube-apiserver and etcd, without kubelets and controllers.
//!
//! `cargo e2e test --tier 2` starts them and sets `ROUSE_TEST_KUBECONFIG`. The operator watches the Functions of all
//! namespaces, so the tests run one at a time. Each has its own namespaces and deletes its Functions at the end.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod children;
mod crash;
mod election;
mod gateway;
mod hosts;
mod input;
mod rig;
mod rollout;
mod scale;
mod scale_overrides;
mod webhook;
