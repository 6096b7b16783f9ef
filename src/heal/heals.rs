//! Heals: each image is healed once for all who wait, by the ladder, with the follow-up work.

use std::sync::Arc;

use tokio::time::Instant;

use crate::config::settings::Rung;
use crate::heal::background::mass_expiry::MassExpiry;
use crate::heal::background::start_heal::StartHeal;
use crate::heal::broken_images::BrokenImages;
use crate::heal::canvas_service::failure_log::FailureReason;
use crate::heal::canvas_service::priority_semaphore::Priority;
use crate::heal::canvas_service::request::CanvasRequest;
use crate::heal::canvas_service::services::{AskedCanvas, CanvasServices};
use crate::heal::first_requests::FirstRequestLimiter;
use crate::heal::flight_priority::FlightPriority;
use crate::heal::image::{ImageKey, IndexedImage};
use crate::heal::ladder::{HealOutcome, HealReport, Ladder, NO_HELP, NO_ROUTE, last_failure};
use crate::heal::repair::Repairs;
use crate::heal::single_flight::{FlightHandle, SingleFlight};
use crate::index::history::HealRecord;
use crate::index::history::writer::HistoryWriter;
use crate::observe::{EventKind, GaugeGuard, LiveEvent, Metrics};

pub(in crate::heal) const LEFT_ALONE: &str = "the canvas service only fails and is left alone for a while";
const NO_RUNG: &str = "no rung of [heal] ladder fits it: \"variant\" is for services that build beside what they have stored, \
    \"visit\" and \"rebuild\" for those that cannot, \"register\" needs to know the file";
const EMPTY: &str = "its canvas comes back without images: the file is gone, or a fault goes on";
/// `FILE_GONE` is the reason of an image whose file is gone.
pub const FILE_GONE: &str = "the file itself is gone";

/// `Heals` runs heals, records them, and passes on the work that they leave.
#[derive(Debug)]
pub(in crate::heal) struct Heals {
    pub(in crate::heal) ladder: Arc<Ladder>,
    pub(in crate::heal) repairs: Arc<Repairs>,
    pub(in crate::heal) services: Arc<CanvasServices>,
    pub(in crate::heal) mass_expiry: Arc<MassExpiry>,
    pub(in crate::heal) firsts: Arc<FirstRequestLimiter>,
    pub(in crate::heal) flights: SingleFlight<ImageKey, HealOutcome>,
    /// `heal.max_flights`.
    pub(in crate::heal) most: usize,
    pub(in crate::heal) broken: Arc<BrokenImages>,
    pub(in crate::heal) history: HistoryWriter,
    pub(in crate::heal) metrics: Arc<Metrics>,
}

impl StartHeal for Heals {
    fn start(self: Arc<Self>, image: &IndexedImage, priority: Priority) -> FlightHandle<HealOutcome> {
        self.flights.join_or_start(&image.image_key(), priority, |urgency| {
            urgency.set_leader(&image.trace);
            let (heals, image) = (Arc::clone(&self), image.clone());
            async move {
                let outcome = heals.heal(&image, &urgency).await;
                // After a heal, successful or not, the next request is sent to the image server first.
                heals.firsts.clear(image.mark, &image.sent);
                outcome
            }
        })
    }

    fn is_under_way(&self, image: &IndexedImage) -> bool {
        self.flights.find(&image.image_key()).is_some()
    }

    fn under_way(&self) -> usize {
        self.flights.len()
    }
}

impl Heals {
    /// True if the heal of this image may start now. Heals go on when their viewers leave, and some never had any: without
    /// a bound a client that asks for one expired image after the other would fill the memory with heals.
    pub(in crate::heal) fn may_start(&self, image: &IndexedImage) -> bool {
        let may = self.flights.len() < self.most || self.is_under_way(image);
        if !may {
            self.metrics.event(EventKind::HealRefused);
        }
        may
    }

