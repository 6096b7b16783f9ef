//! Learning from traffic: manifests and canvases that pass through are read on the side.
//!
//! The answer is never delayed, changed or failed for it: its pieces are shared, not copied, as they go by; a
//! document that is too long, or one more than the queue holds, is simply not learned this time.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{HeaderMap, header};
use tokio::sync::mpsc;

use crate::cluster::{self, Cluster};
use crate::index::learn::DocumentLearner;
use crate::index::{Index, LearnResult};
use crate::observe::{EventKind, Metrics};
use crate::upstream::Body;
use crate::upstream::coding::{CodingError, ContentCoding};

/// Documents that wait to be read, at most; and at most so many times the bytes of the longest.
const QUEUE: usize = 64;
const LONGEST_QUEUED: usize = 4;

/// Reads passing documents. Cheap to clone.
#[derive(Debug, Clone)]
pub struct TrafficLearner {
    queue: mpsc::Sender<ObservedDocument>,
    /// The longest document that is learned, as it passes and unpacked.
    most: usize,
    /// Bytes that wait to be read.
    waiting: Arc<AtomicUsize>,
    metrics: Arc<Metrics>,
}

/// A document that passed through.
#[derive(Debug)]
struct ObservedDocument {
    /// URL that was requested.
    url: String,
    coding: ContentCoding,
    /// True if its head announced JSON.
    is_announced: bool,
    pieces: Vec<Bytes>,
}

impl ObservedDocument {
    fn len(&self) -> usize {
        self.pieces.iter().map(Bytes::len).sum()
    }

    fn whole(&self) -> Bytes {
        match &self.pieces[..] {
            [one] => one.clone(),
            pieces => pieces.concat().into(),
        }
    }
}

impl TrafficLearner {
    /// Starts a thread that reads into `index` and ends when the last clone is dropped. New documents are sent to the nodes
    /// of `cluster`. `most`: the longest document that is learned, in bytes.
    pub fn start(
        index: Arc<Index>,
        cluster: Option<Arc<Cluster>>,
        most: usize,
        metrics: Arc<Metrics>,
    ) -> Self {
        let (queue, mut passing) = mpsc::channel::<ObservedDocument>(QUEUE);
        let (counting, waiting) = (Arc::clone(&metrics), Arc::new(AtomicUsize::new(0)));
        let read = Arc::clone(&waiting);
        tokio::task::spawn_blocking(move || {
            while let Some(passed) = passing.blocking_recv() {
                counting.learn_queue.dec();
                let became = learn(&index, &passed, most);
                if let (Some("learned"), Some(cluster)) = (became, &cluster) {
                    publish(cluster, &passed);
                }
                if let Some(became) = became {
                    counting.learned(became);
                }
                read.fetch_sub(passed.len(), Ordering::Relaxed);
            }
        });
        Self { queue, most, waiting, metrics }
    }

    /// Wraps a body that may be a IIIF document, so that a copy is queued for learning. `url` is its public name.
    pub fn listen(&self, url: impl FnOnce() -> Option<String>, fields: &HeaderMap, body: Body) -> Body {
        // Content codings that cannot be decoded are counted where documents are parsed.
        let (true, Ok(coding)) = (may_be_document(fields), ContentCoding::of(fields)) else { return body };
        if length(fields).is_some_and(|length| length > self.most) {
            if is_json(fields) {
                self.metrics.learned("learn_too_long");
            }
            return body;
        }
        let Some(url) = url() else { return body };
        let (learner, is_announced) = (self.clone(), is_json(fields));
        body.tee(self.most, move |pieces| match pieces {
            Some(pieces) => learner.enqueue(ObservedDocument { url, coding, is_announced, pieces }),
            None if is_announced => learner.metrics.learned("learn_too_long"),
            None => {}
        })
    }

