//! Request ids. A request has one id everywhere: in its answer, in the upstream requests made for it, in logs, in the
//! history of heals.
//!
//! A request that comes without an id gets one of 32 hexadecimal digits: the time first, so that ids sort as the
//! requests came, then 80 random bits. The id has the form of a trace id (W3C Trace Context), so that one search finds both.

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};

use super::span_context::SpanContext;

/// The id of a request.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Trace, parent span and flags (W3C Trace Context section 3.2).
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// `tracestate`: vendor data of tracing systems (W3C Trace Context section 3.3).
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The longest id that is taken from a proxy; a longer one is replaced.
const LONGEST: usize = 128;

/// Longest id in an example.
const LONGEST_EXAMPLE: usize = 64;

/// Digits of an id of our own.
const DIGITS: usize = 32;

/// Id of a request, and the trace that it belongs to. Cheap to clone: nothing is copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestTrace {
    id: HeaderValue,
    parent: Option<HeaderValue>,
    state: Option<HeaderValue>,
    /// Parent of the trace's spans, if it has any.
    context: Option<Arc<SpanContext>>,
}

impl RequestTrace {
    /// Trace of a request with these fields. A `trusted` proxy may set its id and parent; those of other clients are
    /// ignored.
    ///
    /// SECURITY: an id chosen by a client could be that of another request, or 100 kB, or a line of its own in a log.
    pub fn of(fields: &HeaderMap, trusted: bool) -> Self {
        if !trusted {
            return Self::generate();
        }
        let one = |name: HeaderName| {
            let mut values = fields.get_all(name).iter();
            values.next().filter(|_| values.next().is_none())
        };
        let id = one(REQUEST_ID).filter(|id| is_id(id.as_bytes())).cloned().unwrap_or_else(fresh_id);
        let parent =
            one(TRACEPARENT).filter(|parent| TraceParent::parse(parent.as_bytes()).is_some()).cloned();
        // `tracestate` without its `traceparent` means nothing (W3C Trace Context section 4.3).
        let state = one(TRACESTATE).filter(|_| parent.is_some()).cloned();
        Self { id, parent, state, context: None }
    }

    /// Begins a new trace, for work that no request caused.
    pub fn generate() -> Self {
        Self { id: fresh_id(), parent: None, state: None, context: None }
    }

    /// Request id, as in `X-Request-Id`.
    pub fn id(&self) -> &HeaderValue {
        &self.id
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        self.id.to_str().unwrap_or_default()
    }

    /// Trace of the request, where that has an id of its own.
    pub fn continued(&self) -> Option<&str> {
        self.parent.as_ref()?.to_str().ok()?.get(3..35)
    }

    /// Labels of an exemplar: trace and request, as far as OpenMetrics allows (128 characters).
    pub(super) fn example(&self) -> Option<Vec<(&'static str, String)>> {
        let mut labels = Vec::new();
        if let Some(parent) = self.remote_parent() {
            labels.push(("trace_id", format!("{:032x}", parent.trace)));
        }
        if self.as_str().len() <= LONGEST_EXAMPLE {
            labels.push(("request_id", self.as_str().to_owned()));
        }
        (!labels.is_empty()).then_some(labels)
    }

    /// Parsed parent.
    pub(super) fn remote_parent(&self) -> Option<TraceParent> {
        self.parent.as_ref().and_then(|parent| TraceParent::parse(parent.as_bytes()))
    }

    /// Trace id of the request's id, if it has the form of ours.
    pub(super) fn number(&self) -> Option<u128> {
        let is_ours = self.as_str().len() == DIGITS;
        u128::from_str_radix(self.as_str(), 16).ok().filter(|number| is_ours && *number != 0)
    }

    pub(super) fn context(&self) -> Option<&SpanContext> {
        self.context.as_deref()
    }

    pub(super) fn state_text(&self) -> &str {
        self.state.as_ref().and_then(|state| state.to_str().ok()).unwrap_or_default()
    }

    /// Trace of this request below a span: that span is the parent from here on, and sampled.
    pub(super) fn below(&self, trace: u128, span: u64, context: SpanContext) -> Self {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-01";
        write_hex(trace, &mut text[3..35]);
        write_hex(u128::from(span), &mut text[36..52]);
        let parent = HeaderValue::from_maybe_shared(Bytes::from_owner(text)).ok();
        Self { parent, context: Some(Arc::new(context)), ..self.clone() }
    }

    /// Writes id and parent into the fields of an onward request, in place of existing ones.
    pub fn inject(&self, fields: &mut HeaderMap) {
        self.put(fields, true);
    }

    /// Writes id and parent into the fields; `replaces`: existing ones are overwritten.
    pub fn put(&self, fields: &mut HeaderMap, replaces: bool) {
        fields.insert(REQUEST_ID, self.id.clone());
        for (name, value) in [(TRACEPARENT, &self.parent), (TRACESTATE, &self.state)] {
            match value {
                Some(value) => drop(fields.insert(name, value.clone())),
                None if replaces => drop(fields.remove(name)),
                None => {}
            }
        }
    }
}

