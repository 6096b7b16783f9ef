//! HTTP client of URL sources: sends polite requests, parses documents, and reports bad answers.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{StatusCode, header};
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, Interval, MissedTickBehavior, sleep_until};

use crate::config::Settings;
use crate::config::settings::SourceSettings;
use crate::iiif::CanvasUrl;
use crate::iiif::manifest::{self, Canvas, Document, DocumentKind};
use crate::index::learn::lacking;
use crate::index::learn::lacking::keys_of_document;
use crate::index::now;
use crate::index::sources::event::KnownUrl;
use crate::index::sources::problem::SourceProblem;
use crate::index::sources::{RefreshOptions, is_over};
use crate::index::store::Store;
use crate::index::store::keys::KeyRules;
use crate::index::store::writer::DocumentMeta;
use crate::upstream::fetch::{
    FetchError, FetchRequest, FetchedResponse, Fetcher, FetcherFactory, retry_after, without_query,
};

const ACCEPT: &str = "application/ld+json, application/json;q=0.9, */*;q=0.1";

/// Result of a fetch.
#[derive(Debug)]
pub(crate) enum FetchOutcome {
    /// A document, new or changed.
    Read(Box<ParsedDocument>),
    /// The document is unchanged; with the validators for the next request.
    Unchanged(Box<DocumentMeta>),
    /// The document has fewer images than the index knows from this URL, as poisoned JSON does.
    Poorer(SourceProblem),
    /// No document. `is_gone`: the server answers that there is none.
    Failed { problem: SourceProblem, is_gone: bool },
}

/// A document that was fetched.
#[derive(Debug)]
pub(crate) struct ParsedDocument {
    pub(crate) document: Document,
    pub(crate) canvases: Vec<Canvas>,
    pub(crate) facts: DocumentMeta,
    /// Body, if it may hold more than a manifest: collections and documents outside IIIF.
    pub(crate) body: Option<Bytes>,
}

/// Fetches the documents of one source.
pub(crate) struct SourceClient {
    fetcher: Fetcher,
    settings: Arc<Settings>,
    source: SourceSettings,
    /// The source's own URL.
    home: String,
    options: RefreshOptions,
    store: Arc<Store>,
    pace: Option<Mutex<Interval>>,
    /// End of the pause that the source asked for.
    pause: watch::Sender<Instant>,
}

impl SourceClient {
    pub(crate) fn new(
        web: &FetcherFactory,
        source: &SourceSettings,
        home: &str,
        options: RefreshOptions,
        store: Arc<Store>,
    ) -> Self {
        Self {
            fetcher: web.fetcher(),
            settings: web.settings(),
            source: source.clone(),
            home: home.to_owned(),
            options,
            store,
            pace: pace(source.rate),
            pause: watch::Sender::new(Instant::now()),
        }
    }

    pub(crate) fn home(&self) -> &str {
        &self.home
    }

    pub(crate) fn concurrency(&self) -> usize {
        self.source.concurrency.max(1)
    }

    /// True if a link or a redirect may lead to this URL.
    ///
    /// SECURITY: a collection is foreign text, and we stand inside the library's network. Allowed are the source's own
    /// host, hosts that mean us, those of our routes, and those that the source names.
    pub(crate) fn may_follow(&self, url: &CanvasUrl<'_>) -> bool {
        let home = CanvasUrl::parse(&self.home).is_some_and(|home| url.authority_is(home.authority));
        let mut named = self.source.hosts.iter().chain(&self.settings.server.public_hosts);
        let mut routes = self.settings.routes.iter();
        home || named.any(|host| url.authority_is(host))
            || routes.any(|route| url.authority_is(route.upstream.authority.as_str()))
    }

    /// SECURITY: the source's own URL may carry a key in its query, and then its further pages do as well.
    pub(crate) fn shown(&self, url: &str) -> String {
        if self.home.contains('?') { without_query(url) } else { url.to_owned() }
    }

    /// Finds the facts about a URL. An index that cannot answer knows none.
    pub(crate) fn known(&self, url: &str) -> Option<KnownUrl> {
        self.store.read(|conn| KnownUrl::find(conn, &self.home, url)).ok().flatten()
    }

