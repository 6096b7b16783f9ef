//! Images that are healed on the way.

use std::time::Duration;

use http::Response;
use http::request::Parts;
use tokio::time::timeout;

use super::caching::{from_cache, is_in_need};
use super::refusal::Refusal;
use super::thumbnail::priority_of;
use super::{Exchange, ProxyInner, ProxyResponse};
use crate::heal::{ExchangeError, HealedExchange, ImageExchange, RoutedImage};
use crate::outcome::Outcome;
use crate::upstream::{Body, Caller, UpstreamError, one_client};

/// Time after which an image server that does not answer counts as one that fails, for a reader of whom a stale answer is
/// kept: viewers drop a tile after 30 s.
const SILENCE: Duration = Duration::from_secs(10);

impl ProxyInner {
    /// Sends the request for an image, and heals it where it expired.
    pub(super) async fn heal(
        &self,
        exchange: &Exchange<'_>,
        image: &RoutedImage<'_>,
        onward: &Parts,
        caller: &Caller,
    ) -> Result<ProxyResponse, Refusal> {
        let client = one_client(exchange.sender.client);
        let (budget, waited) = (&self.budget, exchange.waited);
        let image = ImageExchange { image, head: onward, client, lane: priority_of, budget, caller, waited };
        // A failure that a stale answer hides from the reader is not recorded.
        let has_stale = exchange.has_stale;
        let send = || async {
            match &exchange.cached {
                Some(kept) => Ok(from_cache(kept.answer(onward, exchange.started))),
                // Boxed, because it is rare and large: otherwise every request's future would be as large.
                None if exchange.has_stale => {
                    Box::pin(self.send_unless_silent(exchange, onward, caller)).await
                }
                None => self.send(&exchange.asked, onward, Body::Empty, caller).await,
            }
        };
        let refusal = match self.healer.answer(&image, send).await {
            Ok(HealedExchange { response, outcome, healed }) => {
                if !(has_stale && is_in_need(outcome, response.status())) {
                    self.healer.record_image_answer(&image, outcome, response.status());
                }
                let answer = ProxyResponse::of(response, outcome, healed);
                if outcome == Outcome::Missing {
                    return Ok(Box::pin(self.placeholder(exchange, image.image, onward, answer)).await);
                }
                return Ok(answer);
            }
            Err(ExchangeError::Pending(after)) => Refusal::Pending(after),
            Err(ExchangeError::Crowded(after)) => Refusal::Crowded(after),
            Err(ExchangeError::Failed(refusal)) => refusal,
        };
        if refusal.is_about_the_image() && !(has_stale && refusal.is_failure()) {
            self.healer.record_image_answer(&image, refusal.outcome(), refusal.status());
        }
        Err(refusal)
    }

    /// Sends the request of a reader of whom a stale answer is kept, who does not wait for a silent image server as others must.
    async fn send_unless_silent(
        &self,
        exchange: &Exchange<'_>,
        onward: &Parts,
        caller: &Caller,
    ) -> Result<Response<Body>, Refusal> {
        let silent = |_| Err(Refusal::Upstream(UpstreamError::FirstByteTimeout));
        let sent = timeout(SILENCE, self.send(&exchange.asked, onward, Body::Empty, caller)).await;
        sent.unwrap_or_else(silent)
    }
}
