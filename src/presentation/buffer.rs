//! Documents that are held as a whole, up to a bound; beyond it they only stream by.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, header, response};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use super::PresentationResponse;
use crate::outcome::Outcome;
use crate::upstream::coding::ContentCoding;
use crate::upstream::{Body, MemoryBudget};

/// A whole answer.
#[derive(Debug, Clone)]
pub(super) struct BufferedDocument {
    pub(super) head: response::Parts,
    pub(super) body: Bytes,
    pub(super) outcome: Outcome,
    /// Duration of the rebuild, where one was needed.
    pub(super) cured: Option<Duration>,
}

impl BufferedDocument {
    pub(super) fn new(head: response::Parts, body: Bytes) -> Self {
        Self { head, body, outcome: Outcome::Served, cured: None }
    }

    /// The answer for one viewer.
    pub(super) fn answer(&self) -> PresentationResponse {
        let response = Response::from_parts(self.head.clone(), self.body.clone().into());
        PresentationResponse { response, outcome: self.outcome, cured: self.cured }
    }

    /// Replaces the body, and the fields that describe it.
    pub(super) fn replace(&mut self, body: Bytes) {
        mark_changed(&mut self.head.headers);
        self.head.headers.remove(header::CONTENT_ENCODING);
        self.head.headers.insert(header::CONTENT_LENGTH, body.len().into());
        self.body = body;
    }

    /// The document without its coding; `None`: a coding that is not read here, or longer than `most`.
    pub(super) fn plain(&self, most: usize) -> Option<Bytes> {
        ContentCoding::of(&self.head.headers).ok()?.unpack(&self.body, most).ok()
    }
}

/// Removes the fields that describe the exact bytes.
///
/// The validator stays as a weak one (RFC 9110 section 8.8.1): the upstream still tells by it whether the document changed,
/// but no parts of two versions are put together.
pub(super) fn mark_changed(fields: &mut HeaderMap) {
    for name in ["content-length", "content-md5", "digest", "content-digest", "repr-digest", "accept-ranges"]
    {
        fields.remove(name);
    }
    let weak = match text(fields, header::ETAG) {
        "" => None,
        tag if tag.starts_with("W/") => return,
        tag => HeaderValue::try_from(format!("W/{tag}")).ok(),
    };
    fields.remove(header::ETAG);
    if let Some(weak) = weak {
        fields.insert(header::ETAG, weak);
    }
}

/// A document of fewer bytes, packed or not, is parsed at once.
const SHORT: usize = 32 << 10;

/// `ParsePermits` lets one long document be parsed for each core: many at once would take the cores from the threads that
/// serve, and hold many times their packed bytes in memory. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct ParsePermits(Arc<Semaphore>);

impl Default for ParsePermits {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self(Arc::new(Semaphore::new(cores)))
    }
}

impl ParsePermits {
    /// Does work that parses a document of so many bytes off the threads that serve. `None`: it was broken off.
    pub(super) async fn parse<T: Send + 'static>(
        &self,
        length: usize,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let permit = if length < SHORT { None } else { Arc::clone(&self.0).acquire_owned().await.ok() };
        // The permit lasts as long as the work, although its viewer may leave.
        let parsed = spawn_blocking(move || (work(), permit).0);
        parsed.await.ok()
    }
}

/// Result of buffering a body.
pub(super) enum BufferResult {
    Whole(Bytes),
    /// Longer than allowed: everything that came, and the rest.
    Longer(Body),
    /// The body broke: everything that came, and the error.
    Cut(Body),
    /// Not buffered, because memory is short: everything that came, and the rest.
    Refused(Body),
}

/// Buffers a body of at most `most` bytes, out of `budget`; of a longer one no byte is lost.
pub(super) async fn gather(mut body: Body, most: usize, budget: &MemoryBudget) -> BufferResult {
    let fits = |size: u64| usize::try_from(size).is_ok_and(|size| size <= most);
    if !fits(body.size_hint().lower()) {
        return BufferResult::Longer(body);
    }
    // Each piece has its own permit: a piece that is passed on in the end still counts.
    let (mut begun, mut size) = (VecDeque::new(), 0);
    loop {
        match body.frame().await {
            None => break,
            Some(Ok(frame)) => {
                let Ok(bytes) = frame.into_data() else { continue };
                size += bytes.len();
                let Some(share) = budget.take(bytes.len()) else {
                    begun.push_back(bytes);
                    return BufferResult::Refused(Body::Chain(begun, Box::new(body)));
                };
                begun.push_back(share.keep(bytes));
                if size > most {
                    return BufferResult::Longer(Body::Chain(begun, Box::new(body)));
                }
            }
            // The viewer sees an aborted message and not a clean short one.
            Some(Err(error)) => {
                return BufferResult::Cut(Body::Chain(begun, Box::new(Body::broken(error))));
            }
        }
    }
    if begun.len() <= 1 {
        return BufferResult::Whole(begun.pop_front().unwrap_or_default());
    }
    let mut whole = Vec::with_capacity(size);
    for bytes in begun {
        whole.extend_from_slice(&bytes);
    }
    BufferResult::Whole(budget.count(size).keep(whole.into()))
}

/// The value of a field, where it has just one.
pub(super) fn text(fields: &HeaderMap, name: http::HeaderName) -> &str {
    fields.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn of_long_documents_one_is_parsed_for_each_core_and_a_short_one_waits_for_none() {
        let (permits, begun) = (ParsePermits::default(), Arc::new(AtomicUsize::new(0)));
        let cores = permits.0.available_permits();
        let (gates, parsing): (Vec<_>, Vec<_>) = (0..cores + 3)
            .map(|_| {
                let (gate, opened) = mpsc::channel::<()>();
                let (permits, begun) = (permits.clone(), Arc::clone(&begun));
                let work = move || {
                    begun.fetch_add(1, Ordering::SeqCst);
                    opened.recv().is_err()
                };
                (gate, tokio::spawn(async move { permits.parse(SHORT, work).await }))
            })
            .unzip();
        while begun.load(Ordering::SeqCst) < cores {
            tokio::task::yield_now().await;
        }
        assert_eq!(permits.parse(SHORT - 1, || "short").await, Some("short"));
        assert_eq!(begun.load(Ordering::SeqCst), cores);
        drop(gates);
        for one in parsing {
            assert_eq!(one.await.expect("a task"), Some(true));
        }
    }
}
