use futures::FutureExt as _;
use hyper::client::conn::http2::handshake;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::time::advance;

use super::*;

/// No connect succeeds: it is not a pod's address.
const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1);

fn dialer() -> Dialer {
    Dialer::new(false)
}

/// Adds an open connection whose pod allows this many streams.
async fn add(pool: &Arc<Http2Pool>, id: u64, announcement: Announced) {
    let (near, far) = tokio::io::duplex(1 << 16);
    let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(near)).await.unwrap();
    tokio::spawn(async move {
        // The other side stays open.
        let _far = far;
        connection.await.ok();
    });
    pool.state.lock().opening += 1;
    pool.opened(Some(Ok((sender, Arc::new(announcement), id))));
}

fn connections(pool: &Http2Pool) -> Vec<u64> {
    pool.state.lock().connections.iter().map(|shared| shared.id).collect()
}

#[tokio::test(start_paused = true)]
async fn a_request_without_a_stream_is_given_back() {
    let pool = Http2Pool::new();
    add(&pool, 1, Announced::of(1)).await;
    let first = pool.take().unwrap();
    assert!(pool.take().is_none());
    let refused = pool.stream(NOWHERE, &dialer()).await;
    assert!(matches!(refused, Err(DialError::NoStream(_))), "{refused:?}");
    drop(first);
    assert!(pool.take().is_some(), "nothing waits for it any more");
}

#[tokio::test(start_paused = true)]
async fn free_streams_go_to_those_who_wait_in_order() {
    let pool = Http2Pool::new();
    add(&pool, 1, Announced::of(1)).await;
    let first = pool.take().unwrap();
    let (address, dialer) = (NOWHERE, dialer());
    let mut gone = Box::pin(pool.stream(address, &dialer));
    let mut second = Box::pin(pool.stream(address, &dialer));
    let mut third = Box::pin(pool.stream(address, &dialer));
    assert!([&mut gone, &mut second, &mut third].into_iter().all(|waiting| waiting.now_or_never().is_none()));
    drop(gone);
    drop(first);
    let second = second.now_or_never().unwrap().unwrap();
    assert!((&mut third).now_or_never().is_none() && pool.take().is_none(), "nobody overtakes");
    drop(second);
    // A stream that was given to a request that is gone by now is free again.
    drop(third);
    assert!(pool.take().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_failed_connect_fails_those_who_wait() {
    let pool = Http2Pool::new();
    let failed = pool.stream(NOWHERE, &dialer()).await;
    assert!(
        matches!(&failed, Err(DialError::Io(error)) if error.to_string().contains("valid pod address")),
        "{failed:?}"
    );
    assert_eq!(pool.state.lock().opening, 0);
}

#[tokio::test(start_paused = true)]
async fn idle_connections_are_closed_except_the_last() {
    let pool = Http2Pool::new();
    for id in 1..=3 {
        add(&pool, id, Announced::of(1)).await;
    }
    let used = pool.take().unwrap();
    advance(IDLE).await;
    for id in 1..=3 {
        pool.reap(id);
    }
    assert_eq!(connections(&pool), [1], "its stream is in use");
    drop(used);
    advance(IDLE).await;
    pool.reap(1);
    assert_eq!(connections(&pool), [1], "the last one");
}

#[tokio::test(start_paused = true)]
async fn the_first_connection_that_is_not_busy_is_used() {
    let pool = Http2Pool::new();
    for id in 1..=u64::try_from(SPREAD).unwrap() {
        add(&pool, id, Announced::of(250)).await;
    }
    let busy = BUSY as usize;
    let streams: Vec<_> = (0..busy * SPREAD).map(|_| pool.take().unwrap()).collect();
    let ids: Vec<_> = streams.iter().map(|stream| usize::try_from(stream.connection).unwrap()).collect();
    assert!(ids.iter().enumerate().all(|(n, id)| *id == n / busy + 1), "{ids:?}");
    // From here on they are equally busy.
    let more: Vec<_> = (0..SPREAD).map(|_| pool.take().unwrap()).collect();
    assert_eq!(more.iter().map(|stream| stream.connection).collect::<Vec<_>>(), [1, 2, 3, 4]);
}

#[tokio::test(start_paused = true)]
async fn the_number_of_connections_follows_those_who_wait() {
    let pool = Http2Pool::new();
    let mut state = pool.state.lock();
    assert_eq!((state.missing(Instant::now(), 0), state.missing(Instant::now(), 1)), (0, 1));
    for _ in 0..250 {
        state.waiting.push_back(oneshot::channel().0);
    }
    assert_eq!(state.missing(Instant::now(), 0), 3);
    state.opening = 2;
    assert_eq!(state.missing(Instant::now(), 0), 1);
    state.expected = 2;
    assert_eq!(state.missing(Instant::now(), 0), MOST - 2, "never more than allowed");
    state.retry_at = Some(Instant::now() + RETRY);
    assert_eq!(state.missing(Instant::now(), 0), 0);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_goes_away_gets_no_streams() {
    let pool = Http2Pool::new();
    add(&pool, 1, Announced::going_away()).await;
    add(&pool, 2, Announced::of(1)).await;
    assert_eq!(pool.take().unwrap().connection, 2);
}
