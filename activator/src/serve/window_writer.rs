//! Stream windows in what the HTTP library sends to a client.
//!
//! The library is given one large window for every stream and announces that. What passes here instead is a small window in the
//! settings, and larger ones for the streams that were granted them. The library's own updates of stream windows are dropped. It
//! accepts whatever was announced here, as that is never more than the library's window.

use std::io::IoSlice;

use crate::{
    downstream::{LARGEST_STREAM_WINDOW, STREAM_WINDOW, StreamGrants},
    http2::{FrameCursor, FrameHead, HEAD, Part, kind},
};

/// Window of a stream in the library. It renews a window when half of it is used, so what is announced here stays below half,
/// with a margin for what is renewed a moment later.
pub(super) const LIBRARY_WINDOW: u32 = 4 * LARGEST_STREAM_WINDOW;

const INITIAL_WINDOW_SIZE: [u8; 2] = [0, 4];
const SETTING: usize = 6;
const WINDOW_UPDATE_LENGTH: u32 = 4;

/// What may happen to the next bytes of the library.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// This many may be written as they are.
    Pass(usize),
    /// This many are taken from the library and not written as they are.
    Take(usize),
}

/// Changes the stream windows in what is sent.
#[derive(Debug, Default)]
pub(super) struct WindowWriter {
    cursor: FrameCursor,
    /// The first settings have passed.
    begun: bool,
    /// Bytes to be written before anything else. They begin at the end of a frame.
    own: Vec<u8>,
}

impl WindowWriter {
    /// Adds grants to the bytes to be written, if a frame has ended.
    pub(super) fn add(&mut self, grants: &StreamGrants) {
        // Before the first settings no client expects anything else.
        if self.begun && self.own.is_empty() && self.cursor.is_at_boundary() {
            for (stream, bytes) in grants.take() {
                let head = FrameHead { length: WINDOW_UPDATE_LENGTH, kind: kind::WINDOW_UPDATE, flags: 0, stream };
                self.own.extend_from_slice(&head.encode());
                self.own.extend_from_slice(&bytes.to_be_bytes());
            }
        }
    }

    /// Returns the bytes to be written before anything else.
    pub(super) fn own(&self) -> &[u8] {
        &self.own
    }

    /// Records that own bytes were written.
    pub(super) fn own_written(&mut self, count: usize) {
        self.own.drain(..count);
        if self.own.is_empty() {
            // An idle connection keeps no buffer.
            self.own = Vec::new();
        }
    }

