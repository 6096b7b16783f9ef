//! What the ladder needs of a canvas service.

use std::fmt::Debug;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::heal::canvas_service::CanvasService;
use crate::heal::canvas_service::registration::Registration;
use crate::heal::canvas_service::response::CanvasResponse;
use crate::heal::canvas_service::shared_heals::Freshness;
use crate::heal::cooldowns::CanvasRequestKey;
use crate::heal::flight_priority::FlightPriority;
use crate::heal::image::IndexedImage;
use crate::heal::single_flight::FlightHandle;

/// `AskCanvasService` is what the ladder needs of a canvas service.
pub(in crate::heal) trait AskCanvasService: Debug + Send + Sync {
    /// What the service says of this identifier now (`/resources/{uuid}`).
    fn registration<'a>(&'a self, image: &'a IndexedImage) -> BoxFuture<'a, Registration>;

    /// A seat on the one request with this key, made as urgent as its order. True: it begins with this order.
    fn request(self: Arc<Self>, order: &CanvasOrder<'_>) -> (FlightHandle<CanvasResponse>, bool);

    /// A seat on the request with this key, if it is under way.
    fn find(&self, request: &CanvasRequestKey) -> Option<FlightHandle<CanvasResponse>>;

    /// Requests under way.
    fn under_way(&self) -> usize;
}

/// `CanvasOrder` is one request that is wanted of a canvas service, and for whom.
#[derive(Debug, Clone, Copy)]
pub(in crate::heal) struct CanvasOrder<'a> {
    pub(in crate::heal) service: &'a Arc<CanvasService>,
    pub(in crate::heal) request: &'a CanvasRequestKey,
    /// The image that is wanted, and in whose name.
    pub(in crate::heal) image: &'a IndexedImage,
    pub(in crate::heal) urgency: &'a Arc<FlightPriority>,
    pub(in crate::heal) wanted: Freshness,
}
