//! The valid keys.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use eyego_log_core::Timestamp;
use parking_lot::RwLock;
use subtle::ConstantTimeEq as _;

use super::limit::{Exceeded, Limiter};
use super::token::{hash_token, id_of};
use crate::domain::access::{EventLimit, Key};

/// Why a token is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// It does not have the form of a token.
    #[error("the token is malformed: expected eyego_<id>_<43 letters and digits>")]
    Malformed,
    /// No key has this token.
    #[error("the token is unknown")]
    Unknown,
    /// Its key has expired.
    #[error("the token has expired")]
    Expired,
}

/// The valid keys. They can be replaced while requests are served.
#[derive(Debug)]
pub struct Keys {
    by_id: RwLock<HashMap<String, Arc<ActiveKey>>>,
}

/// A valid key with its limits.
#[derive(Debug)]
pub struct ActiveKey {
    key: Key,
    state: Arc<State>,
}

/// The state of a key. It outlives a reload, so that a reload does not grant a
/// new burst.
#[derive(Debug)]
struct State {
    limiter: Option<Limiter>,
    in_use: AtomicU32,
    requests: AtomicU64,
    limited: AtomicU64,
}

/// Snapshot of the counters of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyCounts {
    /// Id of the key.
    pub id: String,
    /// Requests with the token of the key.
    pub requests: u64,
    /// Requests refused because of a limit of the key.
    pub limited: u64,
    /// When the key expires.
    pub expires: Option<Timestamp>,
}

impl Keys {
    /// Creates the set of these keys, whose ids differ.
    #[must_use]
    pub fn new(keys: Vec<Key>) -> Self {
        let new = Self { by_id: RwLock::default() };
        new.replace(keys);
        new
    }

    /// Replaces all keys. Keys that are not among `keys` are no longer valid. A
    /// key whose limit is unchanged keeps what is left of it.
    pub fn replace(&self, keys: Vec<Key>) {
        let mut by_id = self.by_id.write();
        let active = keys.into_iter().map(|key| {
            let state = match by_id.get(&key.id) {
                Some(old) => {
                    old.state.with_limit(key.events).unwrap_or_else(|| Arc::clone(&old.state))
                }
                None => Arc::new(State::new(key.events)),
            };
            (key.id.clone(), Arc::new(ActiveKey { key, state }))
        });
        *by_id = active.collect();
    }

    /// Returns the key that has this token.
    ///
    /// # Errors
    /// Returns an error if no key has it, or if the key has expired at `now`.
    pub fn authenticate(
        &self,
        token: &str,
        now: impl FnOnce() -> Timestamp,
    ) -> Result<Arc<ActiveKey>, AuthError> {
        let id = id_of(token).ok_or(AuthError::Malformed)?;
        let key = self.by_id.read().get(id).cloned();
        // A token with an unknown id is hashed and compared, too, so that it takes
        // as long as a wrong one.
        let hash = hash_token(token);
        let expected = key.as_ref().map_or([0; 32], |active| active.key.hash);
        let is_equal = bool::from(hash.ct_eq(&expected));
        let key = key.filter(|_| is_equal).ok_or(AuthError::Unknown)?;
        if key.key.expires.is_some() && key.key.is_expired(now()) {
            return Err(AuthError::Expired);
        }
        key.state.requests.fetch_add(1, Ordering::Relaxed);
        Ok(key)
    }

    /// Returns whether this key is still one of the valid ones, with the same token and
    /// scopes, and has not expired at `now`.
    #[must_use]
    pub fn is_valid(&self, key: &ActiveKey, now: Timestamp) -> bool {
        let by_id = self.by_id.read();
        by_id.get(&key.key.id).is_some_and(|current| {
            let (current, key) = (&current.key, &key.key);
            current.hash == key.hash && current.scopes == key.scopes && !current.is_expired(now)
        })
    }

    /// Returns the counters of each key, ordered by id.
    #[must_use]
    pub fn counts(&self) -> Vec<KeyCounts> {
        let by_id = self.by_id.read();
        let mut counts: Vec<_> = by_id.values().map(|active| active.counts()).collect();
        counts.sort_by(|a, b| a.id.cmp(&b.id));
        counts
    }
}

