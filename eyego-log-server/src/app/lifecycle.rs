//! The life of the process: start, serve until a signal arrives, stop in order.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::runtimes::RuntimePool;
use super::signals::Signals;
use super::worker::Worker;
use super::{Parts, process};
use crate::application::persist::WorkerStatus;
use crate::config::Config;
use crate::interface::http::{Bound, Metrics, Readiness, api_routes, bind, operations_routes};
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
    let (bound, parts) = tokio::select! {
        started = start(Arc::clone(&config)) => started?,
        signal = signals.next() => {
            tracing::info!(signal, "stopped before the start was complete");
            return Ok(());
        }
    };
    let address = bound.address();
    let role = config.role;
    let queue = parts.queue.health().name;
    let store = parts.repository.health().name;
    tracing::info!(%address, ?role, queue, store, "listening");

    let status = Arc::new(WorkerStatus::default());
    let readiness = Arc::new(Readiness::new(
        Arc::clone(&parts.queue),
        Arc::clone(&parts.repository),
        role.has_worker().then(|| Arc::clone(&status)),
        !role.has_api(),
    ));
    let (stop_serving, stop) = watch::channel(false);
    let api = role.has_api().then(|| Arc::new(parts.api(&config, stop.clone())));
    let metrics = Arc::new(Metrics::new(
        api.as_ref().map(|api| Arc::clone(api.ingest.counters())),
        role.has_worker().then(|| Arc::clone(&status)),
        Arc::clone(&parts.queue),
        logging.dropped_lines(),
    ));
    let runtimes = http.handles().to_vec();
    let routes = match api {
        Some(api) => api_routes(api, Arc::clone(&readiness), metrics),
        None => operations_routes(Arc::clone(&readiness), metrics),
    };
    let worker = bulks.map(|bulks| parts.worker(&config, status, bulks)).transpose()?;

    let mut serving = tokio::spawn(async move { bound.serve(routes, &runtimes, stop).await });
    tokio::select! {
        signal = signals.next() => tracing::info!(signal, "stopping"),
        // Without a signal, the accept loop ends only by a panic.
        _ = &mut serving => tracing::error!("the accept loop panicked: stopping"),
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
    tracing::info!("stopped");
    Ok(())
}

/// Binds the address and builds the adapters. Cancelling this may leave a thread
/// behind that builds them.
async fn start(config: Arc<Config>) -> anyhow::Result<(Bound, Parts)> {
    // Binding first keeps a second process on the same port from touching data.
    let bound = bind(&config.http.listen)
        .await
        .with_context(|| format!("cannot listen on {}", config.http.listen))?;
    // Blocks while a disk or a network file system hangs.
    let parts = tokio::task::spawn_blocking(move || Parts::build(&config)).await??;
    Ok((bound, parts))
}

/// Waits for the requests in flight, then stops the worker, then closes the queue
/// and the store. Takes up to `timeout`.
async fn shut_down(
    parts: &Parts,
    serving: JoinHandle<()>,
    worker: Option<Worker>,
    timeout: Duration,
) {
    let deadline = Instant::now() + timeout;
    let requests_deadline = deadline - CLOSE_ADAPTERS.min(timeout);
    // A completed task must not be polled again.
    if !serving.is_finished()
        && tokio::time::timeout_at(requests_deadline.into(), serving).await.is_err()
    {
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
