//! Wake: scales a Deployment from zero, by a patch that is valid only at zero.

mod scale;

pub use scale::{ApiScaler, Scaler, WakeError};
