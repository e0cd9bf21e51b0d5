//! The process: what is started in which order, and how it ends.

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
use tokio_util::sync::CancellationToken;

use crate::{
    admit::Context,
    args::Args,
    demand::Ledger,
    endpoints::Dialer,
    metrics::Metrics,
    proxy::Proxy,
    route::{self, Directory, Side, Synced, Table},
    serve::{Admin, Certificates, Listener, admin_router},
    supervise,
    wake::{ApiScaler, Scaler},
};

/// What is left of the grace when requests that still wait are turned away, so that they hear it.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A connection to the API server on which nothing has come for so long is given up: the other side may be gone without a word.
/// A watch is ended by the API server after less than five minutes, and anything else is answered sooner.
const SILENCE: Duration = Duration::from_secs(310);

/// An activator that listens.
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
}

/// Runs until SIGTERM or SIGINT, and until everything that was under way then has ended.
///
/// # Errors
///
/// If an address cannot be bound, or there is no way to the API server.
pub fn run(args: Args) -> BoxFuture<'static, anyhow::Result<()>> {
    // Boxed, so that all of it is compiled here, and not once more in the program that awaits it.
    Box::pin(run_within(args))
}

async fn run_within(args: Args) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut config = Config::infer().await.context("no configuration for the Kubernetes API was found")?;
    config.read_timeout.get_or_insert(SILENCE);
    let client = Client::try_from(config).context("the configuration for the Kubernetes API cannot be used")?;
    let activator = Activator::bind(args, Arc::new(ApiScaler::new(client.clone()))).await?;
    let directory = activator.directory();
    let (synced, is_synced) = watch::channel(Synced::default());
    let mut watches = tokio::spawn(route::follow(client, directory, synced));
    let mut blind = None;
    let stop = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            // It would go on by what it knew last, for ever. Another process begins anew.
            ended = &mut watches => blind = Some(format!("{ended:?}")),
        }
    };
    let ended = activator.serve(is_synced, stop).await;
    watches.abort();
    match blind {
        Some(how) => ended.and_then(|()| Err(anyhow::anyhow!("the watches ended: {how}"))),
        None => ended,
    }
}

impl Activator {
    /// Binds all addresses.
    ///
    /// # Errors
    ///
    /// If one cannot be bound. A certificate that cannot be used is told in the log, and everything else is served.
    pub async fn bind(args: Args, scaler: Arc<dyn Scaler>) -> anyhow::Result<Self> {
        let limits = args.limits();
        let bound = |what: &'static str, address| move || format!("cannot listen for {what} on {address}");
        let public = Listener::bind(args.public_addr, Side::Public, limits)
            .await
            .with_context(bound("the ingress", args.public_addr))?;
        let cluster = Listener::bind(args.cluster_addr, Side::Cluster, limits)
            .await
            .with_context(bound("the cluster", args.cluster_addr))?;
        let admin =
            TcpListener::bind(args.admin_addr).await.with_context(bound("the admin endpoints", args.admin_addr))?;
        let ledger = Ledger::new();
        let metrics = Metrics::new(ledger.clone());
        let tls = match (args.tls_addr, &args.tls_cert_file, &args.tls_key_file) {
            (Some(address), Some(certificate), Some(key)) => {
                let listener =
                    Listener::bind(address, Side::Public, limits).await.with_context(bound("TLS", address))?;
                let certificates = Certificates::open(certificate.clone(), key.clone(), metrics.clone()).await;
                Some((listener.with_tls(certificates.config()?), certificates))
            }
            _ => None,
        };
        let context = Context::new(scaler, args.bounds(), Dialer::new(args.allow_local_pods), metrics, ledger);
        let table = Arc::new(Table::new(&args.cluster_domain));
        let rules = args.rules()?;
        Ok(Self { args, context, table, rules, public, cluster, tls, admin })
    }

    /// A directory that feeds this activator.
    #[must_use]
    pub fn directory(&self) -> Directory {
        Directory::new(self.context.clone(), self.table.clone(), self.rules.clone())
    }

    /// Where it listens: for the ingress, for the cluster, for admin.
    ///
    /// # Errors
    ///
    /// If the system does not tell.
    pub fn addresses(&self) -> std::io::Result<[std::net::SocketAddr; 3]> {
        Ok([self.public.address()?, self.cluster.address()?, self.admin.local_addr()?])
    }

    /// Where it listens for TLS, if it does.
    ///
    /// # Errors
    ///
    /// If the system does not tell.
    pub fn tls_address(&self) -> std::io::Result<Option<std::net::SocketAddr>> {
        self.tls.as_ref().map(|(listener, _)| listener.address()).transpose()
    }

    /// Serves until `stop` completes, then lets go in order: not ready, still accepting for the delay, no longer accepting,
    /// what is under way ends. The demand stream is told to the last.
    ///
    /// # Errors
    ///
    /// If the admin endpoints fail.
    pub async fn serve(self, synced: watch::Receiver<Synced>, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
        let Self { args, context, table, rules: _, public, cluster, tls, admin } = self;
        let [delay, grace] = [args.shutdown_delay, args.shutdown_grace];
        let (going, stop_accepting, closing) =
            (Arc::new(AtomicBool::new(false)), CancellationToken::new(), CancellationToken::new());
        let proxy = Proxy::new(table, context.metrics.clone(), closing.clone());
        let proxy = Arc::new(proxy.with_https_redirect(args.https_redirect));
        let endpoints = admin_router(Admin {
            metrics: context.metrics.clone(),
            ledger: context.ledger.clone(),
            synced,
            going: going.clone(),
            process: format!("{}/{:x}", args.pod_name, rand::random::<u64>()).into(),
        });
        let mut admin = tokio::spawn(axum::serve(admin, endpoints).into_future());
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
        tracing::info!(version = env!("CARGO_PKG_VERSION"), public = %args.public_addr, cluster = %args.cluster_addr, tls = ?args.tls_addr, admin = %args.admin_addr, "The activator serves");

        tokio::select! {
            () = stop => {}
            ended = &mut admin => return Err(anyhow::anyhow!("the admin endpoints ended: {ended:?}")),
            ended = &mut serving => return Err(anyhow::anyhow!("the listeners ended: {ended:?}")),
        }
        let end = Instant::now() + grace;
        going.store(true, Ordering::Relaxed);
        proxy.leave();
        tracing::info!(?delay, ?grace, "The activator shuts down");
        sleep_until(Instant::now() + delay).await;
        stop_accepting.cancel();
        proxy.tunnels().close();
        let last_words = end.checked_sub(LAST_WORDS).unwrap_or(end);
        let mut drained = std::pin::pin!(async {
            let ended = (&mut serving).await;
            proxy.tunnels().wait().await;
            ended
        });
        if timeout_at(last_words, &mut drained).await.is_err() {
            closing.cancel();
            if timeout_at(end, &mut drained).await.is_err() {
                tracing::warn!("Some requests did not end within the grace and are cut");
            }
        }
        admin.abort();
        tracing::info!("The activator ends");
        Ok(())
    }
}
