//! The callers and the oracle alone, around servers that a case starts and disturbs itself.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::callers::{Traffic, poison_of};
use super::complaints::Complaints;
use super::judge::Judge;
use super::ledger::Ledger;
use super::poison::Poisoner;
use super::store::Reader;
use super::{CALLERS, calm};

/// Where the events go.
#[derive(Debug, Clone)]
pub struct Target {
    /// `bootstrap.servers`.
    pub brokers: String,
    /// The topic, for poison and the lag.
    pub topic: String,
    /// The group of the workers.
    pub group: String,
    /// The bases of the URLs of the apis.
    pub apis: Vec<String>,
}

/// Some events, one in a hundred with poison, and what became of them.
#[derive(Debug)]
pub struct Drill {
    target: Target,
    ledger: Arc<Ledger>,
    rate: u64,
}

impl Drill {
    /// So many events that a seed decides, so many in a second.
    #[must_use]
    pub fn new(target: Target, seed: u64, events: u64, rate: u64) -> Self {
        let ledger = Arc::new(Ledger::new(seed, events, poison_of(events)));
        Self { target, ledger, rate }
    }

    /// Begins to send; the task ends when each event is acknowledged.
    ///
    /// # Errors
    /// There is no producer for the poison.
    pub fn send(&self) -> Result<JoinHandle<Result<()>>> {
        let traffic = Traffic {
            apis: self.target.apis.clone(),
            callers: CALLERS,
            rate: Some(self.rate),
            poisoner: Poisoner::new(&self.target.brokers, &self.target.topic)?,
            ledger: Arc::clone(&self.ledger),
        };
        Ok(tokio::spawn(traffic.run()))
    }

    /// Events that are acknowledged.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.ledger.counts.acknowledged.load(Relaxed)
    }

    /// Waits until everything in the topic is settled, reads the store and judges. `others` are
    /// the ids of logs that somebody else sent, and that must be there once as well.
    ///
    /// # Errors
    /// Records are still not committed when the time is up, or the store cannot be read.
    pub async fn judge(&self, others: Vec<String>, patience: Duration) -> Result<Complaints> {
        let deadline = Instant::now() + patience;
        loop {
            let Target { brokers, topic, group, .. } = self.target.clone();
            match calm::lag_of(brokers, topic, group).await {
                Ok(0) => break,
                Ok(lag) if Instant::now() >= deadline => {
                    bail!("after {patience:?} still {lag} records are not committed")
                }
                Err(error) if Instant::now() >= deadline => return Err(error),
                _ => sleep(Duration::from_millis(200)).await,
            }
        }
        let mut judge = Judge::new(&self.ledger, others);
        Reader::new(self.target.apis[0].clone())?.show(&mut judge).await?;
        let (_, mut complaints) = judge.verdict();
        complaints.extend(self.ledger.complaints());
        Ok(complaints)
    }
}
