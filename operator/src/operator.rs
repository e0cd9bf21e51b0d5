//! Composition of the operator: what runs on every replica, what runs on the leader, and shutdown.

use std::sync::Arc;

use anyhow::Context as _;
use futures::future::BoxFuture;
use kube::Client;
use rouse_crds::hosts::ownership::Rules;
use tokio::{
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
    ingress::{self, IngressReconciler, Mode},
    leader::Candidate,
    runtime::{progress::Progress, queue::WorkQueue, startup, worker},
    scaler::{Explainer, Scaler, discovery},
    telemetry::{events::Events, metrics::Metrics},
};

/// Number of Functions that are reconciled concurrently.
const RECONCILES: usize = 16;

/// Number of Functions that are scaled concurrently.
const SCALES: usize = 32;

/// Receivers of cache changes: reconciler, scaler, ingress loop and discovery of activators.
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

/// Runs the operator until `stop`, then finishes running work within `--shutdown-grace` and releases the Lease.
///
/// # Errors
///
/// If startup fails or the leadership is lost.
pub fn run(
    args: Args,
    client: Client,
    metrics: Metrics,
    stop: CancellationToken,
) -> BoxFuture<'static, anyhow::Result<()>> {
    // Boxed, so that it is compiled once here and not in each binary that awaits it.
    Box::pin(run_within(args, client, metrics, stop))
}

async fn run_within(args: Args, client: Client, metrics: Metrics, stop: CancellationToken) -> anyhow::Result<()> {
    let grace = args.shutdown_grace;
    let stopped = stop.clone();
    let work = work(args, client, metrics, stop);
    let deadline = async {
        stopped.cancelled().await;
        tokio::time::sleep(grace).await;
    };
    tokio::select! {
        biased;
        result = work => result,
        () = deadline => {
            tracing::warn!(?grace, "Shutdown deadline passed; cancelling remaining work");
            Ok(())
        }
    }
}

async fn work(args: Args, client: Client, metrics: Metrics, stop: CancellationToken) -> anyhow::Result<()> {
    let admin_socket = admin::bind(args.admin_addr)
        .await
        .with_context(|| format!("failed to listen on --admin-addr {}", args.admin_addr))?;
    let configs = args.watch_config.then(Arc::default);
    let (caches, progress) = (Caches { configs, ..Caches::default() }, Progress::default());
    let explainer = Explainer::default();
    let (counts, copies) = (metrics.clone(), caches.clone());
    let admin = Admin { metrics: counts, progress: progress.clone(), caches: copies, explainer: explainer.clone() };
    // The admin endpoints stay up until the end, so that a slow shutdown can be observed.
    let mut background = JoinSet::new();
    background.spawn(admin::serve(admin_socket, admin, CancellationToken::new()));
    tracing::info!(address = %args.admin_addr, "Listening on the admin port");

    tokio::select! {
        biased;
        () = stop.cancelled() => return Ok(()),
        ready = startup::wait_for_crd(&client) => ready?,
    }
    let queues = Arc::new(Queues::default());
    let (mode, names) = (args.mode(), args.names()?);
    let scope = Scope {
        namespace: args.namespace.clone(),
        activator_service: args.activator_admin_service.clone(),
        ingress: matches!(mode, Mode::Ingress { .. }),
        gateway: matches!(mode, Mode::Gateway(_)),
    };
    let _follow = caches.follow(&client, &scope, &queues);
    tokio::select! {
        biased;
        () = stop.cancelled() => return Ok(()),
        () = caches.synced() => {}
    }
    tracing::info!(functions = caches.functions.keys().len(), "Caches synced");

    let owner = ingress::own_deployment(&client, &args.namespace, &args.deployment).await?;
    let candidate = Candidate::new(client.clone(), &args.namespace, &args.lease_name, &args.pod_name, owner.clone());
    let (leads, mut leading) = watch::channel(false);
    // The work ends before the Lease is released, because another replica may start then.
    let resign = CancellationToken::new();
    let election = candidate.run(&leads, &resign, &progress.leader);
    // The value of `wait_for` locks the channel, so it must be dropped before the work starts. The sender cannot be
    // dropped before, because the election borrows it and is polled concurrently.
    let elected = async { drop(leading.wait_for(|leads| *leads).await) };
    let leadership = async {
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
    // A lost Lease cancels the leader's work by dropping it.
    let mut election = std::pin::pin!(election);
    let mut leadership = std::pin::pin!(leadership);
    tokio::select! {
        biased;
        lost = &mut election => lost.context("lost the leadership")?,
        () = &mut leadership => election.await.context("lost the leadership")?,
    }
    Ok(())
}

/// Runs the leader's work until `stop`.
#[allow(clippy::too_many_arguments, reason = "the one place that composes everything")]
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
    let ingress = IngressReconciler {
        client: client.clone(),
        caches: caches.clone(),
        claims: claims.clone(),
        names: names.clone(),
        mode,
        owner,
        changed: Arc::clone(&queues.ingress),
        functions: Arc::clone(&queues.reconciler),
        events: events.clone(),
        metrics: metrics.clone(),
    };
    let scaler =
        Scaler::new(client.clone(), caches.clone(), events.clone(), metrics.clone(), Arc::clone(&queues.scaler));
    let scaler = Arc::new(scaler.reporting_to(Arc::clone(&queues.reconciler)));
    let mut context = function::Context::new(
        client.clone(),
        caches.clone(),
        claims,
        names,
        events,
        metrics.clone(),
        scaler.outcomes(),
    );
    context.pod_defaults = args.pod_defaults.clone();
    context.max_reached = scaler.max_reached();
    let context = Arc::new(context);
    let _registration = explainer.register(&scaler);
    let activators = FunctionKey::new(&args.namespace, &args.activator_admin_service);
    let token = args.activator_token_file.as_deref().map(Arc::from);
    let changed = Arc::clone(&queues.activators);
    let discovery = discovery::run(Arc::clone(&scaler), activators, token, changed, stop.clone());
    let reconciling = worker::run(&queues.reconciler, RECONCILES, stop, &progress.reconciler, |key| {
        function::reconcile(Arc::clone(&context), key)
    });
    let scaling = worker::run(&queues.scaler, SCALES, stop, &progress.scaler, |key| Arc::clone(&scaler).reconcile(key));
    tokio::join!(ingress.run(stop, &progress.ingress), discovery, reconciling, scaling);
}
