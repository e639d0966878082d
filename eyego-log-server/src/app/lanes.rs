//! The threads that answer requests: one for each core, each with a runtime of
//! its own, on which a connection stays.
//!
//! In one runtime of several threads a task that an engine answers is taken up
//! by whichever thread is free, and to tell it so costs a system call or two
//! (measured with 128 connections on 2 cores: a tenth of all time).

use std::io;
use std::num::NonZero;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::watch;

use crate::application::persist::Requests;
use crate::application::retrieve::Waiters;

/// They end, each with its tasks, when this is dropped.
pub(super) struct Lanes {
    handles: Vec<Handle>,
    _until: watch::Sender<()>,
}

impl Lanes {
    pub(super) fn start() -> io::Result<Self> {
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        let (until, _) = watch::channel(());
        let mut handles = Vec::new();
        for number in 0..cores {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let mut ended = until.subscribe();
            handles.push(runtime.handle().clone());
            thread::Builder::new().name(format!("requests-{number}")).spawn(move || {
                // Nothing is ever sent: this ends when the sender is dropped.
                let _ = runtime.block_on(ended.changed());
                runtime.shutdown_background();
            })?;
        }
        Ok(Self { handles, _until: until })
    }

    pub(super) fn handles(&self) -> &[Handle] {
        &self.handles
    }
}

/// The requests on the lanes, as storing sees them.
pub(super) struct LaneRequests {
    pub(super) lanes: Vec<Handle>,
    pub(super) waiters: Arc<Waiters>,
}

impl Requests for LaneRequests {
    fn busy(&self) -> Duration {
        // Each has one thread.
        let busy = |lane: &Handle| lane.metrics().worker_total_busy_duration(0);
        let lanes = u32::try_from(self.lanes.len()).unwrap_or(u32::MAX).max(1);
        self.lanes.iter().map(busy).sum::<Duration>() / lanes
    }

    fn await_storing(&self) -> bool {
        self.waiters.any()
    }
}
