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
        follow(
            source,
            move |f| heard.lock().push((f.process, f.sequence)),
            move |change| level.lock().push(change),
            |_| {},
        )
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
    let Err(error) = timeout(Duration::from_secs(20), read(&source, |_| {}, |_| {})).await.unwrap();
    assert!(error.to_string().contains(message), "{error}");
}

#[tokio::test]
async fn one_that_is_not_there() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let source = Source { address: listener.local_addr().unwrap(), pod: None };
    drop(listener);
    let Err(error) = read(&source, |_| {}, |_| {}).await;
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
    let Err(error) = read(&source, |_| {}, |_| {}).await;
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

/// An activator that answers one connection with `head` and then with `more`, over and over, as fast as it is read, each after
/// a pause. Yields how many bytes it could write.
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
async fn a_line_that_trickles_is_cut_off_by_time() {
    let begun = tokio::time::Instant::now();
    let (source, _) = flood(ok(&line(&frame("a", 0))), |_| "x".into(), Duration::from_millis(20)).await;
    let heard = Mutex::new(0);
    let reading = read(&source, |_| *heard.lock() += 1, |_| {});
    let Err(error) = timeout(Duration::from_secs(30), reading).await.unwrap();
    assert!(matches!(error, Error::Silence(_)), "{error}");
    assert!(begun.elapsed() >= SILENCE && *heard.lock() == 1);
}

#[tokio::test]
async fn blank_lines_are_no_sign_of_life() {
    let (source, _) = flood(ok(""), |_| "\n".into(), Duration::from_millis(20)).await;
    let Err(error) = timeout(Duration::from_secs(30), read(&source, |_| {}, |_| {})).await.unwrap();
    assert!(matches!(error, Error::Silence(_)), "{error}");
}

#[tokio::test]
async fn a_flood_waits_in_its_socket() {
    let (source, written) = flood(ok(""), |number| line(&frame("a", number)), Duration::ZERO).await;
    let heard = Arc::new(Mutex::new(0u64));
    let reading = tokio::spawn({
        let heard = heard.clone();
        async move { read(&source, |_| *heard.lock() += 1, |_| {}).await }
    });
    // Read at full speed, megabytes would be through before the third second.
    let third = async {
        while *heard.lock() < 2 * u64::from(MOST_FRAMES) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let begun = tokio::time::Instant::now();
    timeout(Duration::from_secs(30), third).await.unwrap();
    assert!(begun.elapsed() >= FLOOD / 2, "{:?}", begun.elapsed());
    assert!(!reading.is_finished());
    // What one read brings is handed on at once, and the rest is the kernel's: nothing piles up here.
    let ahead = READ_AHEAD as u64 / line(&frame("a", 0)).len() as u64;
    assert!(*heard.lock() <= 4 * (u64::from(MOST_FRAMES) + ahead), "{} of {} bytes", heard.lock(), written.lock());
    reading.abort();
}

#[tokio::test]
async fn another_process_on_the_same_connection_ends_it() {
    let source = activator(vec![ok(&format!("{}{}", line(&frame("a", 0)), line(&frame("b", 1))))]).await;
    let (heard, faults) = (Mutex::new(0), Mutex::new(vec![]));
    let reading = read(&source, |_| *heard.lock() += 1, |fault| faults.lock().push(fault));
    let Err(error) = timeout(Duration::from_secs(20), reading).await.unwrap();
    assert!(matches!(error, Error::Process), "{error}");
    assert_eq!((*heard.lock(), faults.lock().clone()), (1, vec![Fault::Process]));
}
