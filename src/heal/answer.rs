//! A viewer's request for an image, from the first try to the response.

use std::future::Future;
use std::net::IpAddr;
use std::time::Duration;

use http::request::Parts;
use hyper::Response;

use crate::config::settings::Rung;
use crate::heal::callback::looks_like_service;
use crate::heal::canvas_service::priority_semaphore::Priority;
use crate::heal::first_requests::FirstRequestPermit;
use crate::heal::image::{IndexedImage, RoutedImage};
use crate::heal::{HealResponse, Healer, NextStep};
use crate::iiif::Target;
use crate::observe::EventKind;
use crate::outcome::Outcome;
use crate::upstream::{Body, Caller, HeldResponse, MemoryBudget};

/// Time limit for the rest of a first answer to arrive. After it the answer is left where it is.
const FIRST_ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// `ImageExchange` is a viewer's request for an image, as it goes to the image server.
#[derive(Debug, Clone, Copy)]
pub struct ImageExchange<'a> {
    /// Identifier and route of the image.
    pub image: &'a RoutedImage<'a>,
    /// Request head as it goes upstream.
    pub head: &'a Parts,
    /// Address of the client.
    pub client: IpAddr,
    /// Caller on whose behalf the request goes upstream.
    pub caller: &'a Caller,
    /// Priority of the request by its target. Only a heal needs it.
    pub lane: fn(Target<'_>) -> Priority,
    /// Memory budget for first answers that wait.
    pub budget: &'a MemoryBudget,
    /// Time that the client has waited for the request of another one: a part of `heal.wait`.
    pub waited: Duration,
}

impl ImageExchange<'_> {
    pub(in crate::heal) fn lane(&self) -> Priority {
        (self.lane)(self.image.request.target)
    }
}

/// `HealedExchange` is the viewer's response, and how it came about.
#[derive(Debug)]
pub struct HealedExchange {
    /// Response to the viewer.
    pub response: Response<Body>,
    /// Outcome of the request.
    pub outcome: Outcome,
    /// Rung that helped (`None`: the image was back already), and how long the viewer waited.
    pub healed: Option<(Option<Rung>, Duration)>,
}

/// `ExchangeError` is the reason of an error response of our own.
#[derive(Debug)]
pub enum ExchangeError<E> {
    /// The image is being healed, but takes longer than this viewer can wait: retry after this time.
    Pending(Duration),
    /// Too many viewers wait already.
    Crowded(Duration),
    /// The viewer's own request failed.
    Failed(E),
}

impl HealedExchange {
    fn served(response: Response<Body>) -> Self {
        Self { response, outcome: Outcome::Served, healed: None }
    }

    fn healed(response: Response<Body>, rung: Option<Rung>, took: Duration) -> Self {
        Self { response, outcome: Outcome::Healed, healed: Some((rung, took)) }
    }

    /// The image server's own answer, after a heal that did not help.
    fn original(response: Response<Body>, outcome: Outcome) -> Self {
        Self { response, outcome, healed: None }
    }
}

type Result<T, E> = std::result::Result<T, ExchangeError<E>>;

impl Healer {
    /// Answers a viewer's request, which `send` sends to the image server. All answers but an expiry stream straight back;
    /// an expired image is healed first.
    ///
    /// Rare paths are boxed: a request's future has the size of the largest path.
    pub async fn answer<E, F>(
        &self,
        exchange: &ImageExchange<'_>,
        send: impl Fn() -> F,
    ) -> Result<HealedExchange, E>
    where
        F: Future<Output = std::result::Result<Response<Body>, E>>,
    {
        let image = exchange.image;
        let ask = match self.plan(image).await {
            NextStep::Heal(indexed) => {
                return Box::pin(self.heal(exchange, &indexed, None, &send)).await;
            }
            NextStep::Ask(ask) => ask,
        };
        let gated = self.gated(exchange).await;
        let first = send().await.map_err(ExchangeError::Failed)?;
        if image.request.target == Target::Info && first.status().is_success() {
            self.parts.lookup.note_seen(image);
        }
        // While the image server fails no heal begins: the canvas would be built without its image.
        match gated.filter(|_| first.status().as_u16() < 400) {
            Some(indexed) => Box::pin(self.heal(exchange, &indexed, Some(first), &send)).await,
            None => self.after_first(exchange, ask, first, &send).await,
        }
    }

