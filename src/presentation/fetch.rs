//! Documents from their upstream: asked for in their turn, learned from as they pass, and held.

use std::time::Instant;

use http::{Method, Response, StatusCode};

use super::whole::{Gathered, Whole, gather, is_json};
use super::{Desk, Made, Wanted};
use crate::config::settings::Timeouts;
use crate::observe::EventKind;
use crate::upstream::coding::Coding;
use crate::upstream::{Body, UpstreamError};

impl Desk {
    /// Asks upstream; holds what is to be held.
    pub(super) async fn fetch(
        &self,
        wanted: &Wanted,
        body: Body,
        holds: bool,
    ) -> Result<Made, UpstreamError> {
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
        if is_document(&wanted.onward.method, &head) && Coding::of(&head.headers).is_err() {
            self.metrics.event(EventKind::CodingOther);
        }
        if !holds && !is_document(&wanted.onward.method, &head) {
            return Ok(Made::Streams(Response::from_parts(head, body)));
        }
        let budget = self.budget.of(wanted.caller.holder());
        Ok(match gather(body, self.settings.presentation.max_body, &budget).await {
            Gathered::Whole(body) => Made::Whole(Whole::new(head, body)),
            Gathered::Refused(body) => {
                self.metrics.event(EventKind::HeldRefused);
                Made::Streams(Response::from_parts(head, body))
            }
            Gathered::Longer(body) => {
                self.metrics.event(EventKind::HeldTooLong);
                Made::Streams(Response::from_parts(head, body))
            }
        })
    }

    /// Sends it, in its turn: the canvas service builds what it has not stored, and not more at once than it can.
    async fn send(
        &self,
        wanted: &Wanted,
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

    /// What passes is learned from, and its pages are looked after.
    fn heard(&self, wanted: &Wanted, answer: Response<Body>) -> Response<Body> {
        if wanted.onward.method != Method::GET || answer.status() != StatusCode::OK {
            return answer;
        }
        self.healer.manifest_opened(wanted.public.path(), &wanted.trace);
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

/// Is it a whole JSON document?
pub(super) fn is_document(method: &Method, head: &http::response::Parts) -> bool {
    *method == Method::GET && head.status == StatusCode::OK && is_json(&head.headers)
}