    /// Fetches a document. A document with links to follow is read whole, whether it changed or not.
    pub(crate) async fn document(&self, url: &str, known: Option<&KnownUrl>) -> FetchOutcome {
        let known = known.filter(|known| known.kind != "collection" && known.kind != "other");
        let before = known.map(|known| &known.facts);
        let fetched = match self.fetch(url, before).await {
            Ok(fetched) => fetched,
            Err(failed) => return failed,
        };
        let given = DocumentMeta {
            origin: url.to_owned(),
            etag: fetched.field(&header::ETAG).map(str::to_owned),
            last_modified: fetched.field(&header::LAST_MODIFIED).map(str::to_owned),
            seen: now(),
            ..DocumentMeta::default()
        };
        if let (StatusCode::NOT_MODIFIED, Some(before)) = (fetched.status, before) {
            let etag = given.etag.or_else(|| before.etag.clone());
            let last_modified = given.last_modified.or_else(|| before.last_modified.clone());
            return FetchOutcome::Unchanged(Box::new(DocumentMeta { etag, last_modified, ..given }));
        }
        let shown = self.shown(url);
        if fetched.status == StatusCode::NOT_MODIFIED {
            let message = "it is answered 304 Not Modified, although no version was named".to_owned();
            let hint = "a cache before the server answers wrongly: ask those who run it";
            let problem = SourceProblem::answer(&shown, message, hint);
            return FetchOutcome::Failed { problem, is_gone: false };
        }
        let reading = Comparison {
            names: KeyRules::of(&self.settings),
            store: Arc::clone(&self.store),
            known: known.cloned(),
            options: self.options,
        };
        // Unpacking and parsing many megabytes must not block the threads that serve viewers.
        let read = tokio::task::spawn_blocking(move || reading.read(&fetched, given, &shown));
        read.await.unwrap_or_else(|_| {
            let problem =
                SourceProblem::answer(&self.shown(url), "reading it was broken off".to_owned(), AGAIN);
            FetchOutcome::Failed { problem, is_gone: false }
        })
    }

    /// Fetches the plain body at a URL, of any kind.
    pub(crate) async fn body(&self, url: &str) -> Result<Bytes, SourceProblem> {
        match self.fetch(url, None).await {
            Ok(fetched) => fetched.plain().map_err(|error| self.problem(url, &error)),
            Err(FetchOutcome::Failed { problem, .. }) => Err(problem),
            Err(_) => Err(SourceProblem::answer(&self.shown(url), "no answer".to_owned(), AGAIN)),
        }
    }

    async fn fetch(&self, url: &str, known: Option<&DocumentMeta>) -> Result<FetchedResponse, FetchOutcome> {
        let ask = FetchRequest {
            url,
            accept: ACCEPT,
            headers: &self.source.headers,
            home: &self.home,
            validators: known
                .map_or((None, None), |known| (known.etag.as_deref(), known.last_modified.as_deref())),
            may_follow: &|url| self.may_follow(url),
        };
        let failed = |problem, is_gone| FetchOutcome::Failed { problem, is_gone };
        let mut patience = self.settings.index.max_pause;
        let fetched = loop {
            self.waits().await;
            let fetched = self.fetcher.fetch(&ask).await;
            let fetched = fetched.map_err(|error| failed(self.problem(url, &error), false))?;
            let pause = retry_after(fetched.status, &fetched.fields, SystemTime::now());
            let left = pause.and_then(|pause| Some((pause, patience.checked_sub(pause)?)));
            let Some((pause, left)) = left else { break fetched };
            patience = left;
            tracing::info!(url = self.shown(url), seconds = pause.as_secs(), "the source asks for a pause");
            self.pause.send_modify(|until| *until = (*until).max(Instant::now() + pause));
        };
        let status = fetched.status;
        if status.is_success() || status == StatusCode::NOT_MODIFIED {
            return Ok(fetched);
        }
        let is_gone = matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE);
        let problem =
            SourceProblem::answer(&self.shown(url), format!("it is answered {status}"), hint(status));
        Err(failed(problem, is_gone))
    }

    /// Waits until the source may get a request again: by its rate, and by its `Retry-After`.
    async fn waits(&self) {
        if let Some(pace) = &self.pace {
            pace.lock().await.tick().await;
        }
        loop {
            let until = *self.pause.borrow();
            if until <= Instant::now() {
                return;
            }
            sleep_until(until).await;
        }
    }

    fn problem(&self, url: &str, error: &FetchError) -> SourceProblem {
        let hint = match error {
            FetchError::NotHttp(_) => {
                "only http and https URLs of plain characters are fetched; correct the link"
            }
            FetchError::LeadsAway(_) => "if that host is right, add it to the source's `hosts`",
            FetchError::Circle(_) => "the server leads round in circles: ask those who run it",
            FetchError::Upstream(_) => {
                "check that the server runs and can be reached from here; what the index knows from there is kept"
            }
            FetchError::Body(_) | FetchError::Endless => AGAIN,
        };
        SourceProblem::answer(&self.shown(url), error.to_string(), hint)
    }
}

