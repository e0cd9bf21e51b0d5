//! The process: startup order, and graceful shutdown.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use futures::future::BoxFuture;
use kube::{Client, Config};
use rouse_crds::hosts::ownership;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::{Instant, sleep_until, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    admit::Context,
    args::Args,
    demand::{Ledger, Publisher},
    endpoints::Dialer,
    metrics::Metrics,
    overload::Overload,
    proxy::Proxy,
    resources::{FileLimit, Memory, Sizing},
    route::{self, Directory, Side, Synced, Table},
    serve::{
        Admin, ApiReviewer, Certificates, Connections, Listener, Pressure, Readers, bind, serve_admin, serve_health,
    },
    supervise,
    wake::{ApiScaler, Scaler},
};

/// Time before the end of the grace period at which queued requests are rejected, so that clients receive the response.
const REJECT_BEFORE_END: Duration = Duration::from_secs(1);

/// Read timeout of connections to the API server: the peer may have vanished. The API server ends a watch after less
/// than five minutes, and responds to anything else sooner.
const API_READ_TIMEOUT: Duration = Duration::from_secs(310);

/// An activator with bound listeners.
#[derive(Debug)]
pub struct Activator {
    args: Args,
    context: Arc<Context>,
    table: Arc<Table>,
    rules: ownership::Rules,
    public: Listener,
    cluster: Listener,
    tls: Option<(Listener, Arc<Certificates>)>,
    admin: TcpListener,
    health: Option<TcpListener>,
    readers: Arc<Readers>,
    connections: Arc<Connections>,
    overload: Arc<Overload>,
    memory: Memory,
}

/// Runs until SIGTERM or SIGINT, and until all requests in flight have ended.
///
/// # Errors
///
/// If an address cannot be bound, or the API server cannot be configured.
pub fn run(args: Args) -> BoxFuture<'static, anyhow::Result<()>> {
    // Boxed, so that it is compiled here, and not once more in the program that awaits it.
    Box::pin(run_within(args))
}

async fn run_within(args: Args) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut config = Config::infer().await.context("failed to find a configuration for the Kubernetes API")?;
    config.read_timeout.get_or_insert(API_READ_TIMEOUT);
    let client = Client::try_from(config).context("invalid configuration for the Kubernetes API")?;
    let reader = args.demand_reader.clone();
    let mut activator = Activator::bind(args, Arc::new(ApiScaler::new(client.clone()))).await?;
    match reader {
        Some(user) => activator.allow_readers(Readers::of(user, Arc::new(ApiReviewer::new(client.clone())))),
        None => tracing::warn!("No --demand-reader is set; the demand stream is served on loopback only"),
    }
    let directory = activator.directory();
    let (synced, is_synced) = watch::channel(Synced::default());
    let mut watches = tokio::spawn(route::follow(client, directory, synced));
    let mut watches_ended = None;
    let stop = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            // The process would use its last state for ever; a new process starts afresh.
            ended = &mut watches => watches_ended = Some(format!("{ended:?}")),
        }
    };
    let ended = activator.serve(is_synced, stop).await;
    watches.abort();
    match watches_ended {
        Some(how) => ended.and_then(|()| Err(anyhow::anyhow!("the watches ended unexpectedly: {how}"))),
        None => ended,
    }
}

