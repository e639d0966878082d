//! From a batch to the server: the worker thread, the order of requests,
//! retries, and the meaning of each response.

mod batch_source;
mod compress;
mod dispatch;
pub(crate) mod mailbox;
mod response;
mod retry;
mod sender;
pub(crate) mod worker;

pub(crate) use batch_source::BatchSource;
pub(crate) use retry::RetryPolicy;
