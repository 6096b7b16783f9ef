//! Keep warm: the images of chosen sources are probed on a schedule, and healed in the lowest lane where they are gone, so
//! that no reader is the first to notice.

use std::sync::Arc;
use std::time::Duration;

use crate::config::settings::SourceSettings;
use crate::heal::background::scan::BackgroundScan;
use crate::heal::background::start_heal::{BackgroundContext, StartHeal};
use crate::heal::canvas_service::priority_semaphore::Priority;
use crate::heal::off_thread::off_thread;

/// `KeepWarm` probes the images of sources that are configured so (`warm`).
#[derive(Debug)]
pub(in crate::heal) struct KeepWarm {
    context: Arc<BackgroundContext>,
}

impl KeepWarm {
    pub(in crate::heal) fn new(context: Arc<BackgroundContext>) -> Self {
        Self { context }
    }

    /// Keeps the images of every source with `warm` alive. Ends at once where no source has it, or nothing is healed.
    pub(in crate::heal) async fn run(&self, heals: &Arc<dyn StartHeal>) {
        if !self.context.settings.heal.enabled {
            return;
        }
        let wanted = self.context.settings.index.sources.iter().filter(|source| source.enabled);
        let rounds = wanted.filter_map(|source| Some(self.warm_again(source, source.warm?, heals)));
        futures_util::future::join_all(rounds).await;
    }

    async fn warm_again(&self, source: &SourceSettings, every: Duration, heals: &Arc<dyn StartHeal>) {
        loop {
            tokio::time::sleep(every).await;
            let (looked_at, gone) = self.warm(source, heals).await;
            tracing::info!(looked_at, gone, "kept warm");
        }
    }

    /// Probes the images of one source once. Returns images probed, and images that were gone.
    async fn warm(&self, source: &SourceSettings, heals: &Arc<dyn StartHeal>) -> (u64, u64) {
        let (index, wanted) = (Arc::clone(self.context.lookup.index()), source.clone());
        let manifests = off_thread(move || index.manifests_of(&wanted)).await;
        let scan = BackgroundScan::new(&self.context, heals, Priority::Background);
        let (Some(Ok(manifests)), Some(scan)) = (manifests, scan) else { return (0, 0) };
        let mut scan = scan.at_sweep_rate();
        for manifest in manifests {
            scan.look_at_manifest(&manifest).await;
        }
        scan.end().await
    }
}
