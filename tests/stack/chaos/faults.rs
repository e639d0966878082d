//! Injects the faults of the plan into the stack, and repairs them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures_util::future::try_join_all;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::ack_log::AckLog;
use super::deployment::Deployment;
use super::journal::Journal;
use super::plan::{Fault, Part, Plan, Step};
use super::{recovery, topic};
use crate::eventually;
use crate::hostile::read_slowly;
use crate::proxy::Proxy;
use crate::server::Server;

/// The time for an election. If there is no primary by then, the run fails.
const ELECTION: Duration = Duration::from_secs(60);

/// The time for Kafka to change the topic.
const CHANGE: Duration = Duration::from_secs(60);
/// The time until everything that was sent is stored, while servers and mongods fail.
const DRAINED: Duration = Duration::from_secs(180);
/// Size limits of the topic, in bytes. An event has about 500.
const FEW_EVENTS: usize = 4_000;
const MANY_EVENTS: usize = 1 << 20;

/// Carries out one plan after another until the load is over.
pub(super) struct Faults {
    pub(super) deployment: Arc<Deployment>,
    pub(super) journal: Arc<Journal>,
    pub(super) ack_log: Arc<AckLog>,
    pub(super) is_over: watch::Receiver<bool>,
    /// The number of rounds whose plan is in the journal.
    shown: AtomicU64,
}

impl Faults {
    pub(super) fn new(
        deployment: Arc<Deployment>,
        journal: Arc<Journal>,
        ack_log: Arc<AckLog>,
        is_over: watch::Receiver<bool>,
    ) -> Self {
        Self { deployment, journal, ack_log, is_over, shown: AtomicU64::new(0) }
    }

    /// Carries out all tracks of the plan concurrently.
    pub(super) async fn run(&self) -> Result<()> {
        tokio::try_join!(
            self.track(|plan| plan.servers),
            self.track(|plan| plan.brokers),
            self.track(|plan| plan.members)
        )?;
        Ok(())
    }

    async fn track(&self, of: fn(Plan) -> Vec<Step>) -> Result<()> {
        let mut is_over = self.is_over.clone();
        for round in 0.. {
            let plan = Plan::new(self.ack_log.seed, round);
            if self.shown.fetch_max(round + 1, Ordering::Relaxed) == round {
                self.journal.note(format!("the plan of round {round}:\n{plan}"));
            }
            for step in of(plan) {
                if timeout(step.pause, is_over.wait_for(|is_over| *is_over)).await.is_ok() {
                    return Ok(());
                }
                let done = self.carry_out(step).await;
                done.with_context(|| format!("the stack did not recover from: {step}"))?;
            }
        }
        Ok(())
    }

    async fn carry_out(&self, step: Step) -> Result<()> {
        let part = self.resolve(step.part).await?;
        let which = if part == step.part { String::new() } else { format!(" ({part})") };
        self.journal.note(format!("{step}{which}"));
        let began = Instant::now();
        match part {
            Part::Api(n) => {
                let api = &self.deployment.apis[n];
                if step.fault == Fault::SlowReaders {
                    let address = api.server.address();
                    read_slowly(address, &self.deployment.token, step.duration).await;
                } else {
                    self.hit_server(&api.server, Some(&api.proxy), step).await?;
                }
            }
            Part::Worker(n) => self.hit_server(&self.deployment.workers[n], None, step).await?,
            Part::AllWorkers => {
                let workers = self.deployment.workers.iter();
                try_join_all(workers.map(|worker| self.hit_server(worker, None, step))).await?;
            }
            Part::Broker(n) => self.hit_broker(n, step).await?,
            Part::Topic => self.change_topic(step).await?,
            Part::Member(n) => self.hit_member(n, step).await?,
            Part::Primary => bail!("the primary has not been resolved to a member"),
        }
        self.deployment.note_repair();
        self.journal.note(format!("{step}: over, {:.1} s", began.elapsed().as_secs_f64()));
        let kind = match step.fault {
            Fault::Delay(_) => "delay".to_owned(),
            fault => fault.to_string(),
        };
        let hit = match step.part {
            Part::Api(_) => "an api",
            Part::Worker(_) => "a worker",
            Part::AllWorkers => "all workers",
            Part::Broker(_) => "a broker",
            Part::Topic => "the topic",
            Part::Member(_) => "a mongod",
            Part::Primary => "the primary",
        };
        self.journal.count(format!("{kind} {hit}"));
        Ok(())
    }

