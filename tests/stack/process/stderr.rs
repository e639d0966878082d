//! The stderr of a child through a pipe whose reader can pause.

use std::fs::File;
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use anyhow::Result;

/// More than a pipe holds.
const FILLING: usize = 1 << 17;
/// No program writes it into a log, so that the filling can be left out.
const FILLER: u8 = 0;

/// Copies what the child writes into its log. The thread ends when the child has exited and this is
/// dropped.
#[derive(Debug)]
pub(super) struct Relay {
    switch: Arc<Switch>,
    writer: PipeWriter,
}

#[derive(Debug, Default)]
struct Switch {
    is_stalled: Mutex<bool>,
    changed: Condvar,
}

impl Switch {
    fn set(&self, is_stalled: bool) {
        *self.is_stalled.lock().unwrap_or_else(PoisonError::into_inner) = is_stalled;
        self.changed.notify_all();
    }

    fn wait(&self) {
        let is_stalled = self.is_stalled.lock().unwrap_or_else(PoisonError::into_inner);
        let _running = self.changed.wait_while(is_stalled, |is_stalled| *is_stalled);
    }
}

impl Relay {
    /// Starts to copy into `log`. The child must get the returned end of the pipe.
    pub(super) fn start(log: File) -> Result<(Self, PipeWriter)> {
        let (reader, writer) = std::io::pipe()?;
        let switch = Arc::<Switch>::default();
        let relay = Self { switch: Arc::clone(&switch), writer: writer.try_clone()? };
        thread::spawn(move || copy(reader, log, &switch));
        Ok((relay, writer))
    }

    /// Stops reading, and fills the pipe.
    pub(super) fn stall(&self) -> Result<()> {
        self.switch.set(true);
        let mut writer = self.writer.try_clone()?;
        // Blocks until somebody reads again.
        thread::spawn(move || writer.write_all(&[FILLER; FILLING]));
        Ok(())
    }

    /// Reads again.
    pub(super) fn resume(&self) {
        self.switch.set(false);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.resume();
    }
}

fn copy(mut pipe: PipeReader, mut log: File, switch: &Switch) {
    let mut buffer = [0; 8192];
    loop {
        switch.wait();
        match pipe.read(&mut buffer) {
            Ok(length @ 1..) => {
                let text = buffer[..length].iter().copied().filter(|byte| *byte != FILLER);
                // A log that cannot be written is noticed by whoever reads it.
                let _ = log.write_all(&text.collect::<Vec<_>>());
            }
            _ => return,
        }
    }
}
