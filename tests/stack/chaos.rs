//! The fault injector: a whole stack under load, a seeded plan of what happens to it, and an oracle
//! that afterwards looks for each acknowledged event.
//!
//! `cargo run --release -p eyego-log-tests --bin chaos -- --events 1000000 --seed 7` runs it;
//! `cases/chaos.rs` runs a short one.

mod callers;
mod calm;
mod complaints;
mod drill;
mod event;
mod faults;
mod journal;
mod judge;
mod ledger;
mod plan;
mod poison;
mod random;
mod store;
mod world;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mongodb::bson::{Document, doc};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

pub use complaints::Complaints;
pub use drill::{Drill, Target};
pub use journal::Journal;
pub use plan::{Fault, Part, Plan, Step};

use callers::{Traffic, poison_of};
use faults::Faults;
use judge::Judge;
use ledger::Ledger;
use poison::Poisoner;
use store::Reader;
use world::World;

/// Many: most of them wait for a part that is away.
const CALLERS: u64 = 64;
/// The group's session, and a second.
const SETTLE: Duration = Duration::from_secs(11);
/// In which allocators and pools give back what they no longer need.
const QUIET: Duration = Duration::from_secs(10);
const REPORT_EVERY: Duration = Duration::from_secs(10);

/// What to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// How many events are sent.
    pub events: u64,
    /// Decides what happens and what is sent.
    pub seed: u64,
    /// Events in a second at most. None: as many as are taken.
    pub rate: Option<u64>,
    /// Whether the apis have a spool, a small one.
    pub has_spool: bool,
}

/// Runs it, and answers what is to be complained of: nothing, if all is well.
///
/// # Errors
/// The stack does not start or does not recover, or the store cannot be read: there is no verdict.
pub async fn run(options: &Options, journal: &Arc<Journal>) -> Result<Complaints> {
    journal.say(format!("{options:?}"));
    let world = Arc::new(World::start(options.has_spool).await?);
    let complaints = in_world(options, &world, journal).await;
    if !complaints.as_ref().is_ok_and(Complaints::is_empty) {
        let dir = world.keep_logs(options.seed)?;
        journal.say(format!("the servers' logs are kept in {}", dir.display()));
    }
    complaints
}

async fn in_world(
    options: &Options,
    world: &Arc<World>,
    journal: &Arc<Journal>,
) -> Result<Complaints> {
    let ledger = Arc::new(Ledger::new(options.seed, options.events, poison_of(options.events)));
    let before = calm::usage(world)?;
    journal.say("everything is ready");

    let began = Instant::now();
    under_fire(options, world, &ledger, journal).await?;
    let elapsed = began.elapsed().as_secs_f64();
    world.ready().await.context("after the last fault")?;
    journal.say(format!("all is sent and mended after {elapsed:.0} s: {}", counts(&ledger)));

    sleep_until(world.last_mended() + SETTLE).await;
    let (waiting, behind) = (calm::spooled(world).await?, calm::lag(world).await?);
    journal.say(format!(
        "{SETTLE:?} after the last fault {waiting} records wait in a spool, {behind} are not committed"
    ));
    let patience = Duration::from_secs(60 + options.events / 1_000);
    calm::drained(world, patience).await?;
    let (mut probes, slowest) = calm::probe(world, &ledger).await?;
    journal.say(format!("{} fresh events, the slowest stored after {slowest:?}", probes.len()));
    sleep(QUIET).await;
    for line in calm::released(world, &before, &ledger, &mut probes).await? {
        journal.say(line);
    }
    let mut complaints = judge(world, &ledger, probes, journal).await?;
    complaints.extend(ledger.complaints());
    for (what, count) in journal.faults() {
        journal.say(format!("{count:4} times: {what}"));
    }
    if complaints.is_empty() {
        journal.say("verdict: clean");
    } else {
        journal.say(format!("verdict: NOT CLEAN\n{complaints}"));
    }
    Ok(complaints)
}

/// Load and faults, until everything is sent and the last fault is mended.
async fn under_fire(
    options: &Options,
    world: &Arc<World>,
    ledger: &Arc<Ledger>,
    journal: &Arc<Journal>,
) -> Result<()> {
    let (over, is_over) = watch::channel(false);
    let faults =
        Faults::new(Arc::clone(world), Arc::clone(journal), Arc::clone(ledger), is_over.clone());
    let traffic = Traffic {
        apis: world.api_urls(),
        callers: CALLERS,
        rate: options.rate,
        poisoner: Poisoner::new(world.kafka.bootstrap(), &world.names.topic)?,
        ledger: Arc::clone(ledger),
    };
    let reporting = tokio::spawn(report(Arc::clone(ledger), Arc::clone(journal), is_over));
    let sending = async {
        let sent = traffic.run().await;
        over.send_replace(true);
        sent
    };
    tokio::try_join!(sending, faults.run())?;
    reporting.await.context("the report panicked")
}

async fn report(ledger: Arc<Ledger>, journal: Arc<Journal>, mut is_over: watch::Receiver<bool>) {
    while tokio::time::timeout(REPORT_EVERY, is_over.wait_for(|over| *over)).await.is_err() {
        journal.say(counts(&ledger));
    }
}

fn counts(ledger: &Ledger) -> String {
    let counts = &ledger.counts;
    format!(
        "{} of {} acknowledged, {} given up; {} requests: {} times 503, {} times 207, \
         {} without an answer",
        counts.acknowledged.load(Relaxed),
        ledger.events(),
        counts.given_up.load(Relaxed),
        counts.requests.load(Relaxed),
        counts.unavailable.load(Relaxed),
        counts.partly.load(Relaxed),
        counts.broken.load(Relaxed)
    )
}

/// Reads everything and says what is wrong with it.
async fn judge(
    world: &World,
    ledger: &Ledger,
    probes: Vec<String>,
    journal: &Journal,
) -> Result<Complaints> {
    let api = world.apis.first().context("there is an api")?;
    let mut judge = Judge::new(ledger, probes);
    Reader::new(api.server.base_url())?.show(&mut judge).await?;
    let (found, mut complaints) = judge.verdict();
    journal.say(format!("{found:?}"));
    // What the API does not show would not be judged.
    let client = mongodb::Client::with_uri_str(world.mongo.uri()).await?;
    let logs = client.database(&world.names.database).collection::<Document>("logs");
    let stored = logs.count_documents(doc! {}).await?;
    if stored != found.logs {
        complaints.add(format!("the collection has {stored} logs, the API shows {}", found.logs));
    }
    ensure!(found.logs > 0, "nothing is stored at all: there is nothing to judge");
    Ok(complaints)
}
