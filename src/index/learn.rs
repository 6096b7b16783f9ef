//! Learning from traffic: manifests and canvases that pass through are read on the side.
//!
//! The answer is never delayed, changed or failed for it: its pieces are shared, not copied, as they go by; a
//! document that is too long, or one more than the queue holds, is simply not learned this time.

use std::io::{Read, Write as _};
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, header};
use tokio::sync::mpsc;

use super::{Index, Learned};
use crate::cluster::{self, Cluster};
use crate::iiif::manifest;
use crate::observe::Metrics;
use crate::upstream::Body;

/// The longest document that is learned, as it passes and unpacked.
const LONGEST: usize = 8 << 20;

/// Documents that wait to be read, at most.
const QUEUE: usize = 64;

/// Reads what passes through. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Learner {
    queue: mpsc::Sender<Passed>,
    metrics: Arc<Metrics>,
}

/// A document that passed through.
#[derive(Debug)]
struct Passed {
    /// What it was asked for as.
    url: String,
    gzip: bool,
    pieces: Vec<Bytes>,
}

impl Learner {
    /// Starts reading into `index`, on a thread of its own; it ends when the last clone is gone.
    /// What is new is told to the nodes of `cluster`.
    pub fn start(index: Arc<Index>, cluster: Option<Arc<Cluster>>, metrics: Arc<Metrics>) -> Self {
        let (queue, mut waiting) = mpsc::channel::<Passed>(QUEUE);
        let counting = Arc::clone(&metrics);
        tokio::task::spawn_blocking(move || {
            while let Some(passed) = waiting.blocking_recv() {
                counting.learn_queue.dec();
                let became = learn(&index, &passed);
                if let ("learned", Some(cluster)) = (became, &cluster) {
                    tell(cluster, &passed);
                }
                counting.learned(became);
            }
        });
        Self { queue, metrics }
    }

    /// The same body, listened to if it may be a IIIF document. `url` is its public name.
    pub fn listen(&self, url: impl FnOnce() -> Option<String>, fields: &HeaderMap, body: Body) -> Body {
        let Some(gzip) = encoding(fields) else { return body };
        if !is_json(fields) || length(fields).is_some_and(|length| length > LONGEST) {
            return body;
        }
        let Some(url) = url() else { return body };
        let Self { queue, metrics } = self.clone();
        body.tee(LONGEST, move |pieces| {
            // Before it is sent: the reader may be quicker than we are.
            metrics.learn_queue.inc();
            if queue.try_send(Passed { url, gzip, pieces }).is_err() {
                metrics.learn_queue.dec();
                metrics.event("learn_dropped");
            }
        })
    }
}

/// Reads one document; says what became of it.
fn learn(index: &Index, passed: &Passed) -> &'static str {
    let Some(bytes) = unpacked(passed) else { return "learn_unreadable" };
    let Ok((document, canvases)) = manifest::read(&bytes) else { return "learn_unreadable" };
    let url = document.id.as_deref().filter(|id| id.contains("://")).unwrap_or(&passed.url);
    match index.learn(&document, &canvases, url) {
        Ok(Learned::New) => "learned",
        Ok(Learned::Known) => "learn_known",
        Ok(Learned::Poorer) => "learn_poorer",
        Ok(Learned::Nothing) => "learn_nothing",
        Err(error) => {
            tracing::warn!(%error, %url, "what passed through cannot be remembered; serving goes on");
            "learn_failed"
        }
    }
}

/// Tells the other nodes of a document that was new here.
fn tell(cluster: &Cluster, passed: &Passed) {
    let whole = passed.pieces.concat();
    let packed = if passed.gzip {
        whole
    } else {
        let mut packing = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        let Ok(packed) = packing.write_all(&whole).and_then(|()| packing.finish()) else { return };
        packed
    };
    cluster.tell_learned(&cluster::Learned::Document { url: passed.url.clone(), packed });
}

fn unpacked(passed: &Passed) -> Option<Vec<u8>> {
    let whole = passed.pieces.concat();
    if !passed.gzip {
        return Some(whole);
    }
    let mut plain = Vec::new();
    // One byte more than allowed tells "too long" from "just fits".
    let limit = u64::try_from(LONGEST).unwrap_or(u64::MAX).saturating_add(1);
    flate2::read::MultiGzDecoder::new(&*whole).take(limit).read_to_end(&mut plain).ok()?;
    (plain.len() <= LONGEST).then_some(plain)
}

fn is_json(fields: &HeaderMap) -> bool {
    let kind = fields.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("application/json") || kind.to_ascii_lowercase().ends_with("+json")
}

/// `Some(is it gzip)` for encodings that can be read here.
fn encoding(fields: &HeaderMap) -> Option<bool> {
    match fields.get(header::CONTENT_ENCODING).map(http::HeaderValue::as_bytes) {
        None | Some(b"identity") => Some(false),
        Some(b"gzip" | b"x-gzip") => Some(true),
        Some(_) => None,
    }
}

fn length(fields: &HeaderMap) -> Option<usize> {
    fields.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
