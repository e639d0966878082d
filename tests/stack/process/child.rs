//! One run of a program: the shell, the watchdog and the signals.

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io::{PipeReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};

use anyhow::{Context, Result, bail};

use super::stderr::Relay;

/// Runs "$@" under the shell's process id, with a watchdog. If the watchdog reads a line, the child
/// has exited and its id may belong to another process; if the pipe ends, this process has exited.
const WATCHED: &str = r#"
exec 3<&0 </dev/null
( read -r _ <&3 || kill -9 $$ ) &
exec "$@" 3<&-
"#;

/// A signal that a test sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM: asks the process to exit.
    Terminate,
    /// SIGINT: what Ctrl-C sends.
    Interrupt,
    /// SIGHUP: asks the process to reload its files.
    Hangup,
    /// SIGSTOP: freezes the process; its sockets stay open.
    Stop,
    /// SIGCONT: continues a frozen process.
    Continue,
}

impl Signal {
    fn name(self) -> &'static str {
        match self {
            Self::Terminate => "TERM",
            Self::Interrupt => "INT",
            Self::Hangup => "HUP",
            Self::Stop => "STOP",
            Self::Continue => "CONT",
        }
    }
}

/// What to run, each time the process is started.
#[derive(Debug, Clone)]
pub struct Spec {
    pub(super) name: String,
    pub(super) log: PathBuf,
    command: Vec<OsString>,
    envs: Vec<(OsString, OsString)>,
    dir: Option<PathBuf>,
    stderr: Stderr,
}

/// Where stderr goes.
#[derive(Debug, Clone, Copy)]
enum Stderr {
    Log,
    Unread,
    Relayed,
}

impl Spec {
    /// Creates a spec for a program whose output goes to the file `log`. Error messages show `name`.
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
            stderr: Stderr::Log,
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

    /// Sets an environment variable. The child inherits no `EYEGO_…` variable.
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

    /// Makes stderr a full pipe that is never read.
    #[must_use]
    pub fn unread_stderr(mut self) -> Self {
        self.stderr = Stderr::Unread;
        self
    }

    /// Makes stderr a pipe that is copied into the log, until
    /// [`Daemon::stall_stderr`](super::Daemon::stall_stderr).
    #[must_use]
    pub fn relayed_stderr(mut self) -> Self {
        self.stderr = Stderr::Relayed;
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
            .stderr(log.try_clone()?)
            // Ctrl-C at the terminal must reach only this process, which then stops its children.
            .process_group(0);
        let (mut unread, mut relay) = (None, None);
        match self.stderr {
            Stderr::Log => {}
            Stderr::Unread => {
                let (reader, mut writer) = std::io::pipe()?;
                command.stderr(writer.try_clone()?);
                // Fills the pipe and then blocks until the reader is dropped.
                std::thread::spawn(move || writer.write_all(&[b'x'; 1 << 20]));
                unread = Some(reader);
            }
            Stderr::Relayed => {
                let (started, writer) = Relay::start(log)?;
                command.stderr(writer);
                relay = Some(started);
            }
        }
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        let mut child = command.spawn().with_context(|| format!("cannot start {}", self.name))?;
        let watchdog = child.stdin.take().context("the child has no stdin pipe")?;
        Ok(Running { child, watchdog, relay, _unread: unread })
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
    watchdog: ChildStdin,
    relay: Option<Relay>,
    /// Keeps the unread end of stderr open.
    _unread: Option<PipeReader>,
}

impl Running {
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(super) fn relay(&self) -> Result<&Relay> {
        self.relay.as_ref().context("its stderr is not relayed")
    }

    pub(super) fn signal(&self, signal: Signal) -> Result<()> {
        // Uses the shell's `kill`, because sending signals through libc needs unsafe code.
        let sent = Command::new("sh")
            .args(["-c", r#"kill -s "$1" "$2""#, "sh", signal.name(), &self.child.id().to_string()])
            .output()?;
        if !sent.status.success() {
            bail!("kill -s {}: {}", signal.name(), String::from_utf8_lossy(&sent.stderr).trim());
        }
        Ok(())
    }

    pub(super) fn try_wait(&mut self) -> Result<Option<ExitStatus>> {
        let exited = self.child.try_wait()?;
        if exited.is_some() {
            self.end_watchdog();
        }
        Ok(exited)
    }

    pub(super) fn kill(&mut self) -> Result<ExitStatus> {
        self.child.kill()?;
        let status = self.child.wait()?;
        self.end_watchdog();
        Ok(status)
    }

    /// Ends the watchdog. An error means that it has already ended.
    fn end_watchdog(&mut self) {
        let _ = self.watchdog.write_all(b"\n");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}