impl Activator {
    /// Binds all addresses.
    ///
    /// # Errors
    ///
    /// If one cannot be bound. An unusable certificate is logged, and everything else is served.
    pub async fn bind(args: Args, scaler: Arc<dyn Scaler>) -> anyhow::Result<Self> {
        let bound = |what: &'static str, address| move || format!("failed to bind the {what} listener to {address}");
        // First of all: whatever else fails, the process can report it.
        let admin = bind(args.admin_addr).with_context(bound("admin", args.admin_addr))?;
        let health = match args.health_addr {
            Some(address) => Some(bind(address).with_context(bound("health", address))?),
            None => None,
        };
        let (memory, files) = (Memory::find(args.memory_limit), FileLimit::current());
        let sizing = Sizing::derive(memory.limit, files.soft, args.chosen());
        report(&memory, files, &sizing);
        let limits = args.limits(&sizing);
        let ledger = Ledger::new();
        let metrics = Metrics::new(ledger.clone());
        let overload = Arc::<Overload>::default();
        let connections = Connections::new(
            usize::try_from(sizing.connections).unwrap_or(usize::MAX),
            args.max_connections_per_client,
            overload.clone(),
            metrics.clone(),
        );
        let listen = |what, address, side| {
            Listener::bind(address, side, limits, connections.clone()).with_context(bound(what, address))
        };
        let public =
            listen("public", args.public_addr, Side::Public)?.with_trusted_proxies(args.trusted_proxies.clone());
        let cluster = listen("cluster", args.cluster_addr, Side::Cluster)?
            .with_trusted_proxies(args.trusted_proxies_cluster.clone());
        let tls = match (args.tls_addr, &args.tls_cert_file, &args.tls_key_file) {
            (Some(address), Some(certificate), Some(key)) => {
                let listener =
                    listen("TLS", address, Side::Public)?.with_trusted_proxies(args.trusted_proxies_tls.clone());
                let certificates = Certificates::open(certificate.clone(), key.clone(), metrics.clone()).await;
                Some((listener.with_tls(certificates.config()?), certificates))
            }
            _ => None,
        };
        let context = Context::new(scaler, args.bounds(&sizing), Dialer::new(args.allow_local_pods), metrics, ledger);
        let readers = Arc::new(Readers::loopback());
        let table = Arc::new(Table::new(&args.cluster_domain));
        let rules = args.rules()?;
        Ok(Self {
            args,
            context,
            table,
            rules,
            public,
            cluster,
            tls,
            admin,
            health,
            readers,
            connections,
            overload,
            memory,
        })
    }

    /// Creates a directory that feeds this activator.
    #[must_use]
    pub fn directory(&self) -> Directory {
        Directory::new(self.context.clone(), self.table.clone(), self.rules.clone())
    }

    /// Sets who may read the demand stream: by default whoever connects over loopback.
    pub fn allow_readers(&mut self, readers: Readers) {
        self.readers = Arc::new(readers);
    }

    /// Returns the addresses of the public, cluster and admin listeners.
    ///
    /// # Errors
    ///
    /// If the system does not report them.
    pub fn addresses(&self) -> std::io::Result<[std::net::SocketAddr; 3]> {
        Ok([self.public.address()?, self.cluster.address()?, self.admin.local_addr()?])
    }

    /// Returns the address of the TLS listener, if there is one.
    ///
    /// # Errors
    ///
    /// If the system does not report it.
    pub fn tls_address(&self) -> std::io::Result<Option<std::net::SocketAddr>> {
        self.tls.as_ref().map(|(listener, _)| listener.address()).transpose()
    }

