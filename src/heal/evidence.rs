//! Evidence: what an answer proves about an image. One type judges all answers.
//!
//! | seen | proves |
//! |---|---|
//! | `/resources/{uuid}` 200 with a URL whose UUID version 3 is the identifier | alive (a tile may still be 404: then the file is missing, or the image server is behind) |
//! | `/resources/{uuid}` 404 with the service's own sentence | expired |
//! | the viewer's own request answered 2xx, 3xx, or 400, 403, 415 that a live image gives | this request is served; nothing of others behind a derivative cache |
//! | 404 (or 501) from the image server for an indexed identifier | expired, or its file is missing |
//! | a probe tile 200, a plain info.json 200 | nothing: a cache can hold it |
//! | `info.json?cache=nocache` (200 alive, 404 expired), a size above the maximum (403, 404), a region outside (400, 404) | alive or expired, where this image server was seen to answer truthfully |
//! | 401, 403 without a look-up, 407, 429, 5xx, no answer | nothing: not alive, not expired, not missing, not a fault of this canvas |
//! | a canvas without our image, and no key | missing, or a fault of the file store: believed for seconds first |
//! | the canvas service answers 5xx, 429, or not at all | the service is unwell: counts against the service, never against the canvas |

use http::StatusCode;
use uuid::Uuid;

use crate::config::settings::HealSettings;
use crate::iiif::identifier::uuid_of_file_url;
use crate::iiif::registration::{self, Registration};

/// `Evidence` is what one answer proves about one image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// The canvas service knows where the file of the image is.
    Alive,
    /// The canvas service has forgotten the image. From an image server alone: or the file may be missing.
    Expired,
    /// No proof: neither alive nor expired.
    Nothing,
}

/// `Probe` is a request whose answer tells a live image from an expired one without decoding a picture.
///
/// UPSTREAM: errors are never cached, and the identifier is looked up before the size is read (upstream.md "An expired
/// image"). A region outside of the picture would tell as much, but it ends iipsrv (SIGSEGV), so it is never sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::heal) enum Probe {
    /// A size that no picture has.
    SizeAboveMaximum,
    /// info.json past every cache (`cache=nocache`).
    InfoUncached,
    /// A small tile, where no other probe tells the truth: 404 is expired, 200 may come from a cache.
    SmallTile,
}

impl Probe {
    /// Probes that may tell the truth; those without a picture come first.
    pub(in crate::heal) const TRUTHFUL: [Self; 2] = [Self::InfoUncached, Self::SizeAboveMaximum];

    /// Path behind the identifier.
    pub(in crate::heal) fn tail(self) -> &'static str {
        match self {
            Self::SizeAboveMaximum => "full/99999,/0/default.jpg",
            Self::InfoUncached => "info.json?cache=nocache",
            Self::SmallTile => "full/16,/0/default.jpg",
        }
    }

    /// True if this error status is the answer of a live image to the probe.
    pub(in crate::heal) fn takes(self, status: StatusCode) -> bool {
        self == Self::SizeAboveMaximum && matches!(status.as_u16(), 400 | 403)
    }

    /// Evidence of the answer to this probe, where the image server looks identifiers up before it answers.
    pub(in crate::heal) fn read(self, status: StatusCode) -> Evidence {
        match (self, status.as_u16()) {
            (_, 404 | 410 | 501) => Evidence::Expired,
            (Self::InfoUncached, 200) | (Self::SizeAboveMaximum, 400 | 403) => Evidence::Alive,
            _ => Evidence::Nothing,
        }
    }
}

impl Evidence {
    /// Reads an answer of `/resources/{uuid}`. Returns the file URL too where it proves that the image is alive.
    pub fn of_registration(uuid: Uuid, status: StatusCode, body: &[u8]) -> (Self, Option<String>) {
        match registration::read(uuid, status.as_u16(), body) {
            Registration::Alive(url) if uuid_of_file_url(&url) == uuid => (Self::Alive, Some(url)),
            // The file is registered under another name: the image is alive, but the URL is not to be remembered.
            Registration::Alive(_) => (Self::Alive, None),
            Registration::Expired => (Self::Expired, None),
            Registration::Nothing => (Self::Nothing, None),
        }
    }
}