    /// Runs the whole heal, with metrics and log.
    async fn heal(self: &Arc<Self>, image: &IndexedImage, urgency: &Arc<FlightPriority>) -> HealOutcome {
        let started = Instant::now();
        let _counted = GaugeGuard::inc(&self.metrics.flights);
        self.metrics.publish(|| LiveEvent::HealStarted {
            request: image.trace.to_string(),
            identifier: image.key.to_string(),
            lane: urgency.lane().as_str(),
        });
        let HealReport { outcome, follow_ups } = self.ladder.run(image, urgency).await;
        for follow_up in follow_ups {
            self.repairs.follow_up(follow_up, image);
        }
        if let HealOutcome::Healed(rung) = outcome {
            // UPSTREAM: a service that registers a file writes its key, whether the file is there or not.
            if rung != Rung::Register {
                self.broken.clear(&image.key);
            }
            let heals: Arc<dyn StartHeal> = Arc::<Self>::clone(self);
            self.mass_expiry.note_expired(image, heals);
        }
        let (took, lane) = (started.elapsed(), urgency.lane());
        let rung = if let HealOutcome::Healed(rung) = outcome { rung.as_str() } else { "none" };
        let reason = self.reason(image, outcome);
        self.metrics.heal(outcome.as_str(), rung, lane.as_str(), took, &image.trace);
        let duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        self.metrics.publish(|| LiveEvent::HealEnded {
            request: image.trace.to_string(),
            identifier: image.key.to_string(),
            lane: lane.as_str(),
            verdict: outcome.as_str(),
            rung,
            duration_ms,
            waiting: urgency.viewers(),
            reason: reason.clone(),
        });
        tracing::info!(
            request = %image.trace,
            identifier = %image.key,
            verdict = outcome.as_str(),
            heal.rung = rung,
            reason = reason.as_deref(),
            duration_ms,
            "heal ended"
        );
        let (lane, waiting) = (lane.as_str().to_owned(), urgency.viewers());
        self.record(
            image,
            outcome,
            HealRecord { lane, duration_ms, waiting, reason, ..HealRecord::default() },
        );
        outcome
    }

    /// Reason why the image is not back, in words. `None`: it is back.
    fn reason(&self, image: &IndexedImage, outcome: HealOutcome) -> Option<String> {
        match outcome {
            HealOutcome::Healed(_) | HealOutcome::Alive => None,
            HealOutcome::Missing => Some(FILE_GONE.to_owned()),
            HealOutcome::Cooling | HealOutcome::Failed | HealOutcome::NoRung => {
                Some(self.failure_reason(image, outcome).text)
            }
        }
    }

    /// Reason why a heal of this image did not help, and whether a retry after a pause may.
    pub(in crate::heal) fn failure_reason(
        &self,
        image: &IndexedImage,
        outcome: HealOutcome,
    ) -> FailureReason {
        let because = |text: &str, passing| FailureReason { text: text.to_owned(), passing, status: None };
        if image.owners.is_empty() {
            return because("no canvas is known that owns it", false);
        }
        let canvases = self.services.asked_canvases(image);
        if canvases.is_empty() {
            return because(NO_ROUTE, false);
        }
        if outcome == HealOutcome::NoRung {
            return because(NO_RUNG, false);
        }
        let register = self.ladder.register_request(image);
        let registered = register.and_then(|(service, request)| service.failure(&request.flight));
        // A failure that may pass comes first: a retry is worth it.
        if let Some(reason) =
            registered.into_iter().chain(last_failure(&canvases)).max_by_key(|reason| reason.passing)
        {
            return reason;
        }
        let in_cure = |(_, allowed): &AskedCanvas| {
            self.repairs.state.canvas_repairs.find(&CanvasRequest::rebuild(allowed).flight).is_some()
        };
        match outcome {
            _ if canvases.iter().any(in_cure) => because(EMPTY, false),
            HealOutcome::Cooling => because(LEFT_ALONE, true),
            _ => because(NO_HELP, false),
        }
    }

    /// Records the end of a heal: `heal` has its lane, duration, viewers and reason, the image and the outcome the rest.
    /// The call does not wait for the disk. Heals that tried nothing (the image was alive, or all rungs are cooling down)
    /// are left out: a sweep or an impatient crawler would fill the history with them.
    pub(in crate::heal) fn record(&self, image: &IndexedImage, outcome: HealOutcome, heal: HealRecord) {
        let rung = match outcome {
            HealOutcome::Alive | HealOutcome::Cooling => return,
            HealOutcome::Healed(rung) => Some(rung.as_str().to_owned()),
            HealOutcome::Missing | HealOutcome::Failed | HealOutcome::NoRung => None,
        };
        let owner = image.owners.first();
        self.history.note(HealRecord {
            identifier: image.key.to_string(),
            canvas: owner.map(|owner| owner.canvas.clone()),
            manifest: owner.map(|owner| owner.manifest.clone()),
            rung,
            verdict: outcome.as_str().to_owned(),
            request: Some(image.trace.to_string()),
            ..heal
        });
    }
}