    /// Decides about the bytes that the library writes next.
    pub(super) fn next(&mut self, slices: &[IoSlice<'_>]) -> Next {
        let mut cursor = self.cursor;
        let mut passed = 0;
        // Where the head in progress begins, unless a part of it has been written.
        let mut start = None;
        for slice in slices {
            let mut bytes: &[u8] = slice;
            while !bytes.is_empty() {
                if cursor.is_at_boundary() {
                    start = Some(passed);
                }
                let before = bytes.len();
                let part = cursor.next(&mut bytes);
                passed += before - bytes.len();
                let (Some(Part::Head(head)), Some(start)) = (part, start) else { continue };
                if !self.is_changed(head) {
                    continue;
                }
                if start > 0 {
                    return Next::Pass(start);
                }
                let length = HEAD + head.length as usize;
                let frame: Vec<u8> = slices.iter().flat_map(|slice| slice.iter()).copied().take(length).collect();
                // The library encodes such a frame as one piece.
                if frame.len() == length {
                    self.take(head, &frame);
                    return Next::Take(length);
                }
            }
        }
        Next::Pass(passed)
    }

    /// Records that bytes of the library were written as they are.
    pub(super) fn passed(&mut self, slices: &[IoSlice<'_>], mut count: usize) {
        for slice in slices {
            let mut bytes = &slice[..count.min(slice.len())];
            count -= bytes.len();
            while self.cursor.next(&mut bytes).is_some() {}
        }
    }

    fn is_changed(&self, head: FrameHead) -> bool {
        match head.kind {
            kind::SETTINGS => !self.begun,
            kind::WINDOW_UPDATE => head.stream > 0,
            _ => false,
        }
    }

    fn take(&mut self, head: FrameHead, frame: &[u8]) {
        if head.kind == kind::SETTINGS {
            self.begun = true;
            self.own.extend_from_slice(frame);
            for setting in self.own[HEAD..].chunks_exact_mut(SETTING) {
                if setting[..2] == INITIAL_WINDOW_SIZE {
                    setting[2..].copy_from_slice(&STREAM_WINDOW.to_be_bytes());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::downstream::WindowBudget;

    fn frame(kind: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap();
        [&FrameHead { length, kind, flags: 0, stream }.encode()[..], payload].concat()
    }

    fn settings(window: u32) -> Vec<u8> {
        frame(kind::SETTINGS, 0, &[&[0, 3, 0, 0, 3, 232, 0, 4][..], &window.to_be_bytes()].concat())
    }

    /// Writes `bytes`; the socket takes `size` at a time, and the library's buffer is in two slices.
    fn write(writer: &mut WindowWriter, grants: &StreamGrants, mut bytes: &[u8], size: usize, out: &mut Vec<u8>) {
        loop {
            writer.add(grants);
            while !writer.own().is_empty() {
                let count = writer.own().len().min(size);
                out.extend_from_slice(&writer.own()[..count]);
                writer.own_written(count);
            }
            if bytes.is_empty() {
                return;
            }
            let split = bytes.len().min(30);
            let slices = [IoSlice::new(&bytes[..split]), IoSlice::new(&bytes[split..])];
            let count = match writer.next(&slices) {
                Next::Take(count) => count,
                Next::Pass(most) => {
                    let count = most.min(size);
                    writer.passed(&slices, count);
                    out.extend_from_slice(&bytes[..count]);
                    count
                }
            };
            bytes = &bytes[count..];
        }
    }

    #[test]
    fn settings_are_changed_updates_of_streams_dropped_and_grants_added() {
        let update = |stream, bytes: u32| frame(kind::WINDOW_UPDATE, stream, &bytes.to_be_bytes());
        let (head, data) = (frame(kind::HEADERS, 1, b"head"), frame(0, 1, &[7; 100]));
        for size in [1, 2, 9, 13, 1000] {
            let grants = StreamGrants::new(WindowBudget::of_process());
            let (mut writer, mut out) = (WindowWriter::default(), vec![]);
            let first = [settings(LIBRARY_WINDOW), update(0, 1 << 20), head.clone(), update(1, 5)].concat();
            write(&mut writer, &grants, &first, size, &mut out);
            assert_eq!(out, [settings(STREAM_WINDOW), update(0, 1 << 20), head.clone()].concat(), "{size}");
            out.clear();
            // A grant is written between frames.
            let (begin, end) = data.split_at(20);
            write(&mut writer, &grants, begin, size, &mut out);
            grants.stream(3).on_read(STREAM_WINDOW as usize, tokio::time::Instant::now());
            write(&mut writer, &grants, end, size, &mut out);
            assert_eq!(out, data, "{size}: the stream has ended, and with it its grant");
            let mut stream = grants.stream(5);
            stream.on_read(STREAM_WINDOW as usize, tokio::time::Instant::now());
            out.clear();
            write(&mut writer, &grants, begin, size, &mut out);
            let granted = out[..13].to_vec();
            assert_eq!((granted[3], granted[8]), (kind::WINDOW_UPDATE, 5), "{size}");
            assert_eq!(out[13..], *begin, "{size}");
            // Later settings, such as acknowledgements, stay.
            write(&mut writer, &grants, &[end.to_vec(), settings(7)].concat(), size, &mut out);
            assert!(out.ends_with(&settings(7)), "{size}");
        }
    }
}
