//! Permits to have one canvas service build something.

use tokio::time::Instant;

use crate::cluster::{self, PermitResult};
use crate::heal::canvas_service::CanvasService;
use crate::heal::canvas_service::permit_files::PermitFile;
use crate::heal::canvas_service::priority_semaphore::{Priority, PriorityPermit};
use crate::heal::cooldowns::CanvasRequestKey;
use crate::heal::flight_priority::FlightPriority;

/// `BuildPermit` is the right to send one request that makes the service build: here, on all nodes, and on this machine.
#[derive(Debug)]
pub(in crate::heal) struct BuildPermit {
    #[expect(dead_code, reason = "given back when it is dropped")]
    own: PriorityPermit,
    #[expect(dead_code, reason = "given back when it is dropped")]
    shared: cluster::SharedPermit,
    file: PermitFile,
}

impl BuildPermit {
    /// True if another process may have done the same just now.
    pub(in crate::heal) fn was_contended(&self) -> bool {
        self.file.was_contended
    }
}

impl CanvasService {
    /// Waits for a permit of this process, in the current lane, and for one that all nodes share, or other processes on
    /// this machine. `None`: another node found that the service only fails. `flight`: key of the request, unless it may be
    /// sent twice.
    pub(in crate::heal) async fn acquire_permit(
        &self,
        urgency: &FlightPriority,
        flight: Option<&CanvasRequestKey>,
    ) -> Option<BuildPermit> {
        let own = urgency.acquire(&self.lanes).await;
        self.acquire_shared(own, urgency.lane() == Priority::Viewer, flight).await
    }

    /// Waits for the shared permit alone: the caller has one here.
    pub(in crate::heal) async fn acquire_shared(
        &self,
        own: PriorityPermit,
        is_first: bool,
        flight: Option<&CanvasRequestKey>,
    ) -> Option<BuildPermit> {
        let Some(cluster) = &self.cluster else {
            // One process at a time has a whole manifest built.
            let book = || format!("book {}", self.cluster_name());
            let request = flight.map(|flight| if flight.is_book() { book() } else { self.name_of(flight) });
            let file = self.files.acquire(self.permits, request.as_deref(), self.bounds.hang_after).await;
            return Some(BuildPermit { own, shared: cluster::SharedPermit::default(), file });
        };
        match cluster.acquire(&self.authority, self.permits, is_first).await {
            PermitResult::Granted(shared) => Some(BuildPermit { own, shared, file: PermitFile::default() }),
            PermitResult::BreakerOpen(left) => {
                if self.breaker_is_closed() {
                    self.emit_breaker_event(true);
                }
                self.breaker.force_open(Instant::now() + left);
                None
            }
        }
    }
}