    async fn after_first<E, F>(
        &self,
        exchange: &ImageExchange<'_>,
        ask: FirstRequestPermit,
        first: Response<Body>,
        send: &impl Fn() -> F,
    ) -> Result<HealedExchange, E>
    where
        F: Future<Output = std::result::Result<Response<Body>, E>>,
    {
        let rules = &self.parts.settings.heal;
        let status = first.status();
        if self.parts.images.is_expiry(status) {
            let Some(image) = self.lookup(exchange.image) else {
                return Ok(HealedExchange::original(first, Outcome::Unknown));
            };
            ask.record_expired(exchange.image.request.target);
            Box::pin(self.heal(exchange, &image, Some(first), send)).await
        } else if rules.direct_statuses.contains(&status.as_u16()) {
            drop(ask);
            Box::pin(self.try_direct_only(exchange, first, send)).await
        } else {
            ask.record_ok(status);
            if status.is_success() {
                self.found(exchange.image);
            }
            Ok(HealedExchange::served(first))
        }
    }

    /// Notes that an image believed missing is there. (info.json proves nothing.)
    fn found(&self, image: &RoutedImage<'_>) {
        if image.request.target != Target::Info
            && self.parts.missing.remembers(image, self.parts.lookup.mark(image.route))
            && let Some(indexed) = self.lookup(image)
        {
            self.found_image(&indexed);
        }
    }

    /// Notes that this image is there. If its file was believed to be gone, a canvas came without the image, and may be
    /// stored so.
    pub(in crate::heal) fn found_image(&self, image: &IndexedImage) {
        if self.parts.knowledge.found(image) {
            self.parts.repairs.repair_empty_canvases(image);
        }
    }

    /// Image of an info.json request that is held until the image is back: viewers never retry a failed tile.
    async fn gated(&self, exchange: &ImageExchange<'_>) -> Option<Box<IndexedImage>> {
        let (image, head) = (exchange.image, exchange.head);
        // A request that looks like the canvas service's own may come from it. A reader would ask for tiles next; the
        // service does not.
        if image.request.target != Target::Info || looks_like_service(image.request.target, head) {
            return None;
        }
        let indexed = self.lookup(image)?;
        if Box::pin(self.is_expired(&indexed)).await {
            return Some(indexed);
        }
        self.record_page_view(&indexed, None);
        None
    }

    /// Buffers the first answer, if there is one, while the image is healed.
    async fn heal<E, F>(
        &self,
        exchange: &ImageExchange<'_>,
        image: &IndexedImage,
        first: Option<Response<Body>>,
        send: &impl Fn() -> F,
    ) -> Result<HealedExchange, E>
    where
        F: Future<Output = std::result::Result<Response<Body>, E>>,
    {
        let rules = &self.parts.settings.heal;
        let held = match first {
            Some(first) => self.hold(exchange, first).await,
            None => None,
        };
        let target = exchange.image.request.target;
        let wait = if target == Target::Info { rules.wait_info } else { rules.wait };
        match self.heal_for_viewer(image, exchange, wait.saturating_sub(exchange.waited)).await {
            HealResponse::Good { answer, rung, took } => Ok(HealedExchange::healed(answer, rung, took)),
            HealResponse::Pending(after) => Err(ExchangeError::Pending(after)),
            HealResponse::Crowded(after) => Err(ExchangeError::Crowded(after)),
            HealResponse::Original(outcome) => {
                let original = match held {
                    Some(held) => held.release(),
                    None => send().await.map_err(ExchangeError::Failed)?,
                };
                // No request for the image came before, and it is there. (For info.json a 200 proves nothing.)
                if target != Target::Info && original.status().is_success() {
                    return Ok(HealedExchange::served(original));
                }
                Ok(HealedExchange::original(original, outcome))
            }
        }
    }

    /// Tries `direct` alone: the image server fails, but the file itself may still be had. The request goes to the same
    /// server, so the first answer is buffered: otherwise requests that wait for a second permit could hold all permits
    /// there.
    async fn try_direct_only<E, F>(
        &self,
        exchange: &ImageExchange<'_>,
        first: Response<Body>,
        send: &impl Fn() -> F,
    ) -> Result<HealedExchange, E>
    where
        F: Future<Output = std::result::Result<Response<Body>, E>>,
    {
        let Some(image) = self.lookup(exchange.image) else { return Ok(HealedExchange::served(first)) };
        let held = self.hold(exchange, first).await;
        match (self.direct_only(&image, exchange).await, held) {
            (Some((answer, took)), _) => Ok(HealedExchange::healed(answer, Some(Rung::Direct), took)),
            (None, Some(held)) => Ok(HealedExchange::served(held.release())),
            (None, None) => send().await.map(HealedExchange::served).map_err(ExchangeError::Failed),
        }
    }

    /// Buffers an answer. `None`: there is no memory for it; the request is sent again if the answer is needed.
    async fn hold(&self, exchange: &ImageExchange<'_>, first: Response<Body>) -> Option<HeldResponse> {
        let most = self.parts.settings.heal.max_held;
        let held = HeldResponse::hold(
            first,
            most,
            FIRST_ANSWER_TIMEOUT,
            &exchange.budget.of(exchange.caller.holder()),
        )
        .await;
        if held.is_none() {
            self.parts.metrics.event(EventKind::HeldRefused);
        }
        held
    }
}
