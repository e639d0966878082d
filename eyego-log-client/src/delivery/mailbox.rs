//! Messages to the worker: responses to its requests, and calls to make.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::delivery::dispatch::Ticket;
use crate::sync::process::Process;
use crate::sync::{Mutex, Notify, lock};
use crate::transport::{Request, TransportError, TransportResult};

/// A request other than a batch, and where its response goes.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) request: Request,
    /// How much longer than other requests this one may take.
    pub(crate) extra_time: Duration,
    pub(crate) response: oneshot::Sender<TransportResult>,
    /// Where the body goes if it is streamed. `response` then has the head of a
    /// successful response, or a whole other one.
    pub(crate) stream: Option<StreamTarget>,
}

#[derive(Debug)]
pub(crate) struct StreamTarget {
    pub(crate) pieces: mpsc::Sender<StreamPiece>,
    /// The content type of a successful response, without parameters.
    pub(crate) media_type: &'static str,
    /// How long to wait for the head and for each piece.
    pub(crate) idle_timeout: Duration,
}

/// A part of a streamed body. If the channel closes before `End`, the body is
/// not complete.
#[derive(Debug)]
pub(crate) enum StreamPiece {
    Data(Bytes),
    End,
    Failed(TransportError),
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
    pub(crate) calls: Vec<Call>,
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

    /// Returns whether this is a forked child, in which the worker does not exist.
    pub(crate) fn is_forked(&self) -> bool {
        self.process.is_forked()
    }

    /// Returns whether the worker has ended.
    pub(crate) fn is_closed(&self) -> bool {
        lock(&self.state).is_closed
    }

    /// Adds a call. If the worker has ended, the call is dropped, which closes its
    /// channels.
    pub(crate) fn push_call(&self, call: Call) {
        self.push(|messages| messages.calls.push(call));
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
