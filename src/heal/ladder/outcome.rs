//! Outcome of a heal, and the work that it leaves.

use std::sync::Arc;

use crate::config::settings::Rung;
use crate::heal::canvas_service::CanvasService;
use crate::heal::canvas_service::request::CanvasRequest;
use crate::heal::canvas_service::response::CanvasResponse;
use crate::heal::single_flight::FlightHandle;

/// `HealReport` is the outcome of a heal, and the work that it leaves.
#[derive(Debug)]
pub(in crate::heal) struct HealReport {
    pub(in crate::heal) outcome: HealOutcome,
    pub(in crate::heal) follow_ups: Vec<FollowUp>,
}

/// `HealOutcome` says how a heal ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::heal) enum HealOutcome {
    /// The image had expired and is back, by this rung.
    Healed(Rung),
    /// The canvas service knows where the file is, without our doing.
    Alive,
    /// The file is gone.
    Missing,
    /// Every rung is cooling down, or the breaker is open.
    Cooling,
    /// No rung helped.
    Failed,
    /// No rung could be tried: no canvas of the image may be requested, or no rung of the ladder fits it.
    NoRung,
}

/// `FollowUp` is work that a heal leaves.
#[derive(Debug)]
pub(in crate::heal) enum FollowUp {
    /// The request still runs, and its canvas may yet come without the image.
    WatchCanvas { service: Arc<CanvasService>, request: CanvasRequest, flight: FlightHandle<CanvasResponse> },
    /// Rebuild later: the canvas of this request came without the image, and the service must be well first.
    RepairCanvas { service: Arc<CanvasService>, request: CanvasRequest },
    /// Whole: the canvas came with the image.
    CanvasIsWhole,
}

impl HealOutcome {
    /// Outcome where no rung helped: some were `tried`, or those that fit are `cooling`, or none fits.
    pub(in crate::heal) fn without_help(tried: bool, cooling: bool) -> Self {
        match (tried, cooling) {
            (true, _) => Self::Failed,
            (false, true) => Self::Cooling,
            (false, false) => Self::NoRung,
        }
    }

    pub(in crate::heal) fn as_str(self) -> &'static str {
        match self {
            Self::Healed(_) => "healed",
            Self::Alive => "alive",
            Self::Missing => "missing",
            Self::Cooling => "cooling",
            Self::Failed | Self::NoRung => "failed",
        }
    }
}
