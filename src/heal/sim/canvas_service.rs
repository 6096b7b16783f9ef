//! The canvas service of a simulated world.

use std::sync::Arc;
use std::time::Duration;

use http::header::{HeaderValue, RETRY_AFTER};
use http::request::Parts;
use hyper::Response;
use percent_encoding::percent_decode_str;
use tokio::time::{sleep, timeout};

use super::build_counter::{BuildCounter, CountedRequest};
use super::case::{Garbage, SimFault};
use super::image_server::{answer, refused};
use super::library::Library;
use super::model::{Model, StoredUnder};
use super::world::Resources;
use crate::config::settings::Timeouts;
use crate::heal::{ResponseFuture, RoutedImage, SendRequest};
use crate::iiif::ImageRequest;
use crate::observe::RequestTrace;
use crate::upstream::{Body, Caller, UpstreamError};

/// `SimCanvasService` is the canvas service of a site; its paths are below `/iiif-service/`.
#[derive(Debug)]
pub(super) struct SimCanvasService(pub(super) Arc<Model>, pub(super) usize);

/// Header of a viewer's own request, so that the model can tell it from requests of the healer.
pub(super) const BY_VIEWER: &str = "x-by-viewer";

/// Value of [`BY_VIEWER`] for a viewer that waited for the maximum time.
pub(super) const LATE: &str = "late";

/// Sender of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RequestSource {
    Us,
    /// A viewer's own request: its effects are not caused by a heal.
    Viewer,
    /// A viewer whose wait for the first request for the same manifest ended without an answer: all of these go on at once,
    /// without a permit. The first request may hang for reasons of its own.
    LateViewer,
}

/// Status, media type and body.
type SimReply = (u16, &'static str, String);

const JSON: &str = "application/json;charset=UTF-8";
const TEXT: &str = "text/plain;charset=UTF-8";

impl SendRequest for SimCanvasService {
    fn send<'a>(&'a self, _caller: &'a Caller, head: &'a Parts, times: Timeouts) -> ResponseFuture<'a> {
        Box::pin(async move {
            let target = head.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
            self.0.log(|| format!("service asked {target}"));
            // UPSTREAM: a client that leaves stops no generation.
            let by = match head.headers.get(BY_VIEWER) {
                None => RequestSource::Us,
                // The first request for a document has a permit, however long it waited.
                Some(late) if late == LATE && self.0.state().viewers.contains(&target) => {
                    RequestSource::LateViewer
                }
                Some(_) => RequestSource::Viewer,
            };
            let working = tokio::spawn(Arc::clone(&self.0).asked_by(self.1, target.clone(), by));
            let told = match timeout(times.first_byte, working).await {
                Err(_) => Err(UpstreamError::FirstByteTimeout),
                Ok(Err(panicked)) => panic!("the model broke: {panicked}"),
                Ok(Ok(told)) => told,
            };
            self.0.log(|| match &told {
                Ok(told) => format!("service {} {target}", told.status()),
                Err(error) => format!("service {error} {target}"),
            });
            told
        })
    }
}

/// Media type and body of a garbage answer.
fn garbled(garbage: Garbage) -> (&'static str, String) {
    let canvas =
        |with_picture| Library::get().canvas(0, with_picture, "").replace("/obj/long/", "/obj/other/");
    // No image has such a UUID.
    let uuid = &Library::get().leaves[0].uuid;
    match garbage {
        Garbage::Nothing => (JSON, String::new()),
        Garbage::Page => ("text/html", "<html>maintenance</html>".to_owned()),
        Garbage::OtherJson => (JSON, "{}".to_owned()),
        Garbage::OtherCanvas => (JSON, canvas(true).replace(uuid, "00000000-0000-3000-8000-000000000000")),
        Garbage::OtherEmptyCanvas => (JSON, canvas(false)),
    }
}

/// First value of a query parameter.
fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    let mut pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
}

impl Model {
    /// Answers a request, and lists it in `viewers` for as long as a viewer's request is running.
    async fn asked_by(
        self: Arc<Self>,
        site: usize,
        target: String,
        by: RequestSource,
    ) -> Result<Response<Body>, UpstreamError> {
        if by == RequestSource::Viewer {
            self.state().viewers.insert(target.clone());
        }
        let told = Arc::clone(&self).service(site, target.clone(), by).await;
        if by == RequestSource::Viewer {
            self.state().viewers.remove(&target);
        }
        told
    }

