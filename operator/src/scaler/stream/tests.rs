use super::*;
use std::sync::Arc;

use parking_lot::Mutex;
use rstest::rstest;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

fn frame(process: &str, sequence: u64) -> Frame {
    Frame { version: VERSION, process: process.into(), sequence, at_us: 0, more: false, revisions: vec![] }
}

fn line(frame: &Frame) -> String {
    serde_json::to_string(frame).unwrap() + "\n"
}

/// An activator that sends the next of `responses` on each connection and then closes it.
async fn activator(responses: Vec<String>) -> Source {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for response in responses {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let length = socket.read(&mut request).await.unwrap();
            assert!(request[..length].starts_with(b"GET /v1/demand HTTP/1.1\r\n"));
            socket.write_all(response.as_bytes()).await.unwrap();
        }
    });
    Source { address, pod: None }
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\n\r\n{body}")
}

#[tokio::test]
async fn reads_frames_and_reconnects() {
    let first = ok(&format!("{}\n{}", line(&frame("a", 0)), line(&frame("a", 1))));
    let source = activator(vec![first, ok(&line(&frame("b", 0)))]).await;
    let (received, level) = (Arc::new(Mutex::new(vec![])), Arc::new(Mutex::new(vec![])));
    let reading = tokio::spawn({
        let (received, level) = (received.clone(), level.clone());
        follow(
            source,
            None,
            move |f| received.lock().push((f.process, f.sequence)),
            move |change| level.lock().push(change),
            |_| {},
        )
    });
    let done = async {
        while received.lock().len() < 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(20), done).await.unwrap();
    reading.abort();
    assert!(reading.await.unwrap_err().is_cancelled());
    let expected = [("a".to_owned(), 0), ("a".to_owned(), 1), ("b".to_owned(), 0)];
    assert_eq!(*received.lock(), expected);
    assert_eq!(*level.lock(), [1, -1, 1, -1], "a cancelled reader is counted too");
}

#[rstest]
#[case::status("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_owned(), "404")]
#[case::garbage(ok("{\"version\":\n"), "invalid frame")]
#[case::version(ok("{\"version\":9,\"process\":\"a\",\"sequence\":0,\"atUs\":0}\n"), "version 9")]
#[case::end(ok(""), "ended")]
#[tokio::test]
async fn errors_name_the_cause(#[case] response: String, #[case] message: &str) {
    let source = activator(vec![response]).await;
    let Err(error) = timeout(Duration::from_secs(20), read(&source, None, |_| {}, |_| {})).await.unwrap();
    assert!(error.to_string().contains(message), "{error}");
}

#[tokio::test]
async fn the_token_is_read_for_each_connection() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let source = Source { address: listener.local_addr().unwrap(), pod: None };
    let file = std::env::temp_dir().join(format!("rouse-token-{}", std::process::id()));
    let heads = tokio::spawn(async move {
        let mut heads = vec![];
        for _ in 0..2 {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let length = socket.read(&mut request).await.unwrap();
            heads.push(String::from_utf8_lossy(&request[..length]).to_lowercase());
            socket.write_all(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        }
        heads
    });
    for token in ["first\n", "second"] {
        std::fs::write(&file, token).unwrap();
        let Err(error) = read(&source, Some(&file), |_| {}, |_| {}).await;
        assert!(matches!(error, Error::Status(StatusCode::UNAUTHORIZED)), "{error}");
    }
    let heads = timeout(Duration::from_secs(20), heads).await.unwrap().unwrap();
    for (head, token) in heads.iter().zip(["first", "second"]) {
        assert!(head.contains(&format!("\r\nauthorization: bearer {token}\r\n")), "{head}");
    }
    std::fs::remove_file(&file).unwrap();
    let Err(error) = read(&source, Some(&file), |_| {}, |_| {}).await;
    assert!(matches!(error, Error::Token(_)), "{error}");
}

#[tokio::test]
async fn an_unreachable_activator_is_an_error() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let source = Source { address: listener.local_addr().unwrap(), pod: None };
    drop(listener);
    let Err(error) = read(&source, None, |_| {}, |_| {}).await;
    assert!(matches!(error, Error::Connect(_)), "{error}");
}

#[tokio::test]
async fn silence_ends_the_stream() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let source = Source { address: listener.local_addr().unwrap(), pod: None };
    let server = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        assert!(socket.read(&mut [0; 1024]).await.unwrap() > 0);
        socket.write_all(ok(&line(&frame("a", 0))).as_bytes()).await.unwrap();
        std::future::pending::<()>().await;
    });
    let start = tokio::time::Instant::now();
    let Err(error) = read(&source, None, |_| {}, |_| {}).await;
    assert!(matches!(error, Error::Timeout(_)), "{error}");
    assert!(start.elapsed() >= READ_TIMEOUT);
    server.abort();
}