const AGAIN: &str = "it is asked for again next time; what the index knows from there is kept";

fn hint(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 | 403 => {
            "it wants a key: give it in the source's `headers`; what the index knows from there is kept"
        }
        404 | 410 => "check the URL; what the index knows from there is kept",
        429 | 503 => {
            "the server asks for a pause: lower the source's `rate` or `concurrency`; what the index knows is kept"
        }
        500..=599 => "the server is in trouble: look there; what the index knows from there is kept",
        _ => AGAIN,
    }
}

/// Rate limit in requests a second; zero: none.
pub(crate) fn pace(rate: u32) -> Option<Mutex<Interval>> {
    let mut every = tokio::time::interval(Duration::from_secs(1).checked_div(rate)?);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    Some(Mutex::new(every))
}

/// Facts that a fetched document is compared with.
struct Comparison {
    names: KeyRules,
    store: Arc<Store>,
    known: Option<KnownUrl>,
    options: RefreshOptions,
}

impl Comparison {
    /// Parses a fetched document; `shown`: its URL without secrets.
    fn read(&self, fetched: &FetchedResponse, given: DocumentMeta, shown: &str) -> FetchOutcome {
        let failed = |problem| FetchOutcome::Failed { problem, is_gone: false };
        let body = match fetched.plain() {
            Ok(body) => body,
            Err(error) => return failed(SourceProblem::answer(shown, error.to_string(), AGAIN)),
        };
        let facts = DocumentMeta { hash: Some(blake3::hash(&body).into()), ..given };
        if self.known.as_ref().is_some_and(|known| known.facts.hash == facts.hash) {
            return FetchOutcome::Unchanged(Box::new(facts));
        }
        let (document, canvases) = match manifest::read_under(&body, &self.names.images) {
            Ok(read) => read,
            Err(_) if is_html(fetched, &body) => {
                let hint = "that may be a login page or a viewer: the URL of the JSON itself is needed, or a key in \
                            the source's `headers`";
                return failed(SourceProblem::answer(shown, "it is a web page, not JSON".to_owned(), hint));
            }
            Err(error) => return failed(SourceProblem::broken(shown, &error)),
        };
        // Other JSON, such as an error, is no document with fewer images.
        let is_document = document.kind != DocumentKind::Other || !canvases.is_empty();
        if let Some(poorer) = self.poorer(&canvases, shown).filter(|_| is_document) {
            return FetchOutcome::Poorer(poorer);
        }
        let body = canvases.is_empty().then_some(body);
        FetchOutcome::Read(Box::new(ParsedDocument { document, canvases, facts, body }))
    }

    /// Checks whether the document lost images.
    ///
    /// UPSTREAM: during a fault the canvas service answers 200 with images missing, and stores that.
    fn poorer(&self, canvases: &[Canvas], shown: &str) -> Option<SourceProblem> {
        let known = self.known.as_ref().filter(|known| !is_over(known.facts.vanished, &self.options))?;
        let keys = self.store.read(|conn| keys_of_document(conn, known.id)).unwrap_or_default();
        let missing = lacking::among(&self.names, keys, canvases, usize::MAX);
        let example = missing.first()?;
        let images: usize = canvases.iter().map(|canvas| canvas.images.len()).sum();
        let message = format!(
            "it names {images} images; the index knows {} from there, and {} of those are missing, such as {example}",
            known.images,
            missing.len()
        );
        let hint = "the canvas service tells fewer when it was in trouble: ask for the same URL with ?update=true. \
                    If it still says so after [index] grace, it is believed";
        Some(SourceProblem::answer(shown, message, hint))
    }
}

fn is_html(fetched: &FetchedResponse, body: &[u8]) -> bool {
    let named = fetched.field(&header::CONTENT_TYPE).is_some_and(|kind| kind.starts_with("text/html"));
    named || body.trim_ascii_start().starts_with(b"<")
}
