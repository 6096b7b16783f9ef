//! Actions of operators, one image at a time.

use std::sync::Arc;

use bytes::Bytes;
use http::header;
use hyper::Response;

use crate::heal::Healer;
use crate::heal::canvas_service::request::CanvasRequest;
use crate::heal::image::IndexedImage;
use crate::heal::operator::DocumentError;
use crate::upstream::{Body, Caller, UpstreamError, internal_request};

/// Size of a small picture of the whole page.
const THUMBNAIL: &str = "full/!240,240/0/default.jpg";

impl Healer {
    /// Fetches a small picture as the image server has it now. Heals nothing: an expired image gives its 404.
    pub async fn thumbnail(&self, image: &IndexedImage) -> Result<Response<Body>, UpstreamError> {
        let parts = &self.parts;
        let route = &parts.settings.routes[image.route];
        let mut head = internal_request(route.upstream.authority.as_str(), &parts.settings.server.name)?;
        let target = format!("{}{}/{THUMBNAIL}", route.upstream.path, image.sent);
        head.uri = target.parse().map_err(|_| UpstreamError::Target)?;
        head.headers.insert(header::ACCEPT, header::HeaderValue::from_static("image/jpeg"));
        image.trace.inject(&mut head.headers);
        parts.images.send(image, &head, &Caller::default()).await
    }

    /// Has a canvas built anew, whatever its state. Returns its bytes.
    pub async fn rebuild(&self, canvas: &str) -> Result<Bytes, DocumentError> {
        let document = self.document(canvas, true).await?;
        if let Ok(read) = self.parts.lookup.index().read_document(&document) {
            let keys = read.images().map(String::as_str);
            self.parts.repairs.state.poisoned_images.note(keys, false);
        }
        Ok(document)
    }

    /// Cures all canvases that own the image; false where a canvas still comes back without it.
    pub async fn cure_all(&self, image: &IndexedImage) -> bool {
        for canvas in image.canvases() {
            if !self.repair_canvas(image, canvas).await {
                return false;
            }
        }
        true
    }

    /// Forgets the findings about the image, here and in Redis: a missing file, a proof that it was alive, rungs that did
    /// not help. The next viewer's request starts afresh. (Other nodes keep their own findings.)
    pub fn forget(&self, image: &IndexedImage) {
        let parts = &self.parts;
        parts.missing.forget(image, parts.lookup.image_marks());
        parts.knowledge.doubt(image);
        let canvases = parts.services.asked_canvases(image).into_iter();
        let requests = canvases.flat_map(|(service, canvas)| {
            let own = [
                CanvasRequest::visit(&canvas),
                CanvasRequest::rebuild(&canvas),
                CanvasRequest::rebuild_variant(&canvas),
            ];
            own.into_iter()
                .chain(CanvasRequest::variant(&canvas))
                .map(move |request| (Arc::clone(&service), request))
        });
        for (service, request) in requests.chain(parts.ladder.register_request(image)) {
            parts.services.clear_cooldown(&service, &request.flight);
        }
    }
}
