//! From a batch to the server: the worker thread, the order of requests,
//! retries, and the meaning of each response.

mod batch_source;
mod compress;
pub(crate) mod dispatch;
pub(crate) mod mailbox;
mod response;
pub(crate) mod retry;
pub(crate) mod sender;
pub(crate) mod starter;
pub(crate) mod worker;

pub(crate) use batch_source::BatchSource;
pub(crate) use retry::RetryPolicy;
