//! Facts about a setup, gathered at a bounded cost whatever the size of the index.

use std::collections::BTreeMap;
use std::path::Path;

use crate::config::Settings;
use crate::heal::{DeploymentFacts, Healer, IndexedImage, UnreachableServer};
use crate::iiif::CanvasUrl;
use crate::iiif::identifier::{Identifier, IdentifierKind};
use crate::index::browse::CanvasRow;
use crate::index::{Index, Owner};

/// Canvases of the index that a check reads.
const SAMPLE: u32 = 200;

/// Images of one canvas that a check looks up.
const IMAGES: usize = 16;

/// Hosts of canvases that are counted one by one.
const MAX_HOSTS: usize = 32;

/// Images whose info.json is requested, until one is there.
const WITNESSES: usize = 3;

/// Observations about a setup. `None`: not checked.
#[derive(Debug, Default)]
pub(crate) struct SetupFacts {
    /// The index, or why it cannot be read.
    pub(crate) index: Option<Result<IndexFacts, String>>,
    /// Checked canvases, and those among them that cannot be requested.
    pub(crate) canvases: UnmappedCanvases,
    /// Servers of image and presentation routes that give no answer.
    pub(crate) unreachable: Option<Vec<UnreachableServer>>,
    /// Answers of the services about an image.
    pub(crate) deployment: Option<DeploymentFacts>,
}

/// The index, and what it was made from.
#[derive(Debug)]
pub(crate) struct IndexFacts {
    pub(crate) is_empty: bool,
    /// Sources in use.
    pub(crate) sources: usize,
    /// Sources that cannot be read (with the reason), or from which no image is known.
    pub(crate) useless: Vec<(String, Option<String>)>,
    /// Images whose file is known, as `direct` and `register` need it, and checked images. `None`: other rungs are on the
    /// ladder.
    pub(crate) files: Option<(usize, usize)>,
}

/// Canvases that belong to no presentation route.
#[derive(Debug, Clone, Default)]
pub(crate) struct UnmappedCanvases {
    pub(crate) canvases: u64,
    pub(crate) strange: u64,
    /// Hosts of the strange ones, each with how many name it, and the first of them.
    pub(crate) hosts: BTreeMap<String, (u64, String)>,
}

impl UnmappedCanvases {
    /// Counts a canvas.
    pub(crate) fn note(&mut self, healer: &Healer, canvas: &str, images: &[String]) {
        self.canvases += 1;
        let Some(strange) = strange_canvas(healer, canvas, images) else { return };
        self.strange += 1;
        let host = CanvasUrl::parse(&strange).map_or("(none)", |url| url.authority).to_ascii_lowercase();
        if self.hosts.len() < MAX_HOSTS || self.hosts.contains_key(&host) {
            self.hosts.entry(host).or_insert((0, strange)).0 += 1;
        }
    }
}

/// Canvas that a heal of one of these images would request and may not: the one that its manifest names, or if there is
/// another one, such as one derived from the image's file, that one. `None`: one may be requested.
fn strange_canvas(healer: &Healer, canvas: &str, images: &[String]) -> Option<String> {
    let mut strange = canvas.to_owned();
    if healer.is_allowed_canvas(canvas) {
        return None;
    }
    for image in images.iter().take(IMAGES).filter_map(|key| healer.image_by_key(key, None)) {
        for canvas in healer.with_owners(&image).canvases() {
            if healer.is_allowed_canvas(canvas) {
                return None;
            }
            canvas.clone_into(&mut strange);
        }
    }
    Some(strange)
}

/// Facts of the index, and images for further requests.
pub(super) fn look_at_index(
    healer: &Healer,
    index: &Index,
    settings: &Settings,
) -> (SetupFacts, Vec<IndexedImage>) {
    let (mut facts, mut witnesses) = (SetupFacts::default(), Vec::new());
    let canvases = match index.sample_canvases(SAMPLE) {
        Ok(canvases) => canvases,
        Err(error) => {
            facts.index = Some(Err(error.to_string()));
            return (facts, witnesses);
        }
    };
    for canvas in &canvases {
        facts.canvases.note(healer, &canvas.canvas, &canvas.images);
    }
    let images = canvases.iter().filter_map(|canvas| canvas.images.first().map(|key| (canvas, key)));
    witnesses.extend(images.clone().filter_map(|(canvas, key)| witness(healer, canvas, key)).take(WITNESSES));
    let files = settings.heal.needs_files().then(|| {
        let all: Vec<bool> = images.map(|(_, key)| knows_file(index, key)).collect();
        (all.iter().filter(|is_known| **is_known).count(), all.len())
    });
    let sources = index.source_contents(&settings.index.sources).map_err(|error| error.to_string());
    facts.index = Some(sources.map(|sources| {
        IndexFacts {
            is_empty: canvases.is_empty(),
            sources: sources.len(),
            useless: sources
                .into_iter()
                .filter_map(|source| {
                    let unreadable = source.path.as_deref().and_then(unreadable);
                    (unreadable.is_some() || !source.has_images).then_some((source.location, unreadable))
                })
                .collect(),
            files,
        }
    }));
    (facts, witnesses)
}

fn witness(healer: &Healer, canvas: &CanvasRow, key: &str) -> Option<IndexedImage> {
    let owner = Owner { canvas: canvas.canvas.clone(), manifest: String::new(), label: None };
    healer.image_by_key(key, Some(owner))
}

fn knows_file(index: &Index, key: &str) -> bool {
    match Identifier::new(key).kind() {
        IdentifierKind::FileUrl { .. } => true,
        IdentifierKind::Uuid { uuid, .. } => matches!(index.file_url(uuid), Ok(Some(_))),
        IdentifierKind::Other => false,
    }
}

/// Reason why this file or folder cannot be read.
fn unreadable(path: &Path) -> Option<String> {
    let is_folder = path.metadata().map(|found| found.is_dir());
    let read = match is_folder {
        Ok(true) => std::fs::read_dir(path).map(drop),
        Ok(false) => std::fs::File::open(path).map(drop),
        Err(error) => Err(error),
    };
    read.err().map(|error| error.to_string())
}
