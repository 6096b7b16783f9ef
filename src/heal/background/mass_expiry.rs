//! Mass expiry: Redis was flushed or restarted, and everything is gone at once.
//!
//! UPSTREAM: no key has a time to live, so expiry is eviction, a flush or a restart, and tends to hit many
//! identifiers at once (upstream.md "Redis"). What viewers ask for is healed first, as ever; then the rest of the
//! manifests in use, in the ahead lane; then, if configured, everything, in the sweep lane.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use crate::heal::ladder::HealOutcome;
use crate::heal::single_flight::FlightHandle;

use crate::config::settings::{Route, RouteKind};
use crate::heal::background::book::BookProgress;
use crate::heal::canvas_service::priority_semaphore::Priority;
use crate::heal::ward::{IndexedImage, Ward};
use crate::observe::{Event, Trace};

/// How often the index is gone through for one mass expiry, at most.
const SWEEPS: usize = 2;

/// Climbs that nobody waits for, in the air at once: enough to keep every lane busy, not enough to fill memory.
pub(in crate::heal) const AT_ONCE: usize = 16;

impl Ward {
    /// An identifier was found expired.
    pub(in crate::heal) fn note_expired(self: &Arc<Self>, patient: &IndexedImage) {
        let begins = self.expiries.note(&patient.key, Instant::now());
        // Where there are other nodes, all count together.
        if !self.tell_expired(patient) && begins {
            self.mass_expiry(&patient.trace, self.settings.heal.sweep);
        }
    }

    /// A mass expiry begins; `sweep`: it is ours to go through the whole index afterwards.
    pub(in crate::heal) fn mass_expiry(self: &Arc<Self>, trace: &Trace, sweep: bool) {
        self.metrics.event("mass_expiry");
        let in_use = self.readers.in_use();
        self.metrics.tell(|| Event::MassExpiry { manifests: in_use.len() });
        tracing::warn!(
            request = %trace,
            manifests = in_use.len(),
            sweep,
            "mass expiry: many images are gone at once, as after a flush; healing what is being read"
        );
        let (ward, trace) = (Arc::clone(self), trace.clone());
        self.home.spawn(async move {
            ward.heal_manifests(in_use, &trace).await;
            // What expired behind the sweep while it went on is swept, too: once more, and not without end.
            for _ in 0..SWEEPS {
                if !sweep {
                    return;
                }
                ward.expiries.begins_anew();
                ward.sweep_all().await;
                if !ward.expiries.ends() {
                    return;
                }
            }
        });
    }

    async fn heal_manifests(self: &Arc<Self>, manifests: Vec<Arc<str>>, trace: &Trace) {
        let Some(route) = self.image_route() else { return };
        let mut progress = BookProgress::from_now();
        let mut air = HealQueue::default();
        for manifest in manifests {
            let Ok(pages) = self.index.manifest_canvases(&manifest) else { continue };
            self.readers.found_expired(&manifest);
            for key in pages.iter().flat_map(|page| &page.keys) {
                let image = (&*manifest, &**key);
                let looked = self.look_at_page(route, image, Priority::Prefetch, &mut progress, trace);
                if let Some(seat) = looked.await {
                    air.take(seat).await;
                }
            }
        }
        air.landed().await;
    }

    /// The image route that background heals ask. `None`: image routes lead to several servers, and it is not known yet
    /// which of them has what is indexed. (Readers show it, and the canvas service, which asks for what it builds.)
    pub(in crate::heal) fn image_route(&self) -> Option<usize> {
        let seen = self.image_route.load(Ordering::Relaxed);
        if seen < self.settings.routes.len() {
            return Some(seen);
        }
        let first = self.any_image_route()?;
        let is_image = |route: &&Route| route.kind == RouteKind::Image;
        let server = &self.settings.routes[first].upstream;
        let mut images = self.settings.routes.iter().filter(is_image);
        images.all(|route| route.upstream.authority == server.authority).then_some(first)
    }

    /// The same; where it is not known, the first one.
    pub(in crate::heal) fn any_image_route(&self) -> Option<usize> {
        let seen = self.image_route.load(Ordering::Relaxed);
        let is_image = |route: &Route| route.kind == RouteKind::Image;
        let first = || self.settings.routes.iter().position(is_image);
        if seen < self.settings.routes.len() { Some(seen) } else { first() }
    }
}

/// Climbs in the air, a bounded number.
#[derive(Debug, Default)]
pub(in crate::heal) struct HealQueue(VecDeque<FlightHandle<HealOutcome>>);

impl HealQueue {
    /// One more; waits for the oldest first when there are too many.
    pub(in crate::heal) async fn take(&mut self, seat: FlightHandle<HealOutcome>) -> Option<HealOutcome> {
        self.0.push_back(seat);
        if self.0.len() <= AT_ONCE {
            return None;
        }
        match self.0.pop_front() {
            Some(mut oldest) => oldest.landed().await,
            None => None,
        }
    }

    /// Waits for all of them.
    pub(in crate::heal) async fn landed(&mut self) {
        for mut seat in self.0.drain(..) {
            seat.landed().await;
        }
    }
}

/// Shown so that a sweep's pause reads as one.
pub(in crate::heal) fn per_second(rate: u32) -> Duration {
    Duration::from_secs(1) / rate.max(1)
}
