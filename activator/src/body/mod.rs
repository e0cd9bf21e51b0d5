//! Request bodies: streaming, copying for mirrored requests, and progress.

mod minimum_rate;
mod progress;
mod request;
mod tee;
mod trailers;

pub(crate) use minimum_rate::MinimumRate;
pub(crate) use progress::Progress;
pub use request::RequestBody;
pub(crate) use tee::{BodyTee, CopiedBody, LONGEST};
pub(crate) use trailers::clean_trailers;
