//! A real Kubernetes for the tests of Rouse, and what is run on it.
//!
//! ```text
//! requirements ─► gomod ─► images ─► provider ─► addons ─► install
//! (what is there) (tools)  (archives) (a node)    (DNS,     (Rouse,
//!                                                  ingress)  by Helm)
//! ```
//!
//! [`up::up`] walks that line and gives a [`Cluster`]; [`down::down`] removes it. Everything that is built is kept
//! in a cache, under a name that holds the hash of what it was built from.
//!
//! On such a cluster [`demo`] tells a story, [`mod@bench`] measures, and the tests below `tests/` run; all three apply and call
//! functions through [`world::World`]. [`mod@test`] runs every test there is, tier by tier.

pub mod addons;
pub mod api_server;
pub mod bench;
pub mod caller;
pub mod clients;
pub mod cluster;
pub mod demo;
pub mod down;
pub mod forecast;
pub mod generate;
pub mod gomod;
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
pub mod world;

pub use cluster::Cluster;
pub use places::Places;
pub use provider::Provider;
