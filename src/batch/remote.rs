//! `--via`: a running iiif-mender heals. Its own limits, cool-downs and index apply; here every image is requested once, as
//! a viewer would, and `Heal-Status` gives the result.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use http::{HeaderMap, StatusCode, header};

use super::CanvasResult;
use super::{CanvasTask, ImageResult, ImageVerdict};
use crate::config::Settings;
use crate::config::settings::{RouteKind, Timeouts};
use crate::heal::FILE_GONE;
use crate::iiif::CanvasUrl;
use crate::iiif::image_path::{Slashes, path_of_key};
use crate::upstream::fetch::retry_after;
use crate::upstream::{Body, ErrorChain, TlsError, Upstream, internal_request, server_of};

/// A running iiif-mender.
#[derive(Debug)]
pub(crate) struct RemoteHealer {
    upstream: Arc<Upstream>,
    /// Prefix before an identifier, of each image route.
    prefixes: Vec<String>,
    /// Position of the prefix and the way to write slashes that found an image last.
    found_by: AtomicUsize,
    name: String,
    times: Timeouts,
}

/// Errors that keep `--via` from being used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RemoteHealerError {
    #[error("--via {0}: not an http(s) URL; write e.g. http://127.0.0.1:8080")]
    Url(String),
    #[error("--via: no [[routes]] of kind \"image\" in the configuration")]
    NoRoute,
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// A picture that any image server makes quickly.
const TILE: &str = "full/16,/0/default.jpg";

/// Requests at most for an image that is still being healed.
const MAX_TRIES: u32 = 6;

impl RemoteHealer {
    pub(crate) fn new(url: &str, settings: &Settings) -> Result<Self, RemoteHealerError> {
        let refuse = || RemoteHealerError::Url(url.to_owned());
        let parsed = CanvasUrl::parse(url).ok_or_else(refuse)?;
        let server = server_of(&parsed).ok_or_else(refuse)?;
        let routes = settings.routes.iter().filter(|route| route.kind == RouteKind::Image);
        let mut prefixes: Vec<String> =
            routes.map(|route| format!("{}{}", parsed.path.trim_end_matches('/'), route.prefix)).collect();
        prefixes.dedup();
        if prefixes.is_empty() {
            return Err(RemoteHealerError::NoRoute);
        }
        let upstream = Arc::new(Upstream::excluding(&server, &settings.upstream)?);
        // The proxy holds a viewer's tile for up to `heal.wait`, then answers in any case.
        let times = settings.upstream.timeouts().first_byte(settings.heal.wait + Duration::from_secs(10));
        Ok(Self {
            upstream,
            prefixes,
            found_by: AtomicUsize::new(0),
            name: settings.server.name.clone(),
            times,
        })
    }

    /// Requests every image of a canvas.
    pub(crate) async fn treat(&self, unit: &CanvasTask) -> CanvasResult {
        let mut result = CanvasResult { is_begun: true, ..CanvasResult::default() };
        for image in &unit.images {
            result.images += 1;
            result.entries.extend(self.image(unit, image).await);
        }
        result
    }

    async fn image(&self, unit: &CanvasTask, image: &str) -> Option<ImageResult> {
        let started = Instant::now();
        let mut answer = Err(String::new());
        for _ in 0..MAX_TRIES {
            answer = self.ask(image).await;
            let Ok((status, fields)) = &answer else { continue };
            if *status != StatusCode::SERVICE_UNAVAILABLE {
                break;
            }
            let after = retry_after(*status, fields, SystemTime::now()).unwrap_or(Duration::from_secs(5));
            tokio::time::sleep(after.min(Duration::from_mins(1))).await;
        }
        let mut entry = unit.entry(image, ImageVerdict::Expired, None);
        entry.duration_ms = u64::try_from(started.elapsed().as_millis()).ok();
        let (status, fields) = match answer {
            Ok(answer) => answer,
            Err(why) => {
                entry.before = ImageVerdict::Error;
                entry.reason = Some(why);
                return Some(entry);
            }
        };
        let heal = fields.get("heal-status").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let word = heal.split(';').next().unwrap_or_default().trim();
        match (status, word) {
            (_, "healed") => {
                entry.after = Some(ImageVerdict::Ok);
                entry.rung =
                    heal.split("rung=").nth(1).map(|rung| rung.split(';').next().unwrap_or(rung).into());
            }
            // A placeholder makes this a 200 as well.
            (_, "missing") => {
                entry.before = ImageVerdict::Missing;
                entry.reason = Some(FILE_GONE.to_owned());
            }
            (status, _) if status.is_success() => return None,
            (status, "cooling" | "failed") => {
                entry.after = Some(ImageVerdict::Expired);
                entry.reason = Some(format!("iiif-mender answered {status}, {word}"));
            }
            (StatusCode::NOT_FOUND, _) => {
                entry.reason = Some("that iiif-mender does not know who owns it".to_owned());
                entry.advice = Some("add its manifest to the index of that iiif-mender".to_owned());
            }
            (status, _) => {
                entry.before = ImageVerdict::Error;
                entry.reason = Some(format!("iiif-mender answered {status}"));
            }
        }
        Some(entry)
    }

    /// Requests an image on each image route and with each spelling of slashes: first as in the last hit.
    async fn ask(&self, image: &str) -> Result<(StatusCode, HeaderMap), String> {
        let mut ways: Vec<(usize, String)> = Vec::new();
        for (at, prefix) in self.prefixes.iter().enumerate() {
            for (slashes, way) in [(Slashes::Encoded, 2 * at), (Slashes::Literal, 2 * at + 1)] {
                let path = path_of_key(image, slashes).map(|path| format!("{prefix}{path}"));
                if let Some(path) = path.filter(|path| ways.iter().all(|(_, known)| known != path)) {
                    ways.push((way, path));
                }
            }
        }
        let found_by = self.found_by.load(Ordering::Relaxed);
        ways.sort_by_key(|(way, _)| *way != found_by);
        let mut answer = Err("it cannot be written into a request".to_owned());
        for (way, path) in ways {
            let asked = self.ask_at(&path).await;
            if !matches!(&asked, Ok((StatusCode::NOT_FOUND, _))) {
                self.found_by.store(way, Ordering::Relaxed);
                return asked;
            }
            // The answer to the likeliest way explains the most.
            answer = answer.or(asked);
        }
        answer
    }

    async fn ask_at(&self, path: &str) -> Result<(StatusCode, HeaderMap), String> {
        let host = self.upstream.authority().as_str();
        let mut head = internal_request(host, &self.name).map_err(|_| "--via names no host".to_owned())?;
        // Requests with `Via` look like the canvas service's own, which are never healed.
        head.headers.remove(header::VIA);
        let target = format!("{path}/{TILE}");
        head.uri = target.parse().map_err(|_| "it cannot be written into a request".to_owned())?;
        let answer = self.upstream.send(&head, Body::Empty, self.times).await;
        let answer = answer.map_err(|error| format!("iiif-mender: {}", ErrorChain(&error)))?;
        let (status, fields) = (answer.status(), answer.headers().clone());
        let _ = tokio::time::timeout(Duration::from_secs(10), answer.into_body().collect(1 << 20)).await;
        Ok((status, fields))
    }
}
