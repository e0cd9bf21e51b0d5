//! Waking: from no pod to one, by a patch that is valid only at zero.

mod scale;

pub use scale::{ApiScaler, Scaler, WakeError};
