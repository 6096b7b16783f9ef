//! Summary of a run, counted per manifest. Grows with manifests and with broken images, not with all images.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Serialize;

use super::{ImageResult, ImageVerdict, ManifestRef};
use crate::setup::SetupFinding;

/// Images of one manifest, or of all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ImageCounts {
    /// Probed images.
    pub images: u64,
    /// Images that were not well when probed.
    pub broken: u64,
    /// Were not well and are now.
    pub healed: u64,
    /// Forgotten by the image server now.
    pub expired: u64,
    /// Images whose file is gone.
    pub missing: u64,
    /// Images that their canvas or manifest lacks.
    pub poisoned: u64,
    /// Images whose state is not known.
    pub error: u64,
}

impl ImageCounts {
    /// Images that are not well now.
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
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ManifestSummary {
    /// Id of the manifest, or where it was read.
    pub manifest: String,
    /// Label.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Counts of its images.
    #[serde(flatten)]
    pub counts: ImageCounts,
    /// Problem of the manifest itself, as it is served.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// True once the manifest was repaired.
    pub mended: bool,
}

impl ManifestSummary {
    /// Display name: the label, or the end of the id.
    pub(crate) fn name(&self) -> &str {
        self.label.as_deref().filter(|label| !label.trim().is_empty()).unwrap_or_else(|| self.tail())
    }

    /// End of the id, which tells manifests with equal labels apart.
    pub(crate) fn tail(&self) -> &str {
        let uri = self.manifest.trim_end_matches('/');
        let before = uri.find("/presentation/").map(|at| at + "/presentation/".len());
        &uri[before.or_else(|| uri.rfind('/').map(|at| at + 1)).unwrap_or(0)..]
    }

    /// True if the manifest itself is not well, as it is served.
    pub(crate) fn is_troubled(&self) -> bool {
        self.trouble.is_some() && !self.mended
    }

    /// True if the manifest or an image of it is not well now.
    pub(crate) fn needs_attention(&self) -> bool {
        self.counts.left() > 0 || self.is_troubled()
    }
}

/// A source that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct UnreadSource {
    /// Source as it was named.
    pub source: String,
    /// Error message.
    pub message: String,
    /// True if nothing of the source could be read: wrong usage, exit 2.
    pub is_all_of_it: bool,
}

/// The whole outcome of one command.
#[derive(Debug, Clone, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Summary {
    /// `check` or `heal`.
    pub command: String,
    /// Sources as named on the command line.
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
    /// Each manifest, those that need attention first.
    pub manifests: Vec<ManifestSummary>,
    /// Every image that was broken or requested.
    pub images: Vec<ImageResult>,
    /// Sources that could not be read, whole or in part.
    pub problems: Vec<UnreadSource>,
    /// The deployment itself.
    pub setup: Vec<SetupFinding>,
    /// Start of image URLs in a report; empty where the public address is not known.
    pub image_base: String,
    #[serde(skip)]
    pub(crate) rows: HashMap<Arc<str>, usize>,
}

impl Summary {
    /// The row of a manifest, made when it is new.
    pub(crate) fn row(&mut self, manifest: &ManifestRef) -> &mut ManifestSummary {
        let known = self.rows.get(manifest.uri.as_str()).copied();
        let at = known.unwrap_or_else(|| {
            self.rows.insert(manifest.uri.as_str().into(), self.manifests.len());
            self.manifests.push(ManifestSummary {
                manifest: manifest.uri.clone(),
                label: None,
                counts: ImageCounts::default(),
                trouble: None,
                mended: false,
            });
            self.manifests.len() - 1
        });
        let row = &mut self.manifests[at];
        if row.label.is_none() {
            row.label.clone_from(&manifest.label);
        }
        row
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

    /// Completes the results at the end: broken images first, each with the label of its manifest, a reason and advice.
    pub(crate) fn complete(&mut self) {
        for entry in &mut self.images {
            let row = self.rows.get(entry.manifest.as_str()).and_then(|at| self.manifests.get(*at));
            entry.manifest_label = row.and_then(|row| row.label.clone());
            entry.explain(&self.command);
        }
        self.rows.clear();
        self.manifests.sort_by_key(|row| !row.needs_attention());
    }

    /// Each manifest with its images that were broken or requested, in the order of the manifests.
    pub(crate) fn by_manifest(&self) -> impl Iterator<Item = (&ManifestSummary, Vec<&ImageResult>)> {
        let mut images: HashMap<&str, Vec<&ImageResult>> = HashMap::new();
        for entry in &self.images {
            images.entry(&entry.manifest).or_default().push(entry);
        }
        self.manifests.iter().map(move |row| (row, images.remove(row.manifest.as_str()).unwrap_or_default()))
    }

    /// Adds requests that were sent to canvas services.
    pub(crate) fn count_requests(&mut self, more: u64) {
        self.asked = self.asked.map(|asked| asked + more);
    }

    /// True if anything is not well now.
    pub fn is_broken(&self) -> bool {
        self.interrupted
            || self.totals.left() > 0
            || self.problems.iter().any(|problem| !problem.is_all_of_it)
            || self.manifests.iter().any(ManifestSummary::is_troubled)
            || self.setup.iter().any(SetupFinding::is_bad)
    }

    /// True if a named source cannot be read at all.
    pub fn is_misused(&self) -> bool {
        self.problems.iter().any(|problem| problem.is_all_of_it)
    }
}
