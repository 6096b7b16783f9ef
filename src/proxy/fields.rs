//! Fields that every request or answer gains or loses, at the least cost.

use http::header::{self, HeaderValue};
use http::{HeaderMap, Version};

/// What we add to `Via` (RFC 9110 section 7.6.3), made once.
#[derive(Debug)]
pub(super) struct Via {
    /// For each version that a message may come in.
    own: [HeaderValue; 4],
}

impl Via {
    /// `name` is what we call ourselves; one that cannot be written stands as `-`.
    pub(super) fn new(name: &str) -> Self {
        let own = |version| {
            let value = HeaderValue::try_from(format!("{version} {name}"));
            value.unwrap_or(HeaderValue::from_static("1.1 -"))
        };
        Self { own: ["1.0", "1.1", "2.0", "3.0"].map(own) }
    }

    /// Adds us to those who passed on a message that came in this version.
    pub(super) fn append(&self, headers: &mut HeaderMap, version: Version) {
        let own = match version {
            Version::HTTP_10 => &self.own[0],
            Version::HTTP_2 => &self.own[2],
            Version::HTTP_3 => &self.own[3],
            _ => &self.own[1],
        };
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

/// One of 64 slots, by length and first letter: `content-length` and `http2-settings` are of one length, and every answer
/// has the one.
#[expect(clippy::cast_possible_truncation, reason = "less than 64")]
const fn slot(name: &str) -> u32 {
    let first = if name.is_empty() { 0 } else { name.as_bytes()[0] as usize };
    (name.len().wrapping_mul(7).wrapping_add(first) & 63) as u32
}

/// Names of fields that go together, 32 at most.
#[derive(Debug)]
pub(super) struct Names<const N: usize> {
    names: [&'static str; N],
    /// Which slots they have, as bits: most fields of a message are passed over at a glance.
    slots: u64,
}

impl<const N: usize> Names<N> {
    /// These names, lower-case.
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

    /// Removes these fields. Nearly no message has more than one of them, so they are looked for in one pass and not
    /// one by one.
    pub(super) fn remove_from(&self, headers: &mut HeaderMap) {
        let positions = headers.keys().filter_map(|name| self.position(name.as_str()));
        let mut found = positions.fold(0u32, |found, at| found | 1 << at);
        while found != 0 {
            headers.remove(self.names[found.trailing_zeros() as usize]);
            found &= found - 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::headers::tests::headers;

    #[test]
    fn via_grows_by_our_name() {
        let ours = Via::new("iiif-mender");
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
        let names = Names::new(["te", "upgrade", "x-real-ip"]);
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
}
