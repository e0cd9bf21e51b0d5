//! The real program, under limits of its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::{
    io::Write as _,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use rstest::rstest;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::{Instant, timeout},
};

const GENEROUS: Duration = Duration::from_secs(60);

/// The program, killed on drop.
struct Activator {
    child: Child,
    public: SocketAddr,
    admin: SocketAddr,
    folder: tempfile::TempDir,
}

impl Drop for Activator {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

async fn free_address() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap()
}

impl Activator {
    /// Starts it with limits of `prlimit`, and waits until it is alive. The API server is nowhere.
    async fn start(limit: &str, flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let nowhere = free_address().await;
        let kubeconfig = folder.path().join("kubeconfig");
        write!(
            std::fs::File::create(&kubeconfig).unwrap(),
            "apiVersion: v1\nkind: Config\ncurrent-context: x\nclusters: [{{name: x, cluster: {{server: 'http://{nowhere}'}}}}]\n\
             contexts: [{{name: x, context: {{cluster: x, user: x}}}}]\nusers: [{{name: x, user: {{}}}}]\n",
        )
        .unwrap();
        let [public, cluster, admin] = [free_address().await, free_address().await, free_address().await];
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let child = Command::new("prlimit")
            .args([limit, env!("CARGO_BIN_EXE_rouse-activator"), "--log-format=text"])
            .args([
                format!("--public-addr={public}"),
                format!("--cluster-addr={cluster}"),
                format!("--admin-addr={admin}"),
            ])
            .args(flags)
            .env("KUBECONFIG", &kubeconfig)
            .stdout(Stdio::from(log.try_clone().unwrap()))
            .stderr(Stdio::from(log))
            .spawn()
            .unwrap();
        let activator = Self { child, public, admin, folder };
        let started = Instant::now();
        while livez(admin).await != Some(200) {
            assert!(started.elapsed() < GENEROUS, "it does not start: {}", activator.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        activator
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn proc(&self, file: &str) -> String {
        std::fs::read_to_string(Path::new("/proc").join(self.child.id().to_string()).join(file)).unwrap()
    }

    fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }
}

/// Requests `/livez` on a new connection; `None` without a response.
async fn livez(admin: SocketAddr) -> Option<u16> {
    let exchange = async {
        let mut stream = TcpStream::connect(admin).await.ok()?;
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n").await.ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await.ok()?;
        text.split(' ').nth(1)?.parse().ok()
    };
    timeout(Duration::from_secs(5), exchange).await.ok()?
}

#[tokio::test]
async fn the_limit_of_open_files_is_raised_and_logged() {
    let activator = Activator::start("--nofile=100:700", &[]).await;
    let limits = activator.proc("limits");
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(files.split_whitespace().skip(3).take(2).collect::<Vec<_>>(), ["700", "700"]);
    let log = activator.log();
    assert!(log.contains("Raised the limit of open files") && log.contains("connections=286"), "{log}");
}

/// With so few descriptors connections use up either the slots that follow from them, or the descriptors themselves.
#[rstest]
#[case::slots("--nofile=256:256")]
#[case::descriptors("--nofile=44:44")]
#[tokio::test]
async fn a_flood_of_connections_leaves_the_health_endpoint_alive(#[case] limit: &str) {
    let activator = Activator::start(limit, &[]).await;
    let mut flood = vec![];
    for _ in 0..400 {
        // Those beyond the accept queue are not connected.
        if let Ok(Ok(stream)) = timeout(Duration::from_millis(200), TcpStream::connect(activator.public)).await {
            flood.push(stream);
        }
        if flood.len() % 20 == 0 {
            assert_eq!(livez(activator.admin).await, Some(200), "{} open: {}", activator.open_files(), activator.log());
        }
    }
    assert!(flood.len() > 300, "only {} connected", flood.len());
    for _ in 0..20 {
        assert_eq!(livez(activator.admin).await, Some(200), "{} open: {}", activator.open_files(), activator.log());
    }
    drop(flood);
    let started = Instant::now();
    let mut answered = String::new();
    // Afterwards it serves again: without the caches every host is unknown.
    while !answered.starts_with("HTTP/1.1 404") {
        assert!(started.elapsed() < GENEROUS, "it does not serve again: {answered}");
        let Ok(mut stream) = TcpStream::connect(activator.public).await else { continue };
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.ok();
        answered.clear();
        timeout(GENEROUS, stream.read_to_string(&mut answered)).await.unwrap().ok();
    }
}

#[tokio::test]
async fn without_memory_new_connections_are_refused() {
    // The program alone needs more.
    let activator = Activator::start("--nofile=1024", &["--memory-limit=16Mi"]).await;
    let started = Instant::now();
    let mut response = String::new();
    while !response.starts_with("HTTP/1.1 503") {
        assert!(started.elapsed() < GENEROUS, "{response}: {}", activator.log());
        let mut stream = TcpStream::connect(activator.public).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
        response.clear();
        timeout(GENEROUS, stream.read_to_string(&mut response)).await.unwrap().unwrap();
    }
    assert!(response.contains("retry-after: ") && response.contains("/problems/overloaded"), "{response}");
    assert_eq!(livez(activator.admin).await, Some(200), "the admin port is not affected");
    assert!(activator.log().contains("Memory pressure increased"), "{}", activator.log());
}

#[tokio::test]
async fn the_number_of_threads_is_a_flag() {
    let activator = Activator::start("--nofile=1024", &["--threads=3"]).await;
    let names = std::fs::read_dir(format!("/proc/{}/task", activator.child.id())).unwrap();
    let workers = names.filter(|task| {
        let comm = task.as_ref().unwrap().path().join("comm");
        std::fs::read_to_string(comm).is_ok_and(|name| name.starts_with("rouse-worker"))
    });
    assert_eq!(workers.count(), 3);
}
