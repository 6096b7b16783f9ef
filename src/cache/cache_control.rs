//! Cache lifetime of an answer by its fields: how long it may be kept, and for whom (RFC 9111 sections 3 to 5).

use std::time::{Duration, SystemTime};

use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Response};

use crate::config::settings::CacheSettings;

/// Lifetime of an answer, from the moment it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CacheLifetime {
    /// Age of the answer when it came (section 4.2.3).
    pub(super) age: Duration,
    /// Freshness lifetime.
    pub(super) fresh: Duration,
    /// Time after that in which the answer may go out where the image server fails (section 4.2.4, RFC 5861 section 4).
    pub(super) stale: Duration,
    /// True if the answer has `public`: a request with a cookie may get it, too.
    pub(super) is_public: bool,
}

/// The directives of `Cache-Control` that mean something to a shared cache (section 5.2).
#[derive(Debug, Default, Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "directives that are there or not")]
struct CacheControl {
    public: bool,
    /// `private`, `no-store` or `no-cache`, with or without a list of fields.
    forbids: bool,
    no_store: bool,
    no_cache: bool,
    /// `must-revalidate` or `proxy-revalidate`.
    revalidates: bool,
    max_age: Option<Duration>,
    s_maxage: Option<Duration>,
    stale_if_error: Option<Duration>,
}

impl CacheControl {
    fn of(fields: &HeaderMap) -> Self {
        let mut all = Self::default();
        for value in fields.get_all(header::CACHE_CONTROL) {
            // A field that cannot be parsed forbids: its meaning is not known.
            let Some(text) = value.to_str().ok().filter(|text| closes_quotes(text)) else {
                return Self { forbids: true, ..all };
            };
            for directive in members(text) {
                all.take(directive);
            }
        }
        all
    }

    fn take(&mut self, directive: &str) {
        let (name, argument) = directive.split_once('=').map_or((directive, ""), |(name, rest)| (name, rest));
        let argument = argument.trim().trim_matches('"');
        match name.trim().to_ascii_lowercase().as_str() {
            "public" => self.public = true,
            "no-store" => (self.no_store, self.forbids) = (true, true),
            "no-cache" => (self.no_cache, self.forbids) = (true, true),
            "private" => self.forbids = true,
            "must-revalidate" | "proxy-revalidate" => self.revalidates = true,
            "max-age" => least(&mut self.max_age, argument),
            "s-maxage" => least(&mut self.s_maxage, argument),
            "stale-if-error" => least(&mut self.stale_if_error, argument),
            _ => {}
        }
    }
}

/// Takes another argument in: of several the least counts, and one that is no number is zero (section 4.2.1).
fn least(own: &mut Option<Duration>, argument: &str) {
    let is_number = !argument.is_empty() && argument.bytes().all(|byte| byte.is_ascii_digit());
    // A number that is too great means a very long time (section 1.2.2).
    let seconds = if is_number { argument.parse::<u32>().unwrap_or(u32::MAX) } else { 0 };
    let time = Duration::from_secs(u64::from(seconds));
    *own = Some(own.map_or(time, |before| before.min(time)));
}

/// Quotation state of a position in a field's value (RFC 9110 section 5.6.4).
#[derive(Default)]
struct QuoteState {
    is_quoted: bool,
    is_escaped: bool,
}

impl QuoteState {
    fn pass(&mut self, c: char) {
        match c {
            _ if self.is_escaped => self.is_escaped = false,
            '\\' if self.is_quoted => self.is_escaped = true,
            '"' => self.is_quoted = !self.is_quoted,
            _ => {}
        }
    }
}

/// True if all quotes are closed. An open quote swallows what follows it, whose meaning is then not known.
fn closes_quotes(text: &str) -> bool {
    let mut state = QuoteState::default();
    text.chars().for_each(|c| state.pass(c));
    !state.is_quoted
}

