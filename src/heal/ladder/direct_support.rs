//! Whether an image server answers for a file by the file's own identifier.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

/// Is this way to the image server open? Not every image server decodes base64, and gateways differ about `%2F`
/// (standard base64 may hold `/`). What was never seen to work proves nothing when it fails.
#[derive(Debug, Default)]
pub(in crate::heal) struct DirectSupport(Mutex<SupportState>);

#[derive(Debug, Default, Clone, Copy)]
enum SupportState {
    #[default]
    Nothing,
    /// It worked once.
    Open,
    /// It failed before it ever worked. Tried again from then on: a missing file looks the same.
    Shut { until: Instant },
}

impl DirectSupport {
    pub(in crate::heal) fn is_shut(&self, now: Instant) -> bool {
        matches!(*self.lock(), SupportState::Shut { until } if now < until)
    }

    pub(in crate::heal) fn is_open(&self) -> bool {
        matches!(*self.lock(), SupportState::Open)
    }

    pub(in crate::heal) fn works(&self) {
        *self.lock() = SupportState::Open;
    }

    pub(in crate::heal) fn failed(&self, until: Instant) {
        let mut seen = self.lock();
        if !matches!(*seen, SupportState::Open) {
            *seen = SupportState::Shut { until };
        }
    }

    fn lock(&self) -> MutexGuard<'_, SupportState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
