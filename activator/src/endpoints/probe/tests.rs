//! Probes: in paused time over a distant network that loses packets, and over loopback sockets.

use std::net::{Ipv4Addr, SocketAddr};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use rstest::rstest;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    time::advance,
};

use rouse_crds::function::Protocol;

use super::*;
use crate::demand::Ledger;

const MS: Duration = Duration::from_millis(1);

#[tokio::test(start_paused = true)]
async fn the_timeout_follows_the_round_trip_time() {
    let mut schedule = ProbeSchedule::new(Instant::now());
    let nothing = RoundTrip::default();
    let mut limits = vec![];
    for _ in 0..6 {
        limits.push(schedule.limit(nothing).as_millis());
        schedule.pause(&ProbeResult::TimedOut);
    }
    assert_eq!(limits, [100, 200, 400, 800, 1600, 2000], "nothing is learnt from silence");

    let mut schedule = ProbeSchedule::new(Instant::now());
    let [mut near, mut far] = [nothing; 2];
    (0..20).for_each(|_| near.measured(MS));
    (0..20).for_each(|_| far.measured(300 * MS));
    assert_eq!(schedule.limit(near), DEFAULT_TIMEOUT, "this one may be farther than most");
    assert!(schedule.limit(far) > 300 * MS);
    schedule.round_trip.measured(MS);
    assert_eq!(schedule.limit(far), 50 * MS, "this one is known to be near");
}

#[tokio::test(start_paused = true)]
async fn the_probe_interval_grows() {
    let mut schedule = ProbeSchedule::new(Instant::now());
    let nobody = ProbeResult::NotYet { listens: false };
    assert_eq!(schedule.pause(&nobody), MIN_INTERVAL);
    assert_eq!(schedule.pause(&ProbeResult::NotYet { listens: true }), NOT_READY_INTERVAL);
    advance(300 * MS).await;
    assert_eq!(schedule.pause(&nobody), MIN_INTERVAL);
    advance(900 * MS).await;
    assert_eq!(schedule.pause(&nobody), 30 * MS);
    advance(10_000 * MS).await;
    assert_eq!((schedule.pause(&nobody), schedule.is_new()), (MAX_INTERVAL, false));
    advance(60_000 * MS).await;
    assert_eq!(schedule.pause(&nobody), SLOW_INTERVAL);
}

/// Time from the pod's listen to the successful probe, over a network with this round-trip time and packet loss.
async fn admission(round_trip: Duration, loss: f64, seed: u64) -> Duration {
    let mut network = StdRng::seed_from_u64(seed);
    let began = Instant::now();
    let listens = began + 200 * MS + network.random_range(0..200) * MS;
    let (mut schedule, mut general) = (ProbeSchedule::new(began), RoundTrip::default());
    loop {
        let limit = schedule.limit(general);
        let lost = network.random_bool(loss) || network.random_bool(loss);
        let tried = if lost || round_trip > limit {
            sleep(limit).await;
            ProbeResult::TimedOut
        } else {
            // The result is decided when the packet arrives, after half a round trip.
            sleep(round_trip / 2).await;
            let listening = Instant::now() >= listens;
            sleep(round_trip / 2).await;
            schedule.round_trip.measured(round_trip);
            general.measured(round_trip);
            if listening {
                return Instant::now() - listens;
            }
            ProbeResult::NotYet { listens: false }
        };
        sleep(schedule.pause(&tried)).await;
    }
}

#[rstest]
#[case::near(MS / 5, 0.0, 12, 12)]
#[case::far(80 * MS, 0.0, 140, 140)]
#[case::far_and_lossy(80 * MS, 0.02, 140, 900)]
#[case::very_far(500 * MS, 0.02, 1100, 5000)]
#[tokio::test(start_paused = true)]
async fn a_listening_pod_is_found_soon(
    #[case] round_trip: Duration,
    #[case] loss: f64,
    #[case] half: u32,
    #[case] all: u32,
) {
    let mut took = vec![];
    for seed in 0..1000 {
        took.push(admission(round_trip, loss, seed).await);
    }
    took.sort_unstable();
    assert!(took[500] <= half * MS, "half of the pods within {:?}", took[500]);
    assert!(took[999] <= all * MS, "all of the pods within {:?}", took[999]);
}

async fn try_once(
    address: SocketAddr,
    protocol: Protocol,
    path: Option<&str>,
    schedule: &mut ProbeSchedule,
) -> ProbeResult {
    let check = path.map_or(ReadinessCheck::Tcp, |path| ReadinessCheck::Http(path.into()));
    prober().probe_once(&Endpoint::new(address, protocol, check), false, schedule).await.unwrap()
}

fn prober() -> Arc<Prober> {
    Prober::new(Dialer::new(true), Metrics::new(Ledger::new()))
}

