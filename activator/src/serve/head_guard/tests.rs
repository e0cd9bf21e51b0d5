use std::time::Duration;

use rstest::rstest;

use super::*;

const LIMITS: Limits = Limits {
    connections: 1,
    head_bytes: 300,
    headers: 4,
    request_line: 100,
    head_time: Duration::from_secs(1),
    first_request: Duration::from_secs(1),
    idle: Duration::from_secs(1),
    send: Duration::from_secs(1),
    body_time: Duration::from_secs(1),
    body_rate: 1,
    age: None,
    streams: 1,
    resets: 1,
};

/// Returns what passes of a text that arrives in pieces of this size, and what is rejected.
fn read(text: &[u8], step: usize) -> (Vec<u8>, Option<Rejected>) {
    let (mut reader, shared) = (HeadGuard::new(LIMITS), ConnectionState::default());
    let (mut kept, mut passed) = (vec![], vec![]);
    for part in text.chunks(step) {
        kept.extend_from_slice(part);
        let inspected = reader.read(&kept, &shared);
        passed.extend(kept.drain(..inspected.pass));
        if inspected.rejected.is_some() {
            assert_eq!(reader.read(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", &shared).pass, 0, "it reads on");
            return (passed, inspected.rejected);
        }
    }
    assert_eq!(shared.fault(), None);
    (passed, None)
}

#[rstest]
#[case::plain("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n")]
#[case::leading_lines("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n")]
#[case::fixed("POST / HTTP/1.1\r\nHost:a\r\nContent-Length: 5\r\n\r\n\nx: \nGET / HTTP/1.1\r\nHost:a\r\n\r\n")]
#[case::http_1_0("GET / HTTP/1.0\r\n\r\n")]
#[case::methods("a-lower_case!method /?q HTTP/1.1\r\nHost:\ta \r\n\r\n")]
#[case::forms("GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\nOPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n")]
#[case::same_length_twice(
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\ncontent-length: 2\r\n\r\nabGET / HTTP/1.1\r\nHost: a\r\n\r\n"
)]
#[case::chunked(
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\n\n\r\n\r\n0A ;q=\"z\"\r\n0123456789\r\n0\r\nA: b\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"
)]
#[case::http2("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\n\n: x\n")]
fn valid_messages_pass(#[case] text: &str) {
    for step in 1..=text.len() {
        assert_eq!(read(text.as_bytes(), step), (text.as_bytes().to_vec(), None), "in steps of {step}");
    }
}

#[rstest]
#[case("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n")]
#[case("POST / HTTP/1.1\r\nHost: a\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n")]
#[case("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n")]
#[case("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\n")]
#[case("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 3\r\n\r\n")]
#[case("POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n")]
#[case("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551616\r\n\r\n")]
#[case("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n")]
#[case("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n")]
#[case("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n")]
#[case("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \u{b}chunked\r\n\r\n")]
#[case("GET / HTTP/1.1\nHost: a\r\n\r\n")]
#[case("GET / HTTP/1.1\r\nHost: a\n\r\n")]
#[case("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n")]
#[case("GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n")]
#[case("GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n")]
#[case("GET / HTTP/1.1\r\n Host: a\r\n\r\n")]
#[case("GET / HTTP/1.1\r\nHost : a\r\n\r\n")]
#[case("GET / HTTP/1.1\r\nHo st: a\r\n\r\n")]
#[case("GET / HTTP/1.1\r\nHost\r\n\r\n")]
#[case("GET / HTTP/1.1\r\n: a\r\n\r\n")]
#[case("GET / HTTP/1.1\r\nHost: a\r\nX(: b\r\n\r\n")]
#[case("GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n")]
#[case("GET / HTTP/1.1\r\nHost: a\r\nX: \u{7f}\r\n\r\n")]
#[case("GET / HTTP/1.1\r\n\r\n")]
#[case("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n")]
#[case("GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n")]
#[case("GET  / HTTP/1.1\r\nHost: a\r\n\r\n")]
#[case(" GET / HTTP/1.1\r\nHost: a\r\n\r\n")]
#[case("GET / HTTP/1.1 \r\nHost: a\r\n\r\n")]
#[case("GET /\r\nHost: a\r\n\r\n")]
#[case("GET / http/1.1\r\nHost: a\r\n\r\n")]
#[case("GET / HTTP/1.2\r\nHost: a\r\n\r\n")]
#[case("GET / HTTP/2.0\r\nHost: a\r\n\r\n")]
#[case("G\"T / HTTP/1.1\r\nHost: a\r\n\r\n")]
#[case("GET a HTTP/1.1\r\nHost: a\r\n\r\n")]
#[case("GET * HTTP/1.1\r\nHost: a\r\n\r\n")]
#[case("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n")]
#[case("GET /#x HTTP/1.1\r\nHost: a\r\n\r\n")]
#[case("GET /\t HTTP/1.1\r\nHost: a\r\n\r\n")]
fn nothing_of_an_invalid_head_passes(#[case] text: &str) {
    let before = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    for before in ["", before] {
        let text = [before, text].concat();
        for step in 1..=text.len() {
            let (passed, rejected) = read(text.as_bytes(), step);
            assert!(matches!(rejected, Some(Rejected::Head(Fault::Malformed(_)))), "in steps of {step}: {rejected:?}");
            assert_eq!(passed, before.as_bytes());
        }
    }
}

