//! The operator of Rouse. Two flows run in it, on the leading replica only:
//!
//! - a Function becomes objects ([`function`], and [`ingress`] for what all of them share);
//! - demand becomes replicas ([`scaler`]).
//!
//! Both read from the same local copies of the cluster ([`caches`]), which every replica keeps, and both are told by them
//! what to look at, through a [`queue`] each.
//!
//! ```text
//! API server ──watch──► caches ──key──► queue ──► function: dereference → validate → build → apply → update_status
//!                         │      └────► queue ──► scaler: plan (rouse-autoscaler) → write /scale
//!                         │                         ▲
//!                         └─slices─► discovery ─────┘ demand streams of the activators
//! ```

pub mod admin;
pub mod api;
pub mod args;
pub mod backoff;
pub mod cache;
pub mod caches;
pub mod children;
pub mod config;
pub mod drift;
pub mod events;
pub mod function;
pub mod hosts;
pub mod ingress;
pub mod key;
pub mod leader;
pub mod metrics;
pub mod operator;
pub mod outcomes;
pub mod progress;
pub mod queue;
pub mod scaler;
pub mod shutdown;
pub mod startup;
pub mod worker;
