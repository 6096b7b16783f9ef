//! Viewers' own requests to the canvas service: with a permit, and with poisoned documents repaired.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::{Request, Response};
use tokio::time::{Instant, timeout};

use super::canvas_service::{BY_VIEWER, LATE};
use super::case::WAIT;
use super::check::SimExchange;
use super::library::{SERVICES, SimDocument};
use super::model::StoredUnder;
use super::run::CaseRun;
use crate::heal::{DocumentRepair, PoisonedDocument, fingerprint};
use crate::observe::RequestTrace;
use crate::upstream::{Body, Caller, UpstreamError};

impl CaseRun {
    /// Sends a viewer's own request for a document as the proxy does: with a permit, and with a repair of missing images.
    /// Returns how many pictures the document has in the end.
    pub(super) async fn fetches(&self, document: SimDocument, patience: u64) -> Option<usize> {
        let library = self.model.library;
        let (public, site) = match document {
            SimDocument::Canvas(leaf) => (library.canvas_path(leaf), library.site_of(leaf)),
            SimDocument::Manifest(book) => (library.book_path(book), library.site(book)),
        };
        let path = public.replacen(SERVICES[site], SERVICES[0], 1);
        let (healer, from, began) = (self.healer(), self.model.now(), Instant::now());
        let service = self.services[site];
        let has_document = |answer: &Result<Response<Body>, UpstreamError>| {
            answer.as_ref().is_ok_and(|answer| answer.status().is_success())
        };
        let (caller, times) = (Caller::default(), self.settings.timeouts(service));
        let asks = |late: &'static str| {
            let head = Request::get(&path).header("host", "service.invalid").header(BY_VIEWER, late).body(());
            head.expect("a request").into_parts().0
        };
        let fetched = timeout(Duration::from_millis(patience), async {
            let admitted = std::future::ready(Ok::<_, Duration>(()));
            let (request, ()) = healer.viewer_request(service, &path, admitted).await?;
            let head = asks(if began.elapsed() < WAIT { "in time" } else { LATE });
            let sent = self.servers[service].send(&caller, &head, times);
            Ok::<_, Duration>(match request {
                Some(request) => request.hold(sent, has_document).await,
                None => sent.await,
            })
        });
        let fetched = fetched.await;
        self.model.log(|| {
            format!(
                "viewer {:?} of {document:?}",
                fetched.as_ref().map(|got| got.as_ref().map(|got| got.as_ref().map(http::Response::status)))
            )
        });
        match fetched {
            Ok(Ok(Ok(answer))) if answer.status().is_success() => {
                healer.record_manifest_view(&public, &RequestTrace::generate());
                let body = answer.into_body().collect(1 << 20).await.ok()?;
                let Some(poisoned) = self.lacks(document, &body, service, &public, &path) else {
                    return Some(library.pictures_of(document));
                };
                let lacks = poisoned.missing.len();
                // One canvas is built beside, which shows that the service's own way to its images works: once for all who
                // opened the document now.
                self.model.is_mended(library.leaf_of_key(&poisoned.missing[0]));
                let mended = timeout(Duration::from_millis(patience), healer.mend_document(poisoned)).await;
                self.model.log(|| format!("viewer {mended:?} of {document:?}, which lacked {lacks}"));
                if !matches!(mended, Ok(DocumentRepair::Whole(_))) {
                    return Some(library.pictures_of(document) - lacks);
                }
                let again = self.servers[service].send(&caller, &asks("in time"), times).await.ok()?;
                let body = again.into_body().collect(1 << 20).await.ok()?;
                let lacks = self.lacks(document, &body, service, &public, &path);
                return Some(library.pictures_of(document) - lacks.map_or(0, |lacks| lacks.missing.len()));
            }
            Ok(Err(_)) if began.elapsed() < WAIT => {
                self.model.breaks(format!("(1) {document:?} is refused after {:?}", began.elapsed()));
            }
            // Slow canvases take all permits, and so do hanging ones.
            Ok(Err(_)) if !SimExchange::may_take_long(&self.model, site, from, self.model.now()) => {
                self.model.breaks(format!("(1) {document:?} is refused after {:?}", began.elapsed()));
            }
            _ => {}
        }
        None
    }

    /// Images that the index knows and a document lacks, as the proxy finds them.
    fn lacks(
        &self,
        document: SimDocument,
        body: &Bytes,
        route: usize,
        public: &str,
        target: &str,
    ) -> Option<PoisonedDocument> {
        let read = self.index.read_document(body).ok()?;
        let has = |key: &&String| read.canvases.iter().any(|canvas| canvas.images.contains(*key));
        let all = self.model.library.keys_of(document);
        let missing: Vec<_> = all.iter().filter(|key| !has(key)).cloned().collect();
        (!missing.is_empty()).then(|| PoisonedDocument {
            route,
            mark: self.settings.routes[route].mark(),
            target: target.to_owned(),
            name: format!("https://lib.example{public}"),
            missing,
            is_cut_short: false,
            carries: fingerprint(&read.canvases),
            trace: RequestTrace::generate(),
        })
    }

    /// Checks that documents which a fault left without pictures are whole for the next viewer.
    pub(super) async fn documents_are_whole(self: &Arc<Self>) {
        let model = &self.model;
        let is_gone = |leaf: usize| model.case.gone.iter().any(|gone| gone.leaf == leaf);
        let mut stored: Vec<_> = model.state().documents.keys().cloned().collect();
        stored.sort();
        for place in stored {
            let (document, leaves) = match &place {
                StoredUnder::Canvas(leaf, query) if query.is_empty() => {
                    (SimDocument::Canvas(*leaf), vec![*leaf])
                }
                StoredUnder::Book(book, query) if query.is_empty() => {
                    (SimDocument::Manifest(*book), model.library.leaves_of(*book).collect())
                }
                _ => continue,
            };
            let pictures = model.state().documents.get(&place).map_or(0, Vec::len);
            // The return of a missing file shows only in a request for its image. And the canvas of a PDF is read by no
            // viewer: they have its pages from the manifest.
            let is_pdf =
                matches!(document, SimDocument::Canvas(leaf) if model.library.leaves[leaf].pages > 0);
            if pictures == leaves.len() || is_pdf || leaves.iter().any(|leaf| is_gone(*leaf)) {
                continue;
            }
            let (now, can_be_repaired) =
                (model.now(), leaves.iter().all(|leaf| model.is_image_server_known(*leaf)));
            if !can_be_repaired {
                model.state().not_repaired.extend(&leaves);
            }
            model.log(|| format!("---- {document:?} is opened, which is stored with {pictures} pictures"));
            let seen = self.fetches(document, u64::MAX >> 20).await;
            let site = model.library.site_of(leaves[0]);
            let takes_long = model.world().canvas() * u32::try_from(leaves.len()).expect("few") * 3 > WAIT
                || SimExchange::may_take_long(model, site, now, now);
            if can_be_repaired && !takes_long && seen != Some(model.library.pictures_of(document)) {
                model.breaks(format!("(5) {document:?} is opened and lacks pictures: {seen:?}"));
            }
        }
    }
}