#[rstest]
#[case("x\r\n")]
#[case("-1\r\n")]
#[case("0x1\r\n")]
#[case("\r\n")]
#[case(" 1\r\n")]
#[case("1 1\r\n")]
#[case("1,\r\n")]
#[case("11112222333344445\r\n")]
#[case("1;a\nb\r\n")]
#[case("1;a\rb\r\n")]
#[case("1;a\0b\r\n")]
#[case("1\n")]
#[case("1\r\nab\r\n")]
#[case("1\r\na\n")]
#[case("0\r\nA : b\r\n\r\n")]
#[case("0\r\nContent-Length: 3\r\n\r\n")]
#[case("0\r\nTransfer-Encoding: chunked\r\n\r\n")]
#[case("0\r\nHost: a\r\n\r\n")]
#[case("0\r\nA: b\n\r\n")]
fn an_invalid_body_is_rejected_where_it_is_malformed(#[case] text: &str) {
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let text = [head, "1\r\nx\r\n", text].concat();
    for step in 1..=text.len() {
        let (passed, rejected) = read(text.as_bytes(), step);
        assert!(matches!(rejected, Some(Rejected::Body(Fault::Malformed(_)))), "in steps of {step}: {rejected:?}");
        assert!(text.as_bytes().starts_with(&passed) && passed.len() >= head.len() + 6);
    }
}

#[test]
fn limits_apply_to_incomplete_heads() {
    let long = "x".repeat(400);
    let cases = [
        (format!("HEAD /{long}"), Fault::TargetTooLong),
        (format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", &long[..90]), Fault::TargetTooLong),
        (format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}"), Fault::TooLarge("the request header is too large")),
        (
            format!("GET / HTTP/1.1\r\nHost: a\r\n{}", "A:b\r\n".repeat(4)),
            Fault::TooLarge("the request has too many headers"),
        ),
    ];
    for (text, fault) in cases {
        for step in 1..=text.len() {
            assert_eq!(read(text.as_bytes(), step), (vec![], Some(Rejected::Head(fault))), "in steps of {step}");
        }
    }
    let fits = format!("GET /{} HTTP/1.1\r\nHost: a\r\n{}\r\n", &long[..86], "A:b\r\n".repeat(3));
    assert_eq!(read(fits.as_bytes(), 7).1, None);
    let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    for rest in [format!("1;{}", long.repeat(11)), format!("0\r\nX: {long}"), format!("0\r\n{}", "A:b\r\n".repeat(5))] {
        let rejected = read(format!("{chunked}{rest}").as_bytes(), 100).1;
        assert!(matches!(rejected, Some(Rejected::Body(Fault::TooLarge(_)))), "{rejected:?}");
    }
}

#[rstest]
#[case(true, b"anything\n: at all\n")]
#[case(false, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")]
fn bytes_after_an_upgrade_request_wait_for_its_response(#[case] tunnel: bool, #[case] rest: &[u8]) {
    let (mut reader, shared) = (HeadGuard::new(LIMITS), ConnectionState::default());
    let head = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: x\r\n\r\n";
    let all = [head.as_slice(), rest].concat();
    assert_eq!(reader.read(&all, &shared), Inspected { pass: head.len(), rejected: None });
    assert_eq!(reader.read(rest, &shared).pass, 0);
    reader.finish_upgrade(tunnel);
    assert_eq!(reader.read(rest, &shared), Inspected { pass: rest.len(), rejected: None });
    // A tunnel stays one; otherwise an invalid request is rejected.
    assert_eq!(reader.read(b"\n", &shared).rejected.is_none(), tunnel);
}

/// Returns the limit of the next read after this text.
fn limit_after(text: &str) -> usize {
    let mut guard = HeadGuard::new(Limits { head_bytes: 1 << 10, headers: 20, ..LIMITS });
    let shared = ConnectionState::default();
    let inspected = guard.read(text.as_bytes(), &shared);
    assert_eq!((inspected.pass, inspected.rejected), (text.len(), None));
    guard.read_limit()
}

#[test]
fn a_read_takes_little_of_the_next_request() {
    assert_eq!(limit_after(""), READ_AHEAD);
    let head = "POST / HTTP/1.1\r\nHost: a\r\n";
    assert_eq!(limit_after(&format!("{head}\r\n")), READ_AHEAD, "the next head");
    assert_eq!(limit_after(&format!("{head}Content-Length: 1000000\r\n\r\nxx")), 999_998 + READ_AHEAD);
    let chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n");
    assert_eq!(limit_after(&chunked), READ_AHEAD);
    assert_eq!(limit_after(&format!("{chunked}10000\r\nxx")), 0xfffe + READ_AHEAD);
    let upgrade = "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";
    assert_eq!(limit_after(upgrade), READ_AHEAD);
    assert_eq!(limit_after("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), usize::MAX);
}
