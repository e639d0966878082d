//! One request as the guard sees it, from its head to its response.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use eyego_log_core::Timestamp;
use http::{HeaderValue, Method, Request, Uri};

use super::audit::{AuditLine, AuditLog, Audited};
use super::denial::Denial;
use super::route::{self, Requirement};
use super::{Charge, Guard, Permission, bearer, origin, rate_limited};
use crate::application::access::{ActiveKey, InUse, Keys};
use crate::application::metrics::Refusal;
use crate::domain::access::Scope;
use crate::interface::http::error::ApiError;

/// A request as the guard sees it. Its limit of concurrent requests applies until
/// this is dropped.
#[derive(Debug)]
pub(in crate::interface::http) struct Visit {
    guard: Arc<Guard>,
    address: IpAddr,
    requirement: Requirement,
    key: Option<Arc<ActiveKey>>,
    in_use: Option<InUse>,
    denial: Option<Denial>,
    /// Set for requests that the audit log may mention.
    audited: Option<(Method, Uri)>,
    /// Set if the origin of the request may read the response.
    origin: Option<HeaderValue>,
}

impl Visit {
    /// Starts the visit of a request from `address`.
    pub(in crate::interface::http) fn new(
        guard: &Arc<Guard>,
        request: &Request<Body>,
        address: IpAddr,
    ) -> Self {
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
    pub(in crate::interface::http) fn admit(
        &mut self,
        request: &mut Request<Body>,
    ) -> Result<(), Box<Response>> {
        let is_audited = self.requirement.is_audited();
        if is_audited {
            self.audited = Some((request.method().clone(), request.uri().clone()));
        }
        match self.check(request) {
            Ok(()) => {}
            Err((denial, error)) => {
                // The metrics count what a limit refuses; the audit log lists what was forbidden.
                if !is_audited && !denial.is_limit() {
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
        if route::is_tail(request.uri()) {
            let (guard, key) = (Arc::clone(&self.guard), self.key.clone());
            let permission = Permission { guard, key, _in_use: self.in_use.take() };
            request.extensions_mut().insert(Arc::new(permission));
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
    pub(in crate::interface::http) fn finish(self, response: &mut Response, request_id: &str) {
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
