//! Frame boundaries in a stream of bytes (RFC 9113, section 4.1).

/// Size of a frame head.
pub(crate) const HEAD: usize = 9;

/// Flags of HEADERS and CONTINUATION.
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// Frame types.
pub(crate) mod kind {
    pub(crate) const HEADERS: u8 = 1;
    pub(crate) const SETTINGS: u8 = 4;
    pub(crate) const GOAWAY: u8 = 7;
    pub(crate) const WINDOW_UPDATE: u8 = 8;
    pub(crate) const CONTINUATION: u8 = 9;
}

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHead {
    /// Length of the payload.
    pub(crate) length: u32,
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
}

/// A part of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part<'a> {
    /// A head is complete.
    Head(FrameHead),
    /// Bytes of the payload of the last head.
    Payload(&'a [u8]),
}

/// A position in a stream of frames.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FrameCursor {
    head: [u8; HEAD],
    /// Bytes of the head that have been read.
    filled: usize,
    /// Bytes of the payload that have not been read.
    remaining: u32,
}

impl FrameHead {
    /// Returns the bytes of the head.
    pub(crate) fn encode(self) -> [u8; HEAD] {
        let [_, l0, l1, l2] = self.length.to_be_bytes();
        let [s0, s1, s2, s3] = self.stream.to_be_bytes();
        [l0, l1, l2, self.kind, self.flags, s0, s1, s2, s3]
    }
}

impl FrameCursor {
    /// Whether a frame has ended, and the next one has not begun.
    pub(crate) fn is_at_boundary(&self) -> bool {
        self.remaining == 0 && self.filled == 0
    }

    /// Whether the payload of a frame has not ended.
    pub(crate) fn in_payload(&self) -> bool {
        self.remaining > 0
    }

    /// Takes the next part off `bytes`; `None` if they end before it.
    pub(crate) fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> Option<Part<'a>> {
        if self.remaining > 0 {
            if bytes.is_empty() {
                return None;
            }
            let count = bytes.len().min(self.remaining as usize);
            let (payload, rest) = bytes.split_at(count);
            *bytes = rest;
            self.remaining -= u32::try_from(count).unwrap_or(self.remaining);
            return Some(Part::Payload(payload));
        }
        let count = bytes.len().min(HEAD - self.filled);
        self.head[self.filled..self.filled + count].copy_from_slice(&bytes[..count]);
        *bytes = &bytes[count..];
        self.filled += count;
        if self.filled < HEAD {
            return None;
        }
        self.filled = 0;
        let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = self.head;
        let length = u32::from_be_bytes([0, l0, l1, l2]);
        self.remaining = length;
        // The first bit is reserved.
        let stream = u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]);
        Some(Part::Head(FrameHead { length, kind, flags, stream }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes() -> Vec<u8> {
        let settings = [0, 0, 6, kind::SETTINGS, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 2];
        let ack = [0, 0, 0, kind::SETTINGS, 1, 0, 0, 0, 0];
        let data = [0, 0, 2, 0, 1, 0x80, 0, 0, 5, 7, 8];
        [&settings[..], &ack, &data].concat()
    }

    #[test]
    fn frames_are_found_however_the_bytes_arrive() {
        let bytes = bytes();
        for size in 1..=bytes.len() {
            let (mut cursor, mut heads, mut payload) = (FrameCursor::default(), vec![], vec![]);
            for mut chunk in bytes.chunks(size) {
                while let Some(part) = cursor.next(&mut chunk) {
                    match part {
                        Part::Head(head) if size == bytes.len() && head.stream == 0 => {
                            assert!(bytes.windows(HEAD).any(|window| window == head.encode()));
                            heads.push((head.kind, head.length, head.flags, head.stream));
                        }
                        Part::Head(head) => heads.push((head.kind, head.length, head.flags, head.stream)),
                        Part::Payload(bytes) => payload.extend_from_slice(bytes),
                    }
                }
            }
            assert_eq!(heads, [(kind::SETTINGS, 6, 0, 0), (kind::SETTINGS, 0, 1, 0), (0, 2, 1, 5)], "{size}");
            assert_eq!(payload, [0, 3, 0, 0, 0, 2, 7, 8], "{size}");
        }
    }
}
