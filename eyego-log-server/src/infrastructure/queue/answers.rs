//! Brings answers from an engine's thread to the tasks that wait for them.
//!
//! Waking a task from outside the runtime costs a lock and often a system
//! call. An engine settles many requests at once: it wakes one task of ours,
//! which wakes the others from within.

use tokio::sync::{mpsc, oneshot};

/// Takes answers for those who wait, on any thread.
#[derive(Debug)]
pub(super) struct Answers<T> {
    outgoing: mpsc::UnboundedSender<(oneshot::Sender<T>, T)>,
}

impl<T: Send + 'static> Answers<T> {
    /// Begins to bring answers; to be called within the runtime.
    pub(super) fn start() -> Self {
        const AT_ONCE: usize = 256;

        let (outgoing, mut incoming) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let mut answers = Vec::with_capacity(AT_ONCE);
            while incoming.recv_many(&mut answers, AT_ONCE).await > 0 {
                for (waiting, answer) in answers.drain(..) {
                    let waiting: oneshot::Sender<T> = waiting;
                    // Nobody may be waiting any more: the caller hung up.
                    let _ = waiting.send(answer);
                }
            }
        });
        Self { outgoing }
    }

    /// Answers one who waits.
    pub(super) fn send(&self, waiting: oneshot::Sender<T>, answer: T) {
        // Fails only when the runtime is gone, and with it who waits.
        let _ = self.outgoing.send((waiting, answer));
    }
}
