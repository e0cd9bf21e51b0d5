//! Operator of Rouse. Two flows run on the leader:
//!
//! - reconciliation: a Function becomes Kubernetes objects ([`function`]; [`ingress`] for the shared Ingresses);
//! - autoscaling: demand becomes replicas ([`scaler`]).
//!
//! Both read from the same local caches ([`cluster::caches`]), which every replica fills. A change in a cache adds the
//! key of its Function to the [`runtime::queue`] of each flow. What both flows know of a Function is in [`workloads`]
//! and [`spec`].
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
