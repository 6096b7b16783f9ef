//! What people who run it ask for by hand, one image at a time.

use bytes::Bytes;
use http::header;
use hyper::Response;

use super::Healer;
use super::batch::DocumentError;
use super::ward::Patient;
use crate::iiif::manifest;
use crate::observe::Trace;
use crate::upstream::{Body, UpstreamError, own_request};

/// A small picture of the whole page.
const THUMBNAIL: &str = "full/!240,240/0/default.jpg";

impl Healer {
    /// A small picture as the image server has it now. Nothing is healed by looking: an expired one is its 404.
    pub async fn thumbnail(&self, patient: &Patient) -> Result<Response<Body>, UpstreamError> {
        let ward = &self.ward;
        let route = &ward.settings.routes[patient.route];
        let mut head = own_request(route.upstream.authority.as_str(), &ward.settings.server.name)?;
        let target = format!("{}{}/{THUMBNAIL}", route.upstream.path, patient.sent);
        head.uri = target.parse().map_err(|_| UpstreamError::Target)?;
        head.headers.insert(header::ACCEPT, header::HeaderValue::from_static("image/jpeg"));
        patient.trace.send_on(&mut head.headers);
        ward.ask_image(patient, &head).await
    }

    /// Has a canvas built anew, whatever state it is in: its bytes.
    pub async fn rebuild(&self, canvas: &str) -> Result<Bytes, DocumentError> {
        let document = self.document(canvas, true).await?;
        if let Ok((_, canvases)) = manifest::read(&document) {
            let keys = canvases.iter().flat_map(|canvas| &canvas.images).map(String::as_str);
            self.ward.mends.lacking.note(keys, false);
        }
        Ok(document)
    }

    /// Cures all canvases that own the image; false where one of them still comes back without it.
    pub async fn cure_all(&self, patient: &Patient) -> bool {
        for canvas in patient.canvases() {
            if !self.cure(patient, canvas).await {
                return false;
            }
        }
        true
    }

    /// Forgets what was found out about the image: that its file was missing, that it was there a while ago, and that
    /// its canvases did not help. The next viewer has it looked at afresh.
    pub fn forget(&self, patient: &Patient) {
        let ward = &self.ward;
        ward.memory.found(ward.mark(patient), &patient.key);
        ward.doubt(patient);
        for owner in patient.owners.iter() {
            if let Some(allowed) = ward.guard.allow(&owner.canvas) {
                ward.memory.forget(&[&allowed.visit, &allowed.rebuild]);
            }
        }
    }
}

impl Patient {
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
