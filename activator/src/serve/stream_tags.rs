//! Tags on HTTP/2 requests: the id of their stream, as a header.
//!
//! The HTTP library does not report the stream of a request, and a window is announced by stream. So a field is appended to each
//! header block that opens a stream with a body. HPACK allows that without decoding the block: a literal that is not indexed
//! depends on nothing before it.

use http::{HeaderName, Request};

use crate::http2::{END_HEADERS, END_STREAM, FrameCursor, FrameHead, Part, kind};

/// The header of a tag. A client may send it too, but the last one is ours.
const TAG: HeaderName = HeaderName::from_static("rouse-stream");
const NAME: &[u8] = b"rouse-stream";
/// HPACK: a literal that is never indexed, with a new name.
const NEVER_INDEXED: u8 = 0x10;
/// Length of the preface of a client.
const PREFACE: usize = 24;

/// Adds tags to what a client sends.
#[derive(Debug)]
pub(super) struct StreamTagger {
    preface_left: usize,
    cursor: FrameCursor,
    /// The header block in progress opens a stream with a body.
    opens: bool,
    /// The block ends with the frame in progress.
    tag: Option<u32>,
}

impl StreamTagger {
    pub(super) fn new() -> Self {
        Self { preface_left: PREFACE, cursor: FrameCursor::default(), opens: false, tag: None }
    }

    /// Appends `bytes` with tags to `out`. The beginning of a frame head is held back until the head is complete.
    pub(super) fn rewrite(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) {
        let (preface, rest) = bytes.split_at(bytes.len().min(self.preface_left));
        out.extend_from_slice(preface);
        self.preface_left -= preface.len();
        bytes = rest;
        while let Some(part) = self.cursor.next(&mut bytes) {
            match part {
                Part::Head(mut head) => {
                    let in_block = match head.kind {
                        // Trailers end their stream.
                        kind::HEADERS => {
                            self.opens = head.flags & END_STREAM == 0;
                            self.opens
                        }
                        kind::CONTINUATION => self.opens,
                        _ => false,
                    };
                    self.tag = (in_block && head.flags & END_HEADERS != 0).then_some(head.stream);
                    if self.tag.is_some() {
                        head.flags &= !END_HEADERS;
                    }
                    out.extend_from_slice(&head.encode());
                }
                Part::Payload(payload) => out.extend_from_slice(payload),
            }
            if !self.cursor.in_payload()
                && let Some(stream) = self.tag.take()
            {
                push_tag(stream, out);
            }
        }
    }
}

fn push_tag(stream: u32, out: &mut Vec<u8>) {
    let value = stream.to_string();
    // The name and ten digits.
    let (name_length, value_length) = (NAME.len() as u8, value.len() as u8);
    let length = 3 + u32::from(name_length) + u32::from(value_length);
    out.extend_from_slice(&FrameHead { length, kind: kind::CONTINUATION, flags: END_HEADERS, stream }.encode());
    out.extend_from_slice(&[NEVER_INDEXED, name_length]);
    out.extend_from_slice(NAME);
    out.push(value_length);
    out.extend_from_slice(value.as_bytes());
}

/// Removes the tag from a request, and returns the stream of its body.
pub(super) fn take_tag<B: http_body::Body>(request: &mut Request<B>) -> Option<u32> {
    let stream = request.headers().get_all(TAG).iter().next_back()?.to_str().ok()?.parse().ok();
    request.headers_mut().remove(TAG);
    // Without a body there was no tag of ours.
    stream.filter(|_| !request.body().is_end_stream())
}

#[cfg(test)]
mod tests {
    use http_body_util::{Empty, Full};

    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap();
        [&FrameHead { length, kind, flags, stream }.encode()[..], payload].concat()
    }

    fn tag(stream: u32) -> Vec<u8> {
        let value = stream.to_string();
        let literal =
            [&[0x10, 12][..], b"rouse-stream", &[u8::try_from(value.len()).unwrap()], value.as_bytes()].concat();
        frame(kind::CONTINUATION, END_HEADERS, stream, &literal)
    }

    #[test]
    fn only_requests_with_a_body_are_tagged_however_the_bytes_arrive() {
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        assert_eq!(preface.len(), PREFACE);
        let sent = [
            preface.clone(),
            frame(kind::SETTINGS, 0, 0, &[]),
            frame(kind::HEADERS, END_HEADERS, 1, b"post"),
            frame(kind::HEADERS, END_HEADERS | END_STREAM, 3, b"get"),
            frame(kind::HEADERS, 0, 5, b"long"),
            frame(kind::CONTINUATION, 0, 5, b"er"),
            frame(kind::CONTINUATION, END_HEADERS, 5, b""),
            frame(0, END_STREAM, 1, b"data with flags that mean something else"),
            frame(kind::HEADERS, END_STREAM, 5, b"trailers"),
            frame(kind::CONTINUATION, END_HEADERS, 5, b"more"),
        ]
        .concat();
        let expected = [
            preface,
            frame(kind::SETTINGS, 0, 0, &[]),
            frame(kind::HEADERS, 0, 1, b"post"),
            tag(1),
            frame(kind::HEADERS, END_HEADERS | END_STREAM, 3, b"get"),
            frame(kind::HEADERS, 0, 5, b"long"),
            frame(kind::CONTINUATION, 0, 5, b"er"),
            frame(kind::CONTINUATION, 0, 5, b""),
            tag(5),
            frame(0, END_STREAM, 1, b"data with flags that mean something else"),
            frame(kind::HEADERS, END_STREAM, 5, b"trailers"),
            frame(kind::CONTINUATION, END_HEADERS, 5, b"more"),
        ]
        .concat();
        for size in [1, 2, 3, 8, 9, 10, 24, 25, 1000] {
            let (mut tagger, mut out) = (StreamTagger::new(), vec![]);
            sent.chunks(size).for_each(|chunk| tagger.rewrite(chunk, &mut out));
            assert_eq!(out, expected, "{size}");
        }
    }

    #[test]
    fn the_last_tag_counts_and_none_without_a_body() {
        let request = || Request::post("/").header(TAG, "1").header(TAG, "7");
        let mut with_body = request().body(Full::<&[u8]>::from(&b"x"[..])).unwrap();
        assert_eq!(take_tag(&mut with_body), Some(7));
        assert!(!with_body.headers().contains_key(TAG));
        let mut without = request().body(Empty::<&[u8]>::new()).unwrap();
        assert_eq!(take_tag(&mut without), None);
        assert!(!without.headers().contains_key(TAG));
    }
}
