//! Everything put together: what runs on every replica, what on the leader, and how it all ends.

use std::sync::Arc;

use anyhow::Context as _;
use futures::future::BoxFuture;
use kube::Client;
use rouse_crds::hosts::ownership::Rules;
use tokio::{
    net::TcpListener,
    sync::{Notify, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{
    admin::{self, Admin},
    args::Args,
    cluster::{
        caches::{Caches, Listener, Scope},
        key::FunctionKey,
    },
    function,
    hosts::{Claims, Names},
    ingress::{self, Keeper, Mode},
    leader::Candidate,
    runtime::{progress::Progress, queue::WorkQueue, startup, worker},
    scaler::{Explainer, Scaler, discovery},
    telemetry::{events::Events, metrics::Metrics},
};

/// Functions that are reconciled at once.
const RECONCILES: usize = 16;

/// Functions that are scaled at once.
const SCALES: usize = 32;

/// What is told of changes: both flows, the shared Ingresses, and who reads the activators.
#[derive(Debug, Default)]
struct Queues {
    reconciler: Arc<WorkQueue<FunctionKey>>,
    scaler: Arc<WorkQueue<FunctionKey>>,
    ingress: Arc<Notify>,
    activators: Arc<Notify>,
}

impl Listener for Queues {
    fn touched(&self, function: &FunctionKey) {
        self.reconciler.add(function.clone());
        self.scaler.add(function.clone());
    }

    fn function_changed(&self) {
        self.ingress.notify_one();
    }

    fn activators_changed(&self) {
        self.activators.notify_one();
    }

    fn ingress_changed(&self) {
        self.ingress.notify_one();
    }
}

/// Runs the operator until `stop`, then ends what is under way within `--shutdown-grace` and releases the Lease.
///
/// # Errors
///
/// If it cannot begin, or must not go on: the leadership was lost.
pub fn run(
    args: Args,
    client: Client,
    metrics: Metrics,
    stop: CancellationToken,
) -> BoxFuture<'static, anyhow::Result<()>> {
    // Boxed, so that all of it is compiled here, and not once more in each program that awaits it.
    Box::pin(run_within(args, client, metrics, stop))
}

async fn run_within(args: Args, client: Client, metrics: Metrics, stop: CancellationToken) -> anyhow::Result<()> {
    let grace = args.shutdown_grace;
    let asked = stop.clone();
    let work = work(args, client, metrics, stop);
    let late = async {
        asked.cancelled().await;
        tokio::time::sleep(grace).await;
    };
    tokio::select! {
        biased;
        result = work => result,
        () = late => {
            tracing::warn!(?grace, "Not everything ended in time; what is left is cut off");
            Ok(())
        }
    }
}

async fn work(args: Args, client: Client, metrics: Metrics, stop: CancellationToken) -> anyhow::Result<()> {
    let admin_socket = TcpListener::bind(args.admin_addr)
        .await
        .with_context(|| format!("cannot listen on --admin-addr {}", args.admin_addr))?;
    let configs = args.watch_config.then(Arc::default);
    let (caches, progress) = (Caches { configs, ..Caches::default() }, Progress::default());
    let explainer = Explainer::default();
    let (counts, copies) = (metrics.clone(), caches.clone());
    let admin = Admin { metrics: counts, progress: progress.clone(), caches: copies, explainer: explainer.clone() };
    // The admin side stays up until the very end, so that a slow end can be watched.
    let mut background = JoinSet::new();
    background.spawn(admin::serve(admin_socket, admin, CancellationToken::new()));
    tracing::info!(address = %args.admin_addr, "Serving the admin port");

    tokio::select! {
        biased;
        () = stop.cancelled() => return Ok(()),
        ready = startup::wait_for_crd(&client) => ready?,
    }
    let queues = Arc::new(Queues::default());
    let (mode, names) = (args.mode(), args.names()?);
    let scope = Scope {
        namespace: args.namespace.clone(),
        activator_service: args.activator_service.clone(),
        ingress: matches!(mode, Mode::Ingress { .. }),
        gateway: matches!(mode, Mode::Gateway(_)),
    };
    let _follow = caches.follow(&client, &scope, &queues);
    tokio::select! {
        biased;
        () = stop.cancelled() => return Ok(()),
        () = caches.synced() => {}
    }
    tracing::info!(functions = caches.functions.keys().len(), "The caches are filled");

    let owner = ingress::own_deployment(&client, &args.namespace, &args.deployment).await?;
    let candidate = Candidate::new(client.clone(), &args.namespace, &args.lease_name, &args.pod_name, owner.clone());
    let (leads, mut leading) = watch::channel(false);
    // Working ends before the Lease is released: until then nobody else may begin.
    let resign = CancellationToken::new();
    let election = candidate.run(&leads, &resign, &progress.leader);
    // What `wait_for` yields locks the channel, so it must be gone before the rule begins; that the sender is gone instead
    // cannot be, for the election borrows it and is polled beside this.
    let elected = async { drop(leading.wait_for(|leads| *leads).await) };
    let rule = async {
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = elected => {
                metrics.leading(true);
                lead(&args, names, mode, owner, &client, &metrics, &caches, &progress, &queues, &explainer, &stop).await;
            }
        }
        resign.cancel();
    };
    // A lost Lease ends the rule in the middle, by dropping it.
    let mut election = std::pin::pin!(election);
    let mut rule = std::pin::pin!(rule);
    tokio::select! {
        biased;
        lost = &mut election => lost.context("this replica must not go on")?,
        () = &mut rule => election.await.context("this replica must not go on")?,
    }
    Ok(())
}

/// Everything that only the leader does, until `stop`.
#[allow(clippy::too_many_arguments, reason = "it is the one place where everything meets")]
async fn lead(
    args: &Args,
    names: Names,
    mode: Mode,
    owner: Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference>,
    client: &Client,
    metrics: &Metrics,
    caches: &Caches,
    progress: &Progress,
    queues: &Queues,
    explainer: &Explainer,
    stop: &CancellationToken,
) {
    let claims = Claims::new(Rules { template: names.hosts.clone(), allowed: args.allowed_hosts.clone() });
    let events = Events::new(client.clone(), &args.pod_name);
    let keeper = Keeper {
        client: client.clone(),
        caches: caches.clone(),
        claims: claims.clone(),
        names: names.clone(),
        mode,
        owner,
        changed: Arc::clone(&queues.ingress),
        reconciler: Arc::clone(&queues.reconciler),
        events: events.clone(),
        metrics: metrics.clone(),
    };
    let scaler = Arc::new(Scaler::new(
        client.clone(),
        caches.clone(),
        events.clone(),
        metrics.clone(),
        Arc::clone(&queues.scaler),
    ));
    let context = Arc::new(function::Context::new(
        client.clone(),
        caches.clone(),
        claims,
        names,
        events,
        metrics.clone(),
        scaler.outcomes(),
    ));
    let _rule = explainer.begin(&scaler);
    let activators = FunctionKey::new(&args.namespace, &args.activator_service);
    let discovery = discovery::run(Arc::clone(&scaler), activators, Arc::clone(&queues.activators), stop.clone());
    let reconciling = worker::run(&queues.reconciler, RECONCILES, stop, &progress.reconciler, |key| {
        function::reconcile(Arc::clone(&context), key)
    });
    let scaling = worker::run(&queues.scaler, SCALES, stop, &progress.scaler, |key| Arc::clone(&scaler).look(key));
    tokio::join!(keeper.run(stop, &progress.ingress), discovery, reconciling, scaling);
}
