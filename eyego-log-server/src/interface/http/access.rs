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
//! | `audit` | the audit log |

mod audit;
mod bearer;
mod denial;
mod host;
mod origin;
mod route;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use eyego_log_core::Timestamp;
use http::{Method, Request, Uri};

pub use self::audit::Audited;
use self::audit::{AuditLine, AuditLog};
use self::denial::Denial;
pub(super) use self::denial::DenialCounts;
use self::host::Hosts;
use self::origin::Origins;
use self::route::Requirement;
use super::error::ApiError;
use crate::application::access::{ActiveKey, AddressLimits, Exceeded, InUse, KeyCounts, Keys};
use crate::application::metrics::{IngestCounters, Refusal};
use crate::domain::access::Scope;

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

/// A request as the guard sees it. Its limit of concurrent requests applies until
/// this is dropped.
#[derive(Debug)]
pub(super) struct Visit {
    guard: Arc<Guard>,
    address: IpAddr,
    requirement: Requirement,
    key: Option<Arc<ActiveKey>>,
    in_use: Option<InUse>,
    denial: Option<Denial>,
    /// Set for requests that the audit log may mention.
    audited: Option<(Method, Uri)>,
    /// Set if the origin of the request may read the response.
    origin: Option<http::HeaderValue>,
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

impl Visit {
    /// Starts the visit of a request from `address`.
    pub(super) fn new(guard: &Arc<Guard>, request: &Request<Body>, address: IpAddr) -> Self {
        Self {
            guard: Arc::clone(guard),
            address,
            requirement: route::requirement(request.method(), request.uri().path()),
            key: None,
            in_use: None,
            denial: None,
            audited: None,
            origin: guard.access.origins.listed(request.headers()).cloned(),
        }
    }

    /// Decides whether the request may proceed. Returns the response if it may
    /// not, or if there is nothing left to do.
    pub(super) fn admit(&mut self, request: &mut Request<Body>) -> Result<(), Box<Response>> {
        let is_audited = self.requirement.is_audited();
        if is_audited {
            self.audited = Some((request.method().clone(), request.uri().clone()));
        }
        match self.check(request) {
            Ok(()) => {}
            Err((denial, error)) => {
                if !is_audited {
                    self.audited = Some((request.method().clone(), request.uri().clone()));
                }
                self.guard.access.denials.count(denial);
                self.denial = Some(denial);
                return Err(Box::new(error.into_response()));
            }
        }
        if origin::is_preflight(request) {
            return Err(Box::new(origin::preflight_response()));
        }
        if self.requirement == Requirement::Scope(Scope::Ingest) && route::is_batch(request.uri()) {
            let key = self.key.clone();
            let charge = Charge { key, guard: Arc::clone(&self.guard), address: self.address };
            request.extensions_mut().insert(charge);
        }
        Ok(())
    }

    fn check(&mut self, request: &Request<Body>) -> Result<(), (Denial, ApiError)> {
        let guard = Arc::clone(&self.guard);
        if let Some(hosts) = &guard.hosts {
            hosts.check(request).map_err(|error| (Denial::Host, ApiError::misdirected(error)))?;
        }
        let forbid = |error| (Denial::Origin, ApiError::forbidden(error));
        guard.access.origins.check(request).map_err(forbid)?;
        if origin::is_preflight(request) {
            return Ok(());
        }
        if let (Some(keys), false) = (&guard.access.keys, self.requirement == Requirement::Open) {
            self.authenticate(keys, request)?;
        }
        if self.requirement == Requirement::Scope(Scope::Ingest) {
            // The first event; a batch is charged for the others when they are counted.
            guard.charge(self.key.as_deref(), self.address, 1).map_err(|exceeded| {
                self.count_refused(route::is_batch(request.uri()));
                (Denial::Rate, rate_limited(exceeded, 1))
            })?;
        }
        Ok(())
    }

    fn authenticate(
        &mut self,
        keys: &Keys,
        request: &Request<Body>,
    ) -> Result<(), (Denial, ApiError)> {
        let unauthenticated =
            |error: String| (Denial::Unauthenticated, ApiError::unauthenticated(error));
        if bearer::query_has_token(request.uri().query()) {
            return Err((Denial::TokenInQuery, ApiError::unauthenticated(bearer::IN_QUERY)));
        }
        let token =
            bearer::token(request.headers()).map_err(|error| unauthenticated(error.to_owned()))?;
        let key = keys
            .authenticate(token, || Timestamp::from(SystemTime::now()))
            .map_err(|error| unauthenticated(error.to_string()))?;
        let key = self.key.insert(key);
        if let Requirement::Scope(scope) = self.requirement
            && !key.key().allows(scope)
        {
            let message = format!("the key `{}` does not have the scope `{scope}`", key.key().id);
            return Err((Denial::Forbidden, ApiError::forbidden(message)));
        }
        let in_use = key.begin_request().ok_or_else(|| {
            let max = key.key().concurrent.map_or(0, Into::into);
            let message = format!("the key may have up to {max} requests at the same time");
            (Denial::Concurrency, ApiError::rate_limited(message, Duration::from_secs(1)))
        });
        match in_use {
            Ok(in_use) => self.in_use = Some(in_use),
            Err(denial) => {
                if self.requirement == Requirement::Scope(Scope::Ingest) {
                    self.count_refused(route::is_batch(request.uri()));
                }
                return Err(denial);
            }
        }
        Ok(())
    }

    /// Counts what a rate limit refuses before the body is read: one event, or a
    /// batch with an unknown number of events.
    fn count_refused(&self, is_batch: bool) {
        match &self.guard.ingest {
            Some(ingest) if is_batch => ingest.refuse_body(Refusal::RateLimited),
            Some(ingest) => ingest.refuse_event(Refusal::RateLimited),
            None => {}
        }
    }

    /// Completes the response, and writes the audit log.
    pub(super) fn finish(self, response: &mut Response, request_id: &str) {
        if let Some(origin) = self.origin {
            origin::allow(response.headers_mut(), origin);
        }
        let Some((method, uri)) = &self.audited else { return };
        let details = response.extensions_mut().remove::<Audited>();
        let line = AuditLine {
            key: self.key.as_ref().map(|key| key.key().id.as_str()),
            address: self.address,
            method,
            uri,
            status: response.status(),
            request_id,
        };
        match self.denial {
            Some(denial) => self.guard.access.audit.denied(&line, denial),
            None => AuditLog::served(&line, details),
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
