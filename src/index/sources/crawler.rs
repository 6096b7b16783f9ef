//! Crawls a URL source: a document, a collection with all that it links to, or a stream of changes.
//!
//! The crawler is async and limits its requests. Documents go to the (blocking) writer through a short channel, so that
//! memory and the number of requests at once stay bounded.

use std::collections::{HashSet, VecDeque};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use serde::Deserialize;
use tokio::sync::mpsc;

use crate::config::settings::SourceSettings;
use crate::iiif::CanvasUrl;
use crate::iiif::canvas::uri;
use crate::iiif::manifest::{Document, DocumentKind};
use crate::index::Index;
use crate::index::sources::RefreshOptions;
use crate::index::sources::change_discovery::ChangeLink as Linked;
use crate::index::sources::change_discovery::{ChangePage, LatestChanges};
use crate::index::sources::event::SourceEvent;
use crate::index::sources::http_client::{FetchOutcome, ParsedDocument, SourceClient};
use crate::index::sources::problem::SourceProblem;
use crate::index::store::writer::DocumentMeta;
use crate::upstream::fetch::join;

/// Collections within collections that are followed.
const DEPTH: usize = 16;

/// Documents of one source at most.
const DOCUMENTS: usize = 500_000;

/// Documents that wait for the writer.
const QUEUE: usize = 16;

/// Starts to walk a source; `None`: nothing can be fetched here.
pub(crate) fn walk(
    index: &Index,
    source: &SourceSettings,
    url: &str,
    options: &RefreshOptions,
) -> Option<mpsc::Receiver<SourceEvent>> {
    let (web, handle) = index.web.load_full().as_deref().cloned()?;
    let (send, events) = mpsc::channel(QUEUE);
    let (source, url, options) = (source.clone(), url.to_owned(), *options);
    let store = index.store();
    handle.spawn(async move {
        let client = SourceClient::new(&web, &source, &url, options, store);
        // Without a writer there is no need to go on.
        let _ = Crawler::new(&client, &send).run().await;
    });
    Some(events)
}

/// The writer went away.
struct CrawlStopped;

/// State of one crawl of a URL source.
struct Crawler<'a> {
    client: &'a SourceClient,
    send: &'a mpsc::Sender<SourceEvent>,
    queue: VecDeque<CrawlLink>,
    seen: HashSet<String>,
    /// Hosts that a link led to and that are not followed.
    away: HashSet<String>,
    is_too_deep: bool,
    is_too_long: bool,
    /// A document could not be had that may be had next time.
    lost: bool,
}

/// A document to visit.
struct CrawlLink {
    url: String,
    depth: usize,
}

impl<'a> Crawler<'a> {
    fn new(client: &'a SourceClient, send: &'a mpsc::Sender<SourceEvent>) -> Self {
        Self {
            client,
            send,
            queue: VecDeque::new(),
            seen: HashSet::new(),
            away: HashSet::new(),
            is_too_deep: false,
            is_too_long: false,
            lost: false,
        }
    }

    async fn run(mut self) -> Result<(), CrawlStopped> {
        let home = self.client.home().to_owned();
        self.seen.insert(home.clone());
        let known = self.client.known(&home);
        match self.client.document(&home, known.as_ref()).await {
            FetchOutcome::Read(reading) => {
                if let Some(stream) = reading.body.as_deref().and_then(ChangePage::stream) {
                    let watermark = known.and_then(|known| known.facts.last_modified);
                    self.changes(&stream, watermark, reading).await?;
                } else {
                    self.read(CrawlLink { url: home, depth: 0 }, reading).await?;
                    self.walk().await?;
                }
            }
            FetchOutcome::Failed { problem, .. } => self.emit(SourceEvent::Incomplete(Some(problem))).await?,
            other => self.visit(home, other).await?,
        }
        self.emit(SourceEvent::End).await
    }

    async fn emit(&self, event: SourceEvent) -> Result<(), CrawlStopped> {
        self.send.send(event).await.map_err(|_| CrawlStopped)
    }

    async fn document(&self, reading: Box<ParsedDocument>) -> Result<(), CrawlStopped> {
        let ParsedDocument { document, canvases, facts, .. } = *reading;
        self.emit(SourceEvent::Canvases(canvases)).await?;
        self.emit(SourceEvent::Document(Box::new((document, facts)))).await
    }

