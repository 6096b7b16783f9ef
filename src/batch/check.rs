//! Probes the images of one canvas, and returns a verdict for each. No rebuild is requested.

use std::time::Duration;

use super::{CanvasTask, ImageVerdict};
use crate::heal::{FILE_GONE, Healer, ImageCheck, IndexedImage};
use crate::index::Owner;

/// Result of the check of one image.
#[derive(Debug, Clone)]
pub(crate) struct CheckedImage {
    /// `None`: the canvas names no image, or the configuration leaves it out.
    pub(crate) indexed: Option<IndexedImage>,
    /// Lookup key.
    pub(crate) image: String,
    pub(crate) verdict: ImageVerdict,
    pub(crate) reason: Option<String>,
    /// True if the image server shows the image only with the credentials of a viewer.
    pub(crate) is_hidden: bool,
}

/// Reason of an expired image for which nothing was tried yet.
pub(crate) const FORGOTTEN: &str = "the image server has forgotten it";

/// Pause before an image is probed a second time after an error.
const PAUSE: Duration = Duration::from_millis(300);

/// Owner that this unit itself names.
pub(crate) fn owner(unit: &CanvasTask) -> Option<Owner> {
    let canvas = unit.canvas.clone()?;
    Some(Owner { canvas, manifest: unit.manifest.uri.clone(), label: unit.label.clone() })
}

/// Probes every image of a canvas.
pub(crate) async fn unit(healer: &Healer, unit: &CanvasTask, tiles: bool) -> Vec<CheckedImage> {
    if unit.images.is_empty() {
        let reason = unit.lacks.map(str::to_owned);
        return vec![CheckedImage {
            indexed: None,
            image: String::new(),
            verdict: ImageVerdict::Poisoned,
            reason,
            is_hidden: false,
        }];
    }
    let mut all = Vec::with_capacity(unit.images.len());
    for image in &unit.images {
        let Some(indexed) = healer.image_by_key(image, owner(unit)) else { continue };
        let look = with_timeout(healer, &indexed, tiles).await;
        let is_hidden = matches!(look, ImageCheck::Hidden(_));
        let (verdict, reason) = match (look, unit.lacks) {
            (ImageCheck::Alive, Some(lacks)) => (ImageVerdict::Poisoned, Some(lacks.to_owned())),
            (ImageCheck::Alive, None) => (ImageVerdict::Ok, None),
            (ImageCheck::Expired, _) => (ImageVerdict::Expired, Some(FORGOTTEN.to_owned())),
            (ImageCheck::Missing, _) => (ImageVerdict::Missing, Some(FILE_GONE.to_owned())),
            (ImageCheck::Unwell(why) | ImageCheck::Hidden(why), _) => (ImageVerdict::Error, Some(why)),
        };
        all.push(CheckedImage { indexed: Some(indexed), image: image.clone(), verdict, reason, is_hidden });
    }
    all
}

/// Probes an image, and once more where the first answer proves nothing.
pub(crate) async fn with_timeout(healer: &Healer, image: &IndexedImage, tiles: bool) -> ImageCheck {
    match healer.check_image(image, tiles).await {
        ImageCheck::Unwell(_) => {
            tokio::time::sleep(PAUSE.mul_f64(0.5 + fastrand::f64())).await;
            healer.check_image(image, tiles).await
        }
        look => look,
    }
}
