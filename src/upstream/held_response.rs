//! Whole answers that are kept back.

use std::collections::VecDeque;
use std::time::Duration;

use http::response::Parts;
use http_body::Body as _;
use http_body_util::BodyExt;
use hyper::Response;
use tokio::time::Instant;

use super::body::{Body, BodyAbort};
use super::memory_budget::MemoryBudget;

/// A whole answer that is kept back while its image is healed.
#[derive(Debug)]
pub struct HeldResponse {
    head: Parts,
    body: Body,
}

impl HeldResponse {
    /// Takes in a body of at most `cap` bytes within `time`. `None`: the body is longer, takes longer, or the budget is
    /// used up. Then the answer is dropped: left in its connection it would keep its permit, and healing needs those.
    pub async fn hold(
        answer: Response<Body>,
        cap: usize,
        time: Duration,
        budget: &MemoryBudget,
    ) -> Option<Self> {
        let (head, mut body) = answer.into_parts();
        let mut begun = VecDeque::new();
        let mut size = 0;
        let deadline = Instant::now() + time;
        while !body.is_end_stream() {
            match tokio::time::timeout_at(deadline, body.frame()).await.ok()? {
                Some(Ok(frame)) => {
                    let Ok(bytes) = frame.into_data() else { continue };
                    size += bytes.len();
                    if size > cap {
                        return None;
                    }
                    begun.push_back(budget.take(bytes.len())?.keep(bytes));
                }
                // A break is kept, so that the viewer sees an aborted message and not a clean short one.
                Some(Err(error)) => {
                    body = Body::Broken(BodyAbort::new(error));
                    break;
                }
                None => {
                    body = Body::Empty;
                    break;
                }
            }
        }
        let body = match (begun.len(), &body) {
            (0, Body::Broken(_)) => body,
            (0 | 1, Body::Empty) => begun.pop_front().map_or(Body::Empty, Body::Full),
            _ => Body::Chain(begun, Box::new(body)),
        };
        Some(Self { head, body })
    }

    /// The answer's status.
    pub fn status(&self) -> http::StatusCode {
        self.head.status
    }

    /// Releases the answer, unchanged.
    pub fn release(self) -> Response<Body> {
        Response::from_parts(self.head, self.body)
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::gauge::Gauge;

    use super::*;

    #[tokio::test]
    async fn an_answer_beyond_the_budget_is_not_held() {
        let budget = MemoryBudget::new(10, Gauge::default());
        let answer = |text: &str| Response::new(Body::from(text.to_owned()));
        let held = HeldResponse::hold(answer("01234567"), 100, Duration::from_secs(1), &budget).await;
        let held = held.expect("it fits");
        assert!(HeldResponse::hold(answer("012"), 100, Duration::from_secs(1), &budget).await.is_none());
        let body = held.release().into_body().collect(100).await.expect("a body");
        assert_eq!(&body[..], b"01234567");
        drop(body);
        assert!(HeldResponse::hold(answer("012"), 100, Duration::from_secs(1), &budget).await.is_some());
    }
}
