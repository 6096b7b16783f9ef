//! How a climb up the ladder may end.

use crate::config::settings::Rung;

/// How a climb ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::heal) enum HealOutcome {
    /// The image is back, by this rung.
    Healed(Rung),
    /// The canvas service knows where the file is, without our doing.
    Alive,
    /// The file is gone.
    Missing,
    /// Every rung is cooling down, or the breaker is open.
    Cooling,
    /// Nothing helped.
    Failed,
}
