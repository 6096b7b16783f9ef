//! Canvas services of all routes, and their answers about images.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::cluster::{JoinResult, SharedFlight};
use crate::heal::background::reading::ReadingActivity;
use crate::heal::canvas_service::CanvasService;
use crate::heal::canvas_service::registration::Registration;
use crate::heal::canvas_service::shared_heals::SharedHeals;
use crate::heal::cooldowns::{CanvasRequestKey, Cooldowns};
use crate::heal::file_urls::FileUrls;
use crate::heal::image::{ImageKey, IndexedImage};
use crate::heal::timed_cache::TimedCache;
use crate::observe::{EventKind, Metrics};
use crate::upstream::guard::{CanvasGuard, CanvasTarget};

/// Time for which a heal is remembered: if the image is gone again within this time, it expired anew.
const HEALED_FOR: Duration = Duration::from_mins(10);

/// `ImageDoubts` are the images for which the answer of a canvas service is in doubt, and conclusions from expiries.
#[derive(Debug)]
pub(in crate::heal) struct ImageDoubts {
    /// Images that the canvas service calls alive, while the image server finds nothing.
    pub(in crate::heal) images: TimedCache<ImageKey>,
    /// Times at which images were healed, or found by a reader who waited.
    pub(in crate::heal) healed: TimedCache<ImageKey, Instant>,
    /// Duration of a doubt.
    pub(in crate::heal) lasts: Duration,
    pub(in crate::heal) readers: Arc<ReadingActivity>,
}

/// `AskedCanvas` is a canvas that may be requested, and its service.
pub(in crate::heal) type AskedCanvas = (Arc<CanvasService>, CanvasTarget);

/// `CanvasServices` holds the canvas service of each presentation route.
#[derive(Debug)]
pub(in crate::heal) struct CanvasServices {
    services: Vec<Arc<CanvasService>>,
    guard: CanvasGuard,
    fleet: Arc<SharedHeals>,
    files: FileUrls,
    pub(in crate::heal) cooldowns: Cooldowns,
    doubts: ImageDoubts,
    metrics: Arc<Metrics>,
    /// An identifier that was alive a short while ago: its info.json shows whether info.json works at all.
    alive_image: Mutex<Option<IndexedImage>>,
}

impl CanvasServices {
    pub(in crate::heal) fn new(
        (services, guard): (Vec<Arc<CanvasService>>, CanvasGuard),
        fleet: Arc<SharedHeals>,
        files: FileUrls,
        (cooldowns, doubts): (Cooldowns, ImageDoubts),
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { services, guard, fleet, files, cooldowns, doubts, metrics, alive_image: Mutex::new(None) }
    }

    pub(in crate::heal) fn files(&self) -> &FileUrls {
        &self.files
    }

    pub(in crate::heal) fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// All services, in the order of the presentation routes.
    pub(in crate::heal) fn all(&self) -> &[Arc<CanvasService>] {
        &self.services
    }

    /// The service of this route.
    pub(in crate::heal) fn on(&self, route: usize) -> Option<&Arc<CanvasService>> {
        self.services.iter().find(|service| service.route == route)
    }

    /// Canvas with this URL and its service, if the canvas may be requested.
    pub(in crate::heal) fn asked_canvas(&self, url: &str) -> Option<AskedCanvas> {
        let allowed = self.guard.allow(url)?;
        Some((Arc::clone(self.on(allowed.route)?), allowed))
    }

    /// Canvases that own this image and may be requested, each once, newest first.
    pub(in crate::heal) fn asked_canvases(&self, image: &IndexedImage) -> Vec<AskedCanvas> {
        let mut canvases: Vec<AskedCanvas> = Vec::new();
        for owner in &*image.owners {
            let Some(asked) = self.asked_canvas(&owner.canvas) else {
                tracing::debug!(request = %image.trace, canvas = %owner.canvas, "not asked for: no presentation route");
                continue;
            };
            if !canvases.iter().any(|(_, other)| *other == asked.1) {
                canvases.push(asked);
            }
        }
        canvases
    }

