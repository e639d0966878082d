//! Access: checks a request before its body is read, and before `100 Continue`
//! is sent.
//!
//! | file | contents |
//! |---|---|
//! | `route` | the scope that each route requires |
//! | `host` | the `Host` check against DNS rebinding |
//! | `origin` | the `Origin` check and CORS |
//! | `bearer` | the token of a request |
//! | `denial` | why a request is refused, and the counters |
//! | `visit` | the checks of one request, and what is known about its caller |
//! | `audit` | the audit log |

mod audit;
mod bearer;
mod denial;
mod host;
mod origin;
mod route;
mod visit;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use self::audit::AuditLog;
pub use self::audit::{Audited, AuditedStream};
use self::denial::Denial;
pub(super) use self::denial::DenialCounts;
use self::host::Hosts;
use self::origin::Origins;
pub(super) use self::visit::Visit;
use super::error::ApiError;
use crate::application::access::{ActiveKey, AddressLimits, Exceeded, InUse, KeyCounts, Keys};
use crate::application::metrics::IngestCounters;

/// Who may use this process, from where, and how much.
#[derive(Debug)]
pub struct Access {
    keys: Option<Arc<Keys>>,
    addresses: Option<AddressLimits>,
    hosts: Vec<String>,
    origins: Origins,
    denials: DenialCounts,
    audit: AuditLog,
}

impl Access {
    /// Creates the rules of a process.
    ///
    /// Without `keys`, every caller may do everything. `addresses` limits callers
    /// without keys. `hosts` are the names under which the server may be
    /// addressed; if there are none, names are checked only where no key protects
    /// a loopback address. `origins` are those whose pages may use the API.
    #[must_use]
    pub fn new(
        keys: Option<Arc<Keys>>,
        addresses: Option<AddressLimits>,
        hosts: Vec<String>,
        origins: &[String],
    ) -> Self {
        Self {
            keys,
            addresses,
            hosts,
            origins: Origins::new(origins),
            denials: DenialCounts::default(),
            audit: AuditLog::new(),
        }
    }

    /// Writes the number of audit lines that were suppressed and forgets idle
    /// addresses. To be called every few seconds.
    pub fn tidy(&self) {
        self.audit.report_suppressed();
        if let Some(addresses) = &self.addresses {
            addresses.forget_idle();
        }
    }

    /// Returns the counters of refused requests.
    pub(super) fn denials(&self) -> &DenialCounts {
        &self.denials
    }

    /// Returns the counters of each key.
    pub(super) fn keys(&self) -> Vec<KeyCounts> {
        self.keys.as_ref().map(|keys| keys.counts()).unwrap_or_default()
    }
}

/// The access rules of one listening address.
#[derive(Debug)]
pub struct Guard {
    access: Arc<Access>,
    /// The names that `Host` may have, `None` for any.
    hosts: Option<Hosts>,
    /// Counts the events of refused requests.
    ingest: Option<Arc<IngestCounters>>,
}

/// The permission of a request whose response lasts. The request counts as one of its
/// key until this is dropped.
#[derive(Debug)]
pub(super) struct Permission {
    guard: Arc<Guard>,
    key: Option<Arc<ActiveKey>>,
    _in_use: Option<InUse>,
}

impl Permission {
    /// Returns whether the key is still valid, with the scopes that it had.
    pub(super) fn is_valid(&self) -> bool {
        match (&self.key, &self.guard.access.keys) {
            (Some(key), Some(keys)) => keys.is_valid(key, SystemTime::now().into()),
            _ => true,
        }
    }
}

/// What a batch is charged to, once the number of its events is known.
#[derive(Debug, Clone)]
pub(super) struct Charge {
    key: Option<Arc<ActiveKey>>,
    guard: Arc<Guard>,
    address: IpAddr,
}

impl Guard {
    /// Creates the guard of a listening address. `ingest` counts events that are
    /// refused.
    #[must_use]
    pub fn new(
        access: Arc<Access>,
        is_loopback: bool,
        ingest: Option<Arc<IngestCounters>>,
    ) -> Self {
        let is_open = access.keys.is_none() && is_loopback;
        let hosts = (is_open || !access.hosts.is_empty()).then(|| Hosts::new(&access.hosts));
        Self { access, hosts, ingest }
    }

    /// Returns the maximum number of events of a batch, `None` for no limit.
    fn burst(&self, key: Option<&ActiveKey>) -> Option<u32> {
        let limit = match key {
            Some(key) => key.key().events,
            None => self.access.addresses.as_ref().map(AddressLimits::limit),
        };
        limit.map(|limit| limit.burst.get())
    }

    /// Charges a caller with these events.
    fn charge(
        &self,
        key: Option<&ActiveKey>,
        address: IpAddr,
        events: usize,
    ) -> Result<(), Exceeded> {
        match (key, &self.access.addresses) {
            (Some(key), _) => key.charge(events),
            (None, Some(addresses)) => addresses.charge(address, events),
            (None, None) => Ok(()),
        }
    }
}

impl Charge {
    /// Charges a batch with its events. The first was charged when the request
    /// arrived.
    ///
    /// # Errors
    /// Returns an error if the limit does not admit the events now.
    pub(super) fn rest_of_batch(&self, events: usize) -> Result<(), ApiError> {
        let key = self.key.as_deref();
        let charged = match self.guard.burst(key) {
            // The burst bounds the whole batch.
            Some(burst) if events > burst as usize => Err(Exceeded::Burst { burst }),
            _ => self.guard.charge(key, self.address, events.saturating_sub(1)),
        };
        charged.map_err(|exceeded| {
            let exceeded = match exceeded {
                // A retry is charged for its first event separately.
                Exceeded::Rate { retry_after } => {
                    Exceeded::Rate { retry_after: retry_after + Duration::from_secs(1) }
                }
                burst @ Exceeded::Burst { .. } => burst,
            };
            self.guard.access.denials.count(Denial::Rate);
            rate_limited(exceeded, events)
        })
    }
}

fn rate_limited(exceeded: Exceeded, events: usize) -> ApiError {
    match exceeded {
        Exceeded::Rate { retry_after } => {
            let message = "too many events: the rate limit of this caller is used up";
            ApiError::rate_limited(message.to_owned(), retry_after)
        }
        Exceeded::Burst { burst } => ApiError::too_large(format!(
            "a batch of this caller may contain up to {burst} events, the burst of its rate \
             limit; this one has {events}"
        )),
    }
}
