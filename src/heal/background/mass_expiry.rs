//! Mass expiry: Redis was flushed or restarted, and everything is gone at once.
//!
//! UPSTREAM: no key has a time to live, so expiry is eviction, a flush or a restart, and tends to hit many identifiers at
//! once (upstream.md "Redis"). Images that viewers ask for are healed first; then the rest of the manifests in use, in the
//! ahead lane; then, if configured, everything, in the sweep lane.

use std::sync::Arc;

use tokio::time::Instant;

use crate::heal::background::mass_expiry_detector::{MassExpiryDetector, OVER_AFTER};
use crate::heal::background::reading::ReadingActivity;
use crate::heal::background::scan::BackgroundScan;
use crate::heal::background::start_heal::{BackgroundContext, StartHeal};
use crate::heal::background::sweep::Sweep;
use crate::heal::canvas_service::priority_semaphore::Priority;
use crate::heal::canvas_service::shared_heals::SharedHeals;
use crate::heal::image::IndexedImage;
use crate::observe::{EventKind, LiveEvent, RequestTrace};

/// Sweeps of the whole index for one mass expiry, at most.
const SWEEPS: usize = 2;

/// `MassExpiry` notices that everything expired, and has it healed.
#[derive(Debug)]
pub(in crate::heal) struct MassExpiry {
    context: Arc<BackgroundContext>,
    readers: Arc<ReadingActivity>,
    detector: Arc<MassExpiryDetector>,
    sweep: Arc<Sweep>,
    fleet: Arc<SharedHeals>,
}

impl MassExpiry {
    pub(in crate::heal) fn new(
        context: Arc<BackgroundContext>,
        readers: Arc<ReadingActivity>,
        detector: Arc<MassExpiryDetector>,
        sweep: Arc<Sweep>,
        fleet: Arc<SharedHeals>,
    ) -> Self {
        Self { context, readers, detector, sweep, fleet }
    }

    /// Notes that an image was found expired.
    pub(in crate::heal) fn note_expired(self: &Arc<Self>, image: &IndexedImage, heals: Arc<dyn StartHeal>) {
        let (bounds, sweeps) = (self.context.settings.heal.mass_expiry, self.context.settings.heal.sweep);
        let begins = self.detector.note(&image.key, bounds, Instant::now());
        // With other nodes, expired images are counted over all nodes.
        if let Some(cluster) = self.fleet.connected() {
            let (cluster, own) = (Arc::clone(cluster), Arc::clone(self));
            let (key, trace) = (Arc::clone(&image.key), image.trace.clone());
            tokio::spawn(async move {
                let lasts = bounds.within * OVER_AFTER;
                if cluster.expired(&key, bounds.ids, bounds.within, lasts).await {
                    own.begins(&trace, sweeps, heals);
                }
            });
        } else if begins {
            self.begins(&image.trace, sweeps, heals);
        }
    }

    /// Follows mass expiries that other nodes announce. Ends at once where there are no other nodes.
    pub(in crate::heal) async fn heed_the_fleet(self: Arc<Self>, heals: Arc<dyn StartHeal>) {
        let Some(mut begins) = self.fleet.cluster.as_ref().map(|cluster| cluster.mass_expiries()) else {
            return;
        };
        while begins.changed().await.is_ok() {
            // The node that found the mass expiry sweeps; this node heals for its own readers.
            self.begins(&RequestTrace::generate(), false, Arc::clone(&heals));
        }
    }

    /// Begins the work for a mass expiry. `sweep`: this node also sweeps the whole index afterwards.
    fn begins(self: &Arc<Self>, trace: &RequestTrace, sweep: bool, heals: Arc<dyn StartHeal>) {
        self.context.metrics.event(EventKind::MassExpiry);
        let in_use = self.readers.in_use();
        self.context.metrics.publish(|| LiveEvent::MassExpiry { manifests: in_use.len() });
        tracing::warn!(
            request = %trace,
            manifests = in_use.len(),
            sweep,
            "mass expiry: many images are gone at once, as after a flush; healing what is being read"
        );
        let (own, trace) = (Arc::clone(self), trace.clone());
        self.context.home.spawn(async move {
            own.heal_manifests(in_use, &trace, &heals).await;
            // Images that expired behind the sweep while it ran are swept too: once more, but not for ever.
            for _ in 0..SWEEPS {
                if !sweep {
                    return;
                }
                own.detector.begins_anew();
                own.sweep.run(&heals).await;
                if !own.detector.ends() {
                    return;
                }
            }
        });
    }

    async fn heal_manifests(
        &self,
        manifests: Vec<Arc<str>>,
        trace: &RequestTrace,
        heals: &Arc<dyn StartHeal>,
    ) {
        let Some(scan) = BackgroundScan::new(&self.context, heals, Priority::Prefetch) else { return };
        let mut scan = scan.in_the_name_of(trace);
        for manifest in manifests {
            self.readers.all_expired(&manifest);
            scan.look_at_manifest(&manifest).await;
        }
        scan.end().await;
    }
}
