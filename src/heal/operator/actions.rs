//! What people who run it ask for by hand, one image at a time.

use std::sync::Arc;

use bytes::Bytes;
use http::header;
use hyper::Response;

use crate::config::settings::RouteKind;
use crate::heal::Healer;
use crate::heal::canvas_service::request::CanvasRequest;
use crate::heal::operator::DocumentError;
use crate::heal::ward::IndexedImage;
use crate::observe::Trace;
use crate::upstream::{Body, Caller, UpstreamError, own_request};

/// A small picture of the whole page.
const THUMBNAIL: &str = "full/!240,240/0/default.jpg";

impl Healer {
    /// A small picture as the image server has it now. Nothing is healed by looking: an expired one is its 404.
    pub async fn thumbnail(&self, patient: &IndexedImage) -> Result<Response<Body>, UpstreamError> {
        let ward = &self.ward;
        let route = &ward.settings.routes[patient.route];
        let mut head = own_request(route.upstream.authority.as_str(), &ward.settings.server.name)?;
        let target = format!("{}{}/{THUMBNAIL}", route.upstream.path, patient.sent);
        head.uri = target.parse().map_err(|_| UpstreamError::Target)?;
        head.headers.insert(header::ACCEPT, header::HeaderValue::from_static("image/jpeg"));
        patient.trace.send_on(&mut head.headers);
        ward.ask_image(patient, &head, &Caller::default()).await
    }

    /// Has a canvas built anew, whatever state it is in: its bytes.
    pub async fn rebuild(&self, canvas: &str) -> Result<Bytes, DocumentError> {
        let document = self.document(canvas, true).await?;
        if let Ok(read) = self.ward.index.read_document(&document) {
            let keys = read.canvases.iter().flat_map(|canvas| &canvas.images).map(String::as_str);
            self.ward.mends.lacking.note(keys, false);
        }
        Ok(document)
    }

    /// Cures all canvases that own the image; false where one of them still comes back without it.
    pub async fn cure_all(&self, patient: &IndexedImage) -> bool {
        for canvas in patient.canvases() {
            if !self.cure(patient, canvas).await {
                return false;
            }
        }
        true
    }

    /// Forgets what was found out about the image, here and in Redis: that its file was missing, that it was there a
    /// while ago, and that no rung helped. The next viewer has it looked at afresh. (Other nodes remember by themselves
    /// what they found or heard.)
    pub fn forget(&self, patient: &IndexedImage) {
        let ward = &self.ward;
        for route in ward.settings.routes.iter().filter(|route| route.kind == RouteKind::Image) {
            ward.missing.found(route.mark(), &patient.key);
        }
        ward.file_may_be_there(patient);
        ward.doubt(patient);
        let canvases = patient.canvases().filter_map(|canvas| ward.asked_canvas(canvas));
        let errands = canvases.flat_map(|(service, canvas)| {
            let own = [
                CanvasRequest::visit(&canvas),
                CanvasRequest::rebuild(&canvas),
                CanvasRequest::aside(&canvas),
            ];
            own.into_iter()
                .chain(CanvasRequest::variant(&canvas))
                .map(move |errand| (Arc::clone(&service), errand))
        });
        for (service, errand) in errands.chain(ward.registration(patient)) {
            ward.may_try_again(&service, &errand.flight);
        }
    }
}

impl IndexedImage {
    /// The same, in the name of this request.
    #[must_use]
    pub fn in_the_name_of(self, trace: Trace) -> Self {
        Self { trace, ..self }
    }

    /// The canvases that own it, first come first.
    pub fn canvases(&self) -> impl Iterator<Item = &str> {
        self.owners.iter().map(|owner| owner.canvas.as_str())
    }
}
