//! Keep warm: the images of chosen sources are looked at on a schedule, and healed in the lowest lane where they are
//! gone, so that no reader is the one to find out.

use std::sync::Arc;
use std::time::Duration;

use crate::config::settings::Source;
use crate::heal::background::book::BookProgress;
use crate::heal::background::mass_expiry::{HealQueue, per_second};
use crate::heal::canvas_service::priority_semaphore::Priority;
use crate::heal::ward::Ward;
use crate::observe::Trace;

impl Ward {
    /// Keeps the images of every source warm that asks for it. Ends at once where none does, or nothing is healed.
    pub(in crate::heal) async fn keep_warm(self: Arc<Self>) {
        if !self.settings.heal.enabled {
            return;
        }
        let wanted = self.settings.index.sources.iter().filter(|source| source.enabled);
        let rounds = wanted.filter_map(|source| Some(self.warm_again(source, source.warm?)));
        futures_util::future::join_all(rounds).await;
    }

    async fn warm_again(self: &Arc<Self>, source: &Source, every: Duration) {
        loop {
            tokio::time::sleep(every).await;
            let (looked_at, gone) = self.warm(source).await;
            tracing::info!(looked_at, gone, "kept warm");
        }
    }

    /// One round: images looked at, and images that were gone.
    async fn warm(self: &Arc<Self>, source: &Source) -> (u64, u64) {
        let (index, wanted) = (Arc::clone(&self.index), source.clone());
        let manifests = tokio::task::spawn_blocking(move || index.manifests_of(&wanted)).await;
        let (Ok(Ok(manifests)), Some(route)) = (manifests, self.image_route()) else { return (0, 0) };
        let mut pace = tokio::time::interval(per_second(self.settings.heal.sweep_rate));
        pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut progress = BookProgress::from_now();
        let (mut looked_at, mut gone, mut air) = (0, 0, HealQueue::default());
        for manifest in manifests {
            let Ok(pages) = self.index.manifest_canvases(&manifest) else { continue };
            for key in pages.iter().flat_map(|page| &page.keys) {
                pace.tick().await;
                looked_at += 1;
                let image = (&*manifest, &**key);
                let trace = Trace::fresh();
                let looked = self.look_at_page(route, image, Priority::Background, &mut progress, &trace);
                if let Some(seat) = looked.await {
                    gone += 1;
                    self.metrics.event("swept");
                    air.take(seat).await;
                }
            }
        }
        air.landed().await;
        (looked_at, gone)
    }
}
