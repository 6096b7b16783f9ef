//! Is the canvas service well? Asked before a rebuild, because a rebuild into a fault ruins a good canvas.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// A fault is forgotten after this time without another one.
const FAULT_LASTS: Duration = Duration::from_secs(30);

/// The last signs of health and of faults of one canvas service.
#[derive(Debug, Default)]
pub(super) struct Wellness {
    last_fault: Mutex<Option<Instant>>,
}

impl Wellness {
    /// A canvas came back whole, or the service's own info.json was answered well.
    pub(super) fn good(&self) {
        *self.last_fault.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// A canvas came back without its image, or the service's own info.json failed.
    pub(super) fn fault(&self) {
        *self.last_fault.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// The service's own info.json request came by, answered with `status`.
    pub(super) fn echo(&self, status: http::StatusCode) {
        if status.is_success() { self.good() } else { self.fault() }
    }

    /// No sign of a fault lately.
    pub(super) fn is_well(&self) -> bool {
        let last = *self.last_fault.lock().unwrap_or_else(PoisonError::into_inner);
        last.is_none_or(|fault| fault.elapsed() > FAULT_LASTS)
    }
}
