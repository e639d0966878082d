//! One launch of a program: the shell, the watchdog, the signals.

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};

use anyhow::{Context, Result, bail};

/// Becomes "$@" under the same process id. A line on the pipe means that the child has ended
/// and its id may be another's by now; the pipe's end means that we have.
const WATCHED: &str = r#"
exec 3<&0 </dev/null
( read -r _ <&3 || kill -9 $$ ) &
exec "$@" 3<&-
"#;

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
    pub(super) name: String,
    pub(super) log: PathBuf,
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
        self.envs.push((key.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Sets the working directory.
    #[must_use]
    pub fn dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = Some(dir.into());
        self
    }

    pub(super) fn spawn(&self) -> Result<Running> {
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
        let mut child = command.spawn().with_context(|| format!("cannot start {}", self.name))?;
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
pub(super) struct Running {
    child: Child,
    leash: ChildStdin,
}

impl Running {
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(super) fn signal(&self, signal: Signal) -> Result<()> {
        // The shell's own `kill`: sending signals through libc would need unsafe code.
        let sent = Command::new("sh")
            .args(["-c", r#"kill -s "$1" "$2""#, "sh", signal.name(), &self.child.id().to_string()])
            .output()?;
        if !sent.status.success() {
            bail!("kill -s {}: {}", signal.name(), String::from_utf8_lossy(&sent.stderr).trim());
        }
        Ok(())
    }

    pub(super) fn try_wait(&mut self) -> Result<Option<ExitStatus>> {
        let ended = self.child.try_wait()?;
        if ended.is_some() {
            self.release();
        }
        Ok(ended)
    }

    pub(super) fn kill(&mut self) -> Result<ExitStatus> {
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
