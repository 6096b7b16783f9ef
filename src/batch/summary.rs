//! What was found and done, counted per manifest. Grows with manifests and with what is broken, not with images.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Serialize;

use super::{ImageResult, ImageVerdict, ManifestRef};
use crate::setup::SetupFinding;

/// Images of one manifest, or of all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct ImageCounts {
    /// Looked at.
    pub images: u64,
    /// Were not well when they were looked at.
    pub broken: u64,
    /// Were not well and are now.
    pub healed: u64,
    /// Forgotten by the image server now.
    pub expired: u64,
    /// Images whose file is gone.
    pub missing: u64,
    /// Images that their canvas or manifest lacks.
    pub poisoned: u64,
    /// Of which nothing can be said.
    pub error: u64,
}

impl ImageCounts {
    /// Not well now.
    pub fn left(&self) -> u64 {
        self.expired + self.missing + self.poisoned + self.error
    }

    fn take(&mut self, images: u64, entries: &[ImageResult]) {
        self.images += images;
        for entry in entries {
            self.broken += u64::from(entry.before != ImageVerdict::Ok);
            self.healed += u64::from(entry.is_healed());
            match entry.now() {
                ImageVerdict::Ok => {}
                ImageVerdict::Expired => self.expired += 1,
                ImageVerdict::Missing => self.missing += 1,
                ImageVerdict::Poisoned => self.poisoned += 1,
                ImageVerdict::Error => self.error += 1,
            }
        }
    }
}

/// A manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ManifestSummary {
    /// Id of the manifest, or where it was read.
    pub manifest: String,
    /// Label.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Counts of its images.
    #[serde(flatten)]
    pub counts: ImageCounts,
    /// What is wrong with the manifest itself, as it is served.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// True once the manifest was repaired.
    pub mended: bool,
}

/// A source that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UnreadSource {
    /// As it was named.
    pub source: String,
    /// What is wrong.
    pub message: String,
    /// Nothing of it could be read: wrong usage, exit 2.
    pub is_all_of_it: bool,
}

/// The whole outcome of one command.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Summary {
    /// `check` or `heal`.
    pub command: String,
    /// As named on the command line.
    pub sources: Vec<String>,
    /// Unix seconds.
    pub started: u64,
    /// Seconds.
    pub took: f64,
    /// The run was stopped before its end.
    pub interrupted: bool,
    /// Requests to canvas services, so that they build something or register a file. Not known where another program
    /// did the work (`--via`).
    pub asked: Option<u64>,
    /// All images.
    pub totals: ImageCounts,
    /// Each manifest.
    pub manifests: Vec<ManifestSummary>,
    /// Every image that was broken or requested.
    pub images: Vec<ImageResult>,
    /// Sources, and parts of them, that could not be read.
    pub problems: Vec<UnreadSource>,
    /// The deployment itself.
    pub setup: Vec<SetupFinding>,
    /// What image URLs in a report start with; empty where the public address is not known.
    pub image_base: String,
    #[serde(skip)]
    pub(crate) rows: HashMap<Arc<str>, usize>,
}

impl Summary {
    /// The row of a manifest, made when it is new.
    pub(crate) fn row(&mut self, manifest: &ManifestRef) -> &mut ManifestSummary {
        let known = self.rows.get(manifest.uri.as_str()).copied();
        let at = if let Some(at) = known {
            at
        } else {
            self.rows.insert(manifest.uri.as_str().into(), self.manifests.len());
            self.manifests.push(ManifestSummary {
                manifest: manifest.uri.clone(),
                label: manifest.label.clone(),
                counts: ImageCounts::default(),
                trouble: None,
                mended: false,
            });
            self.manifests.len() - 1
        };
        &mut self.manifests[at]
    }

    /// Adds a canvas that is done.
    pub(crate) fn take(
        &mut self,
        manifest: &ManifestRef,
        images: u64,
        entries: Vec<ImageResult>,
        asked: u64,
    ) {
        self.row(manifest).counts.take(images, &entries);
        self.totals.take(images, &entries);
        self.count_requests(asked);
        self.images.extend(entries);
    }

    /// Adds requests that were sent to canvas services.
    pub(crate) fn count_requests(&mut self, more: u64) {
        self.asked = self.asked.map(|asked| asked + more);
    }

    /// Is anything not well now?
    pub fn is_broken(&self) -> bool {
        self.interrupted
            || self.totals.left() > 0
            || self.problems.iter().any(|problem| !problem.is_all_of_it)
            || self.manifests.iter().any(|row| row.trouble.is_some() && !row.mended)
            || self.setup.iter().any(SetupFinding::is_bad)
    }

    /// Was a source named that cannot be read at all?
    pub fn is_misused(&self) -> bool {
        self.problems.iter().any(|problem| problem.is_all_of_it)
    }
}
