//! The settings that a server is started with.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use anyhow::Result;

use super::{LIVE_TIMEOUT, Server, binary};
use crate::port;
use crate::process::{Daemon, Spec};
use crate::scratch::Scratch;

/// Configures and starts a server; see [`Server::builder`].
#[derive(Debug, Clone, Default)]
pub struct ServerBuilder {
    args: Vec<OsString>,
    envs: Vec<(OsString, OsString)>,
    data_dir: Option<PathBuf>,
    port: Option<u16>,
    binary: Option<PathBuf>,
    is_stderr_unread: bool,
    is_stderr_relayed: bool,
    max_open_files: Option<u32>,
}

impl ServerBuilder {
    /// Sets an environment variable. The server inherits no `EYEGO_…` variable; the harness sets
    /// `EYEGO_LISTEN` and `EYEGO_DATA_DIR`.
    #[must_use]
    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.envs.push((key.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Keeps the data in `dir`. Default: a directory that is kept over restarts and removed when
    /// the [`Server`] is dropped.
    #[must_use]
    pub fn data_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.data_dir = Some(dir.into());
        self
    }

    /// Listens on this port of 127.0.0.1. Default: a free one.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// Makes stderr a full pipe that is never read, so that [`Server::log`] lacks it.
    #[must_use]
    pub fn unread_stderr(mut self) -> Self {
        self.is_stderr_unread = true;
        self
    }

    /// Makes stderr a pipe that is read until [`Server::stall_stderr`].
    #[must_use]
    pub fn relayed_stderr(mut self) -> Self {
        self.is_stderr_relayed = true;
        self
    }

    /// Limits the number of files and sockets that it may open.
    #[must_use]
    pub fn max_open_files(mut self, max: u32) -> Self {
        self.max_open_files = Some(max);
        self
    }

    /// Runs another binary, such as an older version.
    #[must_use]
    pub fn binary(mut self, path: impl Into<PathBuf>) -> Self {
        self.binary = Some(path.into());
        self
    }

    /// Starts the server and waits until it listens, which may be before it is ready.
    ///
    /// # Errors
    /// Returns an error if it cannot be built, or, with the end of its log, if it exits or does not
    /// respond.
    pub async fn start(self) -> Result<Server> {
        let server = self.launch().await?;
        server.wait_live(LIVE_TIMEOUT).await?;
        Ok(server)
    }

    /// Starts the server and returns at once, for a server that is expected to exit.
    ///
    /// # Errors
    /// Returns an error if it cannot be built or spawned.
    pub async fn launch(self) -> Result<Server> {
        let binary = match self.binary {
            Some(binary) => binary,
            None => binary::path().await?,
        };
        let scratch = Scratch::new("server")?;
        let data_dir = self.data_dir.unwrap_or_else(|| scratch.path().join("data"));
        let port = match self.port {
            Some(port) => port,
            None => port::free()?,
        };
        let (binary, args) = match self.max_open_files {
            Some(max) => {
                let script = format!("ulimit -n {max}; exec \"$0\" \"$@\"");
                let mut args = vec!["-c".into(), script.into(), binary.into_os_string()];
                args.extend(self.args);
                (PathBuf::from("/bin/sh"), args)
            }
            None => (binary, self.args),
        };
        let mut spec = Spec::new("eyego-log-server", binary, scratch.path().join("server.log"))
            .args(args)
            .env("EYEGO_LISTEN", format!("127.0.0.1:{port}"))
            .env("EYEGO_DATA_DIR", &data_dir)
            // So that files written into the working directory by mistake are removed as well.
            .dir(scratch.path());
        if self.is_stderr_unread {
            spec = spec.unread_stderr();
        }
        if self.is_stderr_relayed {
            spec = spec.relayed_stderr();
        }
        for (key, value) in self.envs {
            spec = spec.env(key, value);
        }
        let daemon = Daemon::new(spec);
        daemon.launch()?;
        Ok(Server { daemon, port, data_dir, _scratch: scratch })
    }
}
