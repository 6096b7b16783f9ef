//! What the history of heals is told.

use std::time::Duration;

use super::climb::Verdict;
use super::lanes::Lane;
use super::ward::{Patient, Ward};
use crate::index::history::Heal;

impl Ward {
    /// Notes how a heal ended, for `waiting` viewers. Nothing waits for it. Climbs that tried nothing (it was alive,
    /// or all rungs are cooling down) are no heals: a sweep or an impatient crawler would fill the history with them.
    pub(super) fn record(
        &self,
        patient: &Patient,
        verdict: Verdict,
        lane: Lane,
        took: Duration,
        waiting: u32,
    ) {
        let rung = match verdict {
            Verdict::Alive | Verdict::Cooling => return,
            Verdict::Healed(rung) => Some(rung.as_str().to_owned()),
            Verdict::Missing | Verdict::Failed => None,
        };
        let owner = patient.owners.first();
        self.history.note(Heal {
            identifier: patient.key.to_string(),
            canvas: owner.map(|owner| owner.canvas.clone()),
            manifest: owner.map(|owner| owner.manifest.clone()),
            rung,
            verdict: verdict.as_str().to_owned(),
            lane: lane.as_str().to_owned(),
            duration_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            waiting,
            ..Heal::default()
        });
    }
}
