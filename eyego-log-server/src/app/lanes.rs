//! The threads that answer requests: one for each core, each with a runtime of
//! its own, on which a connection stays.
//!
//! In one runtime of several threads a task that an engine answers is taken up
//! by whichever thread is free, and to tell it so costs a system call or two
//! (measured with 128 connections on 2 cores: a tenth of all time).

use std::io;
use std::num::NonZero;
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// They end, each with its tasks, when this is dropped.
pub(super) struct Lanes {
    handles: Vec<Handle>,
    _until: Vec<oneshot::Sender<()>>,
}

impl Lanes {
    pub(super) fn start() -> io::Result<Self> {
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        let mut lanes = Self { handles: Vec::new(), _until: Vec::new() };
        for number in 0..cores {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let (until, ended) = oneshot::channel::<()>();
            lanes.handles.push(runtime.handle().clone());
            lanes._until.push(until);
            thread::Builder::new().name(format!("requests-{number}")).spawn(move || {
                // Nothing is ever sent: this ends when the sender is dropped.
                let _ = runtime.block_on(ended);
                runtime.shutdown_background();
            })?;
        }
        Ok(lanes)
    }

    pub(super) fn handles(&self) -> &[Handle] {
        &self.handles
    }
}