    /// Services that may know this identifier, those of its canvases first.
    pub(in crate::heal) fn of(&self, image: &IndexedImage) -> Vec<Arc<CanvasService>> {
        if let [only] = &*self.services {
            return vec![Arc::clone(only)];
        }
        let mut of: Vec<Arc<CanvasService>> = Vec::new();
        for owner in &*image.owners {
            if let Some((service, _)) = self.asked_canvas(&owner.canvas)
                && !of.iter().any(|other| other.route == service.route)
            {
                of.push(service);
            }
        }
        if of.is_empty() {
            of.extend(self.services.first().cloned());
        }
        of
    }

    /// Asks the canvas services about this identifier.
    pub(in crate::heal) async fn ask(&self, image: &IndexedImage) -> Registration {
        let Some(uuid) = image.uuid().filter(|_| !self.is_doubted(image)) else {
            return Registration::Nothing;
        };
        for service in self.of(image) {
            if !service.registrations.is_available(Instant::now()) {
                continue;
            }
            // An answer is about the time when the service was asked; it may be outdated on arrival.
            let healed_at = self.doubts.healed.get(&image.image_key());
            let (asked_at, alive_at) = (Instant::now(), service.registrations.alive_at(uuid).max(healed_at));
            let asked = service.registrations.patiently(service.get_resource(uuid, &image.trace));
            let Some(answer) = asked.await else { continue };
            let said = match answer {
                Ok((status, body)) => service.registrations.record_response(uuid, status, &body, asked_at),
                Err(error) => {
                    self.metrics.upstream_error(error.kind());
                    service.registrations.suspend(Instant::now());
                    Registration::Nothing
                }
            };
            self.metrics.resource_check(match said {
                Registration::Alive(_) => "alive",
                Registration::Expired => "expired",
                Registration::Nothing => "nothing",
            });
            match &said {
                Registration::Alive(file_url) => {
                    self.files.learn(uuid, file_url);
                    self.set_known_alive(image);
                }
                Registration::Expired => self.expired_again(image, alive_at),
                Registration::Nothing => {}
            }
            if said != Registration::Nothing {
                return said;
            }
        }
        Registration::Nothing
    }

    /// True if a service reported this image expired a moment ago.
    pub(in crate::heal) fn remember_expired(&self, image: &IndexedImage) -> bool {
        let is_expired =
            |uuid| self.of(image).iter().any(|service| service.registrations.remembers_expired(uuid));
        image.uuid().is_some_and(is_expired)
    }

    /// True if a service reported this image alive a short while ago, and not before `since`.
    pub(in crate::heal) fn remember_alive(&self, image: &IndexedImage, since: Option<Instant>) -> bool {
        let is_alive = |uuid| {
            self.of(image).iter().any(|service| service.registrations.is_known_registered(uuid, since))
        };
        image.uuid().is_some_and(is_alive)
    }

    /// Forgets "expired": the image is back, or was healed. Background work that probed it before must not heal it once
    /// more.
    pub(in crate::heal) fn note_back(&self, image: &IndexedImage) {
        if let Some(uuid) = image.uuid() {
            self.services.iter().for_each(|service| service.registrations.note_back(uuid));
        }
        self.doubts.healed.insert(image.image_key(), Instant::now(), HEALED_FOR);
    }

    /// Forgets "alive", because the image server answered 404. Returns the time of the last such report.
    pub(in crate::heal) fn doubt(&self, image: &IndexedImage) -> Option<Instant> {
        let mut alive_at = self.doubts.healed.get(&image.image_key());
        for (service, uuid) in self.services.iter().filter_map(|service| Some((service, image.uuid()?))) {
            alive_at = alive_at.max(service.registrations.alive_at(uuid));
            service.registrations.invalidate(uuid);
        }
        alive_at
    }

    /// Notes that the image is gone. If it was proven alive at this time, others of its manifest may have expired with it
    /// since.
    pub(in crate::heal) fn expired_again(&self, image: &IndexedImage, alive_at: Option<Instant>) {
        if let (Some(alive_at), Some(owner)) = (alive_at, image.owners.first()) {
            self.doubts.readers.expired_again(&owner.manifest, alive_at);
        }
    }

    /// Begins to disregard the services' answers about this image, until the truth is known.
    pub(in crate::heal) fn begin_doubt(&self, image: &IndexedImage) {
        self.doubts.images.insert(image.image_key(), (), self.doubts.lasts);
    }

