//! Test cases: frames to send, and expected replies.

use super::frames::{BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, frame};

/// Expected end of a connection.
pub(super) enum End {
    /// The client closes with 1000, and the server replies with the same code.
    ByClient,
    /// The server closes with one of these codes (`None`: without a code), on a close frame or a protocol error.
    ByServer(Vec<Option<u16>>),
}

/// One case: bytes to write piece by piece, expected messages, and the expected end.
pub(super) struct Case {
    pub(super) name: String,
    pub(super) pieces: Vec<Vec<u8>>,
    pub(super) replies: Vec<(u8, Vec<u8>)>,
    pub(super) end: End,
}

/// Close code: protocol error.
const ERROR: u16 = 1002;
/// Close code: text is not UTF-8.
const NOT_TEXT: u16 = 1007;
const UTF8: &str = "Hello-µ@ßöäüàá-UTF-8!!";

#[derive(Default)]
struct Cases(Vec<Case>);

impl Cases {
    fn add(&mut self, name: impl Into<String>, pieces: Vec<Vec<u8>>, replies: Vec<(u8, Vec<u8>)>) {
        self.0.push(Case { name: name.into(), pieces, replies, end: End::ByClient });
    }

    fn fails(&mut self, name: impl Into<String>, pieces: Vec<Vec<u8>>, replies: Vec<(u8, Vec<u8>)>, codes: &[u16]) {
        let end = End::ByServer(codes.iter().copied().map(Some).collect());
        self.0.push(Case { name: name.into(), pieces, replies, end });
    }

    fn closes(&mut self, name: impl Into<String>, payload: &[u8], codes: &[Option<u16>]) {
        let pieces = vec![frame(true, 0, CLOSE, payload)];
        self.0.push(Case { name: name.into(), pieces, replies: vec![], end: End::ByServer(codes.to_vec()) });
    }
}

fn unfragmented(opcode: u8, payload: &[u8]) -> Vec<u8> {
    frame(true, 0, opcode, payload)
}

fn chopped(bytes: &[u8], size: usize) -> Vec<Vec<u8>> {
    bytes.chunks(size).map(<[u8]>::to_vec).collect()
}

/// Splits a message into frames with `size` bytes of payload.
fn fragments(opcode: u8, payload: &[u8], size: usize) -> Vec<u8> {
    let last = payload.len().div_ceil(size).max(1) - 1;
    let mut parts = payload.chunks(size).enumerate();
    let part = |(n, part): (usize, &[u8])| frame(n == last, 0, if n == 0 { opcode } else { CONTINUATION }, part);
    parts.by_ref().flat_map(part).collect()
}

fn text(payload: impl AsRef<[u8]>) -> (u8, Vec<u8>) {
    (TEXT, payload.as_ref().to_vec())
}

/// Returns all cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Cases::default();
    messages(&mut cases);
    pings(&mut cases);
    reserved(&mut cases);
    fragmentation(&mut cases);
    utf8(&mut cases);
    closing(&mut cases);
    volume(&mut cases);
    cases.0
}

fn messages(cases: &mut Cases) {
    for (kind, opcode, fill) in [(1, TEXT, b'*'), (2, BINARY, 0xfe)] {
        for (n, length) in [0, 125, 126, 127, 128, 65535, 65536].into_iter().enumerate() {
            let payload = vec![fill; length];
            cases.add(format!("1.{kind}.{}", n + 1), vec![unfragmented(opcode, &payload)], vec![(opcode, payload)]);
        }
        let payload = vec![fill; 65536];
        cases.add(format!("1.{kind}.8"), chopped(&unfragmented(opcode, &payload), 997), vec![(opcode, payload)]);
    }
}

fn pings(cases: &mut Cases) {
    let payloads: [&[u8]; 4] = [b"", b"Hello, world!", &[0x00, 0xff, 0xfe, 0xfd, 0xfc, 0xfb, 0x00, 0xff], &[0xfe; 125]];
    for (n, payload) in payloads.into_iter().enumerate() {
        cases.add(format!("2.{}", n + 1), vec![unfragmented(PING, payload)], vec![(PONG, payload.to_vec())]);
    }
    cases.fails("2.5", vec![unfragmented(PING, &[0xfe; 126])], vec![], &[ERROR]);
    cases.add("2.6", chopped(&unfragmented(PING, &[0xfe; 125]), 1), vec![(PONG, vec![0xfe; 125])]);
    cases.add("2.7", vec![unfragmented(PONG, b"")], vec![]);
    cases.add("2.8", vec![unfragmented(PONG, b"unsolicited")], vec![]);
    cases.add(
        "2.9",
        vec![unfragmented(PONG, b"unsolicited"), unfragmented(PING, b"asked")],
        vec![(PONG, b"asked".to_vec())],
    );
    let ten = || (0..10u8).map(|n| vec![b'p', n]);
    let pongs: Vec<_> = ten().map(|payload| (PONG, payload)).collect();
    cases.add("2.10", vec![ten().flat_map(|p| unfragmented(PING, &p)).collect()], pongs.clone());
    cases.add("2.11", chopped(&ten().flat_map(|p| unfragmented(PING, &p)).collect::<Vec<_>>(), 1), pongs);
}

