//! Which probe tells the truth at one image server.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::heal::evidence::Probe;

/// `TruthfulProbe` is what is known of the probes of one image server.
#[derive(Debug, Default)]
pub(in crate::heal) struct TruthfulProbe(Mutex<ProbeState>);

#[derive(Debug, Clone, Copy, Default)]
/// Which probe it is.
pub(in crate::heal) enum ProbeState {
    #[default]
    Unknown,
    /// This one tells the truth.
    Known(Probe),
    /// None of them does; tried anew from then on.
    None { until: Instant },
}

/// How soon an image server of which no probe told the truth is tried anew.
pub(in crate::heal) const RETRY_AFTER: Duration = Duration::from_mins(10);

impl TruthfulProbe {
    pub(in crate::heal) fn state(&self) -> ProbeState {
        match *self.lock() {
            ProbeState::None { until } if Instant::now() >= until => ProbeState::Unknown,
            state => state,
        }
    }

    pub(in crate::heal) fn set(&self, state: ProbeState) {
        *self.lock() = state;
    }

    fn lock(&self) -> MutexGuard<'_, ProbeState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
