//! A real Kubernetes cluster for developing Rouse, and what runs on it.
//!
//! ```text
//! requirements ─► gomod ─► images ─► provider ─► addons ─► install
//! (machine)       (tools)  (archives) (a node)    (DNS,     (Rouse,
//!                                                  ingress)  by Helm)
//! ```
//!
//! [`up::up`] runs these steps and returns a [`Cluster`]; [`down::down`] removes it. Everything that is built is cached
//! under a name with the hash of what it was built from, so [`mod@forecast`] knows which steps are left; [`progress`]
//! shows them.
//!
//! On such a cluster [`demo`] shows scale to zero, [`mod@bench`] measures, and the tests below `tests/` run; all three
//! apply and invoke functions through [`workspace::Workspace`]. [`mod@test`] runs all tests, tier by tier.

pub mod addons;
pub mod api_server;
pub mod bench;
pub mod clients;
pub mod cluster;
pub mod demo;
pub mod down;
pub mod forecast;
pub mod generate;
pub mod gomod;
pub mod host;
pub mod http_client;
pub mod images;
pub mod install;
pub mod lock;
pub mod oci;
pub mod places;
pub mod plan;
pub mod process;
pub mod progress;
pub mod provider;
pub mod requirements;
pub mod sim;
pub mod state;
pub mod test;
pub mod up;
pub mod wheels;
pub mod workspace;

pub use cluster::Cluster;
pub use places::Places;
pub use provider::Provider;