fn reserved(cases: &mut Cases) {
    for rsv in 1..=7u8 {
        for (n, opcode) in [TEXT, BINARY, PING, CLOSE].into_iter().enumerate() {
            let pieces = vec![unfragmented(TEXT, b"before"), frame(true, rsv, opcode, b"")];
            cases.fails(format!("3.{rsv}.{n}"), pieces, vec![text("before")], &[ERROR]);
        }
    }
    for (n, opcode) in (3..=7u8).chain(11..=15).enumerate() {
        for payload in [&b""[..], b"reserved opcode payload"] {
            let pieces = vec![unfragmented(TEXT, b"before"), unfragmented(opcode, payload)];
            cases.fails(format!("4.{}.{}", n + 1, payload.len()), pieces, vec![text("before")], &[ERROR]);
        }
    }
}

fn fragmentation(cases: &mut Cases) {
    for (name, opcode) in [("5.1", PING), ("5.2", PONG)] {
        let pieces = vec![frame(false, 0, opcode, b"fragment1"), unfragmented(CONTINUATION, b"fragment2")];
        cases.fails(name, pieces, vec![], &[ERROR]);
    }
    let two = [frame(false, 0, TEXT, b"fragment1"), unfragmented(CONTINUATION, b"fragment2")];
    let reply = || vec![text("fragment1fragment2")];
    cases.add("5.3", vec![two.concat()], reply());
    cases.add("5.4", two.to_vec(), reply());
    cases.add("5.5", chopped(&two.concat(), 1), reply());
    let with_ping = [two[0].clone(), unfragmented(PING, b"ping payload"), two[1].clone()];
    let replies = || vec![(PONG, b"ping payload".to_vec()), text("fragment1fragment2")];
    cases.add("5.6", vec![with_ping.concat()], replies());
    cases.add("5.7", with_ping.to_vec(), replies());
    cases.add("5.8", chopped(&with_ping.concat(), 1), replies());
    for (name, fin) in [("5.9", true), ("5.12", false)] {
        let pieces = vec![frame(fin, 0, CONTINUATION, b"no continuation"), unfragmented(TEXT, b"Hello, world!")];
        cases.fails(name, pieces, vec![], &[ERROR]);
    }
    cases.fails("5.18", vec![two[0].clone(), unfragmented(TEXT, b"fragment2")], vec![], &[ERROR]);
    let five: Vec<Vec<u8>> = (1..=5u8)
        .flat_map(|n| {
            let opcode = if n == 1 { TEXT } else { CONTINUATION };
            [frame(n == 5, 0, opcode, &[b'0' + n]), unfragmented(PING, &[n])]
        })
        .collect();
    // The last ping follows the end of the message.
    let mut replies: Vec<_> = (1..=4u8).map(|n| (PONG, vec![n])).collect();
    replies.extend([text("12345"), (PONG, vec![5])]);
    cases.add("5.19", five.clone(), replies.clone());
    cases.add("5.20", chopped(&five.concat(), 1), replies);
}

fn utf8(cases: &mut Cases) {
    cases.add("6.1.1", vec![unfragmented(TEXT, b"")], vec![text("")]);
    let empty = [frame(false, 0, TEXT, b""), frame(false, 0, CONTINUATION, b""), unfragmented(CONTINUATION, b"")];
    cases.add("6.1.2", vec![empty.concat()], vec![text("")]);
    cases.add("6.2.1", vec![unfragmented(TEXT, UTF8.as_bytes())], vec![text(UTF8)]);
    let (first, second) = UTF8.as_bytes().split_at(7);
    cases.add("6.2.2", vec![frame(false, 0, TEXT, first), unfragmented(CONTINUATION, second)], vec![text(UTF8)]);
    cases.add("6.2.3", vec![fragments(TEXT, UTF8.as_bytes(), 1)], vec![text(UTF8)]);
    let invalid: [&[u8]; 9] = [
        b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited",
        b"\xf4\x90\x80\x80",
        b"\xc0\xaf",
        b"\xce",
        b"\xfe",
        b"\xff",
        b"\xed\xbf\xbf",
        b"\xf8\x88\x80\x80\x80",
        b"\x80",
    ];
    for (n, payload) in invalid.into_iter().enumerate() {
        cases.fails(format!("6.3.1.{n}"), vec![unfragmented(TEXT, payload)], vec![], &[NOT_TEXT]);
        cases.fails(format!("6.3.2.{n}"), vec![fragments(TEXT, payload, 1)], vec![], &[NOT_TEXT]);
    }
    for (n, valid) in ["\u{0}", "\u{7f}", "\u{7ff}", "\u{ffff}", "\u{10ffff}", "\u{d7ff}", "\u{e000}", "\u{fffd}"]
        .into_iter()
        .enumerate()
    {
        cases.add(format!("6.5.{n}"), vec![unfragmented(TEXT, valid.as_bytes())], vec![text(valid)]);
    }
}

