//! The runtimes that serve HTTP: one single-threaded runtime per core.
//!
//! A connection stays on the runtime that accepted it. In a multi-threaded
//! runtime, tasks migrate between worker threads, which costs system calls for
//! each response (ADR 0005).

use std::io;
use std::num::NonZero;
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio::sync::watch;

/// Single-threaded runtimes, one per core. Dropping the pool stops them and
/// cancels their tasks.
pub(super) struct RuntimePool {
    handles: Vec<Handle>,
    _until_dropped: watch::Sender<()>,
}

impl RuntimePool {
    /// Starts one runtime per available core, each on its own thread.
    ///
    /// # Errors
    /// Returns an error if a runtime or a thread cannot be created.
    pub(super) fn start() -> io::Result<Self> {
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        let (until_dropped, _) = watch::channel(());
        let mut handles = Vec::with_capacity(cores);
        for number in 0..cores {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let mut pool_dropped = until_dropped.subscribe();
            handles.push(runtime.handle().clone());
            thread::Builder::new().name(format!("http-{number}")).spawn(move || {
                // The channel never carries a value: this returns when the pool is dropped.
                let _ = runtime.block_on(pool_dropped.changed());
                runtime.shutdown_background();
            })?;
        }
        Ok(Self { handles, _until_dropped: until_dropped })
    }

    pub(super) fn handles(&self) -> &[Handle] {
        &self.handles
    }
}
