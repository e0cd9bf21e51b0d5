//! Request smuggling: requests that two servers may read in different ways, and what a pod may see of them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod rig;

use std::sync::Arc;

use http_body_util::BodyExt;
use parking_lot::Mutex;
use rig::{FakePod, Rig, ok, raw_answer, warm};
use serde_json::json;

const HOST: &str = "hello.default.example.com";

/// What reached the pod as a whole request: method, target, body.
type Seen = Arc<Mutex<Vec<(String, String, String)>>>;

async fn noting() -> (FakePod, Seen) {
    let seen = Seen::default();
    let pod = FakePod::start({
        let seen = seen.clone();
        move |request| {
            let seen = seen.clone();
            async move {
                let (parts, body) = request.into_parts();
                if let Ok(body) = body.collect().await {
                    let body = String::from_utf8_lossy(&body.to_bytes()).into_owned();
                    seen.lock().push((parts.method.to_string(), parts.uri.to_string(), body));
                }
                ok("hi")
            }
        }
    })
    .await;
    (pod, seen)
}

/// The statuses of all responses on a connection.
fn statuses(answer: &str) -> Vec<u16> {
    let heads = answer.match_indices("HTTP/1.").filter(|(at, _)| *at == 0 || !answer[..*at].ends_with("upgrade: "));
    heads.filter_map(|(at, _)| answer[at..].split(' ').nth(1)?.parse().ok()).collect()
}

fn request(head: &str) -> String {
    head.replace('|', "\r\n").replace("HOST", &format!("Host: {HOST}"))
}

/// A request that must never be seen, after one that is rejected.
const BEHIND: &str = "GET /smuggled HTTP/1.1|HOST|Connection: close||";

struct Line {
    name: &'static str,
    /// With `|` for a line end, and `HOST` for the header.
    bytes: &'static str,
    statuses: &'static [u16],
    /// Targets of the requests that the pod has seen whole, and their bodies.
    seen: &'static [(&'static str, &'static str)],
}

const fn refused(name: &'static str, bytes: &'static str) -> Line {
    Line { name, bytes, statuses: &[400], seen: &[] }
}

const fn taken(name: &'static str, bytes: &'static str, seen: &'static [(&'static str, &'static str)]) -> Line {
    Line { name, bytes, statuses: &[200], seen }
}

async fn check(rig: &Rig, seen: &Seen, line: &Line) {
    let bytes = request(line.bytes);
    let answer = raw_answer(rig.public, &bytes).await;
    assert_eq!(statuses(&answer), line.statuses, "{}: {bytes:?}: {answer}", line.name);
    let seen: Vec<_> = std::mem::take(&mut *seen.lock()).into_iter().map(|(_, target, body)| (target, body)).collect();
    let seen: Vec<_> = seen.iter().map(|(target, body)| (target.as_str(), body.as_str())).collect();
    assert_eq!(seen, line.seen, "{}: {bytes:?}", line.name);
    if *line.statuses.last().unwrap() == 400 {
        let answer = answer.to_ascii_lowercase();
        assert!(
            answer.contains("application/problem+json") && answer.contains("/bad-request"),
            "{}: {answer}",
            line.name
        );
    }
}