#[test]
fn frames_are_read_across_any_split() {
    let text = format!("{}\n \r\n{}{}", line(&frame("a", 0)), line(&frame("a", 1)), line(&frame("b", 0)));
    for split in 0..text.len() {
        let (mut reader, mut read) = (FrameReader::default(), vec![]);
        for chunk in [&text[..split], &text[split..]] {
            reader.read(chunk.as_bytes(), |f| read.push((f.process, f.sequence))).unwrap();
        }
        assert_eq!(read, [("a".to_owned(), 0), ("a".to_owned(), 1), ("b".to_owned(), 0)], "split at {split}");
        assert_eq!(reader.buffered(), 0);
    }
}

#[test]
fn a_line_that_is_too_long_is_an_error() {
    let mut reader = FrameReader::default();
    let chunk = vec![b'x'; 1 << 20];
    for _ in 0..4 {
        reader.read(&chunk, |_| unreachable!()).unwrap();
    }
    assert!(matches!(reader.read(b"x", |_| unreachable!()), Err(Error::LineTooLong)));
    assert!(reader.buffered() <= MAX_LINE);
    let line = [vec![b' '; MAX_LINE + 1], b"\n".to_vec()].concat();
    assert!(matches!(FrameReader::default().read(&line, |_| unreachable!()), Err(Error::LineTooLong)), "in one chunk");
}

/// An activator that sends `head` on one connection and then `more` in a loop, as fast as it is read, with a pause
/// after each. Returns the number of bytes that it could write.
async fn flood(
    head: String,
    more: impl Fn(u64) -> String + Send + 'static,
    pause: Duration,
) -> (Source, Arc<Mutex<u64>>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let source = Source { address: listener.local_addr().unwrap(), pod: None };
    let written = Arc::new(Mutex::new(0));
    let count = written.clone();
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        assert!(socket.read(&mut [0; 1024]).await.unwrap() > 0);
        socket.write_all(head.as_bytes()).await.unwrap();
        for number in 0.. {
            let text = more(number);
            if socket.write_all(text.as_bytes()).await.is_err() {
                return;
            }
            *count.lock() += text.len() as u64;
            tokio::time::sleep(pause).await;
        }
    });
    (source, written)
}

#[tokio::test]
async fn a_line_that_trickles_in_times_out() {
    let start = tokio::time::Instant::now();
    let (source, _) = flood(ok(&line(&frame("a", 0))), |_| "x".into(), Duration::from_millis(20)).await;
    let received = Mutex::new(0);
    let reading = read(&source, None, |_| *received.lock() += 1, |_| {});
    let Err(error) = timeout(Duration::from_secs(30), reading).await.unwrap();
    assert!(matches!(error, Error::Timeout(_)), "{error}");
    assert!(start.elapsed() >= READ_TIMEOUT && *received.lock() == 1);
}

#[tokio::test]
async fn blank_lines_do_not_reset_the_timeout() {
    let (source, _) = flood(ok(""), |_| "\n".into(), Duration::from_millis(20)).await;
    let Err(error) = timeout(Duration::from_secs(30), read(&source, None, |_| {}, |_| {})).await.unwrap();
    assert!(matches!(error, Error::Timeout(_)), "{error}");
}

#[tokio::test]
async fn excess_frames_stay_in_the_socket() {
    let (source, written) = flood(ok(""), |number| line(&frame("a", number)), Duration::ZERO).await;
    let received = Arc::new(Mutex::new(0u64));
    let reading = tokio::spawn({
        let received = received.clone();
        async move { read(&source, None, |_| *received.lock() += 1, |_| {}).await }
    });
    // At full speed, megabytes would be read before the third window.
    let third = async {
        while *received.lock() < 2 * u64::from(MAX_FRAMES) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let start = tokio::time::Instant::now();
    timeout(Duration::from_secs(30), third).await.unwrap();
    assert!(start.elapsed() >= RATE_WINDOW / 2, "{:?}", start.elapsed());
    assert!(!reading.is_finished());
    // The frames of one read are handed on at once, and the kernel buffers the rest.
    let ahead = READ_AHEAD as u64 / line(&frame("a", 0)).len() as u64;
    assert!(*received.lock() <= 4 * (u64::from(MAX_FRAMES) + ahead), "{} of {} bytes", received.lock(), written.lock());
    reading.abort();
}

#[tokio::test]
async fn another_process_on_the_same_connection_ends_the_stream() {
    let source = activator(vec![ok(&format!("{}{}", line(&frame("a", 0)), line(&frame("b", 1))))]).await;
    let (received, faults) = (Mutex::new(0), Mutex::new(vec![]));
    let reading = read(&source, None, |_| *received.lock() += 1, |fault| faults.lock().push(fault));
    let Err(error) = timeout(Duration::from_secs(20), reading).await.unwrap();
    assert!(matches!(error, Error::ProcessChanged), "{error}");
    assert_eq!((*received.lock(), faults.lock().clone()), (1, vec![Fault::Process]));
}
