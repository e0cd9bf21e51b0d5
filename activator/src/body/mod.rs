//! Bodies that pass to a pod and back: a request's, the copy that is made of it, and when they last moved.

mod copying;
mod progress;
mod request;
mod trailers;

pub(crate) use copying::{Copied, Copying, LONGEST};
pub(crate) use progress::Progress;
pub use request::RequestBody;
pub(crate) use trailers::clean_trailers;