    async fn service(
        self: Arc<Self>,
        site: usize,
        target: String,
        by: RequestSource,
    ) -> Result<Response<Body>, UpstreamError> {
        if self.has_at(site, SimFault::ServiceDown) {
            return Err(refused());
        }
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let path = path.strip_prefix("/iiif-service/").unwrap_or_default();
        if let Some(id) = path.strip_prefix("resources/") {
            let (status, media_type, body) = self.resource(site, id).await;
            return Ok(answer(status, media_type, body));
        }
        let update = parameter(query, "update").is_some_and(|value| value.is_empty() || value == "true");
        let disallow = parameter(query, "disallow").filter(|_| self.world().honours_disallow);
        let disallow = percent_decode_str(disallow.unwrap_or_default()).decode_utf8_lossy().into_owned();
        if self.has_at(site, SimFault::ServiceHangs) {
            self.excuses(path);
            self.outlasts(SimFault::ServiceHangs).await;
        }
        let busy = |fault| if let SimFault::Busy(seconds) = fault { Some(seconds) } else { None };
        if let Some(seconds) = self.fault(busy).filter(|_| site == 0) {
            let mut busy = answer(429, TEXT, "too many");
            busy.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
            return Ok(busy);
        }
        let garbage = |fault| if let SimFault::Garbled(garbage) = fault { Some(garbage) } else { None };
        if let Some(garbage) = self.fault(garbage).filter(|_| site == 0) {
            self.excuses(path);
            sleep(self.world().canvas() / 4).await;
            let (media_type, body) = garbled(garbage);
            return Ok(answer(200, media_type, body));
        }
        let (status, media_type, body) = if let Some(path) = path.strip_prefix("fedora/canvas/") {
            self.canvas(site, path, update, disallow, by).await
        } else if let Some(path) = path.strip_prefix("fedora/presentation/") {
            self.book(site, path, update, disallow, by).await
        } else if let Some(path) = path.strip_prefix("fedora/image/") {
            self.registers(site, path, update).await
        } else {
            (404, JSON, "{}".to_owned())
        };
        Ok(answer(status, media_type, body))
    }

    async fn resource(&self, site: usize, id: &str) -> SimReply {
        sleep(Duration::from_millis(3)).await;
        let closed = match self.world().resources {
            Resources::Open => false,
            Resources::Closed => true,
            Resources::ClosedFrom(from) => self.now() >= from,
            Resources::Gateway => return (404, "text/html", "<html>nginx</html>".to_owned()),
        };
        if closed {
            return (403, "text/html", "<html>Forbidden</html>".to_owned());
        }
        if site == 0 {
            self.outlasts(SimFault::ResourcesHang).await;
        }
        if self.has_at(site, SimFault::Redis) {
            return (503, TEXT, "Unable to connect to Redis".to_owned());
        }
        let leaf = self.library.leaf_with(id).filter(|leaf| self.library.site_of(*leaf) == site);
        match leaf.filter(|leaf| self.state().keys.contains(leaf)) {
            Some(leaf) => (200, TEXT, self.library.leaves[leaf].file_url.clone()),
            None => (404, TEXT, format!("Resource with id {id} not found!")),
        }
    }

    /// Allows another request for the canvas at this path, because the first one hangs.
    fn excuses(&self, path: &str) {
        let path = path.strip_prefix("fedora/canvas/").unwrap_or(path);
        if let Some(leaf) = self.library.leaf_at(path) {
            self.reason(leaf);
        }
    }

    fn reason(&self, leaf: usize) {
        self.state().asked.entry(leaf).or_default().reasons += 1;
    }

