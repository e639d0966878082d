//! Child processes that can be killed, paused and restarted, and that die with their parent.
//!
//! A shell starts each child: it forks a watchdog and then becomes the program. The watchdog reads
//! from a pipe whose other end only this process holds. When this process ends, even by SIGKILL,
//! the kernel closes the pipe and the watchdog kills the child. (`PR_SET_PDEATHSIG` does not work
//! here: it fires when the *thread* that spawned the child ends, as test threads do.)

mod child;
mod stderr;

use std::process::ExitStatus;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::eventually::{eventually, eventually_blocking};
use child::Running;
pub use child::{Signal, Spec};

/// The number of lines of a log that an error shows.
const TAIL_LINES: usize = 40;

/// One program that can be started and stopped any number of times. Dropping it kills the process.
#[derive(Debug)]
pub struct Daemon {
    spec: Spec,
    running: Mutex<Option<Running>>,
}

impl Daemon {
    /// Creates a daemon that is not running yet.
    #[must_use]
    pub fn new(spec: Spec) -> Self {
        Self { spec, running: Mutex::new(None) }
    }

    /// Returns its name in messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    fn slot(&self) -> MutexGuard<'_, Option<Running>> {
        // A panic elsewhere leaves the slot consistent.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, act: impl FnOnce(&mut Running) -> Result<T>) -> Result<T> {
        match self.slot().as_mut() {
            Some(running) => act(running),
            None => bail!("{} is not running", self.name()),
        }
    }

    /// Starts the program and returns at once.
    ///
    /// # Errors
    /// Returns an error if it is already running or cannot be spawned.
    pub fn launch(&self) -> Result<()> {
        if self.is_running() {
            bail!("{} is already running", self.name());
        }
        *self.slot() = Some(self.spec.spawn()?);
        Ok(())
    }

    /// Returns whether it is running (or paused).
    pub fn is_running(&self) -> bool {
        let mut slot = self.slot();
        let alive = slot.as_mut().is_some_and(|running| matches!(running.try_wait(), Ok(None)));
        if !alive {
            *slot = None;
        }
        alive
    }

    /// Returns the process id.
    ///
    /// # Errors
    /// Returns an error if it is not running.
    pub fn pid(&self) -> Result<u32> {
        self.with(|running| Ok(running.id()))
    }

    /// Sends SIGKILL and waits until the process is gone.
    ///
    /// # Errors
    /// Returns an error if it is not running.
    pub fn kill(&self) -> Result<()> {
        self.with(Running::kill)?;
        *self.slot() = None;
        Ok(())
    }

    /// Sends a signal without waiting for its effect.
    ///
    /// # Errors
    /// Returns an error if it is not running.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.with(|running| running.signal(signal))
    }

    /// Sends SIGSTOP and waits until every thread is stopped.
    ///
    /// # Errors
    /// Returns an error if it is not running, or has not stopped within a second.
    pub fn pause(&self) -> Result<()> {
        self.with(|running| {
            running.signal(Signal::Stop)?;
            eventually_blocking("all threads to stop", Duration::from_secs(1), || {
                ensure!(all_threads_are_stopped(running.id())?, "a thread still runs");
                Ok(())
            })
        })
    }

    /// Sends SIGCONT after [`Daemon::pause`].
    ///
    /// # Errors
    /// Returns an error if it is not running.
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::Continue)
    }

    /// Stops reading its stderr, so that the pipe is full. See [`Spec::relayed_stderr`].
    ///
    /// # Errors
    /// Returns an error if it is not running, or its stderr is not relayed.
    pub fn stall_stderr(&self) -> Result<()> {
        self.with(|running| running.relay()?.stall())
    }

    /// Reads its stderr again after [`Daemon::stall_stderr`].
    ///
    /// # Errors
    /// Returns an error if it is not running, or its stderr is not relayed.
    pub fn resume_stderr(&self) -> Result<()> {
        self.with(|running| {
            running.relay()?.resume();
            Ok(())
        })
    }

    /// Sends SIGTERM and waits until the process exits.
    ///
    /// # Errors
    /// Returns an error if it is not running. If it has not exited when `timeout` passes, it is
    /// killed and an error is returned.
    pub async fn terminate(&self, timeout: Duration) -> Result<ExitStatus> {
        self.signal(Signal::Terminate)?;
        let exited = self.wait_exit(timeout).await;
        if exited.is_err() {
            let _ = self.kill();
        }
        exited
    }

    /// Waits until the process exits by itself.
    ///
    /// # Errors
    /// Returns an error with the end of its log if it is not running, or has not exited when
    /// `timeout` passes.
    pub async fn wait_exit(&self, timeout: Duration) -> Result<ExitStatus> {
        let exited = eventually("the process to exit", timeout, || async {
            match self.with(Running::try_wait) {
                Ok(None) => bail!("it is still running"),
                Ok(Some(status)) => Ok(Ok(status)),
                Err(error) => Ok(Err(error)),
            }
        });
        match exited.await.flatten() {
            Ok(status) => {
                *self.slot() = None;
                Ok(status)
            }
            Err(error) => Err(self.with_log(&error)),
        }
    }

    /// Waits until `probe` succeeds; `what` completes "timed out waiting for …".
    ///
    /// # Errors
    /// Returns an error with the end of its log if the process exits first or `timeout` passes.
    pub async fn wait_until<Probe, Attempt>(
        &self,
        what: &str,
        timeout: Duration,
        mut probe: Probe,
    ) -> Result<()>
    where
        Probe: FnMut() -> Attempt,
        Attempt: Future<Output = Result<()>>,
    {
        let outcome = eventually(what, timeout, || {
            let attempt = probe();
            async move {
                match attempt.await {
                    Ok(()) => Ok(Ok(())),
                    Err(error) if self.is_running() => Err(error),
                    Err(error) => Ok(Err(error.context("the process has exited"))),
                }
            }
        });
        outcome.await.flatten().map_err(|error| self.with_log(&error))
    }

    /// Returns everything that the program has written to stdout and stderr, over all its starts.
    pub fn log(&self) -> String {
        match std::fs::read(&self.spec.log) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) => format!("(no log: {error})"),
        }
    }

    /// Adds the end of the log to an error.
    fn with_log(&self, error: &anyhow::Error) -> anyhow::Error {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n");
        anyhow!("{}: {error:#}; the end of its log:\n{tail}", self.name())
    }
}

