//! The operator of Rouse. Two flows run in it, on the leading replica only:
//!
//! - a Function becomes objects ([`function`], and [`ingress`] for what all of them share);
//! - demand becomes replicas ([`scaler`]).
//!
//! Both read from the same local copies of the cluster ([`cluster::caches`]), which every replica keeps, and both are told by them
//! what to look at, through a [`runtime::queue`] each.
//!
//! ```text
//! API server ──watch──► caches ──key──► queue ──► function: dereference → validate → build → apply → update_status
//!                         │      └────► queue ──► scaler: plan (rouse-autoscaler) → write /scale
//!                         │                         ▲
//!                         └─slices─► discovery ─────┘ demand streams of the activators
//! ```

pub mod admin;
pub mod args;
pub mod cluster;
pub mod function;
pub mod hosts;
pub mod ingress;
pub mod leader;
pub mod operator;
pub mod runtime;
pub mod scaler;
pub mod spec;
pub mod telemetry;
pub mod workloads;
