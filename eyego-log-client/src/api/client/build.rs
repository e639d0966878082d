//! Wires the parts of a client together.

use std::sync::Arc;

use eyego_log_core::LogIdGenerator;

use crate::api::builder::ClientBuilder;
use crate::api::builder::validate::{Validated, name_variable, validate, validate_disabled};
use crate::api::caller::Caller;
use crate::api::client::Client;
use crate::api::client::inner::Inner;
use crate::delivery::BatchSource;
use crate::delivery::dispatch::Dispatcher;
use crate::delivery::mailbox::Mailbox;
use crate::delivery::sender::Sender;
use crate::delivery::starter::Starter;
use crate::delivery::worker::{Worker, start};
use crate::model::errors::ConfigError;
use crate::model::loss_reason::LossReason;
use crate::model::setup_error::SetupError;
use crate::pipeline::event_queue::EventQueue;
use crate::pipeline::filter::Filter;
use crate::pipeline::reporter::Reporter;
use crate::sync::Notify;
use crate::sync::process::Process;
use crate::sync::timer::Timer;

impl ClientBuilder {
    /// Builds the client and starts its thread. This does not connect to the
    /// server, so an unreachable server is not an error.
    ///
    /// # Errors
    /// Returns a [`ConfigError`] that names the option if an option is invalid
    /// or contradicts another, if a file cannot be read, or if the spool directory
    /// cannot be used. If the thread cannot be started, that is reported as a problem,
    /// and later calls of the client try again. If the process has no free file
    /// descriptor, files and the spool are opened once there is one.
    pub fn build(self) -> Result<Client, ConfigError> {
        if self.is_disabled() {
            validate_disabled(&self)?;
            return Ok(disabled(&self));
        }
        let Validated {
            variables,
            endpoint,
            transport,
            queue,
            dispatch,
            request_timeout,
            spool,
            max_event_bytes,
            shutdown_timeout,
            hooks,
            filter,
            context,
        } = validate(self)?;
        let notify = Arc::new(Notify::new());
        let process = Arc::new(Process::current());
        let reporter = Reporter::new(hooks);
        let queue = Arc::new(EventQueue::new(queue, reporter.clone(), Arc::clone(&notify)));
        let mailbox = Arc::new(Mailbox::new(Arc::clone(&notify), Arc::clone(&process)));
        let endpoint = Arc::new(endpoint);
        let source = spool.as_ref().map(|options| start::open_spool(options, &queue)).transpose();
        let (source, unopened_spool) = match source {
            Ok(source) => (source.unwrap_or_else(BatchSource::from_memory), None),
            Err(SetupError::NoDescriptor(_)) => (BatchSource::from_memory(), spool),
            Err(SetupError::Config(error)) => return Err(name_variable(error, &variables)),
        };
        let timer = Timer::default();
        let sender = Sender {
            transport,
            endpoint: Arc::clone(&endpoint),
            mailbox: Arc::clone(&mailbox),
            request_timeout,
        };
        let delivery_timeout = dispatch.retry.delivery_timeout;
        let dispatcher = Dispatcher::new(dispatch, fastrand::Rng::new());
        let worker = Worker {
            queue: Arc::clone(&queue),
            mailbox: Arc::clone(&mailbox),
            reporter: reporter.clone(),
            notify,
            sender,
            unopened_spool,
            source,
            dispatcher,
            delivery_timeout,
        };
        let starter = Arc::new(Starter::new(worker, reporter.clone()));
        starter.start();
        let caller = {
            let (starter, timer) = (Arc::clone(&starter), timer.clone());
            Caller::new(mailbox, endpoint, starter, timer, request_timeout)
        };
        let inner = Inner {
            queue,
            reporter,
            caller,
            starter: Some(starter),
            timer,
            process,
            ids: LogIdGenerator::new(),
            max_event_bytes,
            shutdown_timeout,
            filter,
        };
        Ok(Client { inner: Arc::new(inner), context })
    }
}

/// Builds a client without a thread. Its queue is closed from the beginning, so
/// nothing waits for a delivery.
pub(super) fn disabled(builder: &ClientBuilder) -> Client {
    let reporter = Reporter::default();
    let notify = Arc::new(Notify::new());
    let queue = EventQueue::new(builder.queue_options(), reporter.clone(), notify);
    queue.finish(LossReason::Shutdown, Vec::new(), "the client is disabled");
    let filter = Filter { is_disabled: true, sample_rate: 1.0, before_send: None };
    let inner = Inner {
        queue: Arc::new(queue),
        reporter,
        caller: Caller::disabled(),
        starter: None,
        timer: Timer::default(),
        process: Arc::new(Process::current()),
        ids: LogIdGenerator::new(),
        max_event_bytes: builder.max_event_limit(),
        shutdown_timeout: builder.shutdown_limit(),
        filter: Some(filter),
    };
    Client { inner: Arc::new(inner), context: None }
}
