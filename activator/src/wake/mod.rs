//! Waking: from no pod to one, by a patch that is valid only at zero.

mod backoff;
mod keeper;
mod scale;

pub(crate) use backoff::jitter;
pub(crate) use keeper::{RAMP_INTERVAL, spawn as spawn_keeper};
pub use scale::{ApiScaler, Scaler, WakeError};