    /// True while the services' answers about this image are disregarded.
    pub(in crate::heal) fn is_doubted(&self, image: &IndexedImage) -> bool {
        self.doubts.images.contains(&image.image_key())
    }

    /// Ends the doubt: the truth about this image is known. True: there was a doubt.
    pub(in crate::heal) fn end_doubt(&self, image: &IndexedImage) -> bool {
        let was_doubted = self.is_doubted(image);
        if was_doubted {
            self.doubts.images.remove(&image.image_key());
        }
        was_doubted
    }

    /// Notes that the service called an image alive that had to be healed: another server answers there, or a cache does.
    pub(in crate::heal) fn resources_lied(&self, image: &IndexedImage) {
        for service in self.of(image) {
            service.registrations.suspend(Instant::now());
        }
        self.metrics.event(EventKind::ResourcesDistrusted);
    }

    /// Remembers this image as alive: later it can show whether info.json works at all.
    pub(in crate::heal) fn set_known_alive(&self, image: &IndexedImage) {
        *self.alive_image.lock() = Some(image.clone());
    }

    /// An identifier that was alive a short while ago.
    pub(in crate::heal) fn known_alive(&self) -> Option<IndexedImage> {
        self.alive_image.lock().clone()
    }

    /// Time of the last whole build by the services of this image.
    pub(in crate::heal) fn well_at(&self, image: &IndexedImage) -> Option<Instant> {
        self.of(image).iter().filter_map(|service| service.fault_tracker.well_at()).max()
    }

    /// Time at which the services of this image were last seen to be well again.
    pub(in crate::heal) fn recovered(&self, image: &IndexedImage) -> Option<Instant> {
        self.of(image).iter().filter_map(|service| service.recovered()).max()
    }

    /// True if this request is cooling down, because it did not help a moment ago.
    pub(in crate::heal) fn cools(&self, service: &CanvasService, request: &CanvasRequestKey) -> bool {
        self.cooldowns.remaining(request, service.recovered(), Instant::now()).is_some()
    }

    /// Begins the cool-down of a request that did not help: here, and on the other nodes. Where the service refused the
    /// canvas (`was_refused`), answers to other canvases since show that this canvas is at fault.
    pub(in crate::heal) fn request_failed(
        &self,
        service: &CanvasService,
        request: &CanvasRequestKey,
        boarded: Instant,
        was_refused: bool,
    ) {
        let well_at =
            if was_refused { service.fault_tracker.built_at() } else { service.fault_tracker.well_at() };
        if let Some(pause) = self.cooldowns.record_failure(request, boarded, well_at, Instant::now())
            && let Some(cluster) = self.fleet.connected()
        {
            cluster.set_cooldown(&service.name_of(request), pause);
        }
    }

    /// Ends the cool-down of this request, here and for the other nodes.
    pub(in crate::heal) fn clear_cooldown(&self, service: &CanvasService, request: &CanvasRequestKey) {
        self.cooldowns.clear(request);
        if let Some(cluster) = self.fleet.connected() {
            cluster.clear_cooldown(&service.name_of(request));
        }
    }

    /// Takes the lead of the flight of this name on all nodes. `Err`: another node had it, and it ended with this answer.
    pub(in crate::heal) async fn try_lead(&self, name: &str) -> Result<SharedFlight, String> {
        let Some(cluster) = self.fleet.connected() else { return Ok(SharedFlight::default()) };
        match cluster.join(name, true, || {}).await {
            JoinResult::Ours(own) => Ok(own),
            JoinResult::Landed { answer, .. } => Err(answer),
            JoinResult::Cooling(_) => Err(String::new()),
        }
    }

    /// True if other nodes may have heard what this node did not.
    pub(in crate::heal) fn has_other_nodes(&self) -> bool {
        self.fleet.connected().is_some()
    }

    /// True if this service builds beside. Where this node does not know, another may.
    pub(in crate::heal) async fn honours_variants(&self, service: &CanvasService) -> Option<bool> {
        let known = service.variants.known(Instant::now());
        if let (None, Some(cluster)) = (known, self.fleet.connected())
            && let Some(honoured) = cluster.honours_variants(&service.cluster_name()).await
        {
            service.heard_of_variants(honoured);
            return Some(honoured);
        }
        known
    }
}