/// The members of a list, without those that are empty. A comma within quotes ends none.
fn members(text: &str) -> impl Iterator<Item = &str> {
    let mut state = QuoteState::default();
    let parts = text.split(move |c: char| {
        state.pass(c);
        c == ',' && !state.is_quoted
    });
    parts.map(str::trim).filter(|part| !part.is_empty())
}

/// Cache-Control directives of a request (section 5.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RequestDirectives {
    /// `no-cache`, or `Pragma: no-cache` in its place (section 5.4).
    pub(super) no_cache: bool,
    pub(super) no_store: bool,
}

impl RequestDirectives {
    pub(super) fn of(fields: &HeaderMap) -> Self {
        if !fields.contains_key(header::CACHE_CONTROL) {
            let says = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"no-cache");
            let no_cache = fields.get(header::PRAGMA).is_some_and(says);
            return Self { no_cache, no_store: false };
        }
        let CacheControl { no_cache, no_store, .. } = CacheControl::of(fields);
        Self { no_cache, no_store }
    }
}

/// Returns how long an answer that came now may be kept; `None`: not at all.
///
/// SECURITY: only what the answer itself allows, and no guess by its date (section 4.2.2): an image server that says
/// nothing may have reasons. An answer for one reader (with a cookie, or private) and an answer that names fields outside
/// its key are never kept.
pub(super) fn lifetime<B>(
    answer: &Response<B>,
    limits: &CacheSettings,
    now: SystemTime,
) -> Option<CacheLifetime> {
    let fields = answer.headers();
    let told = CacheControl::of(fields);
    if answer.status() != http::StatusCode::OK || told.forbids || fields.contains_key(header::SET_COOKIE) {
        return None;
    }
    if !is_selected_as_told(fields) || !ends_for_certain(answer) {
        return None;
    }
    let date = date_of(fields, &header::DATE);
    let allowed = told.s_maxage.or(told.max_age).or_else(|| {
        let expires = fields.get(header::EXPIRES)?;
        // "0" and any other text that is no date means expired (section 5.3).
        let at = read_date(expires).unwrap_or(SystemTime::UNIX_EPOCH);
        Some(at.duration_since(date.unwrap_or(now)).unwrap_or_default())
    })?;
    let apparent = date.and_then(|date| now.duration_since(date).ok()).unwrap_or_default();
    let age = apparent.max(told_age(fields));
    let fresh = allowed.saturating_sub(age).min(limits.max_age);
    if fresh.is_zero() {
        return None;
    }
    let is_strict = told.revalidates || told.s_maxage.is_some();
    let stale = limits.stale_if_error.min(told.stale_if_error.unwrap_or(limits.stale_if_error));
    let stale = if is_strict { Duration::ZERO } else { stale };
    Some(CacheLifetime { age, fresh, stale, is_public: told.public })
}

/// Fields that we write into each request with another value: an answer selected by one of them fits no other request.
const OWN_FIELDS: [&str; 5] = ["forwarded", "via", "x-request-id", "traceparent", "tracestate"];

/// Fields that name the viewer's address alone. Every viewer has another one, and an image is the same for all of them,
/// unless its answer names one of these in `Vary`.
pub(crate) const ADDRESS_FIELDS: [&str; 10] = [
    "cf-connecting-ip",
    "cf-connecting-ipv6",
    "fastly-client-ip",
    "true-client-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-envoy-external-address",
    "x-forwarded-for",
    "x-original-forwarded-for",
    "x-real-ip",
];

/// True if `Vary` names every field that shows that the answer was made for this request.
fn is_selected_as_told(fields: &HeaderMap) -> bool {
    let names = |wanted: &HeaderName| varies(fields).any(|name| name.eq_ignore_ascii_case(wanted.as_str()));
    let excluded = OWN_FIELDS.iter().chain(&ADDRESS_FIELDS);
    let is_told = |name: &str| name != "*" && !excluded.clone().any(|own| name.eq_ignore_ascii_case(own));
    if !varies(fields).all(is_told) {
        return false;
    }
    let origin = fields.get(header::ACCESS_CONTROL_ALLOW_ORIGIN);
    (origin.is_none_or(|origin| origin == "*") || names(&header::ORIGIN))
        && (!fields.contains_key(header::CONTENT_ENCODING) || names(&header::ACCEPT_ENCODING))
}

