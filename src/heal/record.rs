//! What is told of heals: to the history, and in the log.

use std::time::Duration;

use super::climb::Verdict;
use super::lanes::Lane;
use super::urgency::Urgency;
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
            request: Some(patient.trace.to_string()),
            ..Heal::default()
        });
    }
}

impl Patient {
    /// Says which request leads the climb that this one waits for, where it is another.
    pub(super) fn joins(&self, climb: &Urgency) {
        if let Some(leader) = climb.leader().filter(|leader| **leader != self.trace) {
            tracing::info!(request = %self.trace, led_by = %leader, identifier = &*self.key, "waits for a heal");
        }
    }
}
