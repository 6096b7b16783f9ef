//! Fetches documents from their upstream: with a permit, learned from as they pass, and buffered.

use std::time::Instant;

use http::{Method, Response, StatusCode};

use super::buffer::{BufferResult, BufferedDocument, gather};
use super::{PresentationInner, PresentationRequest, UpstreamDocument};
use crate::config::settings::Timeouts;
use crate::index::learn::traffic::may_be_document;
use crate::observe::EventKind;
use crate::upstream::coding::ContentCoding;
use crate::upstream::{Body, UpstreamError};

impl PresentationInner {
    /// Sends the request upstream; buffers the answer if it is to be read.
    pub(super) async fn fetch(
        &self,
        wanted: &PresentationRequest,
        body: Body,
        holds: bool,
    ) -> Result<UpstreamDocument, UpstreamError> {
        let times = self.settings.timeouts(wanted.route);
        let started = Instant::now();
        let sent = self.send(wanted, body, times, holds).await;
        let answer = sent.inspect_err(|error| {
            if !error.is_the_viewers() {
                self.metrics.upstream_error(error.kind());
            }
        })?;
        self.metrics.upstream_answered("presentation", started.elapsed());
        let (head, body) = self.heard(wanted, answer).into_parts();
        if is_document(&wanted.onward.method, &head) && ContentCoding::of(&head.headers).is_err() {
            self.metrics.event(EventKind::CodingOther);
        }
        if !holds && !is_document(&wanted.onward.method, &head) {
            return Ok(UpstreamDocument::Streams(Response::from_parts(head, body)));
        }
        let budget = self.budget.of(wanted.caller.holder());
        Ok(match gather(body, self.settings.presentation.max_body, &budget).await {
            BufferResult::Whole(body) => UpstreamDocument::Whole(BufferedDocument::new(head, body)),
            BufferResult::Refused(body) => {
                self.metrics.event(EventKind::HeldRefused);
                UpstreamDocument::Streams(Response::from_parts(head, body))
            }
            BufferResult::Cut(body) => UpstreamDocument::Streams(Response::from_parts(head, body)),
            BufferResult::Longer(body) => {
                self.metrics.event(EventKind::HeldTooLong);
                UpstreamDocument::Streams(Response::from_parts(head, body))
            }
        })
    }

    /// Sends the request in its turn: the canvas service builds documents that are not stored, and only so many at once.
    async fn send(
        &self,
        wanted: &PresentationRequest,
        body: Body,
        times: Timeouts,
        holds: bool,
    ) -> Result<Response<Body>, UpstreamError> {
        let onward = &wanted.onward;
        let caller = wanted.caller.clone();
        let caller = if holds { caller.collecting() } else { caller };
        let upstream = &self.upstreams[wanted.route];
        let reads = matches!(onward.method, Method::GET | Method::HEAD);
        let Some(target) = onward.uri.path_and_query().filter(|_| reads) else {
            return upstream.send_for(&caller, onward, body, times).await;
        };
        let admitted = upstream.admit_client(&caller);
        match self.healer.viewer_request(wanted.route, target.as_str(), admitted).await {
            Ok((Some(request), caller)) => {
                let has_document = |answer: &Result<Response<Body>, UpstreamError>| {
                    answer.as_ref().is_ok_and(|answer| answer.status().as_u16() < 400)
                };
                request.hold(upstream.send_for(&caller, onward, body, times), has_document).await
            }
            Ok((None, caller)) => upstream.send_for(&caller, onward, body, times).await,
            Err(_) => Err(UpstreamError::Busy),
        }
    }

    /// Records that a manifest was viewed, so that its pages are looked after, and passes its body to the learner.
    fn heard(&self, wanted: &PresentationRequest, answer: Response<Body>) -> Response<Body> {
        if wanted.onward.method != Method::GET || answer.status() != StatusCode::OK {
            return answer;
        }
        self.healer.record_manifest_view(wanted.public.path(), &wanted.trace);
        let Some(learner) = &self.learner else { return answer };
        let (head, body) = answer.into_parts();
        let name = || {
            let host = self.settings.server.public_hosts.first()?;
            Some(format!("https://{host}{}", wanted.public.path_and_query()?))
        };
        let body = learner.listen(name, &head.headers, body);
        Response::from_parts(head, body)
    }
}

/// True for a whole answer that may be a JSON document.
pub(super) fn is_document(method: &Method, head: &http::response::Parts) -> bool {
    *method == Method::GET && head.status == StatusCode::OK && may_be_document(&head.headers)
}
