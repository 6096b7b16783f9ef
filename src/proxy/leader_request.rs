//! The request of a reader whose answer others wait for.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;

use super::{ProxyResponse, Refusal};
use crate::cache::FlightWatch;

/// The request of a leader, which goes on without him where others wait for it.
pub(super) struct LeaderRequest {
    request: Option<BoxFuture<'static, Result<ProxyResponse, Refusal>>>,
    flight: FlightWatch,
}

impl LeaderRequest {
    pub(super) fn new(
        request: BoxFuture<'static, Result<ProxyResponse, Refusal>>,
        flight: FlightWatch,
    ) -> Self {
        Self { request: Some(request), flight }
    }
}

impl Future for LeaderRequest {
    type Output = Result<ProxyResponse, Refusal>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(request) = &mut self.request else { return Poll::Pending };
        let polled = request.as_mut().poll(cx);
        if polled.is_ready() {
            self.request = None;
        }
        polled
    }
}

impl Drop for LeaderRequest {
    fn drop(&mut self) {
        let left = self.request.take().filter(|_| self.flight.has_followers());
        if let (Some(request), Ok(runtime)) = (left, tokio::runtime::Handle::try_current()) {
            runtime.spawn(async move { drop(request.await) });
        }
    }
}
