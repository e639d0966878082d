//! What the worker needs before it can run: a runtime, and the spool.

use std::time::{Duration, Instant};

use tokio::runtime::{self, Runtime};

use crate::delivery::batch_source::BatchSource;
use crate::delivery::worker::Worker;
use crate::model::setup_error::SetupError;
use crate::pipeline::event_queue::EventQueue;
use crate::pipeline::problems::{DELIVERY_FAILS, ProblemKind};
use crate::spool::{Spool, SpoolOptions};

/// The pauses between attempts. They are short because deadlines of callers are
/// kept only in between.
const MIN_PAUSE: Duration = Duration::from_millis(10);
const MAX_PAUSE: Duration = Duration::from_millis(100);

/// Opens the spool, and counts what an earlier process left in it.
///
/// # Errors
/// Returns a [`SetupError`] if the directory cannot be used.
pub(crate) fn open_spool(
    options: &SpoolOptions,
    queue: &EventQueue,
) -> Result<BatchSource, SetupError> {
    let (spool, recovered) = Spool::open(options)?;
    let epoch = queue.recover(recovered.found.events, &recovered.lost);
    queue.update_stats(|stats| stats.spool_bytes = spool.bytes());
    let options = queue.options();
    let (max_batch_bytes, max_buffer_bytes) = (options.batch.bytes, options.max_bytes);
    Ok(BatchSource::from_spool(spool, recovered.found, epoch, max_batch_bytes, max_buffer_bytes))
}

impl Worker {
    /// Creates the runtime, and opens the spool unless it is open. Both need free
    /// file descriptors, so they are repeated until they succeed, and events wait in
    /// the buffer. Returns `None` if the client is closed meanwhile.
    pub(super) fn prepare(&mut self) -> Option<Runtime> {
        let mut pause = MIN_PAUSE;
        loop {
            match self.try_prepare() {
                Ok(runtime) => return Some(runtime),
                Err(message) => {
                    self.reporter.note(ProblemKind::Delivery, DELIVERY_FAILS, &message);
                }
            }
            let now = Instant::now();
            // Events that will be spooled do not expire in the buffer.
            if self.unopened_spool.is_none() {
                self.handle_deadlines(now);
            }
            self.queue.run_timers(now)?;
            std::thread::sleep(pause);
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }

    fn try_prepare(&mut self) -> Result<Runtime, String> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        let runtime =
            runtime.map_err(|error| format!("cannot create the runtime of its thread: {error}"))?;
        if let Some(options) = &self.unopened_spool {
            match open_spool(options, &self.queue) {
                Ok(source) => self.source = source,
                Err(SetupError::NoDescriptor(message)) => return Err(message),
                Err(SetupError::Config(error)) => {
                    self.note_spool_failure(&format!("{error}, so events stay in memory"));
                }
            }
            self.unopened_spool = None;
        }
        Ok(runtime)
    }
}