/// The names in `Vary`.
pub(super) fn varies(fields: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = fields.get_all(header::VARY).iter();
    // A value that cannot be read might hold any name.
    values.flat_map(|value| members(value.to_str().unwrap_or("*")))
}

/// True if the end of the body differs from a broken connection (RFC 9112 section 8).
fn ends_for_certain<B>(answer: &Response<B>) -> bool {
    answer.version() == http::Version::HTTP_2
        || answer.headers().contains_key(header::CONTENT_LENGTH)
        || answer.headers().contains_key(header::TRANSFER_ENCODING)
}

/// Value of `Age`; one that cannot be parsed is ignored (section 5.1).
fn told_age(fields: &HeaderMap) -> Duration {
    let age = fields.get(header::AGE).and_then(|age| age.to_str().ok());
    let mut told = None;
    if let Some(age) = age {
        least(&mut told, age.trim());
    }
    told.unwrap_or_default()
}

/// A date out of the first field of this name.
pub(super) fn date_of(fields: &HeaderMap, name: &HeaderName) -> Option<SystemTime> {
    fields.get(name).and_then(read_date)
}

/// A date in one of the three formats of RFC 9110 section 5.6.7.
pub(super) fn read_date(value: &HeaderValue) -> Option<SystemTime> {
    httpdate::parse_http_date(value.to_str().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    /// The lifetime of an answer with these fields (`name: value` lines), 1,000,000 s after 1970.
    fn of(lines: &str) -> Option<CacheLifetime> {
        let mut response = http::Response::builder().header("content-length", "1");
        for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (name, value) = line.split_once(':').expect("a field");
            response = response.header(name, value.trim());
        }
        let response = response.body(()).expect("a response");
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        lifetime(&response, &CacheSettings::default(), now)
    }

    fn fresh(lines: &str) -> Option<u64> {
        of(lines).map(|lifetime| lifetime.fresh.as_secs())
    }

    #[rstest]
    #[case::nothing("", None)]
    #[case::public_without_a_time("cache-control: public", None)]
    #[case::a_date_alone("last-modified: Thu, 01 Jan 1970 00:00:00 GMT", None)]
    #[case::max_age("cache-control: max-age=60", Some(60))]
    #[case::letters("Cache-Control: MAX-AGE=60, Public", Some(60))]
    #[case::quoted("cache-control: max-age=\"60\"", Some(60))]
    #[case::shared("cache-control: max-age=60, s-maxage=20", Some(20))]
    #[case::shared_longer("cache-control: max-age=6, s-maxage=20", Some(20))]
    #[case::cap("cache-control: max-age=2592000, public, no-transform", Some(3600))]
    #[case::too_great("cache-control: max-age=99999999999999999999", Some(3600))]
    #[case::twice("cache-control: max-age=60\ncache-control: max-age=20", Some(20))]
    #[case::no_number("cache-control: max-age=x", None)]
    #[case::negative("cache-control: max-age=-1", None)]
    #[case::zero("cache-control: max-age=0", None)]
    #[case::private("cache-control: max-age=60, private", None)]
    #[case::private_fields("cache-control: max-age=60, private=\"set-cookie\"", None)]
    #[case::no_store("cache-control: no-store, max-age=60, public", None)]
    #[case::no_cache("cache-control: max-age=60, no-cache", None)]
    #[case::within_quotes("cache-control: ext=\"a, private, b\", max-age=60", Some(60))]
    #[case::unclosed_quote("cache-control: max-age=60, x=\"a, no-store", None)]
    #[case::escaped_quote("cache-control: max-age=60, x=\"a\\\", no-store", None)]
    #[case::not_text("cache-control: max-age=60\ncache-control: \u{e9}", None)]
    #[case::expires("expires: Mon, 12 Jan 1970 13:47:40 GMT", Some(60))]
    #[case::expires_by_its_own_date(
        "date: Mon, 12 Jan 1970 13:46:40 GMT\nexpires: Mon, 12 Jan 1970 13:47:00 GMT",
        Some(20)
    )]
    #[case::expires_zero("expires: 0", None)]
    #[case::max_age_wins("expires: 0\ncache-control: max-age=60", Some(60))]
    #[case::age("cache-control: max-age=60\nage: 20", Some(40))]
    #[case::too_old("cache-control: max-age=60\nage: 60", None)]
    #[case::by_its_date("cache-control: max-age=60\ndate: Mon, 12 Jan 1970 13:46:30 GMT", Some(50))]
    #[case::dated_ahead("cache-control: max-age=60\ndate: Mon, 12 Jan 1970 14:46:30 GMT", Some(60))]
    #[case::cookie("cache-control: max-age=60, public\nset-cookie: a=b", None)]
    #[case::star("cache-control: max-age=60\nvary: Accept, *", None)]
    #[case::address("cache-control: max-age=60\nvary: X-Real-IP", None)]
    #[case::own_address("cache-control: max-age=60\nvary: accept, x-forwarded-for", None)]
    #[case::reflected_origin("cache-control: max-age=60\naccess-control-allow-origin: https://a.test", None)]
    #[case::any_origin("cache-control: max-age=60\naccess-control-allow-origin: *", Some(60))]
    #[case::origin_that_is_told(
        "cache-control: max-age=60\naccess-control-allow-origin: https://a.test\nvary: origin",
        Some(60)
    )]
    #[case::coded("cache-control: max-age=60\ncontent-encoding: gzip", None)]
    #[case::coded_as_told(
        "cache-control: max-age=60\ncontent-encoding: gzip\nvary: Accept-Encoding",
        Some(60)
    )]
    fn only_what_the_answer_allows_is_kept(#[case] lines: &str, #[case] seconds: Option<u64>) {
        assert_eq!(fresh(lines), seconds, "{lines}");
    }

    #[rstest]
    #[case::by_default("max-age=60", 86_400)]
    #[case::told("max-age=60, stale-if-error=5", 5)]
    #[case::no_longer_than_configured("max-age=60, stale-if-error=999999", 86_400)]
    #[case::must_revalidate("max-age=60, must-revalidate", 0)]
    #[case::proxy_revalidate("max-age=60, proxy-revalidate", 0)]
    #[case::s_maxage("s-maxage=60", 0)]
    fn stale_goes_out_as_far_as_the_answer_allows(#[case] told: &str, #[case] seconds: u64) {
        let lifetime = of(&format!("cache-control: {told}")).expect("kept");
        assert_eq!(lifetime.stale.as_secs(), seconds);
    }

    #[test]
    fn a_body_that_ends_with_its_connection_is_never_kept() {
        let response = http::Response::builder().header("cache-control", "max-age=60").body(());
        let response = response.expect("a response");
        assert_eq!(lifetime(&response, &CacheSettings::default(), SystemTime::now()), None);
    }

    #[test]
    fn a_request_says_what_it_wants_of_caches() {
        let of = |name: &'static str, value: &'static str| {
            let fields =
                HeaderMap::from_iter([(HeaderName::from_static(name), HeaderValue::from_static(value))]);
            let RequestDirectives { no_cache, no_store } = RequestDirectives::of(&fields);
            (no_cache, no_store)
        };
        assert_eq!(of("pragma", "no-cache"), (true, false));
        assert_eq!(of("cache-control", "max-age=0, no-cache"), (true, false));
        assert_eq!(of("cache-control", "no-store"), (false, true));
        assert_eq!(of("cache-control", "max-age=0"), (false, false));
    }
}
