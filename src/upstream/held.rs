//! An answer that waits.

use std::collections::VecDeque;
use std::time::Duration;

use http::response::Parts;
use http_body::Body as _;
use http_body_util::BodyExt;
use hyper::Response;
use tokio::time::Instant;

use super::body::{Body, Break};

/// An answer that is kept back while its image is healed. What fits the cap is in memory; a longer body stays
/// where it is, in the upstream's connection, and costs no memory either.
#[derive(Debug)]
pub struct Held {
    head: Parts,
    body: Body,
}

impl Held {
    /// Takes in at most about `cap` bytes of the body within `time`; nothing of it is ever lost.
    pub async fn hold(answer: Response<Body>, cap: usize, time: Duration) -> Self {
        let (head, mut body) = answer.into_parts();
        let mut begun = VecDeque::new();
        let mut size = 0;
        let deadline = Instant::now() + time;
        while size < cap && !body.is_end_stream() {
            match tokio::time::timeout_at(deadline, body.frame()).await {
                Ok(Some(Ok(frame))) => {
                    let Ok(bytes) = frame.into_data() else { continue };
                    size += bytes.len();
                    begun.push_back(bytes);
                }
                // A break is kept, so that the viewer sees an aborted message and not a clean short one.
                Ok(Some(Err(error))) => {
                    body = Body::Broken(Break::new(error));
                    break;
                }
                Ok(None) | Err(_) => break,
            }
        }
        let body = if body.is_end_stream() && begun.len() <= 1 {
            begun.pop_front().map_or(Body::Empty, Body::Full)
        } else {
            Body::Chain(begun, Box::new(body))
        };
        Self { head, body }
    }

    /// The answer's status.
    pub fn status(&self) -> http::StatusCode {
        self.head.status
    }

    /// Lets it go, as it was.
    pub fn release(self) -> Response<Body> {
        Response::from_parts(self.head, self.body)
    }
}
