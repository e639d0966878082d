//! Does to the stack what the plan says, and mends it again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures_util::future::try_join_all;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::journal::Journal;
use super::ledger::Ledger;
use super::plan::{Fault, Part, Plan, Step};
use super::world::World;
use crate::proxy::Proxy;
use crate::server::Server;

/// How long an election may take before a fault that needs a primary is a failure of the run.
const ELECTION: Duration = Duration::from_secs(60);

/// Carries out plan after plan until it is told that it is over.
pub(super) struct Faults {
    pub(super) world: Arc<World>,
    pub(super) journal: Arc<Journal>,
    pub(super) ledger: Arc<Ledger>,
    pub(super) is_over: watch::Receiver<bool>,
    /// Rounds whose plan was shown.
    shown: AtomicU64,
}

impl Faults {
    pub(super) fn new(
        world: Arc<World>,
        journal: Arc<Journal>,
        ledger: Arc<Ledger>,
        is_over: watch::Receiver<bool>,
    ) -> Self {
        Self { world, journal, ledger, is_over, shown: AtomicU64::new(0) }
    }

    /// All lanes side by side.
    pub(super) async fn run(&self) -> Result<()> {
        tokio::try_join!(
            self.lane(|plan| plan.servers),
            self.lane(|plan| plan.brokers),
            self.lane(|plan| plan.members)
        )?;
        Ok(())
    }

    async fn lane(&self, of: fn(Plan) -> Vec<Step>) -> Result<()> {
        let mut is_over = self.is_over.clone();
        for round in 0.. {
            let plan = Plan::new(self.ledger.seed, round);
            if self.shown.fetch_max(round + 1, Ordering::Relaxed) == round {
                self.journal.say(format!("the plan of round {round}:\n{plan}"));
            }
            for step in of(plan) {
                if timeout(step.calm, is_over.wait_for(|is_over| *is_over)).await.is_ok() {
                    return Ok(());
                }
                let done = self.carry_out(step).await;
                done.with_context(|| format!("after this the stack did not recover: {step}"))?;
            }
        }
        Ok(())
    }

    async fn carry_out(&self, step: Step) -> Result<()> {
        let part = self.find(step.part).await?;
        let which = if part == step.part { String::new() } else { format!(" ({part})") };
        self.journal.say(format!("{step}{which}"));
        let began = Instant::now();
        match part {
            Part::Api(n) => {
                let api = &self.world.apis[n];
                self.hit_server(&api.server, Some(&api.proxy), step).await?;
            }
            Part::Worker(n) => self.hit_server(&self.world.workers[n], None, step).await?,
            Part::AllWorkers => {
                let workers = self.world.workers.iter();
                try_join_all(workers.map(|worker| self.hit_server(worker, None, step))).await?;
            }
            Part::Broker(n) => self.hit_broker(n, step).await?,
            Part::Member(n) => self.hit_member(n, step).await?,
            Part::Primary => bail!("the primary has a number"),
        }
        self.world.mended();
        self.journal.say(format!("{step}: over, {:.1} s", began.elapsed().as_secs_f64()));
        let kind = match step.fault {
            Fault::Delay(_) => "delay".to_owned(),
            fault => fault.to_string(),
        };
        let hit = match step.part {
            Part::Api(_) => "an api",
            Part::Worker(_) => "a worker",
            Part::AllWorkers => "all workers",
            Part::Broker(_) => "a broker",
            Part::Member(_) => "a mongod",
            Part::Primary => "the primary",
        };
        self.journal.count(format!("{kind} {hit}"));
        Ok(())
    }

    /// Which member is primary; other parts are what they are.
    async fn find(&self, part: Part) -> Result<Part> {
        if part != Part::Primary {
            return Ok(part);
        }
        let deadline = Instant::now() + ELECTION;
        loop {
            match self.world.mongo.primary().await {
                Ok(member) => return Ok(Part::Member(member)),
                Err(error) if Instant::now() >= deadline => return Err(error),
                Err(_) => sleep(Duration::from_millis(200)).await,
            }
        }
    }

    async fn hit_server(&self, server: &Server, proxy: Option<&Proxy>, step: Step) -> Result<()> {
        match step.fault {
            Fault::Kill => server.kill()?,
            Fault::Stop => {
                let status = server.terminate().await?;
                if !status.success() {
                    self.ledger.complain(format!("{}: ended with {status}", step.part));
                }
            }
            Fault::Freeze => {
                server.pause()?;
                sleep(step.lasts).await;
                return server.resume();
            }
            _ => return disturb(proxy.context("it has no proxy")?, step).await,
        }
        sleep(step.lasts).await;
        server.restart().await
    }

    async fn hit_broker(&self, n: usize, step: Step) -> Result<()> {
        let kafka = &self.world.kafka;
        match step.fault {
            Fault::Kill => kafka.kill(n)?,
            Fault::Stop => kafka.stop(n).await?,
            Fault::Freeze => {
                kafka.pause(n)?;
                sleep(step.lasts).await;
                kafka.resume(n)?;
                return kafka.ready().await;
            }
            _ => return disturb(kafka.proxy(n)?, step).await,
        }
        sleep(step.lasts).await;
        kafka.restart(n).await?;
        kafka.ready().await
    }

    async fn hit_member(&self, n: usize, step: Step) -> Result<()> {
        let mongo = &self.world.mongo;
        match step.fault {
            Fault::Kill => mongo.kill(n)?,
            Fault::Stop => mongo.stop(n).await?,
            Fault::Freeze => {
                mongo.pause(n)?;
                sleep(step.lasts).await;
                mongo.resume(n)?;
                return mongo.ready().await;
            }
            Fault::StepDown => {
                if let Err(error) = mongo.step_down(step.lasts).await {
                    // Another election came first, which is as good.
                    self.journal.say(format!("it did not step down: {error:#}"));
                }
                sleep(step.lasts).await;
                return mongo.ready().await;
            }
            _ => {
                disturb(mongo.proxy(n)?, step).await?;
                return mongo.ready().await;
            }
        }
        sleep(step.lasts).await;
        mongo.restart(n).await?;
        mongo.ready().await
    }
}

/// What a proxy can do.
async fn disturb(proxy: &Proxy, step: Step) -> Result<()> {
    match step.fault {
        Fault::Cut => proxy.cut(),
        Fault::Refuse => proxy.refuse(),
        Fault::Delay(by) => proxy.delay(by, by),
        Fault::Stall => proxy.stall(),
        Fault::Kill | Fault::Stop | Fault::Freeze | Fault::StepDown => {
            bail!("a proxy cannot do this: {step}")
        }
    }
    sleep(step.lasts).await;
    proxy.heal();
    Ok(())
}
