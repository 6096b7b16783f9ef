//! Knowledge of images: evidence that is fetched now or remembered for a while.

use std::sync::Arc;

use tokio::time::Instant;
use uuid::Uuid;

use crate::config::Settings;
use crate::config::settings::Rung;
use crate::heal::canvas_service::CanvasService;
use crate::heal::canvas_service::priority_semaphore::Priority;
use crate::heal::canvas_service::registration::Registration;
use crate::heal::canvas_service::request::CanvasRequest;
use crate::heal::canvas_service::services::CanvasServices;
use crate::heal::evidence::Evidence;
use crate::heal::image::{ImageKey, IndexedImage};
use crate::heal::image_server::ImageServers;
use crate::heal::missing_files::Proof;
use crate::heal::missing_images::MissingImages;
use crate::heal::single_flight::SingleFlight;
use crate::heal::timed_cache::TimedCache;

/// Images remembered as alive, at most.
const ALIVE: u64 = 200_000;

/// `ImageKnowledge` is the evidence about images. Cheap to clone: all clones share the memory.
#[derive(Debug, Clone)]
pub(in crate::heal) struct ImageKnowledge {
    pub(in crate::heal) services: Arc<CanvasServices>,
    images: Arc<ImageServers>,
    pub(in crate::heal) missing: Arc<MissingImages>,
    settings: Arc<Settings>,
    memory: ProofsOfLife,
}

/// `ProofsOfLife` are the recent answers, and the questions under way.
#[derive(Debug, Clone)]
pub(in crate::heal) struct ProofsOfLife {
    /// Images that a probe has shown to be alive, and when.
    alive: TimedCache<ImageKey, Instant>,
    /// Requests to `/resources` that several wait for, with their times.
    asked: SingleFlight<Uuid, (Instant, Registration)>,
}

impl ProofsOfLife {
    /// Empty memory, whose requests run on the caller's runtime.
    pub(in crate::heal) fn here() -> Self {
        Self { alive: TimedCache::new(ALIVE), asked: SingleFlight::here() }
    }
}

impl ImageKnowledge {
    pub(in crate::heal) fn new(
        services: Arc<CanvasServices>,
        images: Arc<ImageServers>,
        missing: Arc<MissingImages>,
        settings: Arc<Settings>,
        memory: ProofsOfLife,
    ) -> Self {
        Self { services, images, missing, settings, memory }
    }

    /// Registration of this identifier at the canvas service. "Alive" is believed for a while, unless it is from before
    /// `since`.
    pub(in crate::heal) async fn check_registration_cached(
        &self,
        image: &IndexedImage,
        since: Option<Instant>,
    ) -> Registration {
        if self.services.remember_alive(image, since) {
            return Registration::Alive(String::new());
        }
        let Some(uuid) = image.uuid() else { return Registration::Nothing };
        if self.services.remember_expired(image) {
            return Registration::Expired;
        }
        loop {
            // Two hundred viewers who open the same page cause one request.
            let mut asked = self.memory.asked.join_or_start(&uuid, Priority::Viewer, |_| {
                let (services, image) = (Arc::clone(&self.services), image.clone());
                async move { (Instant::now(), services.ask(&image).await) }
            });
            let Some((at, said)) = asked.wait().await else { return Registration::Nothing };
            // A question from before `since` may have been answered before it, too.
            if since.is_none_or(|since| at >= since) {
                return said;
            }
        }
    }

    /// Evidence about the image. "Alive" is remembered for a while (`heal.alive_for`), unless it was seen before `since`.
    async fn evidence_remembered(&self, image: &IndexedImage, since: Option<Instant>) -> Evidence {
        match self.check_registration_cached(image, since).await {
            Registration::Alive(_) => return Evidence::Alive,
            Registration::Expired => return Evidence::Expired,
            Registration::Nothing => {}
        }
        let key = image.image_key();
        let shown = self.memory.alive.get(&key);
        if shown.is_some_and(|shown| since.is_none_or(|since| shown >= since)) {
            return Evidence::Alive;
        }
        let asked_at = Instant::now();
        let evidence = self.images.probe(image).await;
        if evidence == Evidence::Expired {
            self.services.expired_again(image, shown);
        } else {
            // An answer that proves nothing is remembered too, so that the request is not repeated again and again.
            self.memory.alive.insert(key, asked_at, self.settings.heal.alive_for);
        }
        evidence
    }

    /// True if the image has expired. Uses the cheapest truthful probe: the canvas service's answer, else a small tile;
    /// never info.json, which the image server answers from its own memory. An image whose file is known to be missing does
    /// not count as expired.
    pub(in crate::heal) async fn is_expired_now(&self, image: &IndexedImage, since: Option<Instant>) -> bool {
        !self.missing.is_known(image) && self.evidence_remembered(image, since).await == Evidence::Expired
    }

    /// Notes that the image is there: evidence against it is forgotten, here and on the other nodes. True: its file was
    /// believed to be gone.
    pub(in crate::heal) fn found(&self, image: &IndexedImage) -> bool {
        self.services.note_back(image);
        let was_missing = self.missing.found(image);
        if was_missing {
            self.canvases_may_help(image);
        }
        was_missing
    }

    /// Ends cool-downs of canvases that came without the image: its file is there, so they may help now.
    fn canvases_may_help(&self, image: &IndexedImage) {
        for (service, canvas) in self.services.asked_canvases(image) {
            if let Some(variant) = CanvasRequest::variant(&canvas) {
                self.services.clear_cooldown(&service, &variant.flight);
            }
        }
    }

    /// True if its canvas can be built in a way that overwrites nothing.
    fn may_be_built_beside(&self, image: &IndexedImage) -> bool {
        let may = |service: &Arc<CanvasService>| service.variants.known(Instant::now()) != Some(false);
        self.settings.heal.ladder.contains(&Rung::Variant) && self.services.of(image).iter().any(may)
    }

    /// Forgets "alive", because the image server answered 404. If the image was alive a while ago, others of its manifest
    /// may have expired with it.
    pub(in crate::heal) fn doubt(&self, image: &IndexedImage) {
        let key = image.image_key();
        let alive_at = self.memory.alive.get(&key).max(self.services.doubt(image));
        self.memory.alive.remove(&key);
        self.services.expired_again(image, alive_at);
    }

    /// True if the file of an image that is reported alive, and is 404, is gone. The result is remembered, so false
    /// positives must be excluded. The key may have been lost again in between, and one request may be 404 for a reason of
    /// its own. And the answer may be an old one, out of a cache before `/resources`: so the first time the image is in
    /// doubt and its canvas is built, unless the file's own identifier tells (`look_at_file`, asked only then).
    pub(in crate::heal) async fn is_missing(
        &self,
        image: &IndexedImage,
        look_at_file: impl Future<Output = Option<bool>>,
    ) -> bool {
        if self.missing.is_known(image) {
            return true;
        }
        let is_missing = self.images.shows_nothing(image).await
            && matches!(self.services.ask(image).await, Registration::Alive(_));
        if !is_missing {
            return false;
        }
        let may_tell = self.may_be_built_beside(image) && !self.missing.is_remembered(image);
        if may_tell && look_at_file.await != Some(true) {
            // A reader may have had the image healed between the two checks.
            if self.images.shows_nothing(image).await {
                self.services.begin_doubt(image);
            }
            return false;
        }
        self.missing.note(image, Proof::Shown);
        true
    }
}

#[cfg(test)]
mod tests;
