//! The data that the public calls take and return: events, errors, losses and
//! counts; and which errors of the operating system pass. It depends on nothing
//! else in this crate.

pub(crate) mod delivered;
pub(crate) mod draft;
pub(crate) mod errors;
pub(crate) mod event;
pub(crate) mod line;
pub(crate) mod loss;
pub(crate) mod loss_reason;
pub(crate) mod os_error;
pub(crate) mod overflow;
pub(crate) mod problem;
pub(crate) mod report;
pub(crate) mod setup_error;
pub(crate) mod stats;
