//! Direct: ask the image server for the file itself, in the name of the forgotten identifier.
//!
//! UPSTREAM: the base64 of a file URL is an identifier too, answered without Redis and without the canvas
//! service; with `X-Forwarded-ID` its answers are byte for byte those of the live UUID (upstream.md "Ways back to
//! life"). It heals nothing in Redis, so a lasting repair must follow.

use std::sync::atomic::{AtomicU8, Ordering};

use http::request::Parts;
use http::{HeaderName, HeaderValue, StatusCode};
use hyper::Response;

use super::ward::{Patient, Ward};
use crate::config::settings::Rung;
use crate::iiif::IdentifierKind;
use crate::iiif::identifier;
use crate::upstream::Body;

/// How `direct` ended.
#[derive(Debug)]
pub(super) enum Direct {
    /// The image server's answer, as good as the live one.
    Answer(Response<Body>),
    /// The image server does not find the file either.
    FileIsGone,
    /// The file is not known, or the image server does not do this.
    NoWay,
}

const FORWARDED_ID: HeaderName = HeaderName::from_static("x-forwarded-id");

/// Does the way to the image server let `%2F` through? Standard base64 may hold `/`, and gateways differ.
#[derive(Debug, Default)]
pub(super) struct EncodedSlash(AtomicU8);

impl EncodedSlash {
    const WORKS: u8 = 1;
    const REFUSED: u8 = 2;

    fn is_refused(&self) -> bool {
        self.0.load(Ordering::Relaxed) == Self::REFUSED
    }

    fn works(&self) {
        self.0.store(Self::WORKS, Ordering::Relaxed);
    }

    /// It failed. True: it was never seen to work, so the slash is to blame, not the file.
    fn failed(&self) -> bool {
        let unknown = self.0.compare_exchange(0, Self::REFUSED, Ordering::Relaxed, Ordering::Relaxed);
        unknown.is_ok() || self.is_refused()
    }
}

impl Ward {
    /// Answers `request` from the file, if it is known where that is and `direct` is a rung of the ladder.
    pub(super) async fn direct(&self, patient: &Patient, request: &Parts) -> Direct {
        let IdentifierKind::Uuid { uuid, page } = &patient.kind else { return Direct::NoWay };
        if !self.settings.heal.ladder.contains(&Rung::Direct) {
            return Direct::NoWay;
        }
        let Some(file_url) = self.file_url(*uuid) else { return Direct::NoWay };
        let mut id = identifier::base64_of_file_url(&file_url);
        let has_slash = id.contains("%2F");
        if has_slash && self.encoded_slash.is_refused() {
            return Direct::NoWay;
        }
        if let Some(page) = page {
            id = format!("{id};{page}");
        }
        let Some(head) = self.in_its_name(patient, request, &id) else { return Direct::NoWay };
        let Ok(answer) = self.ask_image(patient, &head).await else { return Direct::NoWay };
        let status = answer.status();
        let is_slash_refused =
            |status| has_slash && matches!(status, StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND);
        if is_slash_refused(status) && self.encoded_slash.failed() {
            return Direct::NoWay;
        }
        if has_slash && status.is_success() {
            self.encoded_slash.works();
        }
        match status {
            StatusCode::NOT_FOUND | StatusCode::GONE => Direct::FileIsGone,
            status if status.is_server_error() || status == StatusCode::FORBIDDEN => Direct::NoWay,
            _ => Direct::Answer(answer),
        }
    }

    /// The same request for another identifier, in the name of the one that was asked for.
    fn in_its_name(&self, patient: &Patient, request: &Parts, id: &str) -> Option<Parts> {
        let base = &self.settings.routes[patient.route].upstream.path;
        let target = request.uri.path_and_query()?.as_str();
        let tail = target.strip_prefix(base.as_str())?.strip_prefix(&*patient.sent)?;
        let mut head = request.clone();
        head.uri = format!("{base}{id}{tail}").parse().ok()?;
        head.headers.insert(FORWARDED_ID, HeaderValue::from_str(&patient.sent).ok()?);
        Some(head)
    }
}
