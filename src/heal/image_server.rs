//! Image servers, probed on the healer's own behalf: an image is alive, expired, or unknown.
//!
//! UPSTREAM: behind a derivative cache every tile that was ever answered stays 200, and so does info.json: a good answer
//! proves nothing. Errors are never cached, and the identifier is looked up before the size is read, so that a size above
//! every maximum tells a live image (403) from an expired one (404) without decoding anything (upstream.md "An expired
//! image"). Not every image server does so: the truthful probe is learned, once for each server.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::request::Parts;
use http::{StatusCode, response};
use hyper::Response;
use tokio::time::Instant;
use uuid::Uuid;

use crate::config::Settings;
use crate::config::settings::Timeouts;
use crate::heal::evidence::{Evidence, Probe, is_expiry, proves_nothing};
use crate::heal::image::IndexedImage;
use crate::heal::image_address::ImageAddresses;
use crate::heal::learned::{ServerSupport, SupportAnswer};
use crate::heal::server::SendRequest;
use crate::iiif::registration::Registration;
use crate::observe::{EventKind, Metrics, Span};
use crate::upstream::{Body, Caller, UpstreamError, internal_request};

/// Time that a server has to answer for its route's own path.
const FIRST_BYTE: Duration = Duration::from_secs(10);

/// Time after which an image server without a truthful probe is tried anew.
const RETRY_AFTER: Duration = Duration::from_mins(10);

/// `TruthfulProbe` is the probe that tells the truth at one image server.
pub(in crate::heal) type TruthfulProbe = ServerSupport<Probe>;

/// `AskImageServer` is the image server as the ladder needs it.
pub(in crate::heal) trait AskImageServer: Debug + Send + Sync {
    /// Sends this request to the server of the image, on behalf of `caller`.
    fn forward<'a>(
        &'a self,
        image: &'a IndexedImage,
        head: &'a Parts,
        caller: &'a Caller,
    ) -> BoxFuture<'a, Result<Response<Body>, UpstreamError>>;

    /// Requests `{id}/{tail}` on our own behalf. The image itself is tried at each address that it may have.
    fn status<'a>(
        &'a self,
        image: &'a IndexedImage,
        id: &'a str,
        tail: &'a str,
    ) -> BoxFuture<'a, Result<StatusCode, UpstreamError>>;

    /// Probes the image; returns what the server itself proves of it.
    fn probe<'a>(&'a self, image: &'a IndexedImage) -> BoxFuture<'a, Evidence>;
}

/// `ImageServers` probes the image server of each image route.
#[derive(Debug)]
pub(in crate::heal) struct ImageServers {
    settings: Arc<Settings>,
    /// Servers in the order of `settings.routes`.
    servers: Vec<Arc<dyn SendRequest>>,
    /// Truthful probe of each route, in the same order.
    probes: Vec<Arc<TruthfulProbe>>,
    addresses: Arc<ImageAddresses>,
    metrics: Arc<Metrics>,
}

/// Status of the answer for `{id}/{tail}`. An HTML page in the place of an info.json is a fault, whatever its status says:
/// gateways send them, and the canvas service would store a canvas without its image.
fn status_of(head: &response::Parts, tail: &str) -> StatusCode {
    if tail.starts_with("info.json") && head.status.is_success() && is_page(head) {
        return StatusCode::BAD_GATEWAY;
    }
    head.status
}

/// True for a page that people read, in the place of a picture or an info.json.
fn is_page(head: &response::Parts) -> bool {
    let media_type = head.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    media_type.get(..9).is_some_and(|start| start.eq_ignore_ascii_case(b"text/html"))
}

impl AskImageServer for ImageServers {
    fn forward<'a>(
        &'a self,
        image: &'a IndexedImage,
        head: &'a Parts,
        caller: &'a Caller,
    ) -> BoxFuture<'a, Result<Response<Body>, UpstreamError>> {
        Box::pin(self.send(image, head, caller))
    }

    fn status<'a>(
        &'a self,
        image: &'a IndexedImage,
        id: &'a str,
        tail: &'a str,
    ) -> BoxFuture<'a, Result<StatusCode, UpstreamError>> {
        Box::pin(async move { Ok(status_of(&self.head_of_id(image, id, tail).await?, tail)) })
    }

    fn probe<'a>(&'a self, image: &'a IndexedImage) -> BoxFuture<'a, Evidence> {
        Box::pin(self.probe(image))
    }
}

