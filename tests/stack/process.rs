//! Child processes that can be killed, paused and restarted, and that die with their parent.
//!
//! Each child is started by a shell that first leaves a watchdog behind and then becomes the
//! program. The watchdog reads from a pipe whose other end only this process holds: once this
//! process is gone, also by SIGKILL, the kernel closes the pipe and the watchdog kills the child.
//! (`PR_SET_PDEATHSIG` would fire already when the *thread* that spawned ends, as test threads do.)

mod child;

use std::process::ExitStatus;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};

use child::Running;
pub use child::{Signal, Spec};

/// How often a condition is looked at while waiting for it.
const POLL: Duration = Duration::from_millis(25);
/// How much of a log an error shows.
const TAIL_LINES: usize = 40;

/// One program that is started and ended any number of times; killed when dropped.
#[derive(Debug)]
pub struct Daemon {
    spec: Spec,
    running: Mutex<Option<Running>>,
}

impl Daemon {
    /// A daemon that does not run yet.
    #[must_use]
    pub fn new(spec: Spec) -> Self {
        Self { spec, running: Mutex::new(None) }
    }

    /// What stands for it in messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    fn slot(&self) -> MutexGuard<'_, Option<Running>> {
        // A panic elsewhere leaves the slot itself whole.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, act: impl FnOnce(&mut Running) -> Result<T>) -> Result<T> {
        match self.slot().as_mut() {
            Some(running) => act(running),
            None => bail!("{} does not run", self.name()),
        }
    }

    /// Starts the program and returns at once.
    ///
    /// # Errors
    /// When it runs already or cannot be spawned.
    pub fn launch(&self) -> Result<()> {
        if self.is_running() {
            bail!("{} runs already", self.name());
        }
        *self.slot() = Some(self.spec.spawn()?);
        Ok(())
    }

    /// Whether it runs (or is paused) at this moment.
    pub fn is_running(&self) -> bool {
        let mut slot = self.slot();
        let alive = slot.as_mut().is_some_and(|running| matches!(running.try_wait(), Ok(None)));
        if !alive {
            *slot = None;
        }
        alive
    }

    /// The process id.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pid(&self) -> Result<u32> {
        self.with(|running| Ok(running.id()))
    }

    /// SIGKILL; returns once the process is gone.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&self) -> Result<()> {
        self.with(Running::kill)?;
        *self.slot() = None;
        Ok(())
    }

    /// Sends a signal and does not wait for its effect.
    ///
    /// # Errors
    /// When it does not run.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.with(|running| running.signal(signal))
    }

    /// SIGSTOP; returns once each of its threads stands still.
    ///
    /// # Errors
    /// When it does not run, or does not stand still within a second.
    pub fn pause(&self) -> Result<()> {
        self.with(|running| {
            running.signal(Signal::Stop)?;
            let deadline = Instant::now() + Duration::from_secs(1);
            while !stands_still(running.id())? {
                ensure!(Instant::now() < deadline, "some thread still runs after SIGSTOP");
                std::thread::sleep(Duration::from_millis(1));
            }
            Ok(())
        })
    }

    /// SIGCONT after [`Daemon::pause`].
    ///
    /// # Errors
    /// When it does not run.
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::Continue)
    }

    /// SIGTERM, then waits for the end.
    ///
    /// # Errors
    /// When it does not run, or has not ended in time: then it is killed.
    pub async fn terminate(&self, patience: Duration) -> Result<ExitStatus> {
        self.signal(Signal::Terminate)?;
        let ended = self.wait_exit(patience).await;
        if ended.is_err() {
            let _ = self.kill();
        }
        ended
    }

    /// Waits for the process to end by itself.
    ///
    /// # Errors
    /// When it does not run, or has not ended in time.
    pub async fn wait_exit(&self, patience: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.with(Running::try_wait)? {
                *self.slot() = None;
                return Ok(status);
            }
            if Instant::now() >= deadline {
                return Err(self.failure(&anyhow!("still runs after {patience:?}")));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until `probe` succeeds.
    ///
    /// # Errors
    /// When the process ends first, or the time is up: with the last probe's error and the
    /// end of the log.
    pub async fn wait_until<Probe, Answer>(
        &self,
        patience: Duration,
        mut probe: Probe,
    ) -> Result<()>
    where
        Probe: FnMut() -> Answer,
        Answer: Future<Output = Result<()>>,
    {
        let deadline = Instant::now() + patience;
        loop {
            let Err(error) = probe().await else {
                return Ok(());
            };
            if !self.is_running() {
                return Err(self.failure(&anyhow!("ended before it was ready")));
            }
            if Instant::now() >= deadline {
                return Err(self.failure(&error.context(format!("not ready after {patience:?}"))));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Everything that the program wrote to stdout and stderr, over all its launches.
    pub fn log(&self) -> String {
        match std::fs::read(&self.spec.log) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) => format!("(no log: {error})"),
        }
    }

    /// The error that shows the end of the log as well.
    pub(crate) fn failure(&self, error: &anyhow::Error) -> anyhow::Error {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n");
        anyhow!("{}: {error:#}; the end of its log:\n{tail}", self.name())
    }
}

/// Whether all threads are stopped: the signal reaches one of them first.
fn stands_still(pid: u32) -> Result<bool> {
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread that has just ended is no longer there.
        let Ok(stat) = std::fs::read_to_string(task?.path().join("stat")) else {
            continue;
        };
        // The state comes after the name, which is in parentheses and may hold anything.
        let (_, fields) = stat.rsplit_once(") ").context("no name in its stat")?;
        if !fields.starts_with('T') {
            return Ok(false);
        }
    }
    Ok(true)
}