fn closing(cases: &mut Cases) {
    let with_code = |code: u16, reason: &[u8]| [&code.to_be_bytes(), reason].concat();
    let normal = unfragmented(CLOSE, &with_code(1000, b""));
    let closed = |replies| (replies, End::ByServer(vec![Some(1000)]));
    for (name, pieces, (replies, end)) in [
        ("7.1.1", vec![unfragmented(TEXT, b"Hello World!"), normal.clone()], closed(vec![text("Hello World!")])),
        ("7.1.2", vec![[normal.clone(), normal.clone()].concat()], closed(vec![])),
        ("7.1.3", vec![[normal.clone(), unfragmented(PING, b"")].concat()], closed(vec![])),
        ("7.1.4", vec![[normal.clone(), unfragmented(TEXT, b"too late")].concat()], closed(vec![])),
        (
            "7.1.5",
            vec![[frame(false, 0, TEXT, b"1"), normal.clone(), unfragmented(CONTINUATION, b"2")].concat()],
            closed(vec![]),
        ),
    ] {
        cases.0.push(Case { name: name.to_owned(), pieces, replies, end });
    }
    // Without a code, some servers reply with none, others with 1000.
    cases.closes("7.3.1", b"", &[None, Some(1000)]);
    // Half a code is an error for most servers, and no code for this one.
    cases.closes("7.3.2", b"a", &[Some(ERROR), None]);
    cases.closes("7.3.3", &with_code(1000, b""), &[Some(1000)]);
    cases.closes("7.3.4", &with_code(1000, b"Hello World!"), &[Some(1000)]);
    cases.closes("7.3.5", &with_code(1000, &[b'*'; 123]), &[Some(1000)]);
    cases.closes("7.3.6", &with_code(1000, &[b'*'; 124]), &[Some(ERROR)]);
    cases.closes("7.5.1", &with_code(1000, b"\xed\xa0\x80"), &[Some(ERROR), Some(NOT_TEXT)]);
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999] {
        cases.closes(format!("7.7.{code}"), &with_code(code, b""), &[Some(code)]);
    }
    for code in [0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999, 5000, 65535] {
        cases.closes(format!("7.9.{code}"), &with_code(code, b""), &[Some(ERROR)]);
    }
}

fn volume(cases: &mut Cases) {
    for (n, length) in [1 << 16, 1 << 18, 1 << 20, 1 << 22].into_iter().enumerate() {
        for (kind, opcode) in [(1, TEXT), (2, BINARY)] {
            let payload: Vec<u8> = (0..length).map(|n: u32| b'a' + (n % 26) as u8).collect();
            cases.add(format!("9.{kind}.{}", n + 1), vec![unfragmented(opcode, &payload)], vec![(opcode, payload)]);
        }
    }
    let payload: Vec<u8> = (0..1u32 << 20).map(|n| b'a' + (n % 25) as u8).collect();
    cases.add("9.3.1", vec![fragments(TEXT, &payload, 64)], vec![text(&payload)]);
    cases.add("9.4.1", vec![fragments(BINARY, &payload, 4096)], vec![(BINARY, payload.clone())]);
    cases.add("9.5.1", chopped(&unfragmented(TEXT, &payload), 2048), vec![text(&payload)]);
    let many: Vec<_> = (0..1000u32).map(|n| text(format!("message {n}"))).collect();
    cases.add("9.7.1", vec![many.iter().flat_map(|(_, payload)| unfragmented(TEXT, payload)).collect()], many);
    let payload = vec![b'*'; 65536];
    cases.add("10.1.1", vec![fragments(TEXT, &payload, 1300)], vec![text(&payload)]);
}
