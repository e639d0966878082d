//! Messages to the worker: responses to its requests, and reads to send.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::delivery::dispatch::Ticket;
use crate::sync::process::Process;
use crate::sync::{Mutex, Notify, lock};
use crate::transport::{Request, TransportResult};

/// A read request, and where its response goes.
#[derive(Debug)]
pub(crate) struct ReadJob {
    pub(crate) request: Request,
    pub(crate) response: oneshot::Sender<TransportResult>,
}

/// How a request ended.
#[derive(Debug)]
pub(crate) struct Completion {
    pub(crate) ticket: Ticket,
    pub(crate) result: TransportResult,
    pub(crate) duration: Duration,
}

#[derive(Debug, Default)]
pub(crate) struct Messages {
    pub(crate) responses: Vec<Completion>,
    pub(crate) reads: Vec<ReadJob>,
}

#[derive(Debug, Default)]
struct State {
    messages: Messages,
    is_closed: bool,
}

#[derive(Debug)]
pub(crate) struct Mailbox {
    state: Mutex<State>,
    worker: Arc<Notify>,
    process: Arc<Process>,
    /// How often the worker still has to panic in a test.
    #[cfg(test)]
    pub(crate) panics_left: std::sync::atomic::AtomicU32,
}

impl Mailbox {
    pub(crate) fn new(worker: Arc<Notify>, process: Arc<Process>) -> Self {
        Self {
            state: Mutex::default(),
            worker,
            process,
            #[cfg(test)]
            panics_left: std::sync::atomic::AtomicU32::new(0),
        }
    }

    /// Adds the result of a request.
    pub(crate) fn push_response(&self, completion: Completion) {
        self.push(|messages| messages.responses.push(completion));
    }

    /// Adds a read. If the worker has ended or does not exist in this process, the
    /// job is dropped, which closes its channel.
    pub(crate) fn push_read(&self, job: ReadJob) {
        if self.process.is_forked() {
            return;
        }
        self.push(|messages| messages.reads.push(job));
    }

    fn push(&self, push: impl FnOnce(&mut Messages)) {
        let mut state = lock(&self.state);
        if !state.is_closed {
            push(&mut state.messages);
            drop(state);
            self.worker.notify_one();
        }
    }

    /// Removes all messages.
    pub(crate) fn take(&self) -> Messages {
        std::mem::take(&mut lock(&self.state).messages)
    }

    /// Drops all messages, and those to come.
    pub(crate) fn close(&self) {
        let mut state = lock(&self.state);
        state.is_closed = true;
        state.messages = Messages::default();
    }
}
