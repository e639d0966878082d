//! Readiness, dead letters and erasures, with calls that block the thread.

use std::time::Duration;

use eyego_log_core::query::Cursor;
use eyego_log_core::{LogId, Timestamp};

use super::{Client, wait};
use crate::api::dead_letters::{DeadLetter, DeadLetterPage, Replay, Replayed};
use crate::api::erasures::{Erasure, ErasurePage};
use crate::api::readiness::Readiness;
use crate::api::{dead_letters, erasures};
use crate::model::errors::RequestError;

impl Client {
    /// Blocks until it is known whether the server is ready; see
    /// [`crate::Client::readiness`].
    ///
    /// # Errors
    /// Returns the errors of [`crate::Client::readiness`].
    pub fn readiness(&self) -> Result<Readiness, RequestError> {
        wait(self.inner.readiness())
    }

    /// Creates a query for dead letters.
    pub fn dead_letters(&self) -> DeadLetterQuery {
        DeadLetterQuery { inner: self.inner.dead_letters() }
    }

    /// Blocks until one dead letter is read; see [`crate::Client::dead_letter`].
    ///
    /// # Errors
    /// Returns the errors of [`crate::Client::dead_letter`].
    pub fn dead_letter(&self, id: LogId) -> Result<Option<DeadLetter>, RequestError> {
        wait(self.inner.dead_letter(id))
    }

    /// Blocks until dead letters are replayed; see
    /// [`crate::Client::replay_dead_letters`].
    ///
    /// # Errors
    /// Returns the errors of [`crate::Client::replay_dead_letters`].
    pub fn replay_dead_letters(&self, selection: Replay) -> Result<Replayed, RequestError> {
        wait(self.inner.replay_dead_letters(selection))
    }

    /// Blocks until the erasure of a user is durable; see
    /// [`crate::Client::erase_user`].
    ///
    /// # Errors
    /// Returns the errors of [`crate::Client::erase_user`].
    pub fn erase_user(&self, user_id: impl AsRef<str>) -> Result<Erasure, RequestError> {
        wait(self.inner.erase_user(user_id))
    }

    /// Blocks until one erasure is read; see [`crate::Client::erasure`].
    ///
    /// # Errors
    /// Returns the errors of [`crate::Client::erasure`].
    pub fn erasure(&self, id: LogId) -> Result<Option<Erasure>, RequestError> {
        wait(self.inner.erasure(id))
    }

    /// Blocks until an erasure is done, at most for `timeout`; see
    /// [`crate::Client::wait_for_erasure`].
    ///
    /// # Errors
    /// Returns the errors of [`crate::Client::wait_for_erasure`].
    pub fn wait_for_erasure(&self, id: LogId, timeout: Duration) -> Result<Erasure, RequestError> {
        wait(self.inner.wait_for_erasure(id, timeout))
    }

    /// Creates a query for the erasures, the latest request first.
    pub fn erasures(&self) -> ErasureQuery {
        ErasureQuery { inner: self.inner.erasures() }
    }
}

/// A query for dead letters whose calls block the thread; see
/// [`crate::DeadLetterQuery`].
#[derive(Debug, Clone)]
#[must_use = "a query does nothing until it is fetched"]
pub struct DeadLetterQuery {
    inner: dead_letters::DeadLetterQuery,
}

impl DeadLetterQuery {
    /// Keeps only dead letters with this code.
    pub fn code(self, code: impl Into<String>) -> Self {
        Self { inner: self.inner.code(code) }
    }

    /// Keeps only dead letters whose last failure was at or after this time.
    pub fn since(self, time: impl Into<Timestamp>) -> Self {
        Self { inner: self.inner.since(time) }
    }

    /// Keeps only dead letters whose last failure was before this time.
    pub fn until(self, time: impl Into<Timestamp>) -> Self {
        Self { inner: self.inner.until(time) }
    }

    /// Sets the maximum number of dead letters in a page. Defaults to 10; from 1 to
    /// 1000.
    pub fn limit(self, limit: u32) -> Self {
        Self { inner: self.inner.limit(limit) }
    }

    /// Starts after the last dead letter of the page that returned this cursor.
    pub fn cursor(self, cursor: Cursor) -> Self {
        Self { inner: self.inner.cursor(cursor) }
    }

    /// Blocks until one page is read; see [`crate::DeadLetterQuery::fetch`].
    ///
    /// # Errors
    /// Returns the errors of [`crate::DeadLetterQuery::fetch`].
    pub fn fetch(&self) -> Result<DeadLetterPage, RequestError> {
        wait(self.inner.fetch())
    }
}

/// A query for erasures whose calls block the thread; see [`crate::ErasureQuery`].
#[derive(Debug, Clone)]
#[must_use = "a query does nothing until it is fetched"]
pub struct ErasureQuery {
    inner: erasures::ErasureQuery,
}

impl ErasureQuery {
    /// Sets the maximum number of erasures in a page. Defaults to 10; from 1 to
    /// 1000.
    pub fn limit(self, limit: u32) -> Self {
        Self { inner: self.inner.limit(limit) }
    }

    /// Starts after the last erasure of the page that returned this cursor.
    pub fn cursor(self, cursor: Cursor) -> Self {
        Self { inner: self.inner.cursor(cursor) }
    }

    /// Blocks until one page is read; see [`crate::ErasureQuery::fetch`].
    ///
    /// # Errors
    /// Returns the errors of [`crate::ErasureQuery::fetch`].
    pub fn fetch(&self) -> Result<ErasurePage, RequestError> {
        wait(self.inner.fetch())
    }
}
