//! Images whose files are gone, as this node and the others found.

use std::sync::Arc;

use tokio::time::Instant;

use crate::config::Settings;
use crate::heal::canvas_service::services::CanvasServices;
use crate::heal::canvas_service::shared_heals::SharedHeals;
use crate::heal::image::{IndexedImage, RoutedImage};
use crate::heal::missing_files::{MissingFiles, Proof};

/// `MissingImages` knows whose file is gone, and shares it with the other nodes.
#[derive(Debug)]
pub(in crate::heal) struct MissingImages {
    settings: Arc<Settings>,
    services: Arc<CanvasServices>,
    fleet: Arc<SharedHeals>,
    files: MissingFiles,
}

impl MissingImages {
    pub(in crate::heal) fn new(
        settings: Arc<Settings>,
        services: Arc<CanvasServices>,
        fleet: Arc<SharedHeals>,
        files: MissingFiles,
    ) -> Self {
        Self { settings, services, fleet, files }
    }

    /// Was the file found missing a while ago, with nothing that speaks against it since?
    pub(in crate::heal) fn is_known(&self, image: &IndexedImage) -> bool {
        self.files.is_missing(image.mark, &image.key, self.services.recovered(image), Instant::now())
    }

    /// The same, and no other node has seen it since.
    pub(in crate::heal) async fn is_known_to_all(&self, image: &IndexedImage) -> bool {
        if !self.is_known(image) {
            return false;
        }
        let was_seen = self.was_seen_elsewhere(image).await;
        if was_seen {
            self.files.clear_missing(image.mark, &image.key);
        }
        !was_seen
    }

    /// Has another node found that the file is gone?
    pub(in crate::heal) async fn is_known_elsewhere(&self, image: &IndexedImage) -> bool {
        let Some(cluster) = self.fleet.connected() else { return false };
        let Some(left) = cluster.missing(&self.name_of(image)).await else { return false };
        self.files.missing_elsewhere(image.mark, &image.key, left, Instant::now());
        true
    }

    /// This node holds the file for missing, and told the others so: was that taken back?
    async fn was_seen_elsewhere(&self, image: &IndexedImage) -> bool {
        let Some(cluster) = self.fleet.connected() else { return false };
        cluster.missing(&self.name_of(image)).await.is_none() && cluster.is_joined()
    }

    /// The file behind this image is gone, as far as this proves it.
    pub(in crate::heal) fn note(&self, image: &IndexedImage, proof: Proof) {
        self.note_since(image, proof, Instant::now());
    }

    /// The same, where the proof was seen a while ago: it is believed from then on.
    pub(in crate::heal) fn note_since(&self, image: &IndexedImage, proof: Proof, seen: Instant) {
        let life = self.files.file_is_missing(image.mark, &image.key, proof, seen);
        let left = life.saturating_sub(seen.elapsed());
        if let (Some(cluster), false) = (self.fleet.connected(), left.is_zero()) {
            cluster.file_is_missing(&self.name_of(image), left);
        }
    }

    /// The image was seen. Forgotten here, and where it was remembered on the other nodes, too.
    /// True: it was remembered to be missing.
    pub(in crate::heal) fn found(&self, image: &IndexedImage) -> bool {
        let was_missing = self.files.clear_missing(image.mark, &image.key);
        if was_missing {
            self.forget_elsewhere(image);
        }
        was_missing
    }

    /// Forgets that the image was missing, whatever route it was asked for on, here and in what the nodes share.
    pub(in crate::heal) fn forget(&self, image: &IndexedImage, marks: impl Iterator<Item = u64>) {
        marks.for_each(|mark| {
            self.files.clear_missing(mark, &image.key);
        });
        self.forget_elsewhere(image);
    }

    /// Is the image of this request remembered to be missing? Cheap where nothing ever was.
    pub(in crate::heal) fn remembers(&self, image: &RoutedImage<'_>, mark: u64) -> bool {
        self.files.remembers_missing()
            && self.files.is_remembered_missing(mark, &image.request.identifier.key())
    }

    /// Was this image missing before, as far as is remembered?
    pub(in crate::heal) fn is_remembered(&self, image: &IndexedImage) -> bool {
        self.files.is_remembered_missing(image.mark, &image.key)
    }

    fn forget_elsewhere(&self, image: &IndexedImage) {
        if let Some(cluster) = self.fleet.connected() {
            cluster.file_may_be_there(&self.name_of(image));
        }
    }

    /// An image by what it is known on every node: they need not number their routes alike.
    fn name_of(&self, image: &IndexedImage) -> String {
        let upstream = &self.settings.routes[image.route].upstream;
        format!("{}{}{}", upstream.authority, upstream.path, image.key)
    }
}