    /// Resolves the primary to a member. Other parts stay as they are.
    async fn resolve(&self, part: Part) -> Result<Part> {
        if part != Part::Primary {
            return Ok(part);
        }
        let primary = || self.deployment.mongo.primary();
        Ok(Part::Member(eventually("a primary", ELECTION, primary).await?))
    }

    async fn hit_server(&self, server: &Server, proxy: Option<&Proxy>, step: Step) -> Result<()> {
        match step.fault {
            Fault::Kill => server.kill()?,
            Fault::Stop => {
                let status = server.terminate().await?;
                if !status.success() {
                    self.ack_log.report(format!("{}: exited with {status}", step.part));
                }
            }
            Fault::Freeze => {
                server.pause()?;
                sleep(step.duration).await;
                return server.resume();
            }
            Fault::StallStderr => {
                server.stall_stderr()?;
                sleep(step.duration).await;
                return server.resume_stderr();
            }
            _ => return disturb(proxy.context("the server has no proxy")?, step).await,
        }
        sleep(step.duration).await;
        server.restart().await
    }

    async fn hit_broker(&self, n: usize, step: Step) -> Result<()> {
        let kafka = &self.deployment.kafka;
        match step.fault {
            Fault::Kill => kafka.kill(n)?,
            Fault::Stop => kafka.stop(n).await?,
            Fault::Freeze => {
                kafka.pause(n)?;
                sleep(step.duration).await;
                kafka.resume(n)?;
                return kafka.ready().await;
            }
            _ => return disturb(kafka.proxy(n)?, step).await,
        }
        sleep(step.duration).await;
        kafka.restart(n).await?;
        kafka.ready().await
    }

    async fn change_topic(&self, step: Step) -> Result<()> {
        let Deployment { kafka, names, .. } = &*self.deployment;
        let (bootstrap, name) = (kafka.bootstrap(), &names.topic);
        // A broker that was just restarted may refuse at first.
        let limit = async |bytes| {
            let set = || topic::limit_messages(bootstrap, name, bytes);
            eventually("the topic's settings to change", CHANGE, set).await
        };
        match step.fault {
            Fault::LimitMessages => {
                limit(FEW_EVENTS).await?;
                sleep(step.duration).await;
                limit(MANY_EVENTS).await
            }
            Fault::AddPartition => topic::add_partition(bootstrap, name).await,
            Fault::RecreateTopic => self.recreate_topic().await,
            _ => bail!("not a change of the topic: {step}"),
        }
    }

    /// Deletes and creates the topic. Nobody sends meanwhile, because events that are not stored would
    /// be lost with it.
    async fn recreate_topic(&self) -> Result<()> {
        let Deployment { kafka, names, gate, .. } = &*self.deployment;
        {
            let _closed = gate.write().await;
            recovery::drained(&self.deployment, DRAINED).await?;
            topic::delete(kafka.bootstrap(), &names.topic).await?;
            let create = || topic::create(kafka.bootstrap(), &names.topic);
            eventually("the topic to be created", CHANGE, create).await?;
        }
        recovery::used_again(&self.deployment).await
    }

    async fn hit_member(&self, n: usize, step: Step) -> Result<()> {
        let mongo = &self.deployment.mongo;
        match step.fault {
            Fault::Kill => mongo.kill(n)?,
            Fault::Stop => mongo.stop(n).await?,
            Fault::Freeze => {
                mongo.pause(n)?;
                sleep(step.duration).await;
                mongo.resume(n)?;
                return mongo.ready().await;
            }
            Fault::StepDown => {
                if let Err(error) = mongo.step_down(step.duration).await {
                    // Another election was faster, which has the same effect.
                    self.journal.note(format!("the primary did not step down: {error:#}"));
                }
                sleep(step.duration).await;
                return mongo.ready().await;
            }
            _ => {
                disturb(mongo.proxy(n)?, step).await?;
                return mongo.ready().await;
            }
        }
        sleep(step.duration).await;
        mongo.restart(n).await?;
        mongo.ready().await
    }
}

/// Injects a network fault through a proxy.
async fn disturb(proxy: &Proxy, step: Step) -> Result<()> {
    match step.fault {
        Fault::Cut => proxy.cut(),
        Fault::Refuse => proxy.refuse(),
        Fault::Delay(by) => proxy.delay(by, by),
        Fault::Stall => proxy.stall(),
        Fault::Kill
        | Fault::Stop
        | Fault::Freeze
        | Fault::StepDown
        | Fault::LimitMessages
        | Fault::AddPartition
        | Fault::RecreateTopic
        | Fault::StallStderr
        | Fault::SlowReaders => {
            bail!("not a network fault: {step}")
        }
    }
    sleep(step.duration).await;
    proxy.heal();
    Ok(())
}
