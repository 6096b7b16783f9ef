//! Checks the setup while serving: at the start, whenever sources were read, and every so often.

use std::sync::Arc;
use std::time::Duration;

use super::services::{ProcessState, Services};
use crate::setup;

/// An index whose sources are read for the first time is no finding: the first check waits for it, but not longer.
const FIRST: Duration = Duration::from_secs(10);

/// A folder into which much is copied is read again and again.
const SHORTEST: Duration = Duration::from_secs(1);

/// Checks the setup periodically; ends at once where no check is configured.
pub(super) fn check_setup(
    services: &Services,
    state: &ProcessState,
) -> impl Future<Output = ()> + Send + use<> {
    let (healer, settings) = (services.healer.clone(), Arc::clone(&services.settings));
    let (index, metrics, status) =
        (Arc::clone(&state.index), Arc::clone(&state.metrics), state.setup.clone());
    let mut read = index.all_read();
    async move {
        let every = settings.admin.setup_check;
        let mut pause = FIRST.min(every);
        // Without a schedule the problems would never be updated: they are cleared.
        if every.is_zero() && !status.problems().is_empty() {
            status.update(&[], &metrics);
        }
        while !every.is_zero() {
            let _ = tokio::time::timeout(pause, read.changed()).await;
            // After a check that cannot be made, the last findings stand.
            if let Some(findings) = setup::check(&healer, &index, &settings).await {
                status.update(&findings, &metrics);
            }
            tokio::time::sleep(SHORTEST.min(every)).await;
            pause = every;
        }
    }
}