    /// Visits the queued URLs, and their links.
    async fn walk(&mut self) -> Result<(), CrawlStopped> {
        let client = self.client;
        let mut in_flight = FuturesUnordered::new();
        loop {
            while in_flight.len() < client.concurrency()
                && let Some(link) = self.queue.pop_front()
            {
                in_flight.push(async move {
                    let known = client.known(&link.url);
                    let was_collection = known.as_ref().is_some_and(|known| known.kind == "collection");
                    (client.document(&link.url, known.as_ref()).await, link, was_collection)
                });
            }
            let Some((answer, link, was_collection)) = in_flight.next().await else { return Ok(()) };
            match answer {
                FetchOutcome::Read(reading) => self.read(link, reading).await?,
                // The collection's earlier links were not seen now.
                FetchOutcome::Failed { problem, .. } if was_collection => {
                    self.emit(SourceEvent::Incomplete(Some(problem))).await?;
                }
                other => self.visit(link.url, other).await?,
            }
        }
    }

    async fn visit(&mut self, url: String, answer: FetchOutcome) -> Result<(), CrawlStopped> {
        let found = match answer {
            FetchOutcome::Read(reading) => return self.document(reading).await,
            FetchOutcome::Unchanged(facts) => SourceEvent::Unchanged(facts),
            FetchOutcome::Poorer(problem) => SourceEvent::Poorer(url, problem),
            FetchOutcome::Failed { problem, is_gone } => {
                self.lost |= !is_gone;
                SourceEvent::Failed(url, problem)
            }
        };
        self.emit(found).await
    }

    /// Queues the links of a document that was read.
    async fn read(&mut self, link: CrawlLink, reading: Box<ParsedDocument>) -> Result<(), CrawlStopped> {
        if reading.document.kind == DocumentKind::Other && reading.canvases.is_empty() {
            let message = "it is JSON, but neither a manifest nor a collection".to_owned();
            let hint = "name the URL of a IIIF manifest, a collection or a stream of changes; what the index knows \
                        from there is kept";
            let problem = SourceProblem::answer(&self.client.shown(&link.url), message, hint);
            return self.emit(SourceEvent::Failed(link.url, problem)).await;
        }
        let members = reading.document.members.clone();
        let is_collection = reading.document.kind == DocumentKind::Collection;
        let paging = reading.body.as_deref().filter(|_| is_collection).map(Paging::of).unwrap_or_default();
        self.document(reading).await?;
        let url_of = |linked: Option<Linked>| linked.as_ref().and_then(Linked::url).map(str::to_owned);
        let deeper = link.depth + 1;
        // Pages follow one another without end only where they hold something: a server may name a next page behind the last.
        let beside = if members.is_empty() { deeper } else { link.depth };
        let pages = url_of(paging.next).map(|url| (url, beside));
        let inside = members.into_iter().chain(url_of(paging.first)).map(|url| (url, deeper));
        for (url, depth) in inside.chain(pages) {
            // Links are read against the URL of their document (JSON-LD 1.1 section 4.1.3).
            let url = join(&link.url, &url).unwrap_or(url);
            self.enqueue(&url, depth).await?;
        }
        Ok(())
    }

    async fn enqueue(&mut self, url: &str, depth: usize) -> Result<(), CrawlStopped> {
        let url = url.split('#').next().unwrap_or(url);
        let shown = self.client.shown(self.client.home());
        let encoded = uri(url);
        let url = encoded.as_deref().unwrap_or(url);
        let Some(parsed) = CanvasUrl::parse(url).filter(|_| encoded.is_some()) else {
            let problem = SourceProblem::answer(
                &self.client.shown(url),
                format!("{shown} leads there, but it is no URL to fetch"),
                "only http and https URLs of plain characters are fetched; correct the collection",
            );
            return self.emit(SourceEvent::Failed(url.to_owned(), problem)).await;
        };
        if self.seen.contains(url) {
            return Ok(());
        }
        if !self.client.may_follow(&parsed) {
            if !self.away.insert(parsed.authority.to_owned()) {
                return Ok(());
            }
            let problem = SourceProblem::answer(
                &shown,
                format!("it leads to {}, such as {}", parsed.authority, self.client.shown(url)),
                "links to another host are followed only if it stands in the source's `hosts`",
            );
            return self.emit(SourceEvent::Failed(url.to_owned(), problem)).await;
        }
        if depth > DEPTH {
            return self.too_deep(&shown).await;
        }
        if self.seen.len() >= DOCUMENTS {
            return self.too_long(&shown).await;
        }
        self.seen.insert(url.to_owned());
        self.queue.push_back(CrawlLink { url: url.to_owned(), depth });
        Ok(())
    }

