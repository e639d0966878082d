//! Child processes that can be killed, paused and restarted, and that die with their parent.
//!
//! Each child is started by a shell that first leaves a watchdog behind and then becomes the
//! program. The watchdog reads from a pipe whose other end only this process holds: once this
//! process is gone, also by SIGKILL, the kernel closes the pipe and the watchdog kills the child.
//! (`PR_SET_PDEATHSIG` would fire already when the *thread* that spawned ends, as test threads do.)

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

/// Becomes "$@" under the same process id. A line on the pipe means that the child has ended
/// and its id may be another's by now; the pipe's end means that we have.
const WATCHED: &str = r#"
exec 3<&0 </dev/null
( read -r _ <&3 || kill -9 $$ ) &
exec "$@" 3<&-
"#;

/// How often a condition is looked at while waiting for it.
pub(crate) const POLL: Duration = Duration::from_millis(25);

const TAIL_LINES: usize = 40;

/// The signals that a test sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM: asks the process to end.
    Terminate,
    /// SIGINT: what Ctrl-C sends.
    Interrupt,
    /// SIGSTOP: freezes the process; its sockets stay open.
    Stop,
    /// SIGCONT: lets a frozen process go on.
    Continue,
}

impl Signal {
    fn name(self) -> &'static str {
        match self {
            Self::Terminate => "TERM",
            Self::Interrupt => "INT",
            Self::Stop => "STOP",
            Self::Continue => "CONT",
        }
    }
}

/// What to run: the same each time the process is launched again.
#[derive(Debug, Clone)]
pub struct Spec {
    name: String,
    log: PathBuf,
    command: Vec<OsString>,
    envs: Vec<(OsString, OsString)>,
    dir: Option<PathBuf>,
}

impl Spec {
    /// A program whose output goes to the file `log`; `name` stands in error messages.
    pub fn new(
        name: impl Into<String>,
        program: impl AsRef<OsStr>,
        log: impl Into<PathBuf>,
    ) -> Self {
        Self {
            name: name.into(),
            log: log.into(),
            command: vec![program.as_ref().to_owned()],
            envs: Vec::new(),
            dir: None,
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(self, args: impl IntoIterator<Item = A>) -> Self {
        args.into_iter().fold(self, Self::arg)
    }

    /// Sets an environment variable. No `EYEGO_…` variable is inherited from the parent.
    #[must_use]
    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.envs
            .push((key.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Sets the working directory.
    #[must_use]
    pub fn dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = Some(dir.into());
        self
    }

    fn spawn(&self) -> Result<Running> {
        let log = open_log(&self.log)?;
        let mut command = Command::new("sh");
        command.arg("-c").arg(WATCHED).arg("sh").args(&self.command);
        for (key, _) in std::env::vars_os() {
            if key.as_encoded_bytes().starts_with(b"EYEGO_") {
                command.env_remove(key);
            }
        }
        command
            .envs(self.envs.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Ctrl-C at the terminal is for us alone: we decide how the children end.
            .process_group(0);
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot start {}", self.name))?;
        let leash = child.stdin.take().context("the child has no stdin pipe")?;
        Ok(Running { child, leash })
    }
}

fn open_log(path: &Path) -> Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("cannot open the log {}", path.display()))
}

#[derive(Debug)]
struct Running {
    child: Child,
    leash: ChildStdin,
}

impl Running {
    fn signal(&self, signal: Signal) -> Result<()> {
        // The shell's own `kill`: sending signals through libc would need unsafe code.
        let sent = Command::new("sh")
            .args([
                "-c",
                r#"kill -s "$1" "$2""#,
                "sh",
                signal.name(),
                &self.child.id().to_string(),
            ])
            .output()?;
        if !sent.status.success() {
            bail!(
                "kill -s {}: {}",
                signal.name(),
                String::from_utf8_lossy(&sent.stderr).trim()
            );
        }
        Ok(())
    }

    fn try_wait(&mut self) -> Result<Option<ExitStatus>> {
        let ended = self.child.try_wait()?;
        if ended.is_some() {
            self.release();
        }
        Ok(ended)
    }

    fn kill(&mut self) -> Result<ExitStatus> {
        self.child.kill()?;
        let status = self.child.wait()?;
        self.release();
        Ok(status)
    }

    /// Sends the watchdog home: it may be gone already, which is as good.
    fn release(&mut self) {
        let _ = self.leash.write_all(b"\n");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

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
        Self {
            spec,
            running: Mutex::new(None),
        }
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
        let alive = slot
            .as_mut()
            .is_some_and(|running| matches!(running.try_wait(), Ok(None)));
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
        self.with(|running| Ok(running.child.id()))
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
    pub async fn wait_until(
        &self,
        patience: Duration,
        mut probe: impl AsyncFnMut() -> Result<()>,
    ) -> Result<()> {
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
