//! A writer that never blocks its callers: a thread writes the lines, and lines
//! that do not fit into its queue are dropped and counted.

use std::io::{self, ErrorKind, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::thread;
use std::time::{Duration, Instant};

/// Pause before a retry where waiting is not possible otherwise.
const RETRY_PAUSE: Duration = Duration::from_millis(5);

enum Message {
    Line(Vec<u8>),
    /// Asks for an acknowledgement once all earlier lines are written.
    Flush(SyncSender<()>),
}

/// Queues lines for the writer thread. Clones share the queue.
#[derive(Debug, Clone)]
pub(super) struct LogWriter {
    queue: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
}

impl LogWriter {
    /// Starts a thread that writes to `sink`. Its queue holds up to `capacity`
    /// lines. After lines were dropped, the thread calls `report` with their number
    /// as soon as it has written all queued lines.
    ///
    /// # Errors
    /// Returns an error if the thread cannot be created.
    pub(super) fn start(
        sink: impl Write + Send + 'static,
        capacity: usize,
        report: impl Fn(u64) + Send + 'static,
    ) -> io::Result<Self> {
        let (queue, messages) = mpsc::sync_channel(capacity);
        let dropped = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&dropped);
        thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || run(&messages, sink, &counter, report))?;
        Ok(Self { queue, dropped })
    }

    /// Returns the number of dropped lines.
    pub(super) fn dropped(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.dropped)
    }

    /// Waits until the lines queued so far are written or `timeout` passes.
    pub(super) fn flush(&self, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        let (done, flushed) = mpsc::sync_channel(1);
        let mut message = Message::Flush(done);
        while let Err(error) = self.queue.try_send(message) {
            match error {
                TrySendError::Full(unsent) if Instant::now() < deadline => message = unsent,
                TrySendError::Full(_) | TrySendError::Disconnected(_) => return,
            }
            thread::sleep(RETRY_PAUSE);
        }
        let _ = flushed.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }
}

impl Write for LogWriter {
    /// Queues or drops the whole line.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.queue.try_send(Message::Line(line.to_vec())).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn run(
    messages: &Receiver<Message>,
    mut sink: impl Write,
    dropped: &AtomicU64,
    report: impl Fn(u64),
) {
    let mut reported = 0;
    while let Ok(first) = messages.recv() {
        let mut next = Some(first);
        while let Some(message) = next {
            match message {
                Message::Line(line) => {
                    if write_line(&mut sink, &line).is_err() {
                        dropped.fetch_add(1, Ordering::Relaxed);
                        // A report would fail like the line.
                        reported += 1;
                    }
                }
                // The receiver is gone if its timeout has passed.
                Message::Flush(done) => drop(done.try_send(())),
            }
            next = messages.try_recv().ok();
        }
        let total = dropped.load(Ordering::Relaxed);
        if total > reported {
            report(total - reported);
            reported = total;
        }
    }
}

fn write_line(sink: &mut impl Write, mut line: &[u8]) -> io::Result<()> {
    while !line.is_empty() {
        match sink.write(line) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => line = line.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // Another process made the shared terminal or pipe non-blocking.
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(RETRY_PAUSE),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, PipeReader, pipe};

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(20);

    /// Returns a writer to a pipe, the pipe's reader, and the reported counts.
    fn start() -> (LogWriter, PipeReader, Receiver<u64>) {
        let (reader, sink) = pipe().unwrap();
        let (reports, reported) = mpsc::channel();
        let report = move |count| reports.send(count).unwrap();
        (LogWriter::start(sink, 4, report).unwrap(), reader, reported)
    }

    #[test]
    fn lines_are_written_in_order_and_flushed() {
        let (mut writer, reader, _) = start();
        for line in ["a\n", "b\n", "c\n"] {
            writer.write_all(line.as_bytes()).unwrap();
        }
        LogWriter::flush(&writer, TIMEOUT);
        assert_eq!(writer.dropped().load(Ordering::Relaxed), 0);
        drop(writer);
        let lines: Vec<_> = BufReader::new(reader).lines().map(Result::unwrap).collect();
        assert_eq!(lines, ["a", "b", "c"]);
    }

    #[test]
    fn stalled_sink_blocks_nothing_and_drops_are_counted_and_reported() {
        let (mut writer, reader, reported) = start();
        let line = [vec![b'x'; 65_535], b"\n".to_vec()].concat();
        let started = Instant::now();
        for _ in 0..50 {
            writer.write_all(&line).unwrap();
        }
        LogWriter::flush(&writer, Duration::from_millis(50));
        assert!(started.elapsed() < Duration::from_secs(10));
        let dropped = writer.dropped().load(Ordering::Relaxed);
        assert!(dropped >= 40, "{dropped}");

        let lines = thread::spawn(move || BufReader::new(reader).lines().count());
        assert_eq!(reported.recv_timeout(TIMEOUT).unwrap(), dropped);
        drop(writer);
        assert_eq!(lines.join().unwrap() as u64, 50 - dropped);
    }

    #[test]
    fn broken_sink_is_counted_and_not_reported() {
        let (mut writer, reader, reported) = start();
        drop(reader);
        writer.write_all(b"a\n").unwrap();
        LogWriter::flush(&writer, TIMEOUT);
        assert_eq!(writer.dropped().load(Ordering::Relaxed), 1);
        assert!(reported.try_recv().is_err());
    }
}