impl ImageServers {
    pub(in crate::heal) fn new(
        settings: Arc<Settings>,
        servers: Vec<Arc<dyn SendRequest>>,
        probes: Vec<Arc<TruthfulProbe>>,
        addresses: Arc<ImageAddresses>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { settings, servers, probes, addresses, metrics }
    }

    /// True if this status means that the image is gone (`heal.statuses`).
    pub(in crate::heal) fn is_expiry(&self, status: StatusCode) -> bool {
        is_expiry(&self.settings.heal, status)
    }

    /// Sends `request` to the image server of this route, on behalf of `caller`.
    pub(in crate::heal) async fn send(
        &self,
        image: &IndexedImage,
        request: &Parts,
        caller: &Caller,
    ) -> Result<Response<Body>, UpstreamError> {
        self.send_on(image.route, image, request, caller).await
    }

    async fn send_on(
        &self,
        route: usize,
        image: &IndexedImage,
        request: &Parts,
        caller: &Caller,
    ) -> Result<Response<Body>, UpstreamError> {
        let times = self.settings.timeouts(route);
        let mut span = Span::call(&image.trace, request);
        let sent = self.servers[route].send(caller, &span.inject(request), times).await;
        span.answered(&sent);
        sent
    }

    /// Status of the route's own path, requested on our own behalf. A server that does not hang answers soon.
    pub(in crate::heal) async fn status_of_route(&self, route: usize) -> Result<StatusCode, UpstreamError> {
        let upstream = &self.settings.routes[route].upstream;
        let mut head = internal_request(upstream.authority.as_str(), &self.settings.server.name)?;
        head.uri = upstream.path.parse().map_err(|_| UpstreamError::Target)?;
        let times = self.settings.timeouts(route);
        let times = Timeouts { first_byte: times.first_byte.min(FIRST_BYTE), ..times };
        Ok(self.servers[route].send(&Caller::default(), &head, times).await?.status())
    }

    /// Requests `{identifier}/{tail}` on our own behalf.
    pub(in crate::heal) async fn look_at(
        &self,
        image: &IndexedImage,
        tail: &str,
    ) -> Result<StatusCode, UpstreamError> {
        self.head_of_id(image, &image.sent, tail).await.map(|head| head.status)
    }

    /// Requests a small tile on our own behalf. True: a page that people read came in its place, whatever the status says.
    pub(in crate::heal) async fn look_at_tile(
        &self,
        image: &IndexedImage,
    ) -> Result<(StatusCode, bool), UpstreamError> {
        let head = self.head_of_id(image, &image.sent, Probe::SmallTile.tail()).await?;
        Ok((head.status, head.status.is_success() && is_page(&head)))
    }

    /// Head of the answer for this identifier. The image itself is tried at each address that it may have.
    async fn head_of_id(
        &self,
        image: &IndexedImage,
        id: &str,
        tail: &str,
    ) -> Result<response::Parts, UpstreamError> {
        let first = self.head_at(image, image.route, id, tail).await;
        let is_gone = |head: &Result<response::Parts, UpstreamError>| {
            head.as_ref().is_ok_and(|head| self.is_expiry(head.status))
        };
        if id != &*image.sent {
            return first;
        }
        if image.others.is_empty() {
            // A reader's request found the image here: so the server of this route has such images.
            if first.as_ref().is_ok_and(|head| head.status.is_success() && !is_page(head)) {
                self.addresses.found(image.service, image.route, id);
            }
            return first;
        }
        if !is_gone(&first) {
            if first.as_ref().is_ok_and(|head| !proves_nothing(head.status)) {
                self.addresses.found(image.service, image.route, id);
            }
            return first;
        }
        for other in &*image.others {
            let head = self.head_at(image, other.route, &other.sent, tail).await;
            if head.as_ref().is_ok_and(|head| !self.is_expiry(head.status) && !proves_nothing(head.status)) {
                self.addresses.found(image.service, other.route, &other.sent);
                return head;
            }
        }
        first
    }

    async fn head_at(
        &self,
        image: &IndexedImage,
        route: usize,
        id: &str,
        tail: &str,
    ) -> Result<response::Parts, UpstreamError> {
        let of = &self.settings.routes[route];
        let mut head = internal_request(of.upstream.authority.as_str(), &self.settings.server.name)?;
        let target = format!("{}{id}/{tail}", of.upstream.path);
        head.uri = target.parse().map_err(|_| UpstreamError::Target)?;
        image.trace.inject(&mut head.headers);
        let answer = self.send_on(route, image, &head, &Caller::default()).await?;
        let (head, body) = answer.into_parts();
        // The body is read to its end, so that the connection is kept; a body that is too long costs the connection.
        let _ = tokio::time::timeout(Duration::from_secs(10), body.collect(1 << 20)).await;
        Ok(head)
    }

