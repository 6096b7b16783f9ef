//! Keep warm: the images of chosen sources are looked at on a schedule, and healed in the lowest lane where they are
//! gone, so that no reader is the one to find out.

use std::sync::Arc;
use std::time::Duration;

use crate::config::settings::Source;
use crate::heal::background::scan::BackgroundScan;
use crate::heal::canvas_service::priority_semaphore::Priority;
use crate::heal::off_thread::off_thread;
use crate::heal::ward::Ward;

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
        let manifests = off_thread(move || index.manifests_of(&wanted)).await;
        let scan = BackgroundScan::new(self, Priority::Background);
        let (Some(Ok(manifests)), Some(scan)) = (manifests, scan) else { return (0, 0) };
        let mut scan = scan.at_sweep_rate();
        for manifest in manifests {
            scan.look_at_manifest(&manifest).await;
        }
        scan.end().await
    }
}
