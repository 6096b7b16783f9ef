//! Image servers, as the healer asks them on its own behalf: is this image alive, expired, or is there no telling?
//!
//! UPSTREAM: behind a derivative cache every tile that was ever answered stays 200, and so does info.json: what is good
//! there proves nothing. Errors are never cached, and the identifier is looked up before the size is read, so that a
//! size above every maximum tells a live image (403) from an expired one (404) without decoding anything (upstream.md
//! "An expired image"). Not every image server does: which probe tells the truth is learned, once for each.

use http::header::{CONTENT_TYPE, HeaderValue};
use http::{StatusCode, response};
use tokio::time::Instant;
use uuid::Uuid;

use crate::heal::evidence::{Evidence, Probe, proves_nothing};
use crate::heal::truthful_probe::{ProbeState, RETRY_AFTER, TruthfulProbe};
use crate::heal::ward::{IndexedImage, Ward};
use crate::upstream::UpstreamError;

/// Is it something for people to read, and no info.json?
fn is_page(head: &response::Parts) -> bool {
    let media_type = head.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    media_type.get(..9).is_some_and(|start| start.eq_ignore_ascii_case(b"text/html"))
}

impl Ward {
    /// What the image server itself proves of this image, by a probe that tells the truth there; "alive" never by one
    /// that a cache could answer.
    pub(in crate::heal) async fn probe(&self, patient: &IndexedImage) -> Evidence {
        let truthful = &self.probes[patient.route];
        match truthful.state() {
            ProbeState::Known(probe) => self.try_probe(patient, &patient.sent, probe).await,
            ProbeState::None { .. } => self.try_probe(patient, &patient.sent, Probe::SmallTile).await,
            ProbeState::Unknown => self.learn_probe(patient, truthful).await,
        }
    }

    /// Tries each probe on this image. One that calls it alive, and calls an identifier expired that cannot exist,
    /// looks identifiers up: it tells the truth.
    async fn learn_probe(&self, patient: &IndexedImage, truthful: &TruthfulProbe) -> Evidence {
        let mut silent = 0;
        for probe in Probe::TRUTHFUL {
            match self.try_probe(patient, &patient.sent, probe).await {
                Evidence::Alive => {}
                // It cannot be learned by an image that is expired, but that is known by now.
                Evidence::Expired => return Evidence::Expired,
                Evidence::Nothing => {
                    silent += 1;
                    continue;
                }
            }
            let nobody = Uuid::from_u128(fastrand::u128(..)).to_string();
            if self.try_probe(patient, &nobody, probe).await == Evidence::Expired {
                truthful.set(ProbeState::Known(probe));
                tracing::info!(request = %patient.trace, probe = probe.tail(), "this probe tells a live image from an expired one");
                return Evidence::Alive;
            }
        }
        if silent < Probe::TRUTHFUL.len() {
            truthful.set(ProbeState::None { until: Instant::now() + RETRY_AFTER });
        }
        self.try_probe(patient, &patient.sent, Probe::SmallTile).await
    }

    async fn try_probe(&self, patient: &IndexedImage, id: &str, probe: Probe) -> Evidence {
        self.metrics.event("probe");
        let answer = self.head_of_id(patient, id, probe.tail()).await;
        let knows_nocache = |head: &response::Parts| {
            let by = head.headers.get("x-powered-by").and_then(|by| by.to_str().ok());
            by.is_some_and(|by| by.starts_with("Cantaloupe"))
        };
        let status = match answer {
            // UPSTREAM: only Cantaloupe knows `cache=nocache`; another one may answer from a cache all the same.
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

    /// How an info.json of this image is answered. A page in its place is a fault, whatever its status says: a gateway has
    /// them, and the canvas service would store a canvas without its image.
    pub(in crate::heal) async fn look_at_info(
        &self,
        patient: &IndexedImage,
        tail: &str,
    ) -> Result<StatusCode, UpstreamError> {
        let head = self.head_of_id(patient, &patient.sent, tail).await?;
        Ok(if head.status.is_success() && is_page(&head) { StatusCode::BAD_GATEWAY } else { head.status })
    }

    /// The probe called an image alive whose own request is 404 for its viewer, and whose key is gone: it lies.
    pub(in crate::heal) fn probe_lied(&self, patient: &IndexedImage) {
        self.probes[patient.route].set(ProbeState::None { until: Instant::now() + RETRY_AFTER });
        self.metrics.event("probe_distrusted");
    }

    /// Does the image server find nothing behind this image, whatever its key?
    pub(in crate::heal) async fn shows_nothing(&self, patient: &IndexedImage) -> bool {
        let tile: Result<StatusCode, UpstreamError> = self.look_at(patient, Probe::SmallTile.tail()).await;
        tile.is_ok_and(|status| self.is_expiry(status))
    }
}
