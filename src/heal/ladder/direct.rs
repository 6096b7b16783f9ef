//! Direct: a request to the image server for the file itself, in the name of the forgotten identifier.
//!
//! UPSTREAM: the base64 of a file URL is an identifier too, answered without Redis and without the canvas service; with
//! `X-Forwarded-ID` its answers are byte for byte those of the live UUID (upstream.md "Ways back to life"). The request
//! heals nothing in Redis, so a lasting repair must follow.

use http::request::Parts;
use http::{HeaderName, HeaderValue, StatusCode};
use hyper::Response;
use tokio::time::Instant;

use crate::config::settings::Rung;
use crate::heal::evidence::Probe;
use crate::heal::image::IndexedImage;
use crate::heal::ladder::Ladder;
use crate::heal::learned::{ServerSupport, SupportAnswer};
use crate::iiif::IdentifierKind;
use crate::iiif::identifier;
use crate::observe::Span;
use crate::upstream::{Body, Caller};

/// `DirectSupport` tells whether an image server serves a file by the file's own identifier. Not every image server decodes
/// base64, and gateways differ about `%2F` (standard base64 may hold `/`). Where it was never seen to work, a failure
/// proves nothing: a missing file looks alike.
pub(super) type DirectSupport = ServerSupport;

fn is_answered(support: &DirectSupport) -> bool {
    support.known(Instant::now()) == SupportAnswer::Does(())
}

/// `DirectResult` says how `direct` ended.
#[derive(Debug)]
pub(in crate::heal) enum DirectResult {
    /// The image server's answer, as good as the live one.
    Answer(Response<Body>),
    /// The image server does not find the file either.
    FileIsGone,
    /// The file URL is not known, or the image server does not answer such identifiers.
    NoWay,
}

const FORWARDED_ID: HeaderName = HeaderName::from_static("x-forwarded-id");

impl Ladder {
    /// Answers `request` from the file, if its URL is known and `direct` is a rung of the ladder.
    pub(in crate::heal) async fn direct(
        &self,
        image: &IndexedImage,
        request: &Parts,
        caller: &Caller,
    ) -> DirectResult {
        if !self.settings.heal.ladder.contains(&Rung::Direct) {
            return DirectResult::NoWay;
        }
        let Some((id, support)) = self.id_of_file(image) else { return DirectResult::NoWay };
        if support.known(Instant::now()) == SupportAnswer::DoesNot {
            return DirectResult::NoWay;
        }
        let span = Span::step(&image.trace, Rung::Direct.as_str());
        let image = &image.with_span(&span);
        let Some(head) = self.with_forwarded_id(image, request, &id) else { return DirectResult::NoWay };
        let Ok(answer) = self.images.forward(image, &head, caller).await else { return DirectResult::NoWay };
        let status = answer.status();
        let is_refused = matches!(status, StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND);
        if id.contains("%2F") && is_refused && !is_answered(support) {
            support.does_not(Instant::now() + self.settings.heal.resources_recheck);
            return DirectResult::NoWay;
        }
        if status.is_success() {
            support.does(());
        }
        match status {
            StatusCode::NOT_FOUND | StatusCode::GONE if !is_answered(support) => DirectResult::NoWay,
            StatusCode::NOT_FOUND | StatusCode::GONE => self.missing_or_unsupported(image, &id).await,
            _ if status.is_success() || status.is_redirection() => DirectResult::Answer(answer),
            // A live image refuses a wrong request in this way.
            StatusCode::BAD_REQUEST | StatusCode::UNSUPPORTED_MEDIA_TYPE => DirectResult::Answer(answer),
            _ => DirectResult::NoWay,
        }
    }

    /// Probes a small tile after a 404: one 404 is about one request (info.json may be broken on its own), that of a small
    /// tile about the file.
    async fn missing_or_unsupported(&self, image: &IndexedImage, id: &str) -> DirectResult {
        match self.images.status(image, id, Probe::SmallTile.tail()).await {
            Ok(StatusCode::NOT_FOUND | StatusCode::GONE) => DirectResult::FileIsGone,
            _ => DirectResult::NoWay,
        }
    }

    /// True if this image's file is gone, by a request for the file's own identifier. `None`: the file URL is not known, or
    /// the image server was never seen to answer such identifiers.
    pub(in crate::heal) async fn look_at_file(&self, image: &IndexedImage) -> Option<bool> {
        let (id, support) = self.id_of_file(image)?;
        match self.images.status(image, &id, Probe::SmallTile.tail()).await {
            Ok(StatusCode::NOT_FOUND | StatusCode::GONE) => is_answered(support).then_some(true),
            Ok(status) if status.is_success() => {
                support.does(());
                Some(false)
            }
            Ok(status) if status.is_server_error() => Some(false),
            Ok(_) | Err(_) => None,
        }
    }

    /// The file's own identifier, and whether such identifiers are answered. `None`: the file URL is not known.
    fn id_of_file(&self, image: &IndexedImage) -> Option<(String, &DirectSupport)> {
        let IdentifierKind::Uuid { uuid, page } = &image.kind else { return None };
        let mut id = identifier::base64_of_file_url(&self.services.files().of(*uuid)?);
        let support = if id.contains("%2F") { &self.base64_with_slash } else { &self.base64 };
        if let Some(page) = page {
            id = format!("{id};{page}");
        }
        Some((id, support))
    }

    /// Request for another identifier, with `X-Forwarded-ID` for the original one.
    fn with_forwarded_id(&self, image: &IndexedImage, request: &Parts, id: &str) -> Option<Parts> {
        let base = &self.settings.routes[image.route].upstream.path;
        let target = request.uri.path_and_query()?.as_str();
        let tail = target.strip_prefix(base.as_str())?.strip_prefix(&*image.sent)?;
        let mut head = request.clone();
        head.uri = format!("{base}{id}{tail}").parse().ok()?;
        head.headers.insert(FORWARDED_ID, HeaderValue::from_str(&image.sent).ok()?);
        Some(head)
    }
}
