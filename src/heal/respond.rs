//! A viewer's request for an image that is to be healed: the wait, and the response.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use hyper::Response;
use tokio::time::{Instant, timeout};

use super::answer::ImageExchange;
use super::background::start_heal::StartHeal;
use super::evidence::{Evidence, Probe, proves_nothing};
use super::heals::FILE_GONE;
use super::ladder::HealOutcome;
use super::ladder::direct::DirectResult;
use super::missing_files::Proof;
use super::{HealResponse, Healer, IndexedImage, Priority, RETRY_AFTER};
use crate::config::settings::Rung;
use crate::index::history::HealRecord;
use crate::observe::{EventKind, GaugeGuard, Span};
use crate::outcome::Outcome;
use crate::upstream::{Body, PARTIAL, UpstreamError};

impl Healer {
    /// Heals the image and answers the viewer's own request within `wait`.
    pub(in crate::heal) async fn heal_for_viewer(
        &self,
        image: &IndexedImage,
        exchange: &ImageExchange<'_>,
        wait: Duration,
    ) -> HealResponse {
        let started = Instant::now();
        let parts = &self.parts;
        let mut span = Span::step(&image.trace, "heal");
        span.text("iiif_mender.identifier", &image.key);
        let image = &image.with_span(&span);
        if parts.missing.is_known_to_all(image).await {
            return HealResponse::Original(Outcome::Missing);
        }
        parts.knowledge.doubt(image);
        // Within `wait` too: `direct` must not keep the viewer for longer.
        let direct = timeout(wait, parts.ladder.direct(image, exchange.head, exchange.caller))
            .await
            .unwrap_or(DirectResult::NoWay);
        let lane = exchange.lane();
        let heal = |took: Duration, reason: Option<&str>| HealRecord {
            lane: lane.as_str().to_owned(),
            duration_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            waiting: 1,
            reason: reason.map(str::to_owned),
            ..HealRecord::default()
        };
        match direct {
            DirectResult::Answer(answer) => {
                // The viewer has the picture; the lasting repair follows in a low lane.
                if parts.heals.may_start(image) {
                    Arc::clone(&parts.heals).start(image, lane.max(Priority::Prefetch));
                }
                let took = started.elapsed();
                self.record_page_view(image, Some(started));
                parts.metrics.heal("healed", Rung::Direct.as_str(), lane.as_str(), took, &image.trace);
                parts.heals.record(image, HealOutcome::Healed(Rung::Direct), heal(took, None));
                return HealResponse::Good { answer, rung: Some(Rung::Direct), took };
            }
            DirectResult::FileIsGone => {
                parts.missing.note(image, Proof::Shown);
                parts.heals.record(image, HealOutcome::Missing, heal(started.elapsed(), Some(FILE_GONE)));
                return HealResponse::Original(Outcome::Missing);
            }
            DirectResult::NoWay => {}
        }
        self.wait_for_heal(image, exchange, wait, started, &mut span).await
    }

