//! HTTP/2 frames, as far as they have to be seen beside the HTTP library.

mod frames;

pub(crate) use frames::{END_HEADERS, END_STREAM, FrameCursor, FrameHead, HEAD, Part, kind};
