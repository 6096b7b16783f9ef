//! The canvas service as a trait for the ladder.

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

/// `AskCanvasService` is a canvas service as the ladder uses it.
pub(in crate::heal) trait AskCanvasService: Debug + Send + Sync {
    /// Current answer of the service about this identifier (`/resources/{uuid}`).
    fn registration<'a>(&'a self, image: &'a IndexedImage) -> BoxFuture<'a, Registration>;

    /// Joins the one request with this key, or starts it, and raises its lane to that of the order. True: this order
    /// started it.
    fn request(self: Arc<Self>, order: &CanvasOrder<'_>) -> (FlightHandle<CanvasResponse>, bool);

    /// Joins the request with this key, if it is under way.
    fn find(&self, request: &CanvasRequestKey) -> Option<FlightHandle<CanvasResponse>>;

    /// Number of requests under way.
    fn under_way(&self) -> usize;
}

/// `CanvasOrder` is one request to be sent to a canvas service, with the image that needs it.
#[derive(Debug, Clone, Copy)]
pub(in crate::heal) struct CanvasOrder<'a> {
    pub(in crate::heal) service: &'a Arc<CanvasService>,
    pub(in crate::heal) request: &'a CanvasRequestKey,
    /// Wanted image, with the trace of the request.
    pub(in crate::heal) image: &'a IndexedImage,
    pub(in crate::heal) urgency: &'a Arc<FlightPriority>,
    pub(in crate::heal) wanted: Freshness,
}
