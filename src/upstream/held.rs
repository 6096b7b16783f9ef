//! Answers that wait, and the memory that all of them together may take.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::response::Parts;
use http_body::Body as _;
use http_body_util::BodyExt;
use hyper::Response;
use prometheus_client::metrics::gauge::Gauge;
use tokio::time::Instant;

use super::body::{Body, Break};

/// Memory for bodies that are held: so many bytes for all of them together. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Budget {
    purse: Arc<Purse>,
}

#[derive(Debug)]
struct Purse {
    most: usize,
    taken: AtomicUsize,
    shown: Gauge,
}

/// Some bytes of a [`Budget`]; given back when it is dropped.
#[derive(Debug)]
pub struct Share {
    budget: Budget,
    bytes: usize,
}

/// Bytes and their share.
struct Kept {
    bytes: Bytes,
    _share: Share,
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Budget {
    /// At most so many bytes; `shown` says how many are taken.
    pub fn new(most: usize, shown: Gauge) -> Self {
        Self { purse: Arc::new(Purse { most, taken: AtomicUsize::new(0), shown }) }
    }

    /// So many bytes; `None`: they would be too many.
    pub fn take(&self, bytes: usize) -> Option<Share> {
        let fits = |taken: usize| taken.checked_add(bytes).filter(|sum| *sum <= self.purse.most);
        self.purse.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).ok()?;
        Some(self.share(bytes))
    }

    /// So many bytes that are in memory already, whatever that makes of the sum.
    pub fn count(&self, bytes: usize) -> Share {
        self.purse.taken.fetch_add(bytes, Ordering::Relaxed);
        self.share(bytes)
    }

    /// So many bytes are taken now.
    #[cfg(test)]
    pub(crate) fn taken(&self) -> usize {
        self.purse.taken.load(Ordering::Relaxed)
    }

    fn share(&self, bytes: usize) -> Share {
        self.purse.shown.inc_by(shown(bytes));
        Share { budget: self.clone(), bytes }
    }
}

impl Share {
    /// Both as one.
    pub fn join(&mut self, mut other: Self) {
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// The same bytes; the share is given back when nobody has any of them any more.
    pub fn keep(self, bytes: Bytes) -> Bytes {
        Bytes::from_owner(Kept { bytes, _share: self })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.purse.taken.fetch_sub(self.bytes, Ordering::Relaxed);
        self.budget.purse.shown.dec_by(shown(self.bytes));
    }
}

fn shown(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// An answer that is kept back while its image is healed. What fits the cap is in memory; a longer body stays
/// where it is, in the upstream's connection, and costs no memory either.
#[derive(Debug)]
pub struct Held {
    head: Parts,
    body: Body,
}

impl Held {
    /// Takes in at most about `cap` bytes of the body within `time`; nothing of it is ever lost. `None`: the budget
    /// is used up, and the answer is given up instead. (Left in its connection it would keep a place with the
    /// upstream, and healing needs those.)
    pub async fn hold(answer: Response<Body>, cap: usize, time: Duration, budget: &Budget) -> Option<Self> {
        let (head, mut body) = answer.into_parts();
        let mut begun = VecDeque::new();
        let mut size = 0;
        let deadline = Instant::now() + time;
        while size < cap && !body.is_end_stream() {
            match tokio::time::timeout_at(deadline, body.frame()).await {
                Ok(Some(Ok(frame))) => {
                    let Ok(bytes) = frame.into_data() else { continue };
                    size += bytes.len();
                    begun.push_back(budget.take(bytes.len())?.keep(bytes));
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
        Some(Self { head, body })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_lasts_as_long_as_anybody_has_a_piece_of_its_bytes() {
        let shown = Gauge::default();
        let budget = Budget::new(10, shown.clone());
        let kept = budget.take(6).expect("it fits").keep(Bytes::from_static(b"012345"));
        let piece = kept.slice(2..3);
        drop(kept);
        assert!(budget.take(5).is_none());
        assert_eq!((shown.get(), &piece[..]), (6, &b"2"[..]));
        drop(piece);
        assert_eq!(shown.get(), 0);
        let mut both = budget.take(5).expect("it fits");
        both.join(budget.take(5).expect("it fits"));
        assert_eq!(shown.get(), 10);
        let over = budget.count(7);
        assert_eq!(shown.get(), 17);
        drop((both, over));
        assert_eq!(shown.get(), 0);
    }

    #[tokio::test]
    async fn an_answer_beyond_the_budget_is_not_held() {
        let budget = Budget::new(10, Gauge::default());
        let answer = |text: &str| Response::new(Body::from(text.to_owned()));
        let held = Held::hold(answer("01234567"), 100, Duration::from_secs(1), &budget).await;
        let held = held.expect("it fits");
        assert!(Held::hold(answer("012"), 100, Duration::from_secs(1), &budget).await.is_none());
        let body = held.release().into_body().collect(100).await.expect("a body");
        assert_eq!(&body[..], b"01234567");
        drop(body);
        assert!(Held::hold(answer("012"), 100, Duration::from_secs(1), &budget).await.is_some());
    }
}
