//! Mass expiry: Redis was flushed or restarted, and everything is gone at once.
//!
//! UPSTREAM: no key has a time to live, so expiry is eviction, a flush or a restart, and tends to hit many
//! identifiers at once (upstream.md "Redis"). What viewers ask for is healed first, as ever; then the rest of the
//! manifests in use, in the ahead lane; then, if configured, everything, in the sweep lane.

use std::sync::Arc;

use tokio::time::Instant;

use crate::heal::background::scan::BackgroundScan;
use crate::heal::canvas_service::priority_semaphore::Priority;
use crate::heal::ward::{IndexedImage, Ward};
use crate::observe::{Event, Trace};

/// How often the index is gone through for one mass expiry, at most.
const SWEEPS: usize = 2;

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
        let Some(scan) = BackgroundScan::new(self, Priority::Prefetch) else { return };
        let mut scan = scan.in_the_name_of(trace);
        for manifest in manifests {
            self.readers.all_expired(&manifest);
            scan.look_at_manifest(&manifest).await;
        }
        scan.end().await;
    }
}
