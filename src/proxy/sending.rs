//! Sends a viewer's request to its upstream, timed and counted.

use std::time::Instant;

use http::request::Parts;
use hyper::Response;

use super::ProxyInner;
use super::refusal::Refusal;
use super::route::RoutedRequest;
use crate::observe::Span;
use crate::upstream::{Body, Caller};

impl ProxyInner {
    pub(super) async fn send(
        &self,
        asked: &RoutedRequest<'_>,
        onward: &Parts,
        body: Body,
        caller: &Caller,
    ) -> Result<Response<Body>, Refusal> {
        let times = self.settings.timeouts(asked.route);
        let started = Instant::now();
        let mut span = Span::call(asked.trace, onward);
        // Boxed: only a sampled request has a head of its own.
        let own = span.is_sampled().then(|| Box::new(span.inject(onward).into_owned()));
        let head = own.as_deref().unwrap_or(onward);
        let sent = self.upstreams[asked.route].send_for(caller, head, body, times).await;
        span.answered(&sent);
        if sent.is_ok() {
            self.metrics.upstream_answered(asked.kind(), started.elapsed());
        }
        sent.map_err(|error| {
            if !error.is_the_viewers() {
                self.metrics.upstream_error(error.kind());
            }
            Refusal::Upstream(error)
        })
    }
}