/// Runs one probe of a pod that listens, and returns whether it is ready.
async fn listening_pod_is_ready(prober: &Prober, check: ReadinessCheck, connect_suffices: bool) -> bool {
    let (_listener, address) = listener().await;
    let endpoint = Endpoint::new(address, Protocol::Http1, check);
    let result = prober.probe_once(&endpoint, connect_suffices, &mut ProbeSchedule::new(Instant::now())).await;
    matches!(result.unwrap(), ProbeResult::Ready)
}

#[tokio::test]
async fn a_connection_is_enough_for_a_tcp_check_or_beside_the_kubelet_s_report() {
    let prober = prober();
    assert!(listening_pod_is_ready(&prober, ReadinessCheck::Tcp, false).await);
    assert!(!listening_pod_is_ready(&prober, ReadinessCheck::Kubelet, false).await);
    assert!(listening_pod_is_ready(&prober, ReadinessCheck::Kubelet, true).await);
    assert!(listening_pod_is_ready(&prober, ReadinessCheck::Http("/".into()), true).await);
}

#[tokio::test(start_paused = true)]
async fn a_connection_proves_nothing_while_the_watch_of_pods_is_stale() {
    let prober = prober();
    prober.pods_watch().record();
    advance(59_000 * MS).await;
    assert!(listening_pod_is_ready(&prober, ReadinessCheck::Tcp, false).await);
    advance(1_000 * MS).await;
    assert!(!listening_pod_is_ready(&prober, ReadinessCheck::Tcp, false).await);
    assert!(!listening_pod_is_ready(&prober, ReadinessCheck::Kubelet, true).await);
    prober.pods_watch().record();
    assert!(listening_pod_is_ready(&prober, ReadinessCheck::Tcp, false).await);
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

#[tokio::test]
async fn a_refused_connect_measures_the_round_trip() {
    let (listener, address) = listener().await;
    let mut schedule = ProbeSchedule::new(Instant::now());
    assert!(matches!(try_once(address, Protocol::Http1, None, &mut schedule).await, ProbeResult::Ready));
    drop(listener);
    let mut schedule = ProbeSchedule::new(Instant::now());
    let refused = try_once(address, Protocol::Http1, None, &mut schedule).await;
    assert!(matches!(refused, ProbeResult::NotYet { listens: false }), "{refused:?}");
    assert!(schedule.round_trip.limit().is_some());
}

#[tokio::test]
async fn a_silent_network_is_probed_sooner_than_the_kernel_retransmits() {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    // A backlog of one connection that nobody accepts; the kernel drops further SYNs.
    socket.listen(0).unwrap();
    socket.set_nonblocking(true).unwrap();
    let listener = TcpListener::from_std(socket.into()).unwrap();
    let address = listener.local_addr().unwrap();
    let first = tokio::net::TcpStream::connect(address).await.unwrap();
    let mut schedule = ProbeSchedule::new(Instant::now());
    let begun = Instant::now();
    let tried = try_once(address, Protocol::Http1, None, &mut schedule).await;
    assert!(matches!(tried, ProbeResult::TimedOut), "{tried:?}");
    assert!(begun.elapsed() >= DEFAULT_TIMEOUT && schedule.round_trip.limit().is_none());
    schedule.pause(&tried);
    drop((first, listener.accept().await.unwrap()));
    assert!(matches!(try_once(address, Protocol::Http1, None, &mut schedule).await, ProbeResult::Ready));
}

#[rstest]
#[case("200 OK", true)]
#[case("302 Found", true)]
#[case("404 Not Found", false)]
#[case("503 Service Unavailable", false)]
#[tokio::test]
async fn the_readiness_check_decides_whether_a_pod_is_ready(#[case] status: &'static str, #[case] ready: bool) {
    let (listener, address) = listener().await;
    let server = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut request = [0; 1024];
        let length = socket.read(&mut request).await.unwrap();
        socket.write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").as_bytes()).await.unwrap();
        String::from_utf8_lossy(&request[..length]).into_owned()
    });
    let tried = try_once(address, Protocol::Http1, Some("/healthz"), &mut ProbeSchedule::new(Instant::now())).await;
    assert!(if ready {
        matches!(tried, ProbeResult::Ready)
    } else {
        matches!(tried, ProbeResult::NotYet { listens: true })
    });
    assert!(server.await.unwrap().starts_with("GET /healthz HTTP/1.1\r\n"));
}

#[tokio::test]
async fn a_pod_that_does_not_respond_to_the_check_is_not_ready() {
    let (listener, address) = listener().await;
    let begun = Instant::now();
    let tried = try_once(address, Protocol::H2c, Some("/healthz"), &mut ProbeSchedule::new(Instant::now())).await;
    assert!(matches!(tried, ProbeResult::NotYet { listens: true }), "{tried:?}");
    assert!(begun.elapsed() >= READINESS_TIMEOUT);
    drop(listener);
}
