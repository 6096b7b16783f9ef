//! Images that a request or a heal is about.

use std::sync::Arc;

use uuid::Uuid;

use crate::heal::flight_priority::FlightPriority;
use crate::heal::image_address::ImageAddress;
use crate::iiif::{IdentifierKind, ImageRequest};
use crate::index::Owner;
use crate::observe::{RequestTrace, Span};

/// `RoutedImage` is an image request on its route.
#[derive(Debug, Clone, Copy)]
pub struct RoutedImage<'a> {
    /// Position of the image route in `settings.routes`.
    pub route: usize,
    /// The request as read.
    pub request: ImageRequest<'a>,
    /// Trace of the request.
    pub trace: &'a RequestTrace,
}

/// `IndexedImage` is an image that may be healed.
#[derive(Debug, Clone)]
pub struct IndexedImage {
    /// Position of the image route in `settings.routes`.
    pub(in crate::heal) route: usize,
    /// The [mark](crate::config::settings::RouteSettings::mark) of that route.
    pub(in crate::heal) mark: u64,
    /// Lookup key.
    pub(in crate::heal) key: Arc<str>,
    /// Identifier as sent.
    pub(in crate::heal) sent: Arc<str>,
    /// Other possible addresses of the image, if no request has shown its own.
    pub(in crate::heal) others: Arc<[ImageAddress]>,
    pub(in crate::heal) kind: IdentifierKind,
    /// Position of the canvas service among all of them.
    pub(in crate::heal) service: usize,
    pub(in crate::heal) owners: Arc<[Owner]>,
    /// Trace of the request that the work on this image is done for.
    pub(in crate::heal) trace: RequestTrace,
}

/// `ImageKey` is a lookup key behind the image route with this mark.
pub(in crate::heal) type ImageKey = (u64, Arc<str>);

impl IndexedImage {
    /// Key by which the image is remembered; a reload of the configuration does not change it.
    pub(in crate::heal) fn image_key(&self) -> ImageKey {
        (self.mark, Arc::clone(&self.key))
    }

    /// UUID of the identifier, where it is one.
    pub(in crate::heal) fn uuid(&self) -> Option<Uuid> {
        match self.kind {
            IdentifierKind::Uuid { uuid, .. } => Some(uuid),
            _ => None,
        }
    }

    /// The image with a trace below `span`.
    pub(in crate::heal) fn with_span(&self, span: &Span) -> Self {
        Self { trace: span.within(&self.trace), ..self.clone() }
    }

    /// Lookup key, for logs.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Logs which request leads the heal that this one waits for, where it is another.
    pub(in crate::heal) fn log_leader(&self, heal: &FlightPriority) {
        if let Some(leader) = heal.leader().filter(|leader| **leader != self.trace) {
            tracing::info!(request = %self.trace, led_by = %leader, identifier = &*self.key, "waits for a heal");
        }
    }

    /// The image with the trace of this request.
    #[must_use]
    pub fn in_the_name_of(self, trace: RequestTrace) -> Self {
        Self { trace, ..self }
    }

    /// Canvases that own the image, in the order of the index.
    pub fn canvases(&self) -> impl Iterator<Item = &str> {
        self.owners.iter().map(|owner| owner.canvas.as_str())
    }
}
