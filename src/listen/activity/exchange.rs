//! State of a connection besides HTTP exchanges: heads that cannot be parsed, and upgrades to other protocols.

use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering::Relaxed};

use http::StatusCode;
use parking_lot::Mutex;

use super::ConnectionActivity;
use crate::upstream::Upgrade;

/// State of a connection besides timestamps.
#[derive(Debug, Default)]
pub(super) struct ExchangeActivity {
    /// True if a request came and its answer is not fully written.
    owes: AtomicBool,
    /// Status for a head that could not be parsed; zero: all were parsed.
    malformed: AtomicU16,
    /// Time of the last bytes of an upgraded connection.
    moved: AtomicU64,
    /// Upstream side of an upgrade, until HTTP has ended.
    upgrade: Mutex<Option<Upgrade>>,
}

impl ExchangeActivity {
    /// Records that a request came.
    pub(super) fn asks(&self) {
        self.owes.store(true, Relaxed);
    }

    pub(super) fn moved(&self) -> &AtomicU64 {
        &self.moved
    }
}

impl ConnectionActivity {
    /// True if bytes came since the last answer ended.
    pub(in crate::listen) fn has_begun(&self) -> bool {
        self.began.load(Relaxed) != 0
    }

    /// True if no request came so far.
    pub(in crate::listen) fn is_new(&self) -> bool {
        !self.asked.load(Relaxed)
    }

    /// True if a request is in flight, or a part of its answer is still to be written.
    pub(in crate::listen) fn owes(&self) -> bool {
        self.exchange.owes.load(Relaxed)
    }

    /// Records that all bytes are written.
    pub(in crate::listen) fn mark_flushed(&self) {
        if self.owes() && self.is_idle() {
            self.exchange.owes.store(false, Relaxed);
        }
    }

    /// Notes that the next request is the substitute for a malformed head, to be answered with this status.
    pub(in crate::listen) fn note_malformed(&self, status: StatusCode) {
        self.exchange.malformed.store(status.as_u16(), Relaxed);
    }

    /// Status for a head that could not be read; for the request's service.
    pub(in crate::listen) fn malformed(&self) -> Option<StatusCode> {
        let status = self.exchange.malformed.load(Relaxed);
        if status == 0 { None } else { StatusCode::from_u16(status).ok() }
    }

    /// Upstream side of the tunnel that follows HTTP.
    pub(in crate::listen) fn upgrade(&self) -> Option<Upgrade> {
        self.exchange.upgrade.lock().take()
    }

    pub(in crate::listen) fn is_switched(&self) -> bool {
        self.exchange.moved.load(Relaxed) != 0
    }

    pub(in crate::listen) fn moves(&self) {
        if self.is_switched() {
            self.note(&self.exchange.moved);
        }
    }

    /// Marks the answer in flight as the last one in HTTP.
    pub(in crate::listen) fn switches(&self, upgrade: Upgrade) {
        self.note(&self.exchange.moved);
        *self.exchange.upgrade.lock() = Some(upgrade);
    }
}
