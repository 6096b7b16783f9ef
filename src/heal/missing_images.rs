//! Images whose files are gone, as this node and the other nodes found.

use std::sync::Arc;

use tokio::time::Instant;

use crate::config::Settings;
use crate::heal::canvas_service::services::CanvasServices;
use crate::heal::canvas_service::shared_heals::SharedHeals;
use crate::heal::image::{IndexedImage, RoutedImage};
use crate::heal::missing_files::{MissingFiles, Proof};

/// `MissingImages` knows the images whose files are gone, and shares that with the other nodes.
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

    /// True if the file was found missing a while ago, and nothing spoke against that since.
    pub(in crate::heal) fn is_known(&self, image: &IndexedImage) -> bool {
        self.files.is_missing(image.mark, &image.key, self.services.recovered(image), Instant::now())
    }

    /// True if the file is proven to be gone: a fault would look different.
    pub(in crate::heal) fn is_proven(&self, image: &IndexedImage) -> bool {
        self.files.is_proven(image.mark, &image.key)
    }

    /// True if the file was found missing, and no other node has seen the image since.
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

    /// True if another node has found that the file is gone.
    pub(in crate::heal) async fn is_known_elsewhere(&self, image: &IndexedImage) -> bool {
        let Some(cluster) = self.fleet.connected() else { return false };
        let Some(left) = cluster.missing(&self.name_of(image)).await else { return false };
        self.files.note_missing_elsewhere(image.mark, &image.key, left, Instant::now());
        true
    }

    /// True if this node had reported the file missing to the other nodes, and one of them has taken that back.
    async fn was_seen_elsewhere(&self, image: &IndexedImage) -> bool {
        let Some(cluster) = self.fleet.connected() else { return false };
        cluster.missing(&self.name_of(image)).await.is_none() && cluster.is_joined()
    }

    /// Notes that the file behind this image is gone, as far as `proof` goes.
    pub(in crate::heal) fn note(&self, image: &IndexedImage, proof: Proof) {
        self.note_since(image, proof, Instant::now());
    }

    /// Notes that the file is gone, with a proof from `seen`: its life is counted from then on.
    pub(in crate::heal) fn note_since(&self, image: &IndexedImage, proof: Proof, seen: Instant) {
        let life = self.files.note_missing(image.mark, &image.key, proof, seen);
        let left = life.saturating_sub(seen.elapsed());
        if let (Some(cluster), false) = (self.fleet.connected(), left.is_zero()) {
            cluster.tell_missing(&self.name_of(image), left);
        }
    }

    /// Notes that the image was seen. Forgets that it was missing, here and on the other nodes. True: there was an entry.
    pub(in crate::heal) fn found(&self, image: &IndexedImage) -> bool {
        let was_missing = self.files.clear_missing(image.mark, &image.key);
        if was_missing {
            self.forget_elsewhere(image);
        }
        was_missing
    }

    /// Forgets that the image was missing, on every route, here and on the other nodes.
    pub(in crate::heal) fn forget(&self, image: &IndexedImage, marks: impl Iterator<Item = u64>) {
        marks.for_each(|mark| {
            self.files.clear_missing(mark, &image.key);
        });
        self.forget_elsewhere(image);
    }

    /// True if the image of this request is remembered as missing. Cheap where nothing ever was.
    pub(in crate::heal) fn remembers(&self, image: &RoutedImage<'_>, mark: u64) -> bool {
        self.files.remembers_missing()
            && self.files.is_remembered_missing(mark, &image.request.identifier.key())
    }

    /// True if this image is remembered as missing, even if that is not believed any more.
    pub(in crate::heal) fn is_remembered(&self, image: &IndexedImage) -> bool {
        self.files.is_remembered_missing(image.mark, &image.key)
    }

    fn forget_elsewhere(&self, image: &IndexedImage) {
        if let Some(cluster) = self.fleet.connected() {
            cluster.tell_not_missing(&self.name_of(image));
        }
    }

    /// Name of an image on every node: nodes need not number their routes alike.
    fn name_of(&self, image: &IndexedImage) -> String {
        let upstream = &self.settings.routes[image.route].upstream;
        format!("{}{}{}", upstream.authority, upstream.path, image.key)
    }
}
