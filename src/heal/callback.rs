//! The echo: the canvas service's own info.json request, coming back through us while it builds a canvas.
//!
//! UPSTREAM: the service holds two outbound connections per host, and its nested info.json normally goes to the
//! public host, which is us (upstream.md "The parts", "Load"). An echo that waits for the flight that caused it is
//! a deadlock; it must go straight through, whatever the image server says.

use std::net::IpAddr;
use std::sync::Arc;

use http::HeaderMap;
use http::StatusCode;
use http::header::{COOKIE, USER_AGENT, VIA};
use ipnet::IpNet;

use crate::config::settings::is_among;
use crate::heal::ward::{RoutedImage, Ward};
use crate::iiif::Target;

/// Is this request an echo? Any one sign is enough:
/// it comes from an address of the canvas service (`heal.origins`); it carries our own `Via`; it asks for info.json
/// in the service's voice: Apache's HTTP client on Java, without cookies or a query.
pub fn is_echo(
    target: Target<'_>,
    has_query: bool,
    headers: &HeaderMap,
    client: IpAddr,
    origins: &[IpNet],
    name: &str,
) -> bool {
    is_among(client, origins)
        || own_vias(headers, name) > 0
        || (target == Target::Info && !has_query && is_services_voice(headers))
}

/// How often our own name stands in `Via` (RFC 9110 section 7.6.3).
pub fn own_vias(headers: &HeaderMap, name: &str) -> usize {
    let hops = headers.get_all(VIA).iter().filter_map(|value| value.to_str().ok()).flat_map(|v| v.split(','));
    hops.filter(|hop| hop.split_whitespace().nth(1) == Some(name)).count()
}

fn is_services_voice(headers: &HeaderMap) -> bool {
    let agent = headers.get(USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    agent.starts_with("Apache-HttpClient/") && agent.contains("Java/") && !headers.contains_key(COOKIE)
}

impl Ward {
    /// The canvas service's own info.json request was answered with `status`.
    pub(in crate::heal) fn echo_answered(&self, at: &RoutedImage<'_>, status: StatusCode) {
        self.metrics.event("echo");
        // SECURITY: anybody can sound like the service. Unless we are having a canvas built, this says nothing; or
        // a stranger who asks for expired images would keep us from rebuilding them.
        if self.canvases.len() == 0 {
            return;
        }
        let key = at.request.identifier.key();
        let owners = self.index.owners(&key).unwrap_or_else(|_| Arc::new([]));
        let allowed = owners.iter().find_map(|owner| self.guard.allow(&owner.canvas));
        let service = allowed.and_then(|allowed| self.service(allowed.route)).or(self.services.first());
        if let (Some(service), false) = (service, owners.is_empty()) {
            service.wellness.echo(status);
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

    fn echo(target: Target<'_>, headers: &HeaderMap) -> bool {
        is_echo(target, false, headers, VIEWER, &[], "iiif-mender")
    }

    #[test]
    fn the_services_own_info_json_is_an_echo_and_its_other_requests_are_not() {
        let service = headers(&[(USER_AGENT, "Apache-HttpClient/4.5.13 (Java/11.0.16)")]);
        assert!(echo(Target::Info, &service));
        assert!(!echo(Target::Base, &service));
        assert!(!is_echo(Target::Info, true, &service, VIEWER, &[], "iiif-mender"));
    }

    #[test]
    fn a_browser_is_no_echo() {
        let browser = headers(&[(USER_AGENT, "Mozilla/5.0"), (VIA, "1.1 campus-cache")]);
        assert!(!echo(Target::Info, &browser));
    }

    #[test]
    fn our_own_via_in_any_line_and_place_is_an_echo() {
        for via in ["1.1 iiif-mender", "2.0 edge, 1.1 iiif-mender (x), 1.1 z", "HTTP/1.1 iiif-mender"] {
            assert!(echo(Target::Base, &headers(&[(VIA, via)])), "{via}");
        }
        assert!(!echo(Target::Base, &headers(&[(VIA, "1.1 not-iiif-mender")])));
    }

    #[test]
    fn the_services_addresses_are_echoes_whatever_they_ask() {
        let origins = ["192.0.2.0/24".parse().expect("a net")];
        assert!(is_echo(Target::Other, true, &HeaderMap::new(), VIEWER, &origins, "iiif-mender"));
    }
}