    /// Joins the one heal of this image, and sends the viewer's own request again after it.
    async fn wait_for_heal(
        &self,
        image: &IndexedImage,
        exchange: &ImageExchange<'_>,
        wait: Duration,
        started: Instant,
        span: &mut Span,
    ) -> HealResponse {
        let parts = &self.parts;
        let waiting = parts.limits.wait().filter(|_| parts.heals.may_start(image));
        let Some(_waiting) = waiting else { return HealResponse::Crowded(RETRY_AFTER) };
        let _counted = GaugeGuard::inc(&parts.metrics.waiting);
        let lane = self.priority(image, exchange);
        // A heal that was under way may have brought the image back before it was lost again, as this viewer found it.
        let (mut tries, was_under_way, mut before) = (0, parts.heals.is_under_way(image), None);
        let response = loop {
            tries += 1;
            let mut handle = Arc::clone(&parts.heals).start(image, lane);
            handle.urgency.add_waiter();
            image.log_leader(&handle.urgency);
            let landed = timeout(wait.saturating_sub(started.elapsed()), handle.wait()).await;
            // The leader is known by now, even to a viewer who came at the same moment.
            span.link(handle.urgency.leader());
            let rung = match landed {
                Err(_) => {
                    let pending = HealResponse::Pending(RETRY_AFTER);
                    break self.last_try(image, exchange, started, pending).await;
                }
                Ok(Some(HealOutcome::Healed(rung))) => Some(rung),
                Ok(Some(HealOutcome::Alive)) => None,
                Ok(other) => {
                    let outcome = match other {
                        Some(HealOutcome::Missing) => Outcome::Missing,
                        Some(HealOutcome::Cooling) => Outcome::Cooling,
                        _ => Outcome::Failed,
                    };
                    // The result may be from before this viewer asked, of a fault that has passed.
                    if tries == 1 && was_under_way && handle.urgency.saw_nothing_since(started) {
                        before = Some(outcome);
                        continue;
                    }
                    let outcome = before.filter(|_| outcome == Outcome::Cooling).unwrap_or(outcome);
                    break self.last_try(image, exchange, started, HealResponse::Original(outcome)).await;
                }
            };
            match self.resend(image, exchange, rung, started).await {
                Some(response) => break response,
                // The image was back before this viewer asked, or without proof: the canvas may have been an old one.
                None if tries == 1
                    && (was_under_way
                        || parts.services.is_doubted(image)
                        || matches!(rung, Some(Rung::Variant | Rung::Visit))) =>
                {
                    self.note_believed_in_vain(image, rung, was_under_way).await;
                }
                None => break self.came_to_nothing(image, rung).await,
            }
        };
        parts.metrics.waited(started.elapsed(), &image.trace);
        response
    }

    /// Priority of this viewer's heal: a client that starts very many goes behind the other readers for a while.
    fn priority(&self, image: &IndexedImage, exchange: &ImageExchange<'_>) -> Priority {
        let priority = exchange.lane();
        if self.parts.heals.is_under_way(image) || !self.parts.limits.is_greedy(exchange.client) {
            return priority;
        }
        self.parts.metrics.event(EventKind::ClientDemoted);
        priority.max(Priority::Prefetch)
    }

    /// Tries `direct` alone, within `heal.wait`: the image server fails (`heal.direct_statuses`), and only the file itself
    /// can help.
    pub(in crate::heal) async fn direct_only(
        &self,
        image: &IndexedImage,
        exchange: &ImageExchange<'_>,
    ) -> Option<(Response<Body>, Duration)> {
        let started = Instant::now();
        match timeout(
            self.parts.settings.heal.wait.saturating_sub(exchange.waited),
            self.parts.ladder.direct(image, exchange.head, exchange.caller),
        )
        .await
        {
            Ok(DirectResult::Answer(answer)) => Some((answer, started.elapsed())),
            Ok(DirectResult::FileIsGone | DirectResult::NoWay) | Err(_) => None,
        }
    }

    /// Sends the viewer's own request again. `None`: the image server still does not find the image, without proof that its
    /// file is gone.
    async fn resend(
        &self,
        image: &IndexedImage,
        exchange: &ImageExchange<'_>,
        rung: Option<Rung>,
        started: Instant,
    ) -> Option<HealResponse> {
        let parts = &self.parts;
        let took = started.elapsed();
        // A live image refuses some sizes, but never its info.json.
        let is_picture = !exchange.head.uri.path().ends_with("/info.json");
        Some(match parts.images.send(image, exchange.head, exchange.caller).await {
            // The image server fails now: the image does not count as healed.
            Ok(answer)
                if proves_nothing(answer.status())
                    && !(is_picture && matches!(answer.status().as_u16(), 401 | 403)) =>
            {
                HealResponse::Original(Outcome::Failed)
            }
            Ok(answer) if !parts.images.is_expiry(answer.status()) => {
                self.found_image(image);
                if parts.services.end_doubt(image) && rung.is_some() {
                    parts.services.resources_lied(image);
                }
                parts.lookup.addresses.found(image.service, image.route, &image.sent);
                parts.heals.firsts.record_ok(image.mark, &image.sent);
                self.record_page_view(image, rung.map(|_| started));
                HealResponse::Good { answer, rung, took }
            }
            Ok(_) if parts.is_missing(image).await => HealResponse::Original(Outcome::Missing),
            Ok(_) => return None,
            // The image is back, only this viewer's request got no permit.
            Err(UpstreamError::Busy) => HealResponse::Crowded(RETRY_AFTER),
            Err(error) => {
                self.note(&error);
                HealResponse::Original(Outcome::Failed)
            }
        })
    }