impl fmt::Display for RequestTrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Fields of a `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TraceParent {
    pub(super) trace: u128,
    pub(super) span: u64,
    pub(super) sampled: bool,
}

impl TraceParent {
    /// Version 00, or a later one read as far as it is known (W3C Trace Context section 3.2.2).
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let (version, rest) = text.split_once('-')?;
        let (trace, rest) = rest.split_once('-')?;
        let (span, rest) = rest.split_once('-')?;
        let (flags, more) = rest.split_once('-').map_or((rest, None), |(flags, more)| (flags, Some(more)));
        let is_known = version != "ff" && (version != "00" || more.is_none());
        let lengths = (version.len(), trace.len(), span.len(), flags.len());
        let digits = [version, trace, span, flags].concat();
        let lower = digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if !is_known || lengths != (2, 32, 16, 2) || !lower {
            return None;
        }
        let parent = Self {
            trace: u128::from_str_radix(trace, 16).ok()?,
            span: u64::from_str_radix(span, 16).ok()?,
            sampled: u8::from_str_radix(flags, 16).ok()? & 1 == 1,
        };
        (parent.trace != 0 && parent.span != 0).then_some(parent)
    }
}

/// True for an id of letters, digits and other usual characters: UUIDs, base64, `Root=1-…`.
fn is_id(id: &[u8]) -> bool {
    let plain = |byte: &u8| {
        byte.is_ascii_alphanumeric()
            || matches!(byte, b'-' | b'_' | b'.' | b':' | b'+' | b'/' | b'=' | b'@' | b'~')
    };
    (1..=LONGEST).contains(&id.len()) && id.iter().all(plain)
}

/// 48 bits of unix milliseconds, 80 random bits.
pub(super) fn fresh_number() -> u128 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    (now << 80) | (fastrand::u128(..) >> 48)
}

/// Makes an id in one allocation: digits and reference count together.
fn fresh_id() -> HeaderValue {
    let mut digits = [0; DIGITS];
    write_hex(fresh_number(), &mut digits);
    HeaderValue::from_maybe_shared(Bytes::from_owner(digits))
        .unwrap_or_else(|_| HeaderValue::from_static("-"))
}

/// Writes the lowest digits of `number`, as many as fit.
#[expect(clippy::cast_possible_truncation, reason = "the halves of a number, and the lowest digit of one")]
pub(super) fn write_hex(number: u128, digits: &mut [u8]) {
    // 64 bits at a time: a shift of 128 bits costs four instructions.
    let (mut rest, high) = (number as u64, (number >> 64) as u64);
    let (mut at, mut written) = (digits.len(), 0);
    while at > 0 {
        at -= 1;
        digits[at] = b"0123456789abcdef"[(rest & 15) as usize];
        rest >>= 4;
        written += 1;
        if written == 16 {
            rest = high;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn fields(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(HeaderName::from_static(name), value.parse().expect("a value"));
        }
        map
    }

    #[test]
    fn ids_are_made_in_order_and_never_twice() {
        let ids: Vec<String> = (0..1000).map(|_| RequestTrace::generate().to_string()).collect();
        let mut different = ids.clone();
        different.sort();
        different.dedup();
        assert_eq!(different.len(), 1000);
        assert!(ids.iter().all(|id| id.len() == 32 && is_id(id.as_bytes())));
        assert!(ids[0][..12] <= ids[999][..12], "the time stands first");
    }

    #[test]
    fn a_trusted_proxys_id_and_parent_are_kept_and_a_strangers_are_not() {
        let told = fields(&[("x-request-id", "abc-1"), ("traceparent", PARENT), ("tracestate", "a=1")]);
        let mut onward = told.clone();
        RequestTrace::of(&told, true).inject(&mut onward);
        assert_eq!(onward, told);
        let stranger = RequestTrace::of(&told, false);
        assert_eq!(stranger.as_str().len(), 32);
        stranger.inject(&mut onward);
        assert_eq!(onward, fields(&[("x-request-id", stranger.as_str())]));
    }

    #[test]
    fn an_id_that_is_none_is_replaced() {
        for bad in ["", "a b", "a\tb", "<script>", "\"", &"x".repeat(129)] {
            assert_eq!(RequestTrace::of(&fields(&[("x-request-id", bad)]), true).as_str().len(), 32, "{bad}");
        }
        let two = fields(&[("x-request-id", "a"), ("x-request-id", "b")]);
        assert_eq!(RequestTrace::of(&two, true).as_str().len(), 32);
    }

    #[test]
    fn a_parent_is_read_as_the_standard_says() {
        let read = TraceParent::parse(PARENT.as_bytes()).expect("a parent");
        assert_eq!(
            (read.trace, read.span),
            (0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c, 0xb7ad_6b71_6920_3331)
        );
        assert!(read.sampled);
        assert!(TraceParent::parse(format!("{}-later", PARENT.replacen("00", "01", 1)).as_bytes()).is_some());
        for bad in [
            "",
            "00",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0",
            "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert_eq!(TraceParent::parse(bad.as_bytes()), None, "{bad}");
        }
        let orphan = fields(&[("traceparent", "00"), ("tracestate", "a=1")]);
        let mut onward = HeaderMap::new();
        RequestTrace::of(&orphan, true).inject(&mut onward);
        assert_eq!(onward.len(), 1, "no state without its parent");
    }
}
