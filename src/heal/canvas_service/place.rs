//! The right to have one canvas service build something.

use tokio::time::Instant;

use crate::cluster::{self, Placed};
use crate::heal::canvas_service::CanvasService;
use crate::heal::canvas_service::place_files::PlaceFile;
use crate::heal::canvas_service::priority_semaphore::{Permit, Priority};
use crate::heal::cooldowns::CanvasRequestKey;
use crate::heal::flight_priority::FlightPriority;

/// The right to send one request that makes the service build: here, on all nodes, and on this machine.
#[derive(Debug)]
pub(in crate::heal) struct Place {
    #[expect(dead_code, reason = "given back when it is dropped")]
    own: Permit,
    #[expect(dead_code, reason = "given back when it is dropped")]
    shared: cluster::Place,
    file: PlaceFile,
}

impl Place {
    /// Another process may have done what we are about to do.
    pub(in crate::heal) fn was_contended(&self) -> bool {
        self.file.was_contended
    }
}

impl CanvasService {
    /// A place here, in the lane that is right by then, and with it one among all nodes' requests, or among those of other
    /// processes on this machine. `None`: another node found that the service only fails.
    /// `flight`: what is asked for, unless it may be asked for twice.
    pub(in crate::heal) async fn place(
        &self,
        urgency: &FlightPriority,
        flight: Option<&CanvasRequestKey>,
    ) -> Option<Place> {
        let own = urgency.place(&self.lanes).await;
        self.share_place(own, urgency.lane() == Priority::Viewer, flight).await
    }

    /// The same for one who has a place here.
    pub(in crate::heal) async fn share_place(
        &self,
        own: Permit,
        is_first: bool,
        flight: Option<&CanvasRequestKey>,
    ) -> Option<Place> {
        let Some(cluster) = &self.cluster else {
            // Of all processes one has a whole manifest built.
            let book = || format!("book {}", self.cluster_name());
            let request = flight.map(|flight| if flight.is_book() { book() } else { self.name_of(flight) });
            let file = self.files.place(self.places, request.as_deref(), self.bounds.hang_after).await;
            return Some(Place { own, shared: cluster::Place::default(), file });
        };
        match cluster.place(&self.authority, self.places, is_first).await {
            Placed::Place(shared) => Some(Place { own, shared, file: PlaceFile::default() }),
            Placed::LeftAlone(left) => {
                if self.breaker_is_closed() {
                    self.tell(true);
                }
                self.breaker.leave_alone(Instant::now() + left);
                None
            }
        }
    }
}