    /// Handles a heal in vain: the image counted as back, without proof, and is not. A cool-down follows, so that not every
    /// request tries again.
    async fn came_to_nothing(&self, image: &IndexedImage, rung: Option<Rung>) -> HealResponse {
        if rung.is_some() {
            self.a_probe_may_have_lied(image).await;
            self.parts.missing.note(image, Proof::Likely { well_at: None });
        }
        HealResponse::Original(Outcome::Failed)
    }

    /// Distrusts a probe that still calls the image alive.
    async fn a_probe_may_have_lied(&self, image: &IndexedImage) {
        if self.parts.images.probe(image).await == Evidence::Alive {
            self.parts.images.probe_lied(image);
        }
    }

    /// Handles a wrong "back": the image counted as back, and this viewer does not find it. A heal that was under way when
    /// the viewer came may have helped before that.
    async fn note_believed_in_vain(&self, image: &IndexedImage, rung: Option<Rung>, was_under_way: bool) {
        if !matches!(rung, Some(Rung::Variant | Rung::Visit)) {
            return;
        }
        match self.parts.images.probe(image).await {
            Evidence::Alive if !was_under_way => self.parts.images.probe_lied(image),
            Evidence::Alive | Evidence::Expired => {}
            // No probe can tell, but the viewer's own request has.
            Evidence::Nothing => self.parts.ladder.visits_were_in_vain(image),
        }
    }

    /// True if this viewer gets a tile of the image. The viewer's own headers are sent, as access may depend on them.
    async fn sees_a_tile(&self, indexed: &IndexedImage, exchange: &ImageExchange<'_>) -> bool {
        let path = exchange.head.uri.path();
        let tile =
            path.strip_suffix("/info.json").map(|image| format!("{image}/{}", Probe::SmallTile.tail()));
        let Some(tile) = tile.and_then(|tile| tile.parse().ok()) else { return false };
        let mut head = exchange.head.clone();
        (head.method, head.uri) = (Method::GET, tile);
        for field in PARTIAL {
            head.headers.remove(field);
        }
        let tile = self.parts.images.send(indexed, &head, exchange.caller).await;
        tile.is_ok_and(|tile| tile.status().is_success())
    }

    /// Sends the viewer's request a last time: the heal takes longer than this viewer can wait, or did not help. The image
    /// may be there nevertheless: a probe may be 404 for a reason of its own, and a cache may hold the tile.
    async fn last_try(
        &self,
        image: &IndexedImage,
        exchange: &ImageExchange<'_>,
        started: Instant,
        otherwise: HealResponse,
    ) -> HealResponse {
        // An info.json may come from the image server's memory, while its tiles would fail.
        if exchange.head.uri.path().ends_with("/info.json") && !self.sees_a_tile(image, exchange).await {
            return otherwise;
        }
        match self.parts.images.send(image, exchange.head, exchange.caller).await {
            Ok(answer)
                if !self.parts.images.is_expiry(answer.status()) && !proves_nothing(answer.status()) =>
            {
                self.found_image(image);
                HealResponse::Good { answer, rung: None, took: started.elapsed() }
            }
            _ => otherwise,
        }
    }
}
