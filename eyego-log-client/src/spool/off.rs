//! No spool: the feature is off. The same signatures, of which none can be
//! called, since there is no value to call them on.

use std::io;
use std::time::Instant;

use super::{Recovered, Unread};
use crate::error::ConfigError;

#[derive(Debug, Clone)]
pub(crate) enum SpoolOptions {}

#[derive(Debug)]
pub(crate) enum Spool {}

impl Spool {
    #[expect(clippy::needless_pass_by_value, reason = "the same signature with the feature")]
    pub(crate) fn open(options: SpoolOptions) -> Result<(Self, Recovered), ConfigError> {
        match options {}
    }

    pub(crate) fn bytes(&self) -> u64 {
        match *self {}
    }

    pub(crate) fn has_room(&self, _: usize) -> bool {
        match *self {}
    }

    pub(crate) fn has_unread(&self) -> bool {
        match *self {}
    }

    pub(crate) fn append(&mut self, _: &[u8], _: usize, _: bool, _: Instant) -> io::Result<u64> {
        match *self {}
    }

    pub(crate) fn read(&mut self) -> Option<Unread> {
        match *self {}
    }

    pub(crate) fn settle(&mut self, _: u64, _: u64) {
        match *self {}
    }

    pub(crate) fn sync_at(&self) -> Option<Instant> {
        match *self {}
    }

    pub(crate) fn sync_if_due(&mut self, _: Instant) -> io::Result<()> {
        match *self {}
    }
}