    /// Serves until `stop` completes, then shuts down in order: not ready, still accepting for the delay, no longer
    /// accepting, requests in flight end. The demand stream is served to the end.
    ///
    /// # Errors
    ///
    /// If the admin endpoints fail.
    pub async fn serve(self, synced: watch::Receiver<Synced>, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
        let Self {
            args,
            context,
            table,
            rules: _,
            public,
            cluster,
            tls,
            admin,
            health,
            readers,
            connections,
            overload,
            memory,
        } = self;
        let [delay, grace] = [args.shutdown_delay, args.shutdown_grace];
        let (terminating, stop_accepting, closing) =
            (Arc::new(AtomicBool::new(false)), CancellationToken::new(), CancellationToken::new());
        // Until the end, also if this future is dropped.
        let stop_tasks = CancellationToken::new();
        let _stop_tasks = stop_tasks.clone().drop_guard();
        let proxy = Proxy::new(table, context.metrics.clone(), closing.clone());
        let proxy = Arc::new(proxy.with_https_redirect(args.https_redirect));
        let process = format!("{}/{:x}", args.pod_name, rand::random::<u64>()).into();
        let publisher = Publisher::new(context.ledger.clone(), process);
        let endpoints = Admin {
            metrics: context.metrics.clone(),
            publisher: publisher.clone(),
            readers,
            synced,
            pods_watch: context.prober.pods_watch().clone(),
            terminating: terminating.clone(),
        };
        let pressure = Arc::new(Pressure {
            memory,
            overload,
            connections,
            set_queues_closed: {
                let budget = context.budget.clone();
                move |closed| budget.set_closed(closed)
            },
            metrics: context.metrics.clone(),
        });
        let publishing = stop_tasks.clone();
        supervise::spawn("demand", context.metrics.clone(), move || {
            let (publisher, stop) = (publisher.clone(), publishing.clone());
            async move { stop.run_until_cancelled(publisher.run()).await.unwrap_or_default() }
        });
        let watching = stop_tasks.clone();
        supervise::spawn("pressure", context.metrics.clone(), move || {
            let (pressure, stop) = (pressure.clone(), watching.clone());
            async move { stop.run_until_cancelled(pressure.run()).await.unwrap_or_default() }
        });
        let _health =
            health.map(|health| AbortOnDropHandle::new(tokio::spawn(serve_health(health, endpoints.clone()))));
        let mut admin = AbortOnDropHandle::new(tokio::spawn(serve_admin(admin, endpoints)));
        let mut serving = tokio::spawn({
            let (proxy, stop) = (proxy.clone(), stop_accepting.clone());
            let (tls, certificates) = tls.unzip();
            if let Some(certificates) = certificates {
                let stop = stop.clone();
                supervise::spawn("certificates", context.metrics.clone(), move || {
                    let (certificates, stop) = (certificates.clone(), stop.clone());
                    async move { stop.run_until_cancelled(certificates.follow()).await.unwrap_or_default() }
                });
            }
            async move {
                let by_tls = async {
                    if let Some(tls) = tls {
                        tls.serve(proxy.clone(), stop.clone()).await;
                    }
                };
                tokio::join!(
                    public.serve(proxy.clone(), stop.clone()),
                    cluster.serve(proxy.clone(), stop.clone()),
                    by_tls
                )
            }
        });
        tracing::info!(version = env!("CARGO_PKG_VERSION"), public = %args.public_addr, cluster = %args.cluster_addr, tls = ?args.tls_addr, admin = %args.admin_addr, "Activator started");

        tokio::select! {
            () = stop => {}
            ended = &mut admin => return Err(anyhow::anyhow!("the admin endpoints ended unexpectedly: {ended:?}")),
            ended = &mut serving => return Err(anyhow::anyhow!("the listeners ended unexpectedly: {ended:?}")),
        }
        let end = Instant::now() + grace;
        terminating.store(true, Ordering::Relaxed);
        proxy.start_draining();
        tracing::info!(?delay, ?grace, "Shutting down");
        sleep_until(Instant::now() + delay).await;
        stop_accepting.cancel();
        proxy.tunnels().close();
        let reject_at = end.checked_sub(REJECT_BEFORE_END).unwrap_or(end);
        let mut drained = std::pin::pin!(async {
            let ended = (&mut serving).await;
            proxy.tunnels().wait().await;
            ended
        });
        if timeout_at(reject_at, &mut drained).await.is_err() {
            closing.cancel();
            if timeout_at(end, &mut drained).await.is_err() {
                tracing::warn!("Shutdown grace period ended; aborting remaining requests");
            }
        }
        drop(admin);
        tracing::info!("Activator stopped");
        Ok(())
    }
}

/// Logs the limits that this process works with, and which of them exceed its memory.
fn report(memory: &Memory, files: FileLimit, sizing: &Sizing) {
    let Sizing { connections, queued_requests, namespace_requests, queued_bytes, namespace_bytes } = *sizing;
    tracing::info!(
        memory_limit = memory.limit,
        memory_limit_from = %memory.source,
        open_files = files.soft,
        connections,
        queued_requests,
        queued_requests_per_namespace = namespace_requests,
        queued_bytes,
        queued_bytes_per_namespace = namespace_bytes,
        "Limits of this process"
    );
    let needed = sizing.memory(memory.limit);
    if needed > memory.limit {
        tracing::warn!(
            needed,
            memory_limit = memory.limit,
            "The configured limits need more memory than there is; requests may be rejected before the limits are reached"
        );
    }
}
