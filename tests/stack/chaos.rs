//! The fault injector: a whole stack under load, a seeded plan of faults, and an oracle that
//! afterwards checks that each acknowledged event is stored exactly once.
//!
//! `cargo run --release -p eyego-log-tests --bin chaos -- --events 1000000 --seed 7` runs it.
//! `cases/chaos.rs` runs a short one. [`Scenario`] uses the callers and the oracle without the plan.

mod ack_log;
mod aged;
mod callers;
mod deployment;
mod eraser;
mod event;
mod faults;
mod journal;
mod oracle;
mod plan;
mod poison;
mod random;
mod recovery;
mod scenario;
mod store;
mod topic;
mod violations;

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mongodb::bson::{Document, doc};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

pub use journal::Journal;
pub use plan::{Fault, Part, Plan, Step};
pub use scenario::{KafkaTarget, Scenario, Target};
pub use violations::Violations;

use ack_log::AckLog;
use aged::{AgedEvents, Ager};
use callers::{Traffic, poison_for};
use deployment::Deployment;
use eraser::{ErasedUsers, Eraser};
use faults::Faults;
use oracle::Oracle;
use poison::Poisoner;
use store::Reader;

/// Many, because most of them wait during an outage.
const CALLERS: u64 = 64;
/// The session timeout of the consumer group, and a second.
const SETTLE: Duration = Duration::from_secs(11);
/// The time for allocators and connection pools to release what they no longer need.
const QUIET: Duration = Duration::from_secs(10);
const REPORT_EVERY: Duration = Duration::from_secs(10);

/// What to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// The number of events to send.
    pub events: u64,
    /// The random seed of the plan and of the events.
    pub seed: u64,
    /// The most events per second. `None`: no limit.
    pub rate: Option<u64>,
    /// Whether the APIs have a spool. It is a small one.
    pub has_spool: bool,
}

/// Runs the fault injector and returns the violations that it found.
///
/// # Errors
/// Returns an error if the stack does not start or does not recover, or the store cannot be read.
/// The run has no result then.
pub async fn run(options: &Options, journal: &Arc<Journal>) -> Result<Violations> {
    journal.note(format!("{options:?}"));
    let deployment = Arc::new(Deployment::start(options.has_spool).await?);
    let violations = run_on(&deployment, options, journal).await;
    if !violations.as_ref().is_ok_and(Violations::is_empty) {
        let dir = deployment.keep_logs(options.seed)?;
        journal.note(format!("the servers' logs are in {}", dir.display()));
    }
    violations
}

async fn run_on(
    deployment: &Arc<Deployment>,
    options: &Options,
    journal: &Arc<Journal>,
) -> Result<Violations> {
    let poison = poison_for(options.events);
    let ack_log = Arc::new(AckLog::new(options.seed, options.events, poison));
    let (erased, aged) = (ErasedUsers::default(), AgedEvents::default());
    let before = recovery::usage(deployment)?;
    journal.note("everything is ready");

    let began = Instant::now();
    send_under_faults(deployment, options, &ack_log, (&erased, &aged), journal).await?;
    let elapsed = began.elapsed().as_secs_f64();
    deployment.ready().await.context("after the last fault")?;
    journal.note(format!("all sent and repaired after {elapsed:.0} s: {}", counts(&ack_log)));

    sleep_until(deployment.last_repair() + SETTLE).await;
    let (spooled, lag) = (recovery::spooled(deployment).await?, recovery::lag(deployment).await?);
    journal.note(format!(
        "{SETTLE:?} after the last fault: {spooled} records in a spool, {lag} not committed"
    ));
    let timeout = Duration::from_secs(60 + options.events / 1_000);
    recovery::drained(deployment, timeout).await?;
    let (mut probes, slowest) = recovery::probe(deployment, &ack_log).await?;
    journal.note(format!("{} fresh events, the slowest stored in {slowest:?}", probes.len()));
    sleep(QUIET).await;
    for line in recovery::released(deployment, &before, &ack_log, &mut probes).await? {
        journal.note(line);
    }
    probes.append(&mut deployment.probes.lock().unwrap_or_else(PoisonError::into_inner));
    Ager::new(deployment, options.seed, &aged)?.wait_until_gone().await?;
    journal.note(format!("retention: {}", aged.counts()));
    Eraser::new(deployment, options.seed, &erased)?.bring_back(deployment).await?;
    let (users, events) = erased.counts();
    journal.note(format!("{users} users are erased, {events} of their events must be gone"));
    let mut violations = compare(deployment, &ack_log, (&erased, &aged), probes, journal).await?;
    violations.extend(ack_log.violations());
    for (fault, count) in journal.faults() {
        journal.note(format!("{count:4} times: {fault}"));
    }
    if violations.is_empty() {
        journal.note("verdict: clean");
    } else {
        journal.note(format!("verdict: NOT CLEAN\n{violations}"));
    }
    Ok(violations)
}