    async fn canvas(
        &self,
        site: usize,
        path: &str,
        update: bool,
        disallow: String,
        by: RequestSource,
    ) -> SimReply {
        let Some(leaf) = self.library.leaf_at(path).filter(|leaf| self.library.site_of(*leaf) == site) else {
            sleep(self.world().canvas() / 3).await;
            return (500, JSON, r#"{"status":500}"#.to_owned());
        };
        if by == RequestSource::Us {
            self.state().asked.entry(leaf).or_default().asked += 1;
        }
        if !update && !disallow.is_empty() {
            // Such an answer may be an old one: it proves nothing.
            self.reason(leaf);
        }
        let query = if disallow.is_empty() { String::new() } else { format!("?disallow={disallow}") };
        if self.has(SimFault::Stuck(leaf)) {
            self.reason(leaf);
            self.outlasts(SimFault::Stuck(leaf)).await;
        }
        if self.has_at(site, SimFault::Redis) {
            self.reason(leaf);
            return (503, TEXT, "Unable to connect to Redis".to_owned());
        }
        let place = StoredUnder::Canvas(leaf, disallow);
        let stored = self.state().documents.get(&place).map(|leaves| !leaves.is_empty());
        if let (Some(has_picture), false) = (stored, update) {
            sleep(Duration::from_millis(5)).await;
            self.reason(leaf);
            if !has_picture {
                // The canvas has to be rebuilt, unless a rebuild is under way: the answer does not tell which.
                self.reason(leaf);
            }
            return (200, JSON, self.library.canvas(leaf, has_picture, &query));
        }
        let began = self.now();
        let built = {
            let _building = BuildCounter::of(self, site, CountedRequest::Canvas);
            self.builds(leaf).await
        };
        match built {
            Ok(has_picture) => {
                if !has_picture {
                    self.reason(leaf);
                }
                if !has_picture && self.lost_since(leaf, began) && !self.was_echoed_since(leaf, began) {
                    self.state().lost_in_build.insert(leaf, self.now());
                }
                let of = usize::from(!self.file_is_gone(leaf));
                let leaves = if has_picture { vec![leaf] } else { Vec::new() };
                self.stores(place, leaves, of, by == RequestSource::Us);
                (200, JSON, self.library.canvas(leaf, has_picture, &query))
            }
            Err(status) => {
                self.reason(leaf);
                (status, JSON, format!(r#"{{"status":{status}}}"#))
            }
        }
    }

    /// Three reads, a HEAD of the file, the key, the nested info.json. False: the picture is left out.
    async fn builds(&self, leaf: usize) -> Result<bool, u16> {
        let (part, site) = (self.world().canvas() / 4, self.library.site_of(leaf));
        sleep(part).await;
        if self.has_at(site, SimFault::Repository) {
            return Err(500);
        }
        if self.file_is_gone(leaf) || self.has_at(site, SimFault::FileStore) {
            return Ok(false);
        }
        if !self.world().key_early {
            sleep(part * 2).await;
        }
        if self.has_at(site, SimFault::Redis) {
            return Err(503);
        }
        self.state().keys.insert(leaf);
        self.log(|| format!("         key of {leaf} written"));
        if self.world().key_early {
            sleep(part * 2).await;
        }
        let seen = self.nested_info(leaf).await;
        sleep(part).await;
        Ok(seen)
    }

    /// The service's own info.json: through us, or straight to the image server.
    async fn nested_info(&self, leaf: usize) -> bool {
        let site = self.library.site_of(leaf);
        let _connection = self.nested[site].acquire().await;
        if self.has_at(site, SimFault::Nested) {
            return false;
        }
        let rest = format!("{}/info.json", self.library.leaves[leaf].uuid);
        let answered = self.image(site, &format!("/iiif/2/{rest}"), true).await;
        let status = answered.as_ref().map_or(502, |(status, _)| *status);
        if let (true, Some((healer, route)), Some(request)) =
            (self.world().echoes, self.healer(leaf), ImageRequest::parse(&rest))
        {
            let trace = RequestTrace::generate();
            let image = RoutedImage { route, request, trace: &trace };
            self.state().echoed.insert(leaf, self.now());
            healer.record_callback(&image, http::StatusCode::from_u16(status).unwrap_or_default());
        }
        self.log(|| format!("         nested {status} for key of {leaf}"));
        status == 200
    }

    async fn book(
        &self,
        site: usize,
        path: &str,
        update: bool,
        disallow: String,
        by: RequestSource,
    ) -> SimReply {
        let book = self.library.books.iter().position(|book| book == path);
        let Some(book) = book.filter(|book| self.library.site(*book) == site) else {
            sleep(self.world().canvas() / 3).await;
            return (500, JSON, r#"{"status":500}"#.to_owned());
        };
        let query = if disallow.is_empty() { String::new() } else { format!("?disallow={disallow}") };
        if self.has_at(site, SimFault::Redis) {
            return (503, TEXT, "Unable to connect to Redis".to_owned());
        }
        let leaves: Vec<_> = self.library.leaves_of(book).collect();
        let place = StoredUnder::Book(book, disallow);
        let stored = self.state().documents.get(&place).cloned();
        if let (Some(stored), false) = (stored, update) {
            sleep(Duration::from_millis(5)).await;
            return (200, JSON, self.library.manifest(book, &stored, &query));
        }
        let _building = match by {
            RequestSource::Us => Some(BuildCounter::of(self, site, CountedRequest::Canvas)),
            RequestSource::Viewer => Some(BuildCounter::of(self, site, CountedRequest::ViewersManifest)),
            RequestSource::LateViewer => None,
        };
        let mut whole = Vec::new();
        for leaf in &leaves {
            match self.builds(*leaf).await {
                Ok(true) => whole.push(*leaf),
                Ok(false) => {}
                Err(status) => return (status, JSON, format!(r#"{{"status":{status}}}"#)),
            }
        }
        let there = leaves.iter().filter(|leaf| !self.file_is_gone(**leaf)).count();
        let manifest = self.library.manifest(book, &whole, &query);
        self.stores(place, whole, there, by == RequestSource::Us);
        (200, JSON, manifest)
    }

    async fn registers(&self, site: usize, path: &str, update: bool) -> SimReply {
        sleep(self.world().canvas() / 4).await;
        let found = self.library.leaves.iter().position(|leaf| {
            path.strip_prefix(&leaf.path).and_then(|rest| rest.strip_prefix("/files/")) == Some(&leaf.name)
        });
        let Some(leaf) = found.filter(|leaf| self.library.site_of(*leaf) == site) else {
            return (404, JSON, "{}".to_owned());
        };
        if self.has_at(site, SimFault::Redis) {
            return (503, TEXT, "Unable to connect to Redis".to_owned());
        }
        if self.state().documents.contains_key(&StoredUnder::Image(leaf)) && !update {
            return (200, JSON, "{}".to_owned());
        }
        // UPSTREAM: the key is written whether info.json succeeds or not.
        self.state().keys.insert(leaf);
        self.log(|| format!("         key of {leaf} registered"));
        if self.nested_info(leaf).await {
            self.stores(StoredUnder::Image(leaf), vec![leaf], 1, true);
            (200, JSON, "{}".to_owned())
        } else {
            (404, JSON, "{}".to_owned())
        }
    }
}
