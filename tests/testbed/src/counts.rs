//! Ledger of requests to the stand-ins: counters and a log, in order.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{HeaderMap, Method};
use tokio::sync::watch;

use crate::wire::Seen;

/// Purpose of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Canvas service: a canvas without `update`.
    Visit,
    /// Canvas service: a canvas with `update=true`.
    Rebuild,
    /// Canvas service: a canvas with a `disallow`, which is built beside the plain one.
    Variant,
    /// Canvas service: a presentation manifest with a `disallow`.
    BookVariant,
    /// Canvas service: a presentation manifest.
    Presentation,
    /// Canvas service: a sequence.
    Sequence,
    /// Canvas service: a collection.
    Collection,
    /// Canvas service: `/fedora/image/…`, the way that registers a key.
    Register,
    /// Canvas service: `/resources/{uuid}`.
    Resources,
    /// Canvas service: `/resources/{uuid}/redirect` (the image server's question).
    Redirect,
    /// Canvas service: `/resources/lookup`.
    Lookup,
    /// Image server: a picture.
    Image,
    /// Image server: `info.json`.
    Info,
    /// Image server: `/iiif/2/{id}`.
    Base,
    /// Other request, to either.
    Other,
}

/// Entry of the log: one request.
#[derive(Debug, Clone)]
pub struct Logged {
    /// Purpose.
    pub kind: Kind,
    /// The method.
    pub method: Method,
    /// The raw target.
    pub target: String,
    /// The fields.
    pub headers: HeaderMap,
}

/// Counts of requests to the stand-ins by purpose, since the start or the last [`Ledger::clear`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Canvas requests of every kind.
    pub canvas: usize,
    /// Canvas requests without `update` and `disallow`.
    pub visits: usize,
    /// Canvas requests with `update` and without `disallow`.
    pub rebuilds: usize,
    /// Canvas requests with a `disallow`.
    pub variants: usize,
    /// Canvases really generated (not taken from Redis).
    pub generations: usize,
    /// Canvases being generated now, those of presentations not counted.
    pub generations_now: usize,
    /// The most canvases generated at once.
    pub generations_most: usize,
    /// Presentation requests of every kind.
    pub presentation: usize,
    /// Presentation requests with a `disallow`.
    pub book_variants: usize,
    /// Sequence requests.
    pub sequence: usize,
    /// Collection requests.
    pub collection: usize,
    /// `/fedora/image/…` requests.
    pub register: usize,
    /// `/resources/{uuid}` requests.
    pub resources: usize,
    /// `/resources/{uuid}/redirect` requests.
    pub redirect: usize,
    /// `/resources/lookup` requests.
    pub lookup: usize,
    /// Requests that the service itself sent to `image.server.url` (info.json, or the base URI when registering).
    pub nested: usize,
    /// Pictures asked of the image server.
    pub image: usize,
    /// `info.json` asked of the image server (nested ones included).
    pub info: usize,
    /// Base URIs asked of the image server.
    pub base: usize,
    /// Requests to the image server that carried `X-Forwarded-ID`.
    pub direct: usize,
    /// Other requests.
    pub other: usize,
    /// Canvas requests in work now.
    pub canvas_now: usize,
    /// The most canvas requests in work at once.
    pub canvas_most: usize,
    /// Nested requests in work now.
    pub nested_now: usize,
    /// The most nested requests in work at once (never above two: upstream.md "Load").
    pub nested_most: usize,
}

impl Counts {
    /// Every request that makes the canvas service work: canvas, presentation, sequence, collection, register.
    pub fn healing(&self) -> usize {
        self.canvas + self.presentation + self.sequence + self.collection + self.register
    }
}

/// The counters and the log of all stand-ins of one testbed.
#[derive(Debug, Clone, Default)]
pub struct Ledger(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    counts: watch::Sender<Counts>,
    log: Mutex<Vec<Logged>>,
}

/// Guard of work in progress: ends it when dropped.
#[derive(Debug)]
pub(crate) struct InWork {
    ledger: Ledger,
    end: fn(&mut Counts),
}

impl Drop for InWork {
    fn drop(&mut self) {
        self.ledger.count(self.end);
    }
}