    fn enqueue(&self, passed: ObservedDocument) {
        // Before the document is sent: the receiver may be quicker than this line.
        self.metrics.learn_queue.inc();
        let length = passed.len();
        let waiting = self.waiting.fetch_add(length, Ordering::Relaxed);
        let fits = waiting.saturating_add(length) <= self.most.saturating_mul(LONGEST_QUEUED);
        if !fits || self.queue.try_send(passed).is_err() {
            self.waiting.fetch_sub(length, Ordering::Relaxed);
            self.metrics.learn_queue.dec();
            self.metrics.event(EventKind::LearnDropped);
        }
    }
}

/// Reads one document; returns the result. `None`: it is no document, and its head did not say so.
fn learn(index: &Index, passed: &ObservedDocument, most: usize) -> Option<&'static str> {
    match passed.coding.unpack(&passed.whole(), most) {
        Ok(bytes) if !passed.is_announced && !begins_like_json(&bytes) => None,
        Err(_) if !passed.is_announced => None,
        Ok(bytes) => Some(learn_plain(index, passed, &bytes)),
        Err(CodingError::TooLong(_)) => Some("learn_too_long"),
        Err(CodingError::Broken(_)) => Some("learn_unreadable"),
    }
}

fn learn_plain(index: &Index, passed: &ObservedDocument, bytes: &[u8]) -> &'static str {
    let Ok(read) = index.read_document(bytes) else { return "learn_unreadable" };
    let (document, canvases) = (&read.document, &read.canvases);
    let url = document.id.as_deref().filter(|id| id.contains("://")).unwrap_or(&passed.url);
    match DocumentLearner::new(index).document(document, canvases, url) {
        Ok(LearnResult::New) => "learned",
        Ok(LearnResult::Known) => "learn_known",
        Ok(LearnResult::Poorer) => "learn_poorer",
        Ok(LearnResult::Nothing) => "learn_nothing",
        Err(error) => {
            tracing::warn!(%error, %url, "what passed through cannot be remembered; serving goes on");
            "learn_failed"
        }
    }
}

/// Publishes a new document to the other nodes.
fn publish(cluster: &Cluster, passed: &ObservedDocument) {
    let whole = passed.whole();
    let packed = if passed.coding == ContentCoding::Gzip {
        whole.to_vec()
    } else {
        let Ok(whole) = passed.coding.unpack(&whole, usize::MAX) else { return };
        let mut packing = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        let Ok(packed) = packing.write_all(&whole).and_then(|()| packing.finish()) else { return };
        packed
    };
    cluster.publish_learned(&cluster::LearnedEntry::Document { url: passed.url.clone(), packed });
}

/// True if the head announces JSON. (RFC 8259, RFC 6839 section 3.1)
pub(crate) fn is_json(fields: &HeaderMap) -> bool {
    let kind = media_type(fields);
    let suffix = kind.len().checked_sub("+json".len()).and_then(|at| kind.get(at..));
    kind.eq_ignore_ascii_case("application/json")
        || suffix.is_some_and(|suffix| suffix.eq_ignore_ascii_case("+json"))
}

/// True if the answer may be a document: viewers read the JSON of servers that announce text, bytes, or nothing at all, as
/// servers of plain files do where a name has no ending.
pub(crate) fn may_be_document(fields: &HeaderMap) -> bool {
    const UNDECLARED: [&str; 5] =
        ["", "text/plain", "text/json", "application/octet-stream", "binary/octet-stream"];
    let kind = media_type(fields);
    is_json(fields) || UNDECLARED.iter().any(|undeclared| kind.eq_ignore_ascii_case(undeclared))
}

/// True if a document that nobody announced as JSON begins like JSON, after blanks and the marks of an encoding.
pub(crate) fn begins_like_json(plain: &[u8]) -> bool {
    let is_before =
        |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0 | 0xef | 0xbb | 0xbf | 0xfe | 0xff);
    matches!(plain.iter().find(|byte| !is_before(byte)), Some(b'{' | b'['))
}

fn media_type(fields: &HeaderMap) -> &str {
    let kind = fields.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim()
}

fn length(fields: &HeaderMap) -> Option<usize> {
    fields.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
