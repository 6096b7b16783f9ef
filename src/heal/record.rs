//! What is told of heals: to the history, and in the log.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::breaker::BreakerState;
use super::climb::Verdict;
use super::lanes::Lane;
use super::memory::RungOf;
use super::service::CanvasAnswer;
use super::urgency::Urgency;
use super::ward::{Patient, Ward};
use crate::index::history::Heal;
use crate::observe::{Event, Metrics, Span};

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

impl Ward {
    /// One canvas request in this patient's name ended.
    pub(super) fn step_ended(
        &self,
        flight: &RungOf,
        answer: CanvasAnswer,
        patient: &Patient,
        took: Duration,
    ) {
        let (rung, answer) = (flight.rung.as_str(), answer.as_str());
        self.metrics.canvas_request(rung, answer, took, &patient.trace);
        self.metrics.tell(|| Event::HealStep {
            request: patient.trace.to_string(),
            identifier: patient.key.to_string(),
            rung,
            answer,
            duration_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        });
    }

    /// Sets the gauges that only a look can tell.
    pub(super) fn show(&self, metrics: &Metrics) {
        let now = Instant::now();
        let open = self.services.iter().filter(|it| it.breaker.state(now) != BreakerState::Closed).count();
        metrics.breakers_open.set(i64::try_from(open).unwrap_or(i64::MAX));
        let mut waiting = [0; Lane::ALL.len()];
        for (at, service) in self.services.iter().enumerate() {
            // Two services may share their lanes.
            if self.services[..at].iter().all(|other| !Arc::ptr_eq(&other.lanes, &service.lanes)) {
                for (sum, here) in waiting.iter_mut().zip(service.lanes.waiting()) {
                    *sum += here;
                }
            }
        }
        for (lane, count) in Lane::ALL.into_iter().zip(waiting) {
            metrics.lane_waiting(lane.as_str(), count);
        }
    }
}

impl Verdict {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Healed(_) => "healed",
            Self::Alive => "alive",
            Self::Missing => "missing",
            Self::Cooling => "cooling",
            Self::Failed => "failed",
        }
    }
}

impl Patient {
    /// The same, with what is done for its sake below `span`.
    pub(super) fn within(&self, span: &Span) -> Self {
        Self { trace: span.within(&self.trace), ..self.clone() }
    }

    /// For logs.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Says which request leads the climb that this one waits for, where it is another.
    pub(super) fn joins(&self, climb: &Urgency) {
        if let Some(leader) = climb.leader().filter(|leader| **leader != self.trace) {
            tracing::info!(request = %self.trace, led_by = %leader, identifier = &*self.key, "waits for a heal");
        }
    }
}
