use super::*;
use std::sync::Arc;

use parking_lot::Mutex;
use rstest::rstest;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

fn frame(process: &str, sequence: u64) -> Frame {
    Frame { version: VERSION, process: process.into(), sequence, at_us: 0, revisions: vec![] }
}

fn line(frame: &Frame) -> String {
    serde_json::to_string(frame).unwrap() + "\n"
}

/// An activator that answers each connection with the next of `answers` and then hangs up.
async fn activator(answers: Vec<String>) -> Source {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for answer in answers {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let length = socket.read(&mut request).await.unwrap();
            assert!(request[..length].starts_with(b"GET /v1/demand HTTP/1.1\r\n"));
            socket.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    Source { address, pod: None }
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\n\r\n{body}")
}

#[tokio::test]
async fn reads_frames_and_comes_again() {
    let first = ok(&format!("{}\n{}", line(&frame("a", 0)), line(&frame("a", 1))));
    let source = activator(vec![first, ok(&line(&frame("b", 0)))]).await;
    let (heard, level) = (Arc::new(Mutex::new(vec![])), Arc::new(Mutex::new(vec![])));
    let reading = tokio::spawn({
        let (heard, level) = (heard.clone(), level.clone());
        follow(source, move |f| heard.lock().push((f.process, f.sequence)), move |change| level.lock().push(change))
    });
    let done = async {
        while heard.lock().len() < 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(20), done).await.unwrap();
    reading.abort();
    assert!(reading.await.unwrap_err().is_cancelled());
    let expected = [("a".to_owned(), 0), ("a".to_owned(), 1), ("b".to_owned(), 0)];
    assert_eq!(*heard.lock(), expected);
    assert_eq!(*level.lock(), [1, -1, 1, -1], "also the one that was cut off by us is counted out");
}

#[rstest]
#[case::status("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_owned(), "404")]
#[case::garbage(ok("{\"version\":\n"), "no frame")]
#[case::version(ok("{\"version\":9,\"process\":\"a\",\"sequence\":0,\"atUs\":0}\n"), "version 9")]
#[case::end(ok(""), "ended")]
#[tokio::test]
async fn says_what_is_wrong(#[case] answer: String, #[case] message: &str) {
    let source = activator(vec![answer]).await;
    let Err(error) = timeout(Duration::from_secs(20), read(&source, |_| {})).await.unwrap();
    assert!(error.to_string().contains(message), "{error}");
}

#[tokio::test]
async fn one_that_is_not_there() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let source = Source { address: listener.local_addr().unwrap(), pod: None };
    drop(listener);
    let Err(error) = read(&source, |_| {}).await;
    assert!(matches!(error, Error::Connect(_)), "{error}");
}

#[tokio::test]
async fn silence_ends_it() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let source = Source { address: listener.local_addr().unwrap(), pod: None };
    let server = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        assert!(socket.read(&mut [0; 1024]).await.unwrap() > 0);
        socket.write_all(ok(&line(&frame("a", 0))).as_bytes()).await.unwrap();
        std::future::pending::<()>().await;
    });
    let begun = tokio::time::Instant::now();
    let Err(error) = read(&source, |_| {}).await;
    assert!(matches!(error, Error::Silence(_)), "{error}");
    assert!(begun.elapsed() >= SILENCE);
    server.abort();
}

#[test]
fn frames_over_any_cut() {
    let text = format!("{}\n \r\n{}{}", line(&frame("a", 0)), line(&frame("a", 1)), line(&frame("b", 0)));
    for cut in 0..text.len() {
        let (mut frames, mut heard) = (Frames::default(), vec![]);
        for part in [&text[..cut], &text[cut..]] {
            frames.take(part.as_bytes(), |f| heard.push((f.process, f.sequence))).unwrap();
        }
        assert_eq!(heard, [("a".to_owned(), 0), ("a".to_owned(), 1), ("b".to_owned(), 0)], "cut at {cut}");
        assert_eq!(frames.held(), 0);
    }
}

#[test]
fn an_endless_line_is_cut_off() {
    let mut frames = Frames::default();
    let chunk = vec![b'x'; 1 << 20];
    for _ in 0..4 {
        frames.take(&chunk, |_| unreachable!()).unwrap();
    }
    assert!(matches!(frames.take(b"x", |_| unreachable!()), Err(Error::TooLong)));
    assert!(frames.held() <= MAX_LINE);
    let whole = [vec![b' '; MAX_LINE + 1], b"\n".to_vec()].concat();
    assert!(matches!(Frames::default().take(&whole, |_| unreachable!()), Err(Error::TooLong)), "all at once");
}
