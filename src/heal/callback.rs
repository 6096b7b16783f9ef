//! Echoes: the canvas service's own info.json request, which comes back through us while the service builds a canvas.
//!
//! UPSTREAM: the service holds two outbound connections per host, and its nested info.json normally goes to the public
//! host, which is us (upstream.md "The parts", "Load"). An echo that waits for the flight that caused it is a deadlock;
//! every echo must go straight through, whatever the image server answers.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use http::StatusCode;
use http::header::{COOKIE, USER_AGENT, VIA};
use http::request::Parts;
use ipnet::IpNet;

use crate::config::Settings;
use crate::config::settings::{Rung, is_among};
use crate::heal::canvas_service::ask::AskCanvasService;
use crate::heal::canvas_service::register_path::register_path;
use crate::heal::canvas_service::request::CanvasRequest;
use crate::heal::canvas_service::response::CanvasResponse;
use crate::heal::canvas_service::shared_request::CanvasRequests;
use crate::heal::cooldowns::CanvasRequestKey;
use crate::heal::image::RoutedImage;
use crate::heal::image_lookup::ImageLookup;
use crate::heal::single_flight::FlightHandle;
use crate::heal::timed_cache::TimedCache;
use crate::iiif::{IdentifierKind, Target};
use crate::observe::EventKind;

/// True if this request is an echo for certain: it comes from an address of the canvas service (`heal.origins`), or carries
/// our own `Via`.
fn is_echo(headers: &HeaderMap, client: IpAddr, origins: &[IpNet], name: &str) -> bool {
    is_among(client, origins) || own_vias(headers, name) > 0
}

/// Number of `Via` entries with our own name (RFC 9110 section 7.6.3).
pub fn own_vias(headers: &HeaderMap, name: &str) -> usize {
    if !headers.contains_key(VIA) {
        return 0;
    }
    let hops = headers.get_all(VIA).iter().filter_map(|value| value.to_str().ok()).flat_map(|v| v.split(','));
    hops.filter(|hop| hop.split_whitespace().nth(1) == Some(name)).count()
}