impl ActiveKey {
    /// Returns the entry of the keys file.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Counts a request as in progress until the returned value is dropped.
    /// Returns `None`, and counts the request as limited, if the key has as many
    /// requests in progress as it may have.
    #[must_use]
    pub fn begin_request(self: &Arc<Self>) -> Option<InUse> {
        let max = self.key.concurrent.map_or(u32::MAX, Into::into);
        if self.state.in_use.fetch_add(1, Ordering::Relaxed) >= max {
            self.state.in_use.fetch_sub(1, Ordering::Relaxed);
            self.state.limited.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(InUse(Arc::clone(&self.state)))
    }

    /// Charges the key with these events: all of them, or none.
    ///
    /// # Errors
    /// Returns an error if the limit of the key does not admit them now. The
    /// request is counted as limited.
    pub fn charge(&self, events: usize) -> Result<(), Exceeded> {
        let charged = self.state.limiter.as_ref().map_or(Ok(()), |limiter| limiter.charge(events));
        if charged.is_err() {
            self.state.limited.fetch_add(1, Ordering::Relaxed);
        }
        charged
    }

    fn counts(&self) -> KeyCounts {
        KeyCounts {
            id: self.key.id.clone(),
            requests: self.state.requests.load(Ordering::Relaxed),
            limited: self.state.limited.load(Ordering::Relaxed),
            expires: self.key.expires,
        }
    }
}

impl State {
    fn new(limit: Option<EventLimit>) -> Self {
        Self {
            limiter: limit.map(Limiter::new),
            in_use: AtomicU32::new(0),
            requests: AtomicU64::new(0),
            limited: AtomicU64::new(0),
        }
    }

    /// Returns a state with this limit and the same counters, or `None` if the
    /// limit is the same.
    fn with_limit(&self, limit: Option<EventLimit>) -> Option<Arc<Self>> {
        if self.limiter.as_ref().map(Limiter::limit) == limit {
            return None;
        }
        let new = Self::new(limit);
        // Requests in progress leave the old state, so `in_use` starts at zero.
        new.requests.store(self.requests.load(Ordering::Relaxed), Ordering::Relaxed);
        new.limited.store(self.limited.load(Ordering::Relaxed), Ordering::Relaxed);
        Some(Arc::new(new))
    }
}

/// A request in progress, counted until this is dropped.
#[derive(Debug)]
pub struct InUse(Arc<State>);

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.in_use.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::application::access::generate_token;
    use crate::domain::access::{Rate, Scope};

    fn key(id: &str, token: &str) -> Key {
        Key {
            id: id.to_owned(),
            hash: hash_token(token),
            scopes: vec![Scope::Ingest],
            events: None,
            concurrent: None,
            expires: None,
        }
    }

    fn now() -> Timestamp {
        "2026-06-01T00:00:00Z".parse().unwrap()
    }

    #[test]
    fn only_the_token_of_a_key_is_accepted() {
        let (web, other) = (generate_token("web").unwrap(), generate_token("web").unwrap());
        let keys = Keys::new(vec![key("web", &web)]);
        assert_eq!(keys.authenticate(&web, now).unwrap().key().id, "web");
        assert_eq!(keys.authenticate(&other, now).unwrap_err(), AuthError::Unknown);
        let stranger = generate_token("stranger").unwrap();
        assert_eq!(keys.authenticate(&stranger, now).unwrap_err(), AuthError::Unknown);
        assert_eq!(keys.authenticate("secret", now).unwrap_err(), AuthError::Malformed);
        keys.replace(vec![key("web", &other)]);
        assert_eq!(keys.authenticate(&web, now).unwrap_err(), AuthError::Unknown);
    }

    #[test]
    fn a_key_is_invalid_from_its_expiry_on() {
        let token = generate_token("web").unwrap();
        let expires =
            |text: &str| Key { expires: Some(text.parse().unwrap()), ..key("web", &token) };
        let keys = Keys::new(vec![expires("2026-06-01T00:00:00.001Z")]);
        assert!(keys.authenticate(&token, now).is_ok());
        keys.replace(vec![expires("2026-06-01T00:00:00Z")]);
        assert_eq!(keys.authenticate(&token, now).unwrap_err(), AuthError::Expired);
    }

    #[test]
    fn a_reload_does_not_grant_a_new_burst() {
        let token = generate_token("web").unwrap();
        let limited = |burst: u32| {
            let burst = NonZeroU32::new(burst).unwrap();
            let events = Some(EventLimit { rate: Rate::new(1).unwrap(), burst });
            vec![Key { events, ..key("web", &token) }]
        };
        let keys = Keys::new(limited(5));
        let active = || keys.authenticate(&token, now).unwrap();
        assert_eq!(active().charge(5), Ok(()));
        keys.replace(limited(5));
        assert!(active().charge(5).is_err());
        keys.replace(limited(6));
        assert_eq!(active().charge(6), Ok(()));
        let counts = keys.counts();
        assert_eq!((counts[0].requests, counts[0].limited), (3, 1));
    }

    #[test]
    fn concurrent_requests_are_limited() {
        let token = generate_token("web").unwrap();
        let keys = Keys::new(vec![Key { concurrent: NonZeroU32::new(2), ..key("web", &token) }]);
        let active = keys.authenticate(&token, now).unwrap();
        let (first, _second) = (active.begin_request().unwrap(), active.begin_request().unwrap());
        assert!(active.begin_request().is_none());
        drop(first);
        assert!(active.begin_request().is_some());
    }
}