/// Returns whether all threads are stopped. SIGSTOP reaches one of them first.
fn all_threads_are_stopped(pid: u32) -> Result<bool> {
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread that has just ended has no entry any more.
        let Ok(stat) = std::fs::read_to_string(task?.path().join("stat")) else {
            continue;
        };
        if !fields_after_name(&stat)?.starts_with('T') {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Returns the fields of a `stat` file that follow the process name. The name is in parentheses
/// and may contain anything.
fn fields_after_name(stat: &str) -> Result<&str> {
    let (_, fields) = stat.rsplit_once(") ").context("no name in /proc/<pid>/stat")?;
    Ok(fields)
}

/// Returns the user and system CPU time of a process, in seconds.
///
/// # Errors
/// Returns an error if there is no such process, or no `/proc`.
pub fn cpu_seconds(pid: u32) -> Result<f64> {
    /// The unit of the file, on every Linux.
    const TICKS_PER_SECOND: f64 = 100.0;

    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // Fields 14 and 15 of the file; the first two precede the ones looked at here.
    let times: Vec<f64> = fields_after_name(&stat)?
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    ensure!(times.len() == 2, "no times in /proc/<pid>/stat");
    Ok(times.iter().sum::<f64>() / TICKS_PER_SECOND)
}

/// Returns the user and system CPU time of this process, in seconds.
///
/// # Errors
/// Returns an error if there is no `/proc`.
pub fn own_cpu_seconds() -> Result<f64> {
    cpu_seconds(std::process::id())
}
