//! Exchange: one request of our own to a canvas service, and its answer. Redirects within the service are followed.

use std::time::Duration;

use http::request::Parts;
use http::{HeaderMap, HeaderValue, header};
use tokio::time::Instant;

use crate::heal::canvas_service::response::CanvasReply;
use crate::heal::canvas_service::viewer_request::without_update;
use crate::heal::canvas_service::{CanvasService, LONGEST_RESOURCE};
use crate::observe::{RequestTrace, Span};
use crate::upstream::coding::ContentCoding;
use crate::upstream::fetch::{is_redirect, join};
use crate::upstream::{Caller, UpstreamError, internal_request, whole};

/// Redirects in a row that are followed.
const REDIRECTS: usize = 3;

impl CanvasService {
    /// Requests a document, and follows redirects within this service: canvases move, and gateways add a slash or drop a
    /// parameter. Any other redirect is the answer.
    pub(in crate::heal) async fn follow(
        &self,
        target: &str,
        trace: &RequestTrace,
        patience: Duration,
        most: usize,
    ) -> Result<CanvasReply, UpstreamError> {
        let until = Instant::now() + patience;
        let (name, mut target, mut hops) = (target, target.to_owned(), 0);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let (reply, location) = self.exchange((&target, name), trace, left, most).await?;
            match location.and_then(|location| self.moved(&target, &location)) {
                Some(next) if hops < REDIRECTS && next != target => (target, hops) = (next, hops + 1),
                _ => return Ok(reply),
            }
        }
    }

    /// Requests `target` itself.
    pub(in crate::heal) async fn get(
        &self,
        target: &str,
        trace: &RequestTrace,
        patience: Duration,
        most: usize,
    ) -> Result<CanvasReply, UpstreamError> {
        self.exchange((target, target), trace, patience, most).await.map(|(reply, _)| reply)
    }

    /// Target that a redirect leads to; `None`: it leads out of this service.
    ///
    /// SECURITY: a redirect gets no further than a canvas's own URL would, and never has anything built anew that the
    /// request would not.
    fn moved(&self, target: &str, location: &str) -> Option<String> {
        let url = join(&format!("{}://{}{target}", self.scheme, self.authority), location)?;
        let allowed = self.guard.allow(&url).filter(|allowed| allowed.route == self.route)?;
        let builds_anew = |target: &str| without_update(target).is_some();
        let keeps_update = builds_anew(target) && builds_anew(&url);
        Some(if keeps_update { allowed.rebuild } else { allowed.visit })
    }

    /// Builds the request head. `Accept` names text too, because `/resources/{uuid}` answers 406 to JSON alone.
    fn head(&self, target: &str) -> Result<Parts, UpstreamError> {
        let mut head = internal_request(&self.host, &self.name)?;
        head.uri = target.parse().map_err(|_| UpstreamError::Target)?;
        let accept = HeaderValue::from_static("text/plain, application/json, */*;q=0.5");
        head.headers.insert(header::ACCEPT, accept);
        Ok(head)
    }

    /// Sends one request. Returns the location, too, if the answer is a redirect. `name`: the target that a failure is
    /// remembered for, which led to this one.
    async fn exchange(
        &self,
        (target, name): (&str, &str),
        trace: &RequestTrace,
        patience: Duration,
        most: usize,
    ) -> Result<(CanvasReply, Option<String>), UpstreamError> {
        let mut head = self.head(target)?;
        trace.inject(&mut head.headers);
        let mut span = Span::call(trace, &head);
        let times = self.times.first_byte(patience);
        let until = Instant::now() + patience;
        let answer = self.server.send(&Caller::default(), &span.inject(&head), times).await;
        span.answered(&answer);
        // An answer of `/resources` proves nothing about the service's health: there 404 means "expired".
        if most != LONGEST_RESOURCE {
            match &answer {
                Ok(answer) => self.failures.record_answer(name, answer.status(), answer.headers()),
                Err(error) => self.failures.record_error(name, error),
            }
        }
        let answer = answer?;
        let (status, coding) = (answer.status(), ContentCoding::of(answer.headers()));
        let location = is_redirect(status).then(|| location(answer.headers())).flatten();
        // A body that is too long or breaks proves nothing; the status still does.
        let body = tokio::time::timeout_at(until, whole::read(answer.into_body(), most)).await;
        let body = body.ok().and_then(Result::ok).and_then(|body| coding.ok()?.unpack(&body, most).ok());
        if body.is_none() && most != LONGEST_RESOURCE {
            self.failures.record_truncated(name);
        }
        let reply = CanvasReply { target: target.to_owned(), status, body: body.unwrap_or_default() };
        Ok((reply, location))
    }
}

/// Servers write letters beyond ASCII into `Location` unencoded.
fn location(fields: &HeaderMap) -> Option<String> {
    std::str::from_utf8(fields.get(header::LOCATION)?.as_bytes()).ok().map(str::to_owned)
}