/// True if this status of an image server proves nothing: neither alive nor expired nor missing.
pub(in crate::heal) fn proves_nothing(status: StatusCode) -> bool {
    let is_refusal = matches!(status.as_u16(), 401 | 403 | 407 | 408 | 421 | 423 | 425 | 429);
    is_refusal || status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED
}

/// True if an image server asks for a login before it looks the identifier up: by its status, or by a redirect to a page.
pub(in crate::heal) fn asks_for_login(status: StatusCode) -> bool {
    matches!(status.as_u16(), 401 | 407) || status.is_redirection()
}

/// True if this status of an image server means that an indexed image is gone (`heal.statuses`).
pub(in crate::heal) fn is_expiry(heal: &HealSettings, status: StatusCode) -> bool {
    heal.statuses.contains(&status.as_u16())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_and_trouble_prove_nothing() {
        for status in [401, 403, 407, 429, 500, 502, 503, 504] {
            let status = StatusCode::from_u16(status).expect("a status");
            assert!(proves_nothing(status), "{status}");
            for probe in [Probe::InfoUncached, Probe::SmallTile] {
                assert_eq!(probe.read(status), Evidence::Nothing, "{probe:?} {status}");
            }
        }
        for status in [200, 304, 400, 404, 410, 415, 501] {
            assert!(!proves_nothing(StatusCode::from_u16(status).expect("a status")), "{status}");
        }
    }

    #[test]
    fn a_file_url_is_only_remembered_where_the_identifier_is_made_from_it() {
        let url = "http://localhost:9000/fcrepo/rest/obj/a/files/a.jpg";
        let (own, other) =
            (uuid_of_file_url(url), Uuid::from_u128(0x13c0_9e7b_ddb5_30f5_a4ce_eece_bd33_0564));
        let read = |uuid, status, body: &str| Evidence::of_registration(uuid, status, body.as_bytes());
        assert_eq!(read(own, StatusCode::OK, url), (Evidence::Alive, Some(url.to_owned())));
        assert_eq!(read(other, StatusCode::OK, url), (Evidence::Alive, None));
        let gone = format!("Resource with id {other} not found!");
        assert_eq!(read(other, StatusCode::NOT_FOUND, &gone), (Evidence::Expired, None));
        assert_eq!(read(other, StatusCode::NOT_FOUND, "no route"), (Evidence::Nothing, None));
    }

    #[test]
    fn a_probe_takes_the_errors_that_it_is_after_and_asks_for_no_picture_that_can_be_cached() {
        for (probe, status, takes) in [
            (Probe::SizeAboveMaximum, 400, true),
            (Probe::SizeAboveMaximum, 403, true),
            (Probe::SizeAboveMaximum, 404, false),
            (Probe::InfoUncached, 403, false),
            (Probe::SmallTile, 400, false),
        ] {
            assert_eq!(
                probe.takes(StatusCode::from_u16(status).expect("a status")),
                takes,
                "{probe:?} {status}"
            );
        }
        assert_eq!(Probe::InfoUncached.tail(), "info.json?cache=nocache");
        assert_eq!(Probe::SizeAboveMaximum.tail(), "full/99999,/0/default.jpg");
        assert_eq!(Probe::SmallTile.tail(), "full/16,/0/default.jpg");
    }

    #[test]
    fn a_probe_tells_alive_from_expired_by_its_own_errors() {
        assert_eq!(Probe::SizeAboveMaximum.read(StatusCode::FORBIDDEN), Evidence::Alive);
        assert_eq!(Probe::SmallTile.read(StatusCode::OK), Evidence::Nothing);
        assert_eq!(Probe::InfoUncached.read(StatusCode::OK), Evidence::Alive);
        for probe in [Probe::SizeAboveMaximum, Probe::InfoUncached, Probe::SmallTile] {
            assert_eq!(probe.read(StatusCode::NOT_FOUND), Evidence::Expired);
        }
    }
}
