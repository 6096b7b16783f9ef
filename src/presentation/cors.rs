//! CORS: a viewer on any web site may read manifests, canvases and info.json.
//!
//! IIIF asks for it: Presentation 3.0 section 7.3, Image 2.1 section 7.3 and 3.0 section 7.2. CORS fields of the servers
//! behind us stay as they are; only where there are none is `*` added, and only preflights (Fetch standard, "CORS-preflight
//! request") that the servers do not answer are answered here.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Response, StatusCode};

use super::buffer::text;
use crate::config::settings::RouteKind;
use crate::upstream::Body;

/// Methods that may be used here.
const METHODS: &str = "GET, HEAD, OPTIONS";

/// `Access-Control-Max-Age` of a preflight in seconds: the longest that any browser accepts.
const A_DAY: &str = "86400";

/// Fields of ours that a script may read as well, as a value of `Access-Control-Expose-Headers`.
const EXPOSED: &str = "Retry-After, Heal-Status, Cache-Status, X-Request-ID, Server-Timing, Proxy-Status";

/// True if this OPTIONS request is answered here when the upstream does not answer it.
pub fn is_preflight_for(kind: RouteKind, asked: &Parts) -> bool {
    asked.method == Method::OPTIONS
        && match kind {
            RouteKind::Presentation => true,
            RouteKind::Image => is_preflight(&asked.headers),
            RouteKind::Plain => false,
        }
}

/// The upstream's answer to an OPTIONS if it gives permission, else ours.
pub fn options(asked: &Parts, answer: Option<Response<Body>>) -> Response<Body> {
    match answer {
        Some(answer)
            if answer.status().is_success()
                && (!is_preflight(&asked.headers)
                    || answer.headers().contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN)) =>
        {
            answer
        }
        _ => permission(&asked.headers),
    }
}

/// Preflight answer that allows reading, to every origin and with any field.
pub(super) fn permission(asked: &HeaderMap) -> Response<Body> {
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = StatusCode::NO_CONTENT;
    let fields = response.headers_mut();
    fields.insert(header::ALLOW, HeaderValue::from_static(METHODS));
    allow_any_origin(asked, fields);
    if is_preflight(asked) {
        fields.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(METHODS));
        fields.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(A_DAY));
        // `*` would not cover Authorization (Fetch standard, "CORS non-wildcard request-header name").
        if let Some(wanted) = asked.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
            fields.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
        }
        let vary = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers";
        fields.insert(header::VARY, HeaderValue::from_static(vary));
    }
    response
}

/// Copies the CORS fields of an answer to another one that goes out in its place.
pub fn copy(from: &HeaderMap, to: &mut HeaderMap) {
    let is_cors = |name: &HeaderName| *name == header::VARY || name.as_str().starts_with("access-control-");
    for (name, value) in from.iter().filter(|(name, _)| is_cors(name)) {
        to.append(name, value.clone());
    }
}

/// Lets every site read, unless the upstream said which may. The origin of a request with credentials is named: a browser
/// takes `*` for no permission then (Fetch standard, "CORS check").
///
/// SECURITY: an answer that the upstream marks as one person's is not opened to the scripts of other sites that ask with
/// that person's cookie.
pub fn allow_any_origin(asked: &HeaderMap, fields: &mut HeaderMap) {
    if fields.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN) {
        return;
    }
    if let Some(origin) = credentialed(asked).filter(|_| !is_personal(fields)) {
        fields.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        fields.append(header::VARY, HeaderValue::from_static("Origin"));
        fields.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    } else {
        fields.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    }
    expose(fields);
}

/// Exposes our fields to scripts that may read the answer, besides those that the upstream exposes.
pub fn expose(fields: &mut HeaderMap) {
    const NAMES: header::HeaderName = header::ACCESS_CONTROL_EXPOSE_HEADERS;
    if !fields.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN) {
        return;
    }
    if !fields.contains_key(NAMES) {
        fields.insert(NAMES, HeaderValue::from_static(EXPOSED));
        return;
    }
    let said = fields.get_all(NAMES).iter().filter_map(|value| value.to_str().ok());
    let mut names: Vec<&str> =
        said.flat_map(|value| value.split(',')).map(str::trim).filter(|name| !name.is_empty()).collect();
    // With credentials `*` is a name like any other.
    if names.contains(&"*") && !fields.contains_key(header::ACCESS_CONTROL_ALLOW_CREDENTIALS) {
        return;
    }
    for own in EXPOSED.split(", ") {
        if !names.iter().any(|name| name.eq_ignore_ascii_case(own)) {
            names.push(own);
        }
    }
    if let Ok(all) = HeaderValue::try_from(names.join(", ")) {
        fields.insert(NAMES, all);
    }
}

