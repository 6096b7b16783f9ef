//! Fields that every request or answer gains or loses, at the least cost.

use http::header::{self, HeaderValue};
use http::{HeaderMap, Version};

/// `Via` entries that we add (RFC 9110 section 7.6.3), made once.
#[derive(Debug)]
pub(super) struct ViaValue {
    /// Entries by version of the message.
    own: [HeaderValue; 4],
}

impl ViaValue {
    /// Makes the entries. `name` is our own name; one that cannot be written in a field stands as `-`.
    pub(super) fn new(name: &str) -> Self {
        let own = |version| {
            let value = HeaderValue::try_from(format!("{version} {name}"));
            value.unwrap_or(HeaderValue::from_static("1.1 -"))
        };
        Self { own: ["1.0", "1.1", "2.0", "3.0"].map(own) }
    }

    /// Entry for a message that came in this version.
    pub(super) fn own(&self, version: Version) -> &HeaderValue {
        match version {
            Version::HTTP_10 => &self.own[0],
            Version::HTTP_2 => &self.own[2],
            Version::HTTP_3 => &self.own[3],
            _ => &self.own[1],
        }
    }

    /// Appends the proxy's own entry to `Via`, for a message that came in this version.
    pub(super) fn append(&self, headers: &mut HeaderMap, version: Version) {
        let own = self.own(version);
        let via = if headers.contains_key(header::VIA) {
            let hops = headers.get_all(header::VIA).iter().filter(|hop| hop.to_str().is_ok());
            let hops: Vec<&[u8]> = hops.chain([own]).map(HeaderValue::as_bytes).collect();
            HeaderValue::from_bytes(&hops.join(&b", "[..])).unwrap_or_else(|_| own.clone())
        } else {
            own.clone()
        };
        headers.insert(header::VIA, via);
    }
}

/// Slot of a name, 0 to 63, by length and first letter: `content-length` and `http2-settings` have equal lengths, and every
/// answer has the former.
#[expect(clippy::cast_possible_truncation, reason = "less than 64")]
const fn slot(name: &str) -> u32 {
    let first = if name.is_empty() { 0 } else { name.as_bytes()[0] as usize };
    (name.len().wrapping_mul(7).wrapping_add(first) & 63) as u32
}

/// Names of fields that go together, 32 at most.
#[derive(Debug)]
pub(super) struct HeaderNameSet<const N: usize> {
    names: [&'static str; N],
    /// Slots in use, as bits: most fields of a message are ruled out by one test.
    slots: u64,
}

impl<const N: usize> HeaderNameSet<N> {
    /// Creates a set of names, which must be lower-case.
    pub(super) const fn new(names: [&'static str; N]) -> Self {
        let (mut slots, mut at) = (0, 0);
        while at < N {
            slots |= 1 << slot(names[at]);
            at += 1;
        }
        Self { names, slots }
    }

    fn position(&self, name: &str) -> Option<usize> {
        let may_be = self.slots >> slot(name) & 1 == 1;
        if may_be { self.names.iter().position(|other| *other == name) } else { None }
    }

    /// Set of these fields that are present, as bits in their order.
    pub(super) fn found_in(&self, headers: &HeaderMap) -> u32 {
        let positions = headers.keys().filter_map(|name| self.position(name.as_str()));
        positions.fold(0, |found, at| found | 1 << at)
    }

    /// Removes these fields. Nearly no message has more than one of them, so they are looked for in one pass and not
    /// one by one.
    pub(super) fn remove_from(&self, headers: &mut HeaderMap) {
        let mut found = self.found_in(headers);
        while found != 0 {
            headers.remove(self.names[found.trailing_zeros() as usize]);
            found &= found - 1;
        }
    }
}

/// Fields that [`ProxyFields`] detects.
const WATCHED: HeaderNameSet<16> = HeaderNameSet::new([
    "content-length",
    "transfer-encoding",
    "expect",
    "via",
    "cookie",
    "traceparent",
    "tracestate",
    // Hop-by-hop fields from here on.
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "upgrade",
    "http2-settings",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-authorization",
]);

/// Fields of a request that mean something to a proxy, found in one pass: each look-up of an absent field costs half as
/// much as the pass.
#[derive(Debug, Clone, Copy)]
pub(super) struct ProxyFields(u32);

impl ProxyFields {
    pub(super) const CONTENT_LENGTH: u32 = 1;
    pub(super) const TRANSFER_ENCODING: u32 = 1 << 1;
    pub(super) const EXPECT: u32 = 1 << 2;
    pub(super) const VIA: u32 = 1 << 3;
    pub(super) const COOKIE: u32 = 1 << 4;
    /// `traceparent` or `tracestate`.
    pub(super) const TRACE: u32 = 1 << 5 | 1 << 6;
    /// Hop-by-hop fields, `Connection` among them.
    pub(super) const HOP_BY_HOP: u32 = !0 << 7 | Self::TRANSFER_ENCODING;

