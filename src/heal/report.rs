//! What is told of heals: to the history, and in the log.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::config::settings::Rung;
use crate::heal::canvas_service::circuit_breaker::BreakerState;
use crate::heal::canvas_service::priority_semaphore::Priority;
use crate::heal::canvas_service::response::CanvasResponse;
use crate::heal::canvas_service::status::CanvasServiceStatus;
use crate::heal::cooldowns::CanvasRequestKey;
use crate::heal::flight_priority::FlightPriority;
use crate::heal::ladder::HealOutcome;
use crate::heal::ward::{IndexedImage, Ward};
use crate::index::history::Heal;
use crate::observe::{Event, Metrics, Span};

impl Ward {
    /// Notes how a heal ended, for `waiting` viewers. Nothing waits for it. Climbs that tried nothing (it was alive,
    /// or all rungs are cooling down) are no heals: a sweep or an impatient crawler would fill the history with them.
    pub(in crate::heal) fn record(
        &self,
        patient: &IndexedImage,
        verdict: HealOutcome,
        lane: Priority,
        took: Duration,
        waiting: u32,
    ) {
        let rung = match verdict {
            HealOutcome::Alive | HealOutcome::Cooling => return,
            HealOutcome::Healed(rung) => Some(rung.as_str().to_owned()),
            HealOutcome::Missing | HealOutcome::Failed => None,
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
    pub(in crate::heal) fn step_ended(
        &self,
        flight: &CanvasRequestKey,
        answer: CanvasResponse,
        patient: &IndexedImage,
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
    pub(in crate::heal) fn show(&self, metrics: &Metrics) {
        let now = Instant::now();
        let open = self.services.iter().filter(|it| it.breaker.state(now) != BreakerState::Closed).count();
        metrics.breakers_open.set(i64::try_from(open).unwrap_or(i64::MAX));
        metrics.upstream.forget_services();
        let mut at_the_door = 0;
        for status in self.services.iter().map(|service| service.status(now)) {
            at_the_door += status.waiting_viewers;
            metrics.upstream.variants(&status.upstream, &CanvasServiceStatus::VARIANTS, status.variants);
        }
        metrics.upstream.document_waiting.set(i64::try_from(at_the_door).unwrap_or(i64::MAX));
        let mut waiting = [0; Priority::ALL.len()];
        for (at, service) in self.services.iter().enumerate() {
            // Two services may share their lanes.
            if self.services[..at].iter().all(|other| !Arc::ptr_eq(&other.lanes, &service.lanes)) {
                for (sum, here) in waiting.iter_mut().zip(service.lanes.waiting()) {
                    *sum += here;
                }
            }
        }
        for (lane, count) in Priority::ALL.into_iter().zip(waiting) {
            metrics.lane_waiting(lane.as_str(), count);
        }
    }
}

impl HealOutcome {
    pub(in crate::heal) fn as_str(self) -> &'static str {
        match self {
            Self::Healed(_) => "healed",
            Self::Alive => "alive",
            Self::Missing => "missing",
            Self::Cooling => "cooling",
            Self::Failed => "failed",
        }
    }
}

impl IndexedImage {
    /// The same, with what is done for its sake below `span`.
    pub(in crate::heal) fn within(&self, span: &Span) -> Self {
        Self { trace: span.within(&self.trace), ..self.clone() }
    }

    /// For logs.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Says which request leads the climb that this one waits for, where it is another.
    pub(in crate::heal) fn joins(&self, climb: &FlightPriority) {
        if let Some(leader) = climb.leader().filter(|leader| **leader != self.trace) {
            tracing::info!(request = %self.trace, led_by = %leader, identifier = &*self.key, "waits for a heal");
        }
    }
}

impl Rung {
    /// The word used in headers, labels, logs and the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Register => "register",
            Self::Variant => "variant",
            Self::Visit => "visit",
            Self::Rebuild => "rebuild",
        }
    }
}
