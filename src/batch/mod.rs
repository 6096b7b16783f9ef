//! The batch commands: `check` finds broken images, `heal` heals them.
//!
//! `parse_source` parses the named sources, `read` reads them and emits `CanvasTask`s, one canvas each. `run` takes each task
//! through `check` (probe) and `worker` (heal), shares them with other runs (`job`), writes the `journal`, and feeds `progress`
//! and `summary`. `report` writes the result.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::heal::{FILE_GONE, IndexedImage};
use crate::iiif::manifest::Canvas;

mod check;
pub mod command;
mod content_state;
mod foreign;
mod job;
mod journal;
mod manifest_pages;
mod manifests;
mod parse_source;
mod progress;
mod read;
mod remote;
pub mod report;
mod run;
mod summary;
mod worker;

/// A canvas to check.
#[derive(Debug, Clone)]
pub(crate) struct CanvasTask {
    pub(crate) manifest: Arc<ManifestRef>,
    /// URL of the canvas; `None`: an image that was named directly, and has no known owner.
    pub(crate) canvas: Option<String>,
    pub(crate) label: Option<String>,
    /// Lookup keys.
    pub(crate) images: Vec<String>,
    /// Poison: the manifest, as stored or as served, lacks these images.
    pub(crate) lacks: Option<&'static str>,
    /// Position among all canvases that were read; reports keep that order.
    pub(crate) place: u64,
}

/// Manifest, or another origin of a canvas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ManifestRef {
    pub(crate) uri: String,
    pub(crate) label: Option<String>,
}

/// Result of one canvas.
#[derive(Debug, Default)]
pub(crate) struct CanvasResult {
    /// Images that were broken or requested.
    pub(crate) entries: Vec<ImageResult>,
    /// Images probed.
    pub(crate) images: u64,
    /// True if the journal has the line that must precede a request for the canvas.
    pub(crate) is_begun: bool,
    /// Requests to canvas services that are not counted yet.
    pub(crate) asked: u64,
    /// True if another try after a pause may succeed.
    pub(crate) again: bool,
    /// Left undone: `--resume` goes on with it.
    pub(crate) undone: bool,
    /// Process that did the work.
    pub(crate) by: HandledBy,
    /// An image that is alive: the deployment is checked by it.
    pub(crate) alive: Option<IndexedImage>,
}

/// Process that did the work on a canvas.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum HandledBy {
    #[default]
    Us,
    /// Done by another process of the job.
    Others,
    /// Claimed by another process of the job.
    NobodyYet,
}

/// Problem of a manifest as it is served.
#[derive(Debug, Clone)]
pub(crate) struct ManifestProblem {
    /// Description for people.
    pub(crate) text: String,
    /// Canvases that a poisoned manifest should hold.
    pub(crate) poisoned: Option<Arc<Vec<Canvas>>>,
}

/// State of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum ImageVerdict {
    /// Served.
    Ok,
    /// Forgotten by the image server, and healable.
    Expired,
    /// The file itself is gone.
    Missing,
    /// The canvas or manifest has lost the image.
    Poisoned,
    /// Error: the state is not known.
    Error,
}

impl ImageVerdict {
    /// Name in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Expired => "expired",
            Self::Missing => "missing",
            Self::Poisoned => "poisoned",
            Self::Error => "error",
        }
    }
}

/// An image that was broken or requested.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ImageResult {
    /// Lookup key; empty where the canvas names no image.
    pub image: String,
    /// Canvas URL; empty where none is known.
    pub canvas: String,
    /// Id of the manifest, or where it was read.
    pub manifest: String,
    /// Label of the manifest.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub manifest_label: Option<String>,
    /// Label of the canvas.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub label: Option<String>,
    /// State before.
    pub before: ImageVerdict,
    /// State afterwards; absent where nothing was tried.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub after: Option<ImageVerdict>,
    /// Rung that helped.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rung: Option<String>,
    /// Reason of the state.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    /// Advice for the operator; absent where the image is well.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub advice: Option<String>,
    /// Duration of the heal in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub duration_ms: Option<u64>,
    /// Position among all images that were read; those of an earlier run come first.
    #[serde(skip)]
    pub place: u64,
}

impl ImageResult {
    /// State now.
    pub fn now(&self) -> ImageVerdict {
        self.after.unwrap_or(self.before)
    }

    /// Adds the reason, where none was given, and advice about an image that is not well after this command.
    pub(crate) fn explain(&mut self, command: &str) {
        let was_tried = self.after.is_some();
        let heal_again = || match command {
            "check" => "`iiif-mender heal` brings it back",
            _ => "`iiif-mender heal` again, without --dry-run or --limit, or with --resume",
        };
        let (reason, advice) = match self.now() {
            ImageVerdict::Ok => return,
            ImageVerdict::Expired if self.canvas.is_empty() => {
                (check::FORGOTTEN, "add its manifest to the index: nobody is known to own it")
            }
            ImageVerdict::Expired if !was_tried => (check::FORGOTTEN, heal_again()),
            ImageVerdict::Expired => (
                "every rung of the ladder was tried in vain",
                "open its canvas: where the image is missing there, ask the canvas service for it with ?update=true",
            ),
            ImageVerdict::Missing => {
                (FILE_GONE, "restore the file in the repository, or take the canvas out of its manifest")
            }
            ImageVerdict::Poisoned if !was_tried && !self.image.is_empty() => {
                ("its canvas was stored without it", heal_again())
            }
            ImageVerdict::Poisoned => (
                "its canvas was stored without it",
                "ask the canvas service for the canvas with ?update=true, once it is well",
            ),
            ImageVerdict::Error => ("nothing can be said", "mend what the reason says, then check again"),
        };
        self.reason.get_or_insert_with(|| reason.to_owned());
        self.advice.get_or_insert_with(|| advice.to_owned());
    }

    /// True where the image was not well and is now.
    pub fn is_healed(&self) -> bool {
        self.before != ImageVerdict::Ok && self.now() == ImageVerdict::Ok
    }
}

impl CanvasTask {
    /// Id of the work: equal for a canvas with the same images, whichever source names it.
    pub(crate) fn id(&self) -> u64 {
        digest(self.canvas.iter().chain(&self.images).map(String::as_str))
    }

    pub(crate) fn entry(&self, image: &str, before: ImageVerdict, reason: Option<String>) -> ImageResult {
        ImageResult {
            image: image.to_owned(),
            canvas: self.canvas.clone().unwrap_or_default(),
            manifest: self.manifest.uri.clone(),
            manifest_label: None,
            label: self.label.clone(),
            before,
            after: None,
            rung: None,
            reason,
            advice: None,
            duration_ms: None,
            place: self.place,
        }
    }
}

fn digest<'a>(texts: impl Iterator<Item = &'a str>) -> u64 {
    let mut hasher = blake3::Hasher::new();
    for text in texts {
        hasher.update(&text.len().to_be_bytes()).update(text.as_bytes());
    }
    let mut first = [0; 8];
    first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    u64::from_be_bytes(first)
}
