//! Replaces the spool if the crate feature `spool` is disabled. The types have
//! no values, so none of the methods can be called.

use std::io;
use std::time::Instant;

use crate::model::setup_error::SetupError;
use crate::spool::record::{Extent, Recovered, Unread};

#[derive(Debug, Clone)]
pub(crate) enum SpoolOptions {}

#[derive(Debug)]
pub(crate) enum Spool {}

impl Spool {
    pub(crate) fn open(options: &SpoolOptions) -> Result<(Self, Recovered), SetupError> {
        match *options {}
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

    pub(crate) fn has_file(&self, _: u64) -> bool {
        match *self {}
    }

    pub(crate) fn unread(&self) -> Vec<(Extent, bool)> {
        match *self {}
    }

    pub(crate) fn append(&mut self, _: &[u8], _: usize, _: bool, _: Instant) -> io::Result<u64> {
        match *self {}
    }

    pub(crate) fn read(&mut self) -> Option<Unread> {
        match *self {}
    }

    pub(crate) fn take_expired(&mut self) -> Option<Unread> {
        match *self {}
    }

    pub(crate) fn next_expiry(&self, _: Instant) -> Option<Instant> {
        match *self {}
    }

    pub(crate) fn check_writer(&mut self) -> io::Result<()> {
        match *self {}
    }

    pub(crate) fn prepare_to_write(&mut self) -> io::Result<()> {
        match *self {}
    }

    pub(crate) fn expires_at(&self, _: Instant) -> Option<Instant> {
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
