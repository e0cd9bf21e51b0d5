//! What a pod announces on an HTTP/2 connection: how many streams it takes, and that it takes no more.
//!
//! The HTTP library obeys both, and reports neither: a request beyond the limit waits in its queue. So the frames are read
//! here too, as they pass.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::Notify,
};

use super::pod_stream::PodSocket;
use crate::http2::{FrameCursor, FrameHead, Part, kind};

const ACK: u8 = 1;
const MAX_CONCURRENT_STREAMS: u16 = 3;
/// Size of a setting: identifier and value.
const SETTING: usize = 6;

/// What a pod announced on a connection.
#[derive(Debug)]
pub(super) struct Announced {
    /// Maximum number of concurrent streams. Without an announcement there is none.
    streams: AtomicU32,
    settled: AtomicBool,
    on_settled: Notify,
    going_away: AtomicBool,
}

/// Reads the frames of a pod.
#[derive(Debug, Default)]
pub(super) struct AnnouncementReader {
    cursor: FrameCursor,
    /// Within the payload of a SETTINGS frame: bytes of a setting.
    setting: Option<([u8; SETTING], usize)>,
}

/// A connection to a pod whose frames are read as they pass.
#[derive(Debug)]
pub(super) struct AnnouncingSocket {
    pub(super) socket: PodSocket,
    pub(super) reader: AnnouncementReader,
    pub(super) announced: Arc<Announced>,
}

impl Default for Announced {
    fn default() -> Self {
        Self {
            streams: AtomicU32::new(u32::MAX),
            settled: AtomicBool::new(false),
            on_settled: Notify::new(),
            going_away: AtomicBool::new(false),
        }
    }
}

#[cfg(test)]
impl Announced {
    pub(super) fn of(streams: u32) -> Self {
        Self { streams: AtomicU32::new(streams), ..Self::default() }
    }

    pub(super) fn going_away() -> Self {
        Self { going_away: AtomicBool::new(true), ..Self::default() }
    }
}

impl Announced {
    /// Returns the maximum number of concurrent streams.
    pub(super) fn streams(&self) -> u32 {
        self.streams.load(Ordering::Relaxed)
    }

    /// Whether the pod takes no new streams on this connection.
    pub(super) fn is_going_away(&self) -> bool {
        self.going_away.load(Ordering::Relaxed)
    }

    /// Waits for the first settings, which a pod sends before anything else. Cancel-safe.
    pub(super) async fn settled(&self) {
        let notified = self.on_settled.notified();
        if !self.settled.load(Ordering::Acquire) {
            notified.await;
        }
    }

    fn settle(&self) {
        self.settled.store(true, Ordering::Release);
        self.on_settled.notify_waiters();
    }
}

impl AnnouncementReader {
    fn read(&mut self, mut bytes: &[u8], announced: &Announced) {
        while let Some(part) = self.cursor.next(&mut bytes) {
            match part {
                Part::Head(FrameHead { kind: kind::SETTINGS, flags, length, .. }) if flags & ACK == 0 => {
                    self.setting = Some(([0; SETTING], 0));
                    if length == 0 {
                        announced.settle();
                    }
                }
                Part::Head(head) => {
                    self.setting = None;
                    if head.kind == kind::GOAWAY {
                        announced.going_away.store(true, Ordering::Relaxed);
                    }
                }
                Part::Payload(payload) => self.read_settings(payload, announced),
            }
        }
    }

    fn read_settings(&mut self, payload: &[u8], announced: &Announced) {
        let Some((setting, filled)) = &mut self.setting else { return };
        for byte in payload {
            setting[*filled] = *byte;
            *filled += 1;
            if *filled == SETTING {
                *filled = 0;
                let [i0, i1, v0, v1, v2, v3] = *setting;
                if u16::from_be_bytes([i0, i1]) == MAX_CONCURRENT_STREAMS {
                    announced.streams.store(u32::from_be_bytes([v0, v1, v2, v3]), Ordering::Relaxed);
                }
            }
        }
        if !self.cursor.in_payload() {
            announced.settle();
        }
    }
}

impl AsyncRead for AnnouncingSocket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { socket, reader, announced } = &mut *self;
        let before = buffer.filled().len();
        let read = Pin::new(socket).poll_read(cx, buffer);
        reader.read(&buffer.filled()[before..], announced);
        read
    }
}

impl AsyncWrite for AnnouncingSocket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn settings(pairs: &[(u16, u32)]) -> Vec<u8> {
        let payload: Vec<u8> =
            pairs.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect();
        [&[0, 0, u8::try_from(payload.len()).unwrap(), kind::SETTINGS, 0, 0, 0, 0, 0], &payload[..]].concat()
    }

    #[test]
    fn settings_and_goaway_are_read_however_they_arrive() {
        let first = settings(&[(4, 7), (MAX_CONCURRENT_STREAMS, 2), (6, 9)]);
        let ack = vec![0, 0, 0, kind::SETTINGS, ACK, 0, 0, 0, 0];
        let data = [vec![0, 0, 8, 0, 0, 0, 0, 0, 1], vec![0, 3, 0, 0, 0, 9, 0, 0]].concat();
        let second = settings(&[(MAX_CONCURRENT_STREAMS, 5)]);
        let goaway = vec![0, 0, 8, kind::GOAWAY, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        for size in [1, 2, 5, 6, 7, 100] {
            let (announced, mut reader) = (Announced::default(), AnnouncementReader::default());
            let mut read = |bytes: &[u8]| bytes.chunks(size).for_each(|chunk| reader.read(chunk, &announced));
            assert_eq!((announced.streams(), announced.settled().now_or_never()), (u32::MAX, None));
            read(&first);
            assert_eq!((announced.streams(), announced.settled().now_or_never()), (2, Some(())));
            read(&[ack.clone(), data.clone()].concat());
            assert_eq!(announced.streams(), 2, "data is no setting");
            read(&second);
            assert_eq!((announced.streams(), announced.is_going_away()), (5, false));
            read(&goaway);
            assert!(announced.is_going_away());
        }
    }

    #[test]
    fn empty_settings_settle() {
        let (announced, mut reader) = (Announced::default(), AnnouncementReader::default());
        reader.read(&settings(&[]), &announced);
        assert_eq!((announced.streams(), announced.settled().now_or_never()), (u32::MAX, Some(())));
    }
}