/// True for an info.json request in the service's form: Apache's HTTP client on Java, without cookies or a query.
pub fn looks_like_service(target: Target<'_>, head: &Parts) -> bool {
    let headers = &head.headers;
    if target != Target::Info || head.uri.query().is_some() {
        return false;
    }
    let agent = headers.get(USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    agent.starts_with("Apache-HttpClient/") && agent.contains("Java/") && !headers.contains_key(COOKIE)
}

/// An address is known for this long after its last echo.
const KNOWN_FOR: Duration = Duration::from_hours(1);

/// `Callbacks` tells the canvas service's own requests from those of viewers.
#[derive(Debug)]
pub(in crate::heal) struct Callbacks {
    settings: Arc<Settings>,
    lookup: Arc<ImageLookup>,
    requests: Arc<CanvasRequests>,
    /// Addresses that echoes came from.
    callers: TimedCache<IpAddr>,
}

impl Callbacks {
    pub(in crate::heal) fn new(
        settings: Arc<Settings>,
        lookup: Arc<ImageLookup>,
        requests: Arc<CanvasRequests>,
        callers: TimedCache<IpAddr>,
    ) -> Self {
        Self { settings, lookup, requests, callers }
    }

    /// True if this is the canvas service's own request, which must not wait for the heal that caused it.
    ///
    /// SECURITY: any client can imitate the service, and an echo is not healed. So the form of a request counts only for
    /// the image of a canvas that is being built for us, and from an address that such an echo came from before.
    pub(in crate::heal) fn is_callback(&self, at: &RoutedImage<'_>, head: &Parts, client: IpAddr) -> bool {
        let settings = &self.settings;
        if is_echo(&head.headers, client, &settings.heal.origins, &settings.server.name) {
            return true;
        }
        if !looks_like_service(at.request.target, head) {
            return false;
        }
        let is_built = self.flight_of(at).is_some();
        if is_built {
            self.callers.insert(client, (), KNOWN_FOR);
        }
        is_built || self.callers.contains(&client)
    }

    /// Request under way for a canvas of this image, or for its file, with its rung.
    fn flight_of(&self, at: &RoutedImage<'_>) -> Option<(Rung, FlightHandle<CanvasResponse>)> {
        if self.requests.under_way() == 0 {
            return None;
        }
        let services = &self.requests.services;
        let owners = self.lookup.owners(at);
        let canvases = owners.iter().filter_map(|owner| services.asked_canvas(&owner.canvas));
        let requests = canvases.flat_map(|(_, canvas)| {
            let plain = [CanvasRequest::visit(&canvas), CanvasRequest::rebuild(&canvas)];
            plain.into_iter().chain(CanvasRequest::variant(&canvas))
        });
        let mut keys = requests.map(|request| request.flight);
        let registers = || {
            let IdentifierKind::Uuid { uuid, .. } = at.request.identifier.kind() else { return None };
            let target: Arc<str> = services.files().of(uuid).as_deref().and_then(register_path)?.into();
            let key =
                |mark| CanvasRequestKey { service: mark, target: Arc::clone(&target), rung: Rung::Register };
            let register =
                services.all().iter().find_map(|service| self.requests.find(&key(service.mark)))?;
            Some((Rung::Register, register))
        };
        keys.find_map(|key| Some((key.rung, self.requests.find(&key)?))).or_else(registers)
    }

    /// Notes that the canvas service's own info.json request was answered with `status`.
    pub(in crate::heal) fn answered(&self, at: &RoutedImage<'_>, status: StatusCode) {
        let services = &self.requests.services;
        services.metrics().event(EventKind::Echo);
        let owners = self.lookup.owners(at);
        if owners.is_empty() {
            return;
        }
        if status.is_success() {
            let service = self.lookup.service_index(&owners);
            self.lookup.addresses.found(service, at.route, at.request.identifier.as_sent());
        }
        // The echo of a canvas that is not being built for us tells nothing.
        let Some((rung, flight)) = self.flight_of(at) else { return };
        flight.urgency.note_echo();
        // UPSTREAM: the service registers a file without a look at it: a file store in trouble would not show.
        if rung == Rung::Register && status.is_success() {
            return;
        }
        let asked = owners.iter().find_map(|owner| services.asked_canvas(&owner.canvas));
        let service = asked.map(|(service, _)| service).or_else(|| services.all().first().cloned());
        if let Some(service) = service {
            service.fault_tracker.record_callback(status);
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const VIEWER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));

    fn headers(pairs: &[(http::HeaderName, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    fn head(target: &str, headers: &HeaderMap) -> Parts {
        let (mut head, ()) = http::Request::get(target).body(()).expect("a request").into_parts();
        head.headers = headers.clone();
        head
    }

    fn echo(headers: &HeaderMap) -> bool {
        is_echo(headers, VIEWER, &[], "iiif-mender")
    }

    #[test]
    fn the_services_own_info_json_sounds_like_it_and_its_other_requests_do_not() {
        let service = headers(&[(USER_AGENT, "Apache-HttpClient/4.5.13 (Java/11.0.16)")]);
        assert!(looks_like_service(Target::Info, &head("/a/info.json", &service)));
        assert!(!looks_like_service(Target::Base, &head("/a", &service)));
        assert!(!looks_like_service(Target::Info, &head("/a/info.json?x", &service)));
    }

    #[test]
    fn a_browser_is_no_echo() {
        let browser = headers(&[(USER_AGENT, "Mozilla/5.0"), (VIA, "1.1 campus-cache")]);
        assert!(!echo(&browser) && !looks_like_service(Target::Info, &head("/a/info.json", &browser)));
    }

    #[test]
    fn our_own_via_in_any_line_and_place_is_an_echo() {
        for via in ["1.1 iiif-mender", "2.0 edge, 1.1 iiif-mender (x), 1.1 z", "HTTP/1.1 iiif-mender"] {
            assert!(echo(&headers(&[(VIA, via)])), "{via}");
        }
        assert!(!echo(&headers(&[(VIA, "1.1 not-iiif-mender")])));
    }

    #[test]
    fn the_services_addresses_are_echoes_whatever_they_ask() {
        let origins = ["192.0.2.0/24".parse().expect("a net")];
        assert!(is_echo(&HeaderMap::new(), VIEWER, &origins, "iiif-mender"));
    }
}