    pub(super) fn of(headers: &HeaderMap) -> Self {
        Self(WATCHED.found_in(headers))
    }

    /// True if the request came with any of these.
    pub(super) fn has(self, fields: u32) -> bool {
        self.0 & fields != 0
    }
}

/// True if this server is the last one that the request wants to reach (RFC 9110 section 7.6.2).
pub(super) fn max_forwards_reached(headers: &HeaderMap) -> bool {
    max_forwards(headers) == Some(0)
}

/// Value of `Max-Forwards`: servers that the request may still pass.
pub(super) fn max_forwards(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::MAX_FORWARDS)?.to_str().ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::headers::tests::headers;

    #[test]
    fn via_grows_by_our_name() {
        let ours = ViaValue::new("iiif-mender");
        let mut map = headers(&[("via", "1.0 fred"), ("via", "1.1 campus")]);
        ours.append(&mut map, Version::HTTP_2);
        assert_eq!(map, headers(&[("via", "1.0 fred, 1.1 campus, 2.0 iiif-mender")]));
        let mut first = HeaderMap::new();
        ours.append(&mut first, Version::HTTP_11);
        assert_eq!(first, headers(&[("via", "1.1 iiif-mender")]));
    }

    #[test]
    fn all_that_is_named_goes_and_nothing_else() {
        let long = "x-a-name-that-is-longer-than-any-that-we-know-of-and-than-the-bits-of-a-word";
        let names = HeaderNameSet::new(["te", "upgrade", "x-real-ip"]);
        let mut map = headers(&[
            ("te", "a"),
            ("accept", "*/*"),
            ("x-real-ip", "1"),
            ("te", "b"),
            ("x-real", "2"),
            ("x-true-ip", "3"),
            (long, "4"),
        ]);
        names.remove_from(&mut map);
        let left = headers(&[("accept", "*/*"), ("x-real", "2"), ("x-true-ip", "3"), (long, "4")]);
        assert_eq!(map, left);
        names.remove_from(&mut map);
        assert_eq!(map, left);
    }

    #[test]
    fn each_field_that_is_watched_has_its_bit() {
        let of = |name| ProxyFields::of(&headers(&[("accept", "*/*"), (name, "x"), ("host", "a")]));
        for (name, bits) in [
            ("content-length", ProxyFields::CONTENT_LENGTH),
            ("transfer-encoding", ProxyFields::TRANSFER_ENCODING),
            ("expect", ProxyFields::EXPECT),
            ("via", ProxyFields::VIA),
            ("cookie", ProxyFields::COOKIE),
            ("traceparent", ProxyFields::TRACE),
            ("tracestate", ProxyFields::TRACE),
        ] {
            let found = of(name);
            assert!(found.has(bits) && !found.has(!bits & !ProxyFields::HOP_BY_HOP), "{name}");
        }
        for name in super::super::headers::HOP_BY_HOP.names {
            assert!(of(name).has(ProxyFields::HOP_BY_HOP), "{name}");
        }
        assert!(!of("x-cookie").has(!0));
    }
}
