//! State of images: the result of a probe of each, and the history of heals of all images of a manifest.

use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use serde::Serialize;

use super::AdminState;
use crate::heal::ImageCheck;
use crate::index::browse::{CanvasRow, Verdicts};

/// State of one image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum ImageState {
    /// Served.
    Ok,
    /// Served, after a heal.
    Healed,
    /// The key is gone from the service's Redis: a heal brings it back.
    Expired,
    /// The file is gone.
    Missing,
    /// Served, but its canvas or manifest was last seen without it.
    Poisoned,
    /// State unknown: not in the index, or no answer in time.
    Unknown,
}

impl ImageState {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Healed => "healed",
            Self::Expired => "expired",
            Self::Missing => "missing",
            Self::Poisoned => "poisoned",
            Self::Unknown => "unknown",
        }
    }
}

/// Images of one manifest by state, as far as the history of heals knows: no request is sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct ManifestHealth {
    /// Brought back.
    pub(super) healed: u64,
    /// Could not be brought back.
    pub(super) failed: u64,
    /// Images whose file is gone.
    pub(super) missing: u64,
    /// Never healed: mostly because they never expired.
    pub(super) unknown: u64,
}

impl ManifestHealth {
    pub(super) fn of(images: u64, verdicts: &Verdicts) -> Self {
        let count = |verdict: &str| verdicts.get(verdict).copied().unwrap_or(0);
        let (healed, failed, missing) = (count("healed"), count("failed"), count("missing"));
        Self { healed, failed, missing, unknown: images.saturating_sub(healed + failed + missing) }
    }
}

/// State of an image of a canvas.
#[derive(Debug, Clone, Serialize)]
pub(super) struct ImageHealth {
    /// Lookup key.
    pub(super) identifier: String,
    /// Current state of the image.
    pub(super) state: ImageState,
}

/// State of the images of a canvas.
#[derive(Debug, Clone, Serialize)]
pub(super) struct CanvasHealth {
    #[serde(flatten)]
    pub(super) row: CanvasRow,
    /// States in the order of `images`.
    pub(super) states: Vec<ImageHealth>,
}

/// Probes at once: the page of a manifest must not cause a storm of requests.
const AT_ONCE: usize = 8;

/// Timeout of a probe; the state of an image that takes longer is unknown, and the page goes out.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// Probes all images of these canvases. A probe heals nothing.
pub(super) async fn check_canvases(state: &AdminState, canvases: Vec<CanvasRow>) -> Vec<CanvasHealth> {
    let looked = stream::iter(canvases).map(|row| async move {
        let mut states = Vec::new();
        for key in &row.images {
            states.push(ImageHealth { identifier: key.clone(), state: look_at(state, key).await });
        }
        CanvasHealth { row, states }
    });
    looked.buffered(AT_ONCE).collect().await
}

async fn look_at(state: &AdminState, key: &str) -> ImageState {
    let Some(image) = state.healer.image_by_key(key, None).map(|image| state.healer.with_owners(&image))
    else {
        return ImageState::Unknown;
    };
    let looked = tokio::time::timeout(PROBE_TIMEOUT, state.healer.check_image(&image, false)).await;
    let last = || state.index.last_heal(key).ok().flatten().map(|last| last.heal.verdict);
    match looked {
        Ok(ImageCheck::Alive) if state.healer.is_poisoned(key) => ImageState::Poisoned,
        // The service knows where the file is, and a reader was told that nothing is there.
        Ok(ImageCheck::Alive) if state.healer.is_file_missing(&image, key) => ImageState::Missing,
        Ok(ImageCheck::Alive) => {
            if last().as_deref() == Some("healed") {
                ImageState::Healed
            } else {
                ImageState::Ok
            }
        }
        // A 404 does not tell an expired key from a missing file, and a failing service tells nothing: the result of the
        // last heal decides.
        Ok(ImageCheck::Expired | ImageCheck::Unwell(_)) | Err(_)
            if state.healer.is_file_missing(&image, key) || last().as_deref() == Some("missing") =>
        {
            ImageState::Missing
        }
        Ok(ImageCheck::Expired) => ImageState::Expired,
        Ok(ImageCheck::Missing) => ImageState::Missing,
        Ok(ImageCheck::Unwell(_) | ImageCheck::Hidden(_)) | Err(_) => ImageState::Unknown,
    }
}