#[tokio::test]
async fn two_lengths() {
    let (pod, seen) = noting().await;
    let rig = warm(&pod, json!({})).await;
    for line in [
        refused("CL.TE", "POST / HTTP/1.1|HOST|Content-Length: 6|Transfer-Encoding: chunked||0||G"),
        refused("TE.CL", "POST / HTTP/1.1|HOST|Transfer-Encoding: chunked|Content-Length: 3||1|A|0||"),
        refused("TE.TE", "POST / HTTP/1.1|HOST|Transfer-Encoding: chunked|Transfer-Encoding: x||0||"),
        refused("TE.TE, twice", "POST / HTTP/1.1|HOST|Transfer-Encoding: chunked|Transfer-Encoding: chunked||0||"),
        refused("TE.TE, listed", "POST / HTTP/1.1|HOST|Transfer-Encoding: chunked, identity||0||"),
        refused("TE, not last", "POST / HTTP/1.1|HOST|Transfer-Encoding: chunked, gzip||0||"),
        refused("TE, not known", "POST / HTTP/1.1|HOST|Transfer-Encoding: xchunked||0||"),
        refused("TE, quoted", "POST / HTTP/1.1|HOST|Transfer-Encoding: \"chunked\"||0||"),
        refused("TE, empty", "POST / HTTP/1.1|HOST|Transfer-Encoding:||0||"),
        refused("TE, space before the colon", "POST / HTTP/1.1|HOST|Transfer-Encoding : chunked||0||"),
        refused("TE, space before the name", "POST / HTTP/1.1|HOST| Transfer-Encoding: chunked||0||"),
        refused("TE, vertical tab", "POST / HTTP/1.1|HOST|Transfer-Encoding: \x0bchunked||0||"),
        refused("TE, folded", "POST / HTTP/1.1|HOST|Transfer-Encoding:| chunked||0||"),
        refused("TE, folded name", "POST / HTTP/1.1|HOST|Transfer-Encoding|: chunked||0||"),
        refused("TE, behind a bare LF", "POST / HTTP/1.1|HOST|X: x\nTransfer-Encoding: chunked|Content-Length: 5||0||"),
        refused("TE, behind a bare CR", "POST / HTTP/1.1|HOST|X: x\rTransfer-Encoding: chunked|Content-Length: 5||0||"),
        refused("TE, with NUL", "POST / HTTP/1.1|HOST|Transfer-Encoding: chunked\0|Content-Length: 5||0||"),
        refused("TE on 1.0", "POST / HTTP/1.0|HOST|Transfer-Encoding: chunked||0||"),
        refused("TE on 1.0, kept alive", "POST / HTTP/1.0|HOST|Connection: keep-alive|Transfer-Encoding: chunked||0||"),
        refused("CL.CL", "POST / HTTP/1.1|HOST|Content-Length: 8|Content-Length: 7||12345678"),
        refused("CL, listed", "POST / HTTP/1.1|HOST|Content-Length: 3, 3||abc"),
        refused("CL, signed", "POST / HTTP/1.1|HOST|Content-Length: +3||abc"),
        refused("CL, negative", "POST / HTTP/1.1|HOST|Content-Length: -3||abc"),
        refused("CL, hexadecimal", "POST / HTTP/1.1|HOST|Content-Length: 0x3||abc"),
        refused("CL, spaced", "POST / HTTP/1.1|HOST|Content-Length: 1 1||abc"),
        refused("CL, too large", "POST / HTTP/1.1|HOST|Content-Length: 18446744073709551617||abc"),
        refused("CL, empty", "POST / HTTP/1.1|HOST|Content-Length:||abc"),
        taken(
            "a tab is white space",
            "POST /a HTTP/1.1|HOST|Connection: close|Transfer-Encoding:\tchunked||1|A|0||",
            &[("/a", "A")],
        ),
        taken(
            "CL.0",
            "POST /a HTTP/1.1|HOST|Connection: close|Content-Length: 26||GET /smuggled HTTP/1.1\r\nX:",
            &[("/a", "GET /smuggled HTTP/1.1\r\nX:")],
        ),
        taken(
            "0.CL",
            "GET /a HTTP/1.1|HOST|Connection: close|Content-Length: 24||GET /smuggled HTTP/1.1||",
            &[("/a", "GET /smuggled HTTP/1.1\r\n")],
        ),
        taken(
            "the same length twice",
            "POST /a HTTP/1.1|HOST|Connection: close|Content-Length: 3|Content-Length: 3||abc",
            &[("/a", "abc")],
        ),
        taken(
            "no header that frames",
            "POST /a HTTP/1.1|HOST|Connection: close|Content_Length: 3|X-Transfer-Encoding: chunked||",
            &[("/a", "")],
        ),
    ] {
        check(&rig, &seen, &line).await;
        if line.statuses == [400] {
            // Nothing that follows is read, whether it arrives at once or later.
            let answer = raw_answer(rig.public, &request(&[line.bytes, BEHIND].concat())).await;
            assert_eq!(statuses(&answer), [400], "{}: {answer}", line.name);
            assert_eq!(*seen.lock(), [], "{}", line.name);
        }
    }
}

