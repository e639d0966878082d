//! The life of the process: start, serve until a signal arrives, stop in order.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::access::AccessParts;
use super::listeners::Listeners;
use super::removal::RemovalTasks;
use super::runtimes::RuntimePool;
use super::signals::Signals;
use super::worker::Worker;
use super::{Parts, process};
use crate::application::persist::WorkerStatus;
use crate::config::Config;
use crate::interface::http::{Connections, MeasuredParts, Metrics, Operations, Readiness};
use crate::telemetry::Logging;

/// Part of the shutdown timeout reserved for the worker, the queue and the store.
const CLOSE_ADAPTERS: Duration = Duration::from_secs(2);

/// Time to log that a second signal arrived.
const LAST_LINE: Duration = Duration::from_millis(50);

/// Serves until a signal arrives, then stops everything in order.
///
/// # Errors
/// Returns an error if a part cannot start.
pub(super) async fn serve(
    config: Config,
    http: &RuntimePool,
    bulks: Option<&Handle>,
    logging: &Logging,
) -> anyhow::Result<()> {
    let mut signals = Signals::listen()?;
    process::raise_open_files();
    process::protect_new_files();
    let config = Arc::new(config);
    let (listeners, parts, access) = tokio::select! {
        started = start(Arc::clone(&config)) => started?,
        signal = signals.next() => {
            tracing::info!(signal, "stopped before the start was complete");
            return Ok(());
        }
    };
    let address = listeners.address();
    let role = config.role;
    let queue = parts.queue.health().name;
    let store = parts.repository.health().name;
    tracing::info!(%address, ?role, queue, store, "listening");

    if role.has_worker() && !parts.retention.is_unlimited() {
        tracing::info!(retention = %config.retention, "events older than their retention are deleted");
    }
    let removal = RemovalTasks::start(&parts, role.has_worker());
    let status = Arc::new(WorkerStatus::default());
    let readiness = Readiness::new(
        Arc::clone(&parts.queue),
        Arc::clone(&parts.repository),
        role.has_worker().then(|| Arc::clone(&status)),
        !role.has_api(),
    );
    let readiness = Arc::new(readiness.with_reloads(access.reload.statuses()));
    let (stop_serving, stop) = watch::channel(false);
    let api = role.has_api().then(|| Arc::new(parts.api(&config, stop.clone())));
    let AccessParts { access, tls, reload } = access;
    AccessParts::watch(reload, &access)?;
    let (max, reserve) = process::connection_limit(config.http.max_connections);
    let connections = Arc::new(Connections::new(max, reserve));
    let metrics = Arc::new(Metrics::new(MeasuredParts {
        ingest: api.as_ref().map(|api| Arc::clone(api.ingest.counters())),
        tails: api.as_ref().map(|api| Arc::clone(api.tails.counters())),
        worker: role.has_worker().then(|| Arc::clone(&status)),
        removal: removal.status.clone(),
        queue: Arc::clone(&parts.queue),
        connections: Arc::clone(&connections),
        dropped_log_lines: logging.dropped_lines(),
        access: Arc::clone(&access),
        tls: tls.clone(),
    }));
    let operations = Operations { readiness: Arc::clone(&readiness), metrics };
    let worker = bulks.map(|bulks| parts.worker(&config, status, bulks)).transpose()?;

    let mut serving = listeners.with_limit(connections).serve(
        api,
        operations,
        &access,
        tls.as_ref(),
        http.handles(),
        &stop,
    );
    tokio::select! {
        signal = signals.next() => tracing::info!(signal, "stopping"),
        // Without a signal, the accept loop ends only by a panic.
        _ = serving.join_next() => tracing::error!("the accept loop panicked: stopping"),
    }

    readiness.stop();
    let log = logging.clone();
    tokio::spawn(async move {
        signals.next().await;
        exit_immediately(&log);
    });
    tokio::time::sleep(config.http.shutdown_delay).await;
    stop_serving.send_replace(true);
    shut_down(&parts, serving, worker, config.http.shutdown_timeout).await;
    drop(removal);
    tracing::info!("stopped");
    Ok(())
}

/// Binds the addresses and builds the adapters. Cancelling this may leave a thread
/// behind that builds them.
async fn start(config: Arc<Config>) -> anyhow::Result<(Listeners, Parts, AccessParts)> {
    // Binding first keeps a second process on the same port from touching data.
    let listeners = Listeners::bind(&config).await?;
    // Blocks while a disk or a network file system hangs.
    let build = move || anyhow::Ok((AccessParts::load(&config)?, Parts::build(&config)?));
    let (access, parts) = tokio::task::spawn_blocking(build).await??;
    Ok((listeners, parts, access))
}

/// Waits for the requests in flight, then stops the worker, then closes the queue
/// and the store. Takes up to `timeout`.
async fn shut_down(
    parts: &Parts,
    mut serving: JoinSet<()>,
    worker: Option<Worker>,
    timeout: Duration,
) {
    let deadline = Instant::now() + timeout;
    let requests_deadline = deadline - CLOSE_ADAPTERS.min(timeout);
    let served = async { while serving.join_next().await.is_some() {} };
    if tokio::time::timeout_at(requests_deadline.into(), served).await.is_err() {
        tracing::warn!("requests are still in flight at the shutdown deadline");
    }
    if let Some(worker) = worker {
        worker.shut_down(deadline).await;
    }
    parts.queue.close(deadline).await;
    parts.store.close(deadline).await;
}

#[expect(clippy::exit, reason = "a second signal asks for an immediate exit")]
fn exit_immediately(logging: &Logging) {
    tracing::warn!("received a second signal: exiting immediately");
    logging.flush(LAST_LINE);
    std::process::exit(130);
}
