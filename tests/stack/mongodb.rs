//! MongoDB 6.0.5: one replica set shared by a test process, or a private one (also of three, or
//! a standalone) whose members a test kills, freezes and restarts.

mod admin;
mod layout;
mod shared;

use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::Purpose;
use crate::process::Daemon;
use crate::proxy::Proxy;
use crate::scratch::Scratch;

pub use shared::SharedMongo;

/// How long a start, a restart or an election may take on a small busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// A primary that is stopped waits up to 15 s for a secondary to catch up.
const STOP_PATIENCE: Duration = Duration::from_secs(45);
const START_ATTEMPTS: usize = 3;
const SET_NAME: &str = "rs0";

/// What a private MongoDB looks like.
#[derive(Debug, Clone)]
pub struct MongoOptions {
    /// 1 or 3. Default 1.
    pub members: usize,
    /// A replica set, or (with one member) a standalone. Default true.
    pub replica_set: bool,
    /// What it is for.
    pub purpose: Purpose,
    /// More arguments for each mongod.
    pub args: Vec<String>,
    /// Whether the members of the set know one another, and their clients them, by the ports of
    /// proxies. Default false.
    pub behind_proxies: bool,
}

impl Default for MongoOptions {
    fn default() -> Self {
        Self {
            members: 1,
            replica_set: true,
            purpose: Purpose::Tests,
            args: Vec::new(),
            behind_proxies: false,
        }
    }
}

impl MongoOptions {
    /// A replica set of three.
    #[must_use]
    pub fn three() -> Self {
        Self { members: 3, ..Self::default() }
    }

    /// What it is for.
    #[must_use]
    pub fn purpose(mut self, purpose: Purpose) -> Self {
        self.purpose = purpose;
        self
    }

    /// Puts a [`Proxy`] before each member. The set's own traffic takes it too: drivers go where
    /// the set's configuration sends them, and that holds one name for each member.
    #[must_use]
    pub fn behind_proxies(mut self) -> Self {
        self.behind_proxies = true;
        self
    }

    /// One mongod that is no replica set.
    #[must_use]
    pub fn standalone() -> Self {
        Self { replica_set: false, ..Self::default() }
    }
}

/// A private MongoDB of local processes. Members are counted from 0. Dropping it kills them and
/// removes their data.
#[derive(Debug)]
pub struct Mongo {
    // Before the directory: what is dropped first no longer writes into it.
    members: Vec<Member>,
    uri: String,
    replica_set: bool,
    _scratch: Scratch,
}

#[derive(Debug)]
struct Member {
    daemon: Daemon,
    /// Where it listens itself.
    address: String,
    proxy: Option<Proxy>,
}

impl Member {
    /// How the set and its clients know it.
    fn host(&self) -> String {
        match &self.proxy {
            Some(proxy) => format!("127.0.0.1:{}", proxy.port()),
            None => self.address.clone(),
        }
    }
}

impl Mongo {
    /// The MongoDB that all cases of this process share, started at the first call.
    ///
    /// # Errors
    /// When no way leads to one: the message says what to install or to set.
    pub async fn shared() -> Result<SharedMongo> {
        Self::shared_with(Purpose::Tests).await
    }

    /// The same, set up for this, if this is the first call.
    ///
    /// # Errors
    /// As [`shared`](Self::shared).
    pub async fn shared_with(purpose: Purpose) -> Result<SharedMongo> {
        shared::get(purpose).await
    }

    /// A private MongoDB, ready for use.
    ///
    /// # Errors
    /// When mongod cannot be had or does not come up: with the end of its log.
    pub async fn start(options: MongoOptions) -> Result<Self> {
        let mut attempt = 1;
        loop {
            let mongo = Self::prepare(options.clone()).await?;
            let Err(error) = mongo.up().await else {
                return Ok(mongo);
            };
            // Somebody may have taken a port between our choice and mongod's start.
            let port_taken = mongo
                .members
                .iter()
                .any(|member| member.daemon.log().contains("Address already in use"));
            if !port_taken || attempt == START_ATTEMPTS {
                return Err(error);
            }
            attempt += 1;
        }
    }

    /// A private MongoDB that does not run yet; its URI is final. [`Mongo::up`] starts it.
    ///
    /// # Errors
    /// When mongod cannot be had.
    pub async fn prepare(options: MongoOptions) -> Result<Self> {
        tokio::task::spawn_blocking(move || layout::lay_out(&options)).await?
    }