#[tokio::test]
async fn lines_and_names() {
    let (pod, seen) = noting().await;
    let rig = warm(&pod, json!({})).await;
    for line in [
        refused("bare LFs", "GET / HTTP/1.1\nHOST\n\n"),
        refused("a bare LF behind the request line", "GET / HTTP/1.1\nHOST||"),
        refused("a bare LF at the end", "GET / HTTP/1.1|HOST|\n"),
        refused("a bare CR in the request line", "GET /\r HTTP/1.1|HOST||"),
        refused("a bare CR in a value", "GET / HTTP/1.1|HOST|X: a\rb||"),
        refused("two CRs", "GET / HTTP/1.1\r|HOST||"),
        refused("a folded value", "GET / HTTP/1.1|HOST|X: a| b||"),
        refused("a folded value by tab", "GET / HTTP/1.1|HOST|X: a|\tb||"),
        refused("space behind the request line", "GET / HTTP/1.1| HOST||"),
        refused("space before the colon", "GET / HTTP/1.1|HOST|X : a||"),
        refused("no colon", "GET / HTTP/1.1|HOST|X||"),
        refused("no name", "GET / HTTP/1.1|HOST|: a||"),
        refused("a name with a slash", "GET / HTTP/1.1|HOST|X/Y: a||"),
        refused("a name with a letter beyond ASCII", "GET / HTTP/1.1|HOST|\u{e4}: a||"),
        refused("NUL in a value", "GET / HTTP/1.1|HOST|X: a\0b||"),
        refused("DEL in a value", "GET / HTTP/1.1|HOST|X: a\x7fb||"),
        refused("BEL in a target", "GET /\x07 HTTP/1.1|HOST||"),
        refused("no host", "GET / HTTP/1.1||"),
        refused("two hosts", "GET / HTTP/1.1|HOST|HOST||"),
        refused("two hosts on 1.0", "GET / HTTP/1.0|HOST|HOST||"),
        refused("an empty host", "GET / HTTP/1.1|Host:||"),
        refused("a host with user information", "GET / HTTP/1.1|Host: a@hello.default.example.com||"),
        refused("a host with a path", "GET / HTTP/1.1|Host: hello.default.example.com/x||"),
        refused("two hosts in one", "GET / HTTP/1.1|Host: hello.default.example.com, other||"),
        refused("another host in the target", "GET http://other.default.example.com/ HTTP/1.1|HOST||"),
        refused("a host in the target alone", "GET http://hello.default.example.com/ HTTP/1.1||"),
        refused("user information in the target", "GET http://a@hello.default.example.com/ HTTP/1.1|HOST||"),
        refused("another scheme", "GET file://hello.default.example.com/ HTTP/1.1|HOST||"),
        refused("no target", "GET HTTP/1.1|HOST||"),
        refused("a host for a target", "GET hello.default.example.com HTTP/1.1|HOST||"),
        refused("a fragment", "GET /a#b HTTP/1.1|HOST||"),
        refused("a target with a space", "GET /a b HTTP/1.1|HOST||"),
        refused("a tab for a space", "GET\t/ HTTP/1.1|HOST||"),
        refused("two spaces", "GET  / HTTP/1.1|HOST||"),
        refused("space at the end", "GET / HTTP/1.1 |HOST||"),
        refused("space at the beginning", " GET / HTTP/1.1|HOST||"),
        refused("HTTP/0.9", "GET /|"),
        refused("a lower-case version", "GET / http/1.1|HOST||"),
        refused("a version to come", "GET / HTTP/1.2|HOST||"),
        refused("HTTP/2 in the wrong place", "GET / HTTP/2.0|HOST||"),
        refused("a version of three digits", "GET / HTTP/1.10|HOST||"),
        refused("a method with a quote", "G'\"T / HTTP/1.1|HOST||"),
        refused("the star for another method", "GET * HTTP/1.1|HOST||"),
        taken("a lower-case method is another method", "get /a HTTP/1.1|HOST|Connection: close||", &[("/a", "")]),
        taken("the whole server", "OPTIONS * HTTP/1.1|HOST|Connection: close||", &[("*", "")]),
        taken(
            "a whole URI",
            "GET http://HELLO.default.example.com:80/a HTTP/1.1|HOST|Connection: close||",
            &[("/a", "")],
        ),
        taken(
            "a dot at the end of the host",
            "GET /a HTTP/1.1|Host: hello.default.example.com.|Connection: close||",
            &[("/a", "")],
        ),
        taken("empty lines first", "||GET /a HTTP/1.1|HOST|Connection: close||", &[("/a", "")]),
        taken("no host on 1.0 but in the target", "GET http://hello.default.example.com/a HTTP/1.0||", &[("/a", "")]),
    ] {
        check(&rig, &seen, &line).await;
    }
}