impl Ledger {
    /// Current counters.
    pub fn counts(&self) -> Counts {
        self.0.counts.borrow().clone()
    }

    /// The log so far.
    pub fn log(&self) -> Vec<Logged> {
        self.0.log.lock().unwrap().clone()
    }

    /// The raw targets of one kind, in order.
    pub fn targets(&self, kind: Kind) -> Vec<String> {
        self.log().into_iter().filter(|logged| logged.kind == kind).map(|logged| logged.target).collect()
    }

    /// Clears counters and log; work in progress stays counted.
    pub fn clear(&self) {
        self.0.log.lock().unwrap().clear();
        self.0.counts.send_modify(|counts| {
            *counts = Counts {
                canvas_now: counts.canvas_now,
                canvas_most: counts.canvas_now,
                generations_now: counts.generations_now,
                generations_most: counts.generations_now,
                nested_now: counts.nested_now,
                nested_most: counts.nested_now,
                ..Counts::default()
            };
        });
    }

    /// Waits until the counters fulfil the condition, without sleeping.
    ///
    /// # Panics
    /// After 20 seconds.
    pub async fn until(&self, says: impl FnMut(&Counts) -> bool) -> Counts {
        let mut counts = self.0.counts.subscribe();
        let reached = tokio::time::timeout(Duration::from_secs(20), counts.wait_for(says)).await;
        match reached {
            Ok(Ok(counts)) => counts.clone(),
            _ => panic!("the counters never got there: {:?}", self.counts()),
        }
    }

    pub(crate) fn count(&self, change: impl FnOnce(&mut Counts)) {
        self.0.counts.send_modify(change);
    }

    pub(crate) fn see(&self, kind: Kind, seen: &Seen) {
        self.0.log.lock().unwrap().push(Logged {
            kind,
            method: seen.method.clone(),
            target: seen.target.clone(),
            headers: seen.headers.clone(),
        });
        self.count(|counts| {
            let counter = match kind {
                Kind::Visit => {
                    counts.canvas += 1;
                    &mut counts.visits
                }
                Kind::Rebuild => {
                    counts.canvas += 1;
                    &mut counts.rebuilds
                }
                Kind::Variant => {
                    counts.canvas += 1;
                    &mut counts.variants
                }
                Kind::BookVariant => {
                    counts.presentation += 1;
                    &mut counts.book_variants
                }
                Kind::Presentation => &mut counts.presentation,
                Kind::Sequence => &mut counts.sequence,
                Kind::Collection => &mut counts.collection,
                Kind::Register => &mut counts.register,
                Kind::Resources => &mut counts.resources,
                Kind::Redirect => &mut counts.redirect,
                Kind::Lookup => &mut counts.lookup,
                Kind::Image => &mut counts.image,
                Kind::Info => &mut counts.info,
                Kind::Base => &mut counts.base,
                Kind::Other => &mut counts.other,
            };
            *counter += 1;
            if seen.headers.contains_key("x-forwarded-id") {
                counts.direct += 1;
            }
        });
    }

    pub(crate) fn canvas_in_work(&self) -> InWork {
        self.count(|counts| {
            counts.canvas_now += 1;
            counts.canvas_most = counts.canvas_most.max(counts.canvas_now);
        });
        InWork { ledger: self.clone(), end: |counts| counts.canvas_now = counts.canvas_now.saturating_sub(1) }
    }

    pub(crate) fn generation_in_work(&self) -> InWork {
        self.count(|counts| {
            counts.generations += 1;
            counts.generations_now += 1;
            counts.generations_most = counts.generations_most.max(counts.generations_now);
        });
        InWork {
            ledger: self.clone(),
            end: |counts| counts.generations_now = counts.generations_now.saturating_sub(1),
        }
    }

    pub(crate) fn nested_in_work(&self) -> InWork {
        self.count(|counts| {
            counts.nested += 1;
            counts.nested_now += 1;
            counts.nested_most = counts.nested_most.max(counts.nested_now);
        });
        InWork { ledger: self.clone(), end: |counts| counts.nested_now = counts.nested_now.saturating_sub(1) }
    }
}