    /// Starts all members that do not run, makes them a replica set if they are none yet, and
    /// waits until a write reaches a majority.
    ///
    /// # Errors
    /// When a member does not come up: with the end of its log.
    pub async fn up(&self) -> Result<()> {
        for member in self.members.iter().filter(|member| !member.daemon.is_running()) {
            member.daemon.launch()?;
        }
        for Member { daemon, address, .. } in &self.members {
            daemon.wait_until(PATIENCE, || admin::ping(address)).await?;
        }
        if self.replica_set {
            let first = self.members.first().context("a replica set has members")?;
            let hosts: Vec<String> = self.members.iter().map(Member::host).collect();
            admin::initiate(&first.address, SET_NAME, &hosts).await?;
        }
        self.ready().await
    }

    /// Waits until there is a primary that takes a write of a majority.
    ///
    /// # Errors
    /// When that takes too long: with the end of the first member's log.
    pub async fn ready(&self) -> Result<()> {
        let member = self
            .members
            .iter()
            .find(|member| member.daemon.is_running())
            .context("no member runs")?;
        member.daemon.wait_until(PATIENCE, || admin::majority_write(&self.uri)).await
    }

    /// The connection string: all members, and the set's name if it is one.
    #[must_use]
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// SIGKILL: the member is gone when this returns.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&self, member: usize) -> Result<()> {
        self.daemon(member)?.kill()
    }

    /// SIGTERM: a primary steps down first; the member has ended when this returns.
    ///
    /// # Errors
    /// When it does not run, or does not end in time.
    pub async fn stop(&self, member: usize) -> Result<()> {
        self.daemon(member)?.terminate(STOP_PATIENCE).await.map(drop)
    }

    /// SIGSTOP: the member is silent, its connections stay open.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pause(&self, member: usize) -> Result<()> {
        self.daemon(member)?.pause()
    }

    /// SIGCONT after [`Mongo::pause`].
    ///
    /// # Errors
    /// When it does not run.
    pub fn resume(&self, member: usize) -> Result<()> {
        self.daemon(member)?.resume()
    }

    /// Starts a member that was killed or stopped, on the same port and data, and returns at once.
    ///
    /// # Errors
    /// When it runs.
    pub fn launch(&self, member: usize) -> Result<()> {
        self.daemon(member)?.launch()
    }

    /// [`Mongo::launch`], then waits until the member is primary or secondary again. This needs
    /// a majority; to bring back a set that lost it, use [`Mongo::up`].
    ///
    /// # Errors
    /// When it runs, or does not come up: with the end of its log.
    pub async fn restart(&self, member: usize) -> Result<()> {
        self.launch(member)?;
        let Member { daemon, address, .. } = &self.members[member];
        daemon.wait_until(PATIENCE, || admin::serving(address)).await?;
        if self.members.len() == 1 { self.ready().await } else { Ok(()) }
    }

    /// The member that is primary.
    ///
    /// # Errors
    /// When there is none at this moment.
    pub async fn primary(&self) -> Result<usize> {
        for (index, member) in self.members.iter().enumerate() {
            if member.daemon.is_running()
                && admin::is_primary(&member.address).await.unwrap_or(false)
            {
                return Ok(index);
            }
        }
        bail!("there is no primary")
    }

    /// Makes the primary step down for `period`, in which it cannot be elected again. A set of
    /// one has no primary that long.
    ///
    /// # Errors
    /// When there is no primary, or it refuses.
    pub async fn step_down(&self, period: Duration) -> Result<()> {
        let primary = self.primary().await?;
        admin::step_down(&self.members[primary].address, period).await
    }

    /// The proxy before a member.
    ///
    /// # Errors
    /// When there is no such member, or the set was not started
    /// [`behind_proxies`](MongoOptions::behind_proxies).
    pub fn proxy(&self, member: usize) -> Result<&Proxy> {
        let member =
            self.members.get(member).with_context(|| format!("there is no member {member}"))?;
        member.proxy.as_ref().context("the members are not behind proxies")
    }

    /// The process id of a member.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pid(&self, member: usize) -> Result<u32> {
        self.daemon(member)?.pid()
    }

    /// What a member has logged so far.
    ///
    /// # Errors
    /// When there is no such member.
    pub fn log(&self, member: usize) -> Result<String> {
        Ok(self.daemon(member)?.log())
    }

    fn daemon(&self, member: usize) -> Result<&Daemon> {
        let member =
            self.members.get(member).with_context(|| format!("there is no member {member}"))?;
        Ok(&member.daemon)
    }
}

#[cfg(test)]
mod tests;