/// Origin of a script that asks with credentials. (`null` is that of any sandbox.)
fn credentialed(asked: &HeaderMap) -> Option<&HeaderValue> {
    let origin =
        asked.get(header::ORIGIN).filter(|origin| !matches!(origin.as_bytes(), b"null" | b"*" | b""))?;
    let has_credentials = asked.contains_key(header::COOKIE) || asked.contains_key(header::AUTHORIZATION);
    has_credentials.then_some(origin)
}

/// True if the upstream marks this answer as one person's.
fn is_personal(fields: &HeaderMap) -> bool {
    let says = |name: header::HeaderName, words: &[&str]| {
        let values = fields.get_all(name).iter().filter_map(|value| value.to_str().ok());
        let mut said = values.flat_map(|value| value.split(',')).map(str::trim);
        said.any(|one| words.iter().any(|word| one.eq_ignore_ascii_case(word)))
    };
    fields.contains_key(header::SET_COOKIE)
        || says(header::CACHE_CONTROL, &["private"])
        || says(header::VARY, &["cookie", "authorization"])
}

fn is_preflight(asked: &HeaderMap) -> bool {
    asked.contains_key(header::ORIGIN) && !text(asked, header::ACCESS_CONTROL_REQUEST_METHOD).is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, HeaderValue::from_static(value));
        }
        map
    }

    fn opened(
        asked: &[(&'static str, &'static str)],
        fields: &[(&'static str, &'static str)],
    ) -> (String, String) {
        let mut fields = map(fields);
        allow_any_origin(&map(asked), &mut fields);
        let credentials = text(&fields, header::ACCESS_CONTROL_ALLOW_CREDENTIALS).to_owned();
        (text(&fields, header::ACCESS_CONTROL_ALLOW_ORIGIN).to_owned(), credentials)
    }

    #[test]
    fn who_asks_with_credentials_is_named_unless_the_answer_is_one_persons() {
        let origin = ("origin", "https://a.example");
        let named = ("https://a.example".to_owned(), "true".to_owned());
        let star = ("*".to_owned(), String::new());
        assert_eq!(opened(&[origin], &[]), star);
        assert_eq!(opened(&[("cookie", "a=1")], &[]), star);
        assert_eq!(opened(&[origin, ("cookie", "a=1")], &[]), named);
        assert_eq!(opened(&[origin, ("authorization", "Bearer x")], &[("vary", "Accept")]), named);
        assert_eq!(opened(&[("origin", "null"), ("cookie", "a=1")], &[]), star);
        for own in
            [("set-cookie", "a=2"), ("cache-control", "max-age=1, Private"), ("vary", "accept, Cookie")]
        {
            assert_eq!(opened(&[origin, ("cookie", "a=1")], &[own]), star, "{own:?}");
        }
        let said = [("access-control-allow-origin", "https://b.example")];
        assert_eq!(
            opened(&[origin, ("cookie", "a=1")], &said),
            ("https://b.example".to_owned(), String::new())
        );
    }

    #[test]
    fn what_others_expose_stays_exposed() {
        for (said, expected) in [
            (&[][..], EXPOSED.to_owned()),
            (&["Link", "ETag, retry-after"], {
                let more = EXPOSED.replace("Retry-After, ", "");
                format!("Link, ETag, retry-after, {more}")
            }),
            (&["*"], "*".to_owned()),
        ] {
            let mut fields = map(&[("access-control-allow-origin", "*")]);
            for value in said {
                fields.append(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(value));
            }
            expose(&mut fields);
            let all: Vec<_> = fields.get_all(header::ACCESS_CONTROL_EXPOSE_HEADERS).iter().collect();
            assert_eq!(all, [&*expected]);
        }
    }
}