    async fn too_deep(&mut self, shown: &str) -> Result<(), CrawlStopped> {
        if std::mem::replace(&mut self.is_too_deep, true) {
            return Ok(());
        }
        let message = format!("collections lie within collections, more than {DEPTH} deep");
        let hint = "what lies deeper is not read: name a collection further inside as a source of its own";
        self.emit(SourceEvent::Incomplete(Some(SourceProblem::answer(shown, message, hint)))).await
    }

    async fn too_long(&mut self, shown: &str) -> Result<(), CrawlStopped> {
        if std::mem::replace(&mut self.is_too_long, true) {
            return Ok(());
        }
        let message = format!("it leads to more than {DOCUMENTS} documents");
        let hint = "the others are not read: name collections further inside as sources of their own";
        self.emit(SourceEvent::Incomplete(Some(SourceProblem::answer(shown, message, hint)))).await
    }

    /// Follows a stream of changes back to the known position, then visits the changed documents.
    async fn changes(
        &mut self,
        stream: &ChangePage,
        watermark: Option<String>,
        mut reading: Box<ParsedDocument>,
    ) -> Result<(), CrawlStopped> {
        self.emit(SourceEvent::OnlyChanges).await?;
        let mut changes = LatestChanges::since(watermark.as_deref());
        self.pages(stream, &mut changes).await?;
        for url in std::mem::take(&mut changes.gone) {
            self.emit(SourceEvent::Gone(url)).await?;
        }
        for url in std::mem::take(&mut changes.fetch) {
            let url = join(self.client.home(), &url).unwrap_or(url);
            self.enqueue(&url, 1).await?;
        }
        self.walk().await?;
        // After the documents: a change that could not be fetched must be met again.
        let reached = if self.lost { watermark } else { changes.newest.or(watermark) };
        reading.document =
            Document { id: reading.document.id, label: reading.document.label, ..Document::default() };
        reading.facts = DocumentMeta { etag: None, last_modified: reached, ..reading.facts };
        self.document(reading).await
    }

    async fn pages(&mut self, stream: &ChangePage, changes: &mut LatestChanges) -> Result<(), CrawlStopped> {
        if !changes.take(stream) {
            return Ok(());
        }
        let mut next = stream.last().map(str::to_owned);
        let mut seen = HashSet::new();
        while let Some(url) = next {
            // A stream in a circle ends where it began.
            if !seen.insert(url.clone()) {
                return Ok(());
            }
            if changes.len() > DOCUMENTS {
                let shown = self.client.shown(self.client.home());
                return self.too_long(&shown).await;
            }
            let page = match self.page(&url).await {
                Ok(page) => page,
                Err(problem) => {
                    self.lost = true;
                    return self.emit(SourceEvent::Incomplete(Some(problem))).await;
                }
            };
            next = if changes.take(&page) { page.prev().map(str::to_owned) } else { None };
        }
        Ok(())
    }

    async fn page(&self, url: &str) -> Result<ChangePage, SourceProblem> {
        let encoded = uri(url);
        let url = encoded.as_deref().unwrap_or(url);
        let may = CanvasUrl::parse(url).is_some_and(|parsed| self.client.may_follow(&parsed));
        if !may {
            let hint = "links to another host are followed only if it stands in the source's `hosts`";
            return Err(SourceProblem::answer(
                &self.client.shown(url),
                "this page of changes is on another host".to_owned(),
                hint,
            ));
        }
        let body = self.client.body(url).await?;
        ChangePage::read(&body).map_err(|error| {
            let hint = "the server writes a page of changes that cannot be read: ask those who run it";
            SourceProblem::answer(&self.client.shown(url), error.to_string(), hint)
        })
    }
}

/// Links between the pages of a Presentation 2 collection.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Paging {
    first: Option<Linked>,
    next: Option<Linked>,
}

impl Paging {
    fn of(body: &[u8]) -> Self {
        serde_json::from_slice(body).unwrap_or_default()
    }
}
