//! Appends to headers that are lists.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

/// Appends an element of `length` bytes to a list header. `first` is whether there is none yet.
pub(super) fn append(headers: &mut HeaderMap, name: &HeaderName, element: &[&[u8]], length: usize, first: bool) {
    let mut list = Vec::new();
    if !first {
        for value in headers.get_all(name).iter().map(HeaderValue::as_bytes).filter(|value| !value.is_empty()) {
            list.extend_from_slice(value);
            list.extend_from_slice(b", ");
        }
    }
    list.reserve_exact(length);
    element.iter().for_each(|part| list.extend_from_slice(part));
    // It is made of valid header values.
    if let Ok(list) = HeaderValue::from_maybe_shared(Bytes::from(list)) {
        headers.insert(name, list);
    }
}
