//! Shared requests to a canvas service, each once for all who need it: on this node, and across nodes. Without `[cluster]`,
//! or while Redis is away, every request is this node's own.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::time::Instant;

use crate::cluster::{JoinResult, SharedFlight};
use crate::heal::canvas_service::CanvasService;
use crate::heal::canvas_service::ask::{AskCanvasService, CanvasOrder};
use crate::heal::canvas_service::registration::Registration;
use crate::heal::canvas_service::response::CanvasResponse;
use crate::heal::canvas_service::services::CanvasServices;
pub(in crate::heal) use crate::heal::canvas_service::shared_heals::Freshness;
use crate::heal::canvas_service::shared_heals::SharedHeals;
use crate::heal::cooldowns::CanvasRequestKey;
use crate::heal::evidence::Evidence;
use crate::heal::flight_priority::FlightPriority;
use crate::heal::image::IndexedImage;
use crate::heal::image_server::{ImageServers, evidence};
use crate::heal::single_flight::{FlightHandle, SingleFlight};
use crate::observe::{EventKind, Metrics};

/// Result string for [`SharedFlight::finish`] of a repair, and of flights that carry no result.
pub(in crate::heal) const DONE: &str = "done";

/// `CanvasRequests` sends requests to canvas services, each once for all who need it.
#[derive(Debug)]
pub(in crate::heal) struct CanvasRequests {
    pub(in crate::heal) services: Arc<CanvasServices>,
    images: Arc<ImageServers>,
    fleet: Arc<SharedHeals>,
    flights: SingleFlight<CanvasRequestKey, CanvasResponse>,
    metrics: Arc<Metrics>,
}

impl AskCanvasService for CanvasRequests {
    fn registration<'a>(&'a self, image: &'a IndexedImage) -> BoxFuture<'a, Registration> {
        Box::pin(self.services.ask(image))
    }

    fn request(self: Arc<Self>, order: &CanvasOrder<'_>) -> (FlightHandle<CanvasResponse>, bool) {
        self.join(order)
    }

    fn find(&self, request: &CanvasRequestKey) -> Option<FlightHandle<CanvasResponse>> {
        self.flights.find(request)
    }

    fn under_way(&self) -> usize {
        self.flights.len()
    }
}

impl CanvasRequests {
    /// Creates the sharing of requests to canvas services. `flights`: requests under way.
    pub(in crate::heal) fn new(
        services: Arc<CanvasServices>,
        images: Arc<ImageServers>,
        fleet: Arc<SharedHeals>,
        flights: SingleFlight<CanvasRequestKey, CanvasResponse>,
    ) -> Self {
        let metrics = Arc::clone(services.metrics());
        Self { services, images, fleet, flights, metrics }
    }

    /// Joins the one request with this key, or starts it, and raises its lane to that of the order. True: this order
    /// started it.
    pub(in crate::heal) fn join(
        self: &Arc<Self>,
        order: &CanvasOrder<'_>,
    ) -> (FlightHandle<CanvasResponse>, bool) {
        let mut is_leader = false;
        let handle = self.flights.join_or_start(order.request, order.urgency.lane(), |urgency| {
            is_leader = true;
            let (requests, service) = (Arc::clone(self), Arc::clone(order.service));
            let (request, image, wanted) = (order.request.clone(), order.image.clone(), order.wanted);
            async move {
                let (service, request, image, urgency) = (&service, &request, &image, &urgency);
                requests.send_shared(&CanvasOrder { service, request, image, urgency, wanted }).await
            }
        });
        if !order.urgency.is_for_nobody() {
            handle.urgency.add_waiter();
        }
        order.urgency.depend_on(&handle.urgency);
        (handle, is_leader)
    }

    /// Sends a request of the caller's own, begun now; shared with equal ones.
    pub(in crate::heal) async fn answer(
        self: &Arc<Self>,
        service: &Arc<CanvasService>,
        request: &CanvasRequestKey,
        image: &IndexedImage,
        urgency: &Arc<FlightPriority>,
    ) -> CanvasResponse {
        let order = CanvasOrder { service, request, image, urgency, wanted: Freshness::Anew };
        let (mut handle, _) = self.join(&order);
        handle.wait().await.unwrap_or(CanvasResponse::Unwell)
    }

    /// Evidence about the image now.
    pub(in crate::heal) async fn evidence(&self, image: &IndexedImage) -> Evidence {
        evidence(self.services.ask(image).await, &*self.images, image).await
    }

    /// Leads the flight for all nodes and sends the request; or waits for the node that leads it.
    async fn send_shared(&self, order: &CanvasOrder<'_>) -> CanvasResponse {
        let Some(cluster) = self.fleet.connected() else {
            return self.send(order, &SharedFlight::default()).await;
        };
        let name = order.service.name_of(order.request);
        let (mut anew, mut is_second) = (order.wanted == Freshness::Anew, false);
        loop {
            match cluster.join(&name, anew, || order.urgency.mark_sent()).await {
                JoinResult::Ours(own) => {
                    let answer = self.send(order, &own).await;
                    // No request was sent. The flight is dropped without an answer, so that a waiter may try.
                    if !matches!(answer, CanvasResponse::Withheld | CanvasResponse::Needless) {
                        own.finish(answer.as_str());
                    }
                    return answer;
                }
                JoinResult::Landed { answer, before } => {
                    let answer = CanvasResponse::from_word(&answer);
                    // The request of a moment ago helped, or that of the other node began before this order, and the image
                    // is gone again. (A stored canvas, visited once more, would bring the same.)
                    let may_be_old =
                        before || self.services.honours_variants(order.service).await == Some(true);
                    if may_be_old
                        && !is_second
                        && answer.may_help()
                        && self.evidence(order.image).await != Evidence::Alive
                    {
                        (anew, is_second) = (true, true);
                        continue;
                    }
                    self.metrics.event(EventKind::ClusterShared);
                    order.urgency.mark_sent();
                    return answer;
                }
                JoinResult::Cooling(left) => {
                    self.services.cooldowns.set_remaining(order.request, left, Instant::now());
                    return CanvasResponse::Withheld;
                }
            }
        }
    }

    /// Announces to the other nodes whether this service builds beside, if that is known by now.
    pub(in crate::heal) fn share_variants(&self, service: &CanvasService) {
        if let (Some(honoured), Some(cluster)) =
            (service.variants.known(Instant::now()), self.fleet.connected())
            && service.variants.is_to_be_shared(Instant::now())
        {
            let lasts = crate::heal::canvas_service::variants::RETRY_AFTER;
            cluster.tell_variants(&service.cluster_name(), honoured, lasts);
        }
    }
}

impl CanvasResponse {
    /// True if the image may be back after this answer.
    fn may_help(self) -> bool {
        matches!(self, Self::Built | Self::Carries | Self::Unclear | Self::Lacks)
    }

    fn from_word(word: &str) -> Self {
        let known = [Self::Carries, Self::Lacks, Self::Unclear, Self::Refused, Self::Busy];
        known.into_iter().find(|answer| answer.as_str() == word).unwrap_or(Self::Unwell)
    }
}