/// Sends the events while faults happen, until everything is sent and the last fault is repaired.
async fn send_under_faults(
    deployment: &Arc<Deployment>,
    options: &Options,
    ack_log: &Arc<AckLog>,
    (erased, aged): (&ErasedUsers, &AgedEvents),
    journal: &Arc<Journal>,
) -> Result<()> {
    let (over, is_over) = watch::channel(false);
    let faults = Faults::new(
        Arc::clone(deployment),
        Arc::clone(journal),
        Arc::clone(ack_log),
        is_over.clone(),
    );
    let poisoner = Poisoner::new(deployment.kafka.bootstrap(), &deployment.names.topic)?;
    let traffic = Traffic {
        apis: deployment.api_urls(),
        token: Some(deployment.token.clone()),
        callers: CALLERS,
        rate: options.rate,
        poisoner: Some(poisoner),
        gate: Arc::clone(&deployment.gate),
        ack_log: Arc::clone(ack_log),
    };
    let eraser = Eraser::new(deployment, options.seed, erased)?;
    let ager = Ager::new(deployment, options.seed, aged)?;
    let removing = async {
        tokio::join!(eraser.run(is_over.clone()), ager.run(is_over.clone()));
        Ok(())
    };
    let reporting = tokio::spawn(report(Arc::clone(ack_log), Arc::clone(journal), is_over.clone()));
    let sending = async {
        let sent = traffic.run().await;
        over.send_replace(true);
        sent
    };
    tokio::try_join!(sending, faults.run(), removing)?;
    reporting.await.context("the report panicked")
}

async fn report(ack_log: Arc<AckLog>, journal: Arc<Journal>, mut is_over: watch::Receiver<bool>) {
    while tokio::time::timeout(REPORT_EVERY, is_over.wait_for(|over| *over)).await.is_err() {
        journal.note(counts(&ack_log));
    }
}

fn counts(ack_log: &AckLog) -> String {
    let counts = &ack_log.counts;
    format!(
        "{} of {} acknowledged, {} given up; {} requests: {} times 503, {} times 207, \
         {} without a response",
        counts.acknowledged.load(Relaxed),
        ack_log.events(),
        counts.given_up.load(Relaxed),
        counts.requests.load(Relaxed),
        counts.unavailable.load(Relaxed),
        counts.partial.load(Relaxed),
        counts.broken.load(Relaxed)
    )
}

/// Reads everything that is stored and compares it with the ack log.
async fn compare(
    deployment: &Deployment,
    ack_log: &AckLog,
    (erased, aged): (&ErasedUsers, &AgedEvents),
    probes: Vec<String>,
    journal: &Journal,
) -> Result<Violations> {
    let api = deployment.apis.first().context("a deployment has an API")?;
    let mut oracle = Oracle::new(ack_log, probes).with_erased(erased).with_aged(aged);
    Reader::new(api.server.base_url(), Some(&deployment.token))?.show(&mut oracle).await?;
    let (found, mut violations) = oracle.finish();
    journal.note(format!("{found:?}"));
    // The oracle cannot see logs that the API does not return.
    let client = mongodb::Client::with_uri_str(deployment.mongo.uri()).await?;
    let database = client.database(&deployment.names.database);
    let stored = database.collection::<Document>("logs").count_documents(doc! {}).await?;
    if stored != found.logs {
        let shown = found.logs;
        violations.add(format!("the collection has {stored} logs, the API returned {shown}"));
    }
    ensure!(found.logs > 0, "nothing is stored");
    Ok(violations)
}