#[tokio::test]
async fn chunks_and_trailers() {
    let (pod, seen) = noting().await;
    let rig = warm(&pod, json!({})).await;
    const HEAD: &str = "POST /a HTTP/1.1|HOST|Transfer-Encoding: chunked|Connection: close||";
    for (name, body, text) in [
        ("plain", "3|abc|0||", Some("abc")),
        ("upper case and zeros", "00A|0123456789|000||", Some("0123456789")),
        ("extensions", "3;a=b;c=\"d\"|abc|0;e||", Some("abc")),
        ("a trailer", "3|abc|0|X-Sum: 1||", Some("abc")),
        ("a bare LF behind the size", "3\nabc|0||", None),
        ("a bare LF in an extension", "3;a\nGET /smuggled HTTP/1.1|abc|0||", None),
        ("a bare CR in an extension", "3;a\rb|abc|0||", None),
        ("NUL in an extension", "3;a\0b|abc|0||", None),
        ("no digits", ";a|abc|0||", None),
        ("a sign", "+3|abc|0||", None),
        ("0x", "0x3|abc|0||", None),
        ("an underscore", "0_3|abc|0||", None),
        ("space before the size", " 3|abc|0||", None),
        ("two sizes", "3 3|abc|0||", None),
        ("too large", "fffffffffffffffff|abc|0||", None),
        ("shorter than it says", "4|abc|0||", None),
        ("longer than it says", "2|abc|0||", None),
        ("a bare LF behind the data", "3|abc\n0||", None),
        ("another end behind the data", "3|abcXX0||", None),
        ("a length in the trailers", "3|abc|0|Content-Length: 10||", None),
        ("an encoding in the trailers", "3|abc|0|Transfer-Encoding: chunked||", None),
        ("a host in the trailers", "3|abc|0|Host: other||", None),
        ("a folded trailer", "3|abc|0|X: a| b||", None),
        ("a bare LF in the trailers", "3|abc|0|X: a\n|", None),
        ("a request for a trailer", "3|abc|0|GET /smuggled HTTP/1.1|HOST||", None),
    ] {
        let bytes = request(&[HEAD, body].concat());
        let answer = raw_answer(rig.public, &bytes).await;
        let seen: Vec<_> = std::mem::take(&mut *seen.lock());
        match text {
            Some(text) => {
                assert_eq!(statuses(&answer), [200], "{name}: {answer}");
                assert_eq!(seen, [("POST".to_owned(), "/a".to_owned(), text.to_owned())], "{name}");
            }
            None => {
                assert_eq!(statuses(&answer), [400], "{name}: {answer}");
                assert_eq!(seen, [], "{name}");
            }
        }
    }
    // The end of the message was clear: later requests are served.
    check(&rig, &seen, &taken("afterwards", "GET /a HTTP/1.1|HOST|Connection: close||", &[("/a", "")])).await;
    rig.in_flight("hello", 0).await;
}

#[tokio::test]
async fn requests_before_a_rejected_one_are_served_first() {
    let (pod, seen) = noting().await;
    let rig = warm(&pod, json!({})).await;
    for line in [
        Line {
            name: "behind one",
            bytes: "GET /1 HTTP/1.1|HOST||GET /2 HTTP/1.1|HOST|X : y||GET /3 HTTP/1.1|HOST||",
            statuses: &[200, 400],
            seen: &[("/1", "")],
        },
        Line {
            name: "behind two, with bodies",
            bytes: "POST /1 HTTP/1.1|HOST|Content-Length: 3||abcPOST /2 HTTP/1.1|HOST|Transfer-Encoding: chunked||3|abc|0||GET / HTTP/1.1\n\n",
            statuses: &[200, 200, 400],
            seen: &[("/1", "abc"), ("/2", "abc")],
        },
        Line {
            name: "a body that is longer than its length",
            bytes: "POST /1 HTTP/1.1|HOST|Content-Length: 3||abcdGET /2 HTTP/1.1|HOST||",
            statuses: &[200, 200],
            seen: &[("/1", "abc"), ("/2", "")],
        },
    ] {
        let bytes = request(line.bytes).replace(
            "GET /2 HTTP/1.1\r\nHost: hello.default.example.com\r\n\r\n",
            "GET /2 HTTP/1.1\r\nHost: hello.default.example.com\r\nConnection: close\r\n\r\n",
        );
        let answer = raw_answer(rig.public, &bytes).await;
        assert_eq!(statuses(&answer), line.statuses, "{}: {answer}", line.name);
        let seen: Vec<_> =
            std::mem::take(&mut *seen.lock()).into_iter().map(|(_, target, body)| (target, body)).collect();
        let seen: Vec<_> = seen.iter().map(|(target, body)| (target.as_str(), body.as_str())).collect();
        assert_eq!(seen, line.seen, "{}", line.name);
    }
}

#[tokio::test]
async fn a_rejection_matches_its_request() {
    let (pod, seen) = noting().await;
    let rig = warm(&pod, json!({})).await;
    let answer = raw_answer(rig.public, &request("HEAD / HTTP/1.1|HOST|X : y||")).await;
    assert!(answer.starts_with("HTTP/1.1 400") && answer.ends_with("\r\n\r\n"), "{answer}");
    let answer = raw_answer(rig.public, &request("GET / HTTP/1.0|HOST|X : y||")).await;
    assert!(answer.starts_with("HTTP/1.0 400") && answer.ends_with('}'), "{answer}");
    // The header of the placeholder gains a client nothing.
    check(&rig, &seen, &taken("forged", "GET /a HTTP/1.1|HOST|Connection: close|Rouse-Refused: 1||", &[("/a", "")]))
        .await;
}