    /// Probes the image by a truthful probe of its server. "Alive" never comes from a probe that a cache could answer.
    pub(in crate::heal) async fn probe(&self, image: &IndexedImage) -> Evidence {
        let truthful = &self.probes[image.route];
        match truthful.known(Instant::now()) {
            SupportAnswer::Does(probe) => self.try_probe(image, &image.sent, probe).await,
            SupportAnswer::DoesNot => self.try_probe(image, &image.sent, Probe::SmallTile).await,
            SupportAnswer::Nothing => self.learn_probe(image, truthful).await,
        }
    }

    /// Tries each probe on this image. A probe is truthful if it calls the image alive, and an impossible identifier
    /// expired: then the server looks identifiers up.
    async fn learn_probe(&self, indexed: &IndexedImage, truthful: &TruthfulProbe) -> Evidence {
        let mut silent = 0;
        for probe in Probe::TRUTHFUL {
            match self.try_probe(indexed, &indexed.sent, probe).await {
                Evidence::Alive => {}
                // An expired image teaches no probe, but the answer is known: expired.
                Evidence::Expired => return Evidence::Expired,
                Evidence::Nothing => {
                    silent += 1;
                    continue;
                }
            }
            let nobody = Uuid::from_u128(fastrand::u128(..)).to_string();
            if self.try_probe(indexed, &nobody, probe).await == Evidence::Expired {
                truthful.does(probe);
                tracing::info!(request = %indexed.trace, probe = probe.tail(), "this probe tells a live image from an expired one");
                return Evidence::Alive;
            }
        }
        if silent < Probe::TRUTHFUL.len() {
            truthful.does_not(Instant::now() + RETRY_AFTER);
        }
        self.try_probe(indexed, &indexed.sent, Probe::SmallTile).await
    }

    async fn try_probe(&self, image: &IndexedImage, id: &str, probe: Probe) -> Evidence {
        self.metrics.event(EventKind::Probe);
        let answer = self.head_of_id(image, id, probe.tail()).await;
        let knows_nocache = |head: &response::Parts| {
            let by = head.headers.get("x-powered-by").and_then(|by| by.to_str().ok());
            by.is_some_and(|by| by.starts_with("Cantaloupe"))
        };
        let status = match answer {
            // UPSTREAM: only Cantaloupe knows `cache=nocache`; another server may still answer from a cache.
            Ok(head)
                if probe == Probe::InfoUncached
                    && head.status.is_success()
                    && (!knows_nocache(&head) || is_page(&head)) =>
            {
                return Evidence::Nothing;
            }
            Ok(head) => Ok(head.status),
            Err(error) => Err(error),
        };
        match status {
            Ok(status) if proves_nothing(status) && !(self.is_expiry(status) || probe.takes(status)) => {
                Evidence::Nothing
            }
            Ok(status) if self.is_expiry(status) => Evidence::Expired,
            Ok(status) => probe.read(status),
            Err(_) => Evidence::Nothing,
        }
    }

    /// Marks the probe as wrong: it called an image alive whose own request is 404 for its viewer, and whose key is gone.
    pub(in crate::heal) fn probe_lied(&self, image: &IndexedImage) {
        self.probes[image.route].does_not(Instant::now() + RETRY_AFTER);
        self.metrics.event(EventKind::ProbeDistrusted);
    }

    /// True if the image server answers a small tile as gone, whatever the state of the key.
    pub(in crate::heal) async fn shows_nothing(&self, image: &IndexedImage) -> bool {
        let tile = self.look_at(image, Probe::SmallTile.tail()).await;
        tile.is_ok_and(|status| self.is_expiry(status))
    }
}

/// Evidence about the image: by the canvas service's answer if there is one, else by a probe that no cache can answer.
pub(in crate::heal) async fn evidence(
    said: Registration,
    images: &dyn AskImageServer,
    image: &IndexedImage,
) -> Evidence {
    match said {
        Registration::Alive(_) => Evidence::Alive,
        Registration::Expired => Evidence::Expired,
        Registration::Nothing => images.probe(image).await,
    }
}
