//! Completes answers: the only module that builds answers of the proxy itself, and that adds to those of the upstream.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use http::header::{self, HeaderName, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, Method, Response, StatusCode, Uri, Version};
use serde::Serialize;

use super::field_names::{ProxyFields, ViaValue};
use super::refusal::Refusal;
use super::{ProxyResponse, headers, upgrade};
use crate::config::settings::{AccessLog, LogClient, LogSettings};
use crate::observe::{RequestTrace, Span};
use crate::outcome::Outcome;
use crate::presentation::cors;
use crate::upstream::{Body, ErrorChain};

const HEAL_STATUS: HeaderName = HeaderName::from_static("heal-status");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

/// Facts of a request that its answer needs.
#[derive(Debug)]
pub(super) struct RequestContext {
    method: Method,
    uri: Uri,
    is_http_1: bool,
    /// Fields of the request.
    pub(super) found: ProxyFields,
    /// Address of the client.
    pub(super) client: IpAddr,
    /// Under which name it is followed.
    pub(super) trace: RequestTrace,
    /// Start of the request.
    pub(super) started: Instant,
}

/// End of a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct ResponseEnd {
    /// The kind of its route.
    pub(super) route: &'static str,
    pub(super) outcome: Outcome,
    pub(super) status: StatusCode,
    pub(super) took: Duration,
}

impl RequestContext {
    pub(super) fn new(head: &Parts, client: IpAddr, trace: RequestTrace, started: Instant) -> Self {
        let is_http_1 = head.version < Version::HTTP_2;
        let found = ProxyFields::of(&head.headers);
        Self { method: head.method.clone(), uri: head.uri.clone(), is_http_1, found, client, trace, started }
    }

    /// Target as it came.
    pub(super) fn uri(&self) -> &Uri {
        &self.uri
    }

    /// Describes the request in its span.
    pub(super) fn describe(&self, span: &mut Span, end: &ResponseEnd) {
        if !span.is_sampled() {
            return;
        }
        span.text("http.request.method", self.method.as_str());
        span.text("url.path", self.uri.path());
        span.text("iiif_mender.request_id", self.trace.as_str());
        span.text("iiif_mender.route", end.route);
        span.text("iiif_mender.outcome", end.outcome.as_str());
        span.status(end.status);
    }

    /// Logs a request, if it is to have a line (`[log] access`).
    pub(super) fn log(&self, log: &LogSettings, end: &ResponseEnd) {
        let ResponseEnd { route, outcome, status, took } = *end;
        let went_well = outcome == Outcome::Served && is_no_error(status);
        let wanted = match log.access {
            AccessLog::Off => false,
            AccessLog::Errors => !went_well,
            AccessLog::Sampled => !went_well || fastrand::u32(0..log.sample.max(1)) == 0,
            AccessLog::All => true,
        };
        if !wanted {
            return;
        }
        let duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        tracing::info!(
            client = told(self.client, log.client).map(tracing::field::display),
            request = %self.trace, trace = self.trace.continued(), method = %self.method, path = self.uri.path(),
            query = self.uri.query(), route, outcome = outcome.as_str(), status = status.as_u16(), duration_ms,
            "request"
        );
    }
}

/// Client address as `log.client` allows it in the log.
fn told(client: IpAddr, how: LogClient) -> Option<IpAddr> {
    match (how, client.to_canonical()) {
        (LogClient::None, _) => None,
        (LogClient::Full, client) => Some(client),
        (LogClient::Masked, IpAddr::V4(client)) => {
            Some(Ipv4Addr::from_bits(client.to_bits() & (u32::MAX << 8)).into())
        }
        (LogClient::Masked, IpAddr::V6(client)) => {
            Some(Ipv6Addr::from_bits(client.to_bits() & (u128::MAX << 80)).into())
        }
    }
}

/// True for 1xx, 2xx and 3xx.
fn is_no_error(status: StatusCode) -> bool {
    status.is_informational() || status.is_success() || status.is_redirection()
}

/// Makes an upstream's answer ready to go out. Untouched answers lose their hop-by-hop fields and gain a `ViaValue`.
pub(super) fn finish(answer: ProxyResponse, via: &ViaValue) -> Response<Body> {
    let ProxyResponse { mut response, outcome, healed, is_placeholder } = answer;
    let (version, status) = (response.version(), response.status());
    let fields = response.headers_mut();
    upgrade::announced(status, fields, headers::strip_hop_by_hop);
    via.append(fields, version);
    match (outcome, healed) {
        (Outcome::Healed, Some((rung, took))) => {
            let dur = took.as_millis();
            let rung = rung.map_or("none", crate::config::settings::Rung::as_str);
            insert_header(fields, HEAL_STATUS, &format!("healed; rung={rung}; dur={dur}"));
            if let Ok(timing) = HeaderValue::from_str(&format!("heal;dur={dur}")) {
                fields.append(SERVER_TIMING, timing);
            }
        }
        (Outcome::Missing | Outcome::Cooling | Outcome::Failed | Outcome::Pending, _) => {
            let status = if is_placeholder { "missing; placeholder" } else { outcome.as_str() };
            insert_header(fields, HEAL_STATUS, status);
            fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        }
        _ => {}
    }
    // Scripts may read the fields about the heal.
    if !matches!(outcome, Outcome::Served | Outcome::Unknown) {
        cors::expose(fields);
    }
    // The version is that of the upstream connection; hyper writes the viewer's.
    *response.version_mut() = Version::HTTP_11;
    response
}

/// `application/problem+json` (RFC 9457).
#[derive(Serialize)]
struct ProblemBody<'a> {
    title: &'a str,
    status: u16,
    detail: &'a str,
    /// `instance` (RFC 9457 section 3.1.5): the target, and the id of the request.
    instance: String,
    request: &'a str,
    code: &'a str,
}

/// The methods that pass.
const ALLOW: HeaderValue = HeaderValue::from_static("GET, HEAD, OPTIONS, POST, PUT, DELETE, PATCH");

/// Answer of this server itself to OPTIONS.
fn options() -> Response<Body> {
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(header::ALLOW, ALLOW);
    response
}

/// Builds the proxy's own answer to a request with these fields.
pub(super) fn refuse(
    refusal: &Refusal,
    asking: &RequestContext,
    asked: &HeaderMap,
    name: &str,
) -> Response<Body> {
    if matches!(refusal, Refusal::Options) {
        return options();
    }
    let status = refusal.status();
    let detail = refusal.detail();
    if let Refusal::Upstream(error) = refusal
        && !error.is_the_viewers()
    {
        tracing::warn!(request = %asking.trace, path = asking.uri.path(), error = %ErrorChain(error), "an upstream gave no answer");
    }
    let title = status.canonical_reason().unwrap_or("Error");
    let (kind, text) = if wants_json(asked) {
        let problem = ProblemBody {
            title,
            status: status.as_u16(),
            detail: &detail,
            instance: format!("{}#{}", asking.uri.path(), asking.trace),
            request: asking.trace.as_str(),
            code: refusal.kind(),
        };
        ("application/problem+json", serde_json::to_string(&problem).unwrap_or_default())
    } else {
        ("text/plain; charset=utf-8", format!("{} {title}\n\n{detail}\n", status.as_u16()))
    };
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = status;
    let fields = response.headers_mut();
    insert_header(fields, header::CONTENT_TYPE, kind);
    insert_header(fields, header::CONTENT_LENGTH, &text.len().to_string());
    insert_header(fields, header::CACHE_CONTROL, "no-store");
    // Without this field a browser hides the status from the viewer's script.
    cors::allow_any_origin(asked, fields);
    insert_header(fields, PROXY_STATUS, &format!("{name}; error={}", refusal.kind()));
    if let Some(seconds) = refusal.retry_after() {
        insert_header(fields, header::RETRY_AFTER, &seconds.to_string());
    }
    // SECURITY: after a request that cannot be trusted the following bytes must not be read as another one. (hyper writes
    // this field into HTTP/1 only.)
    if matches!(refusal, Refusal::BadRequest(_) | Refusal::Malformed(_)) && asking.is_http_1 {
        insert_header(fields, header::CONNECTION, "close");
    }
    match refusal {
        Refusal::Pending(_) => insert_header(fields, HEAL_STATUS, Outcome::Pending.as_str()),
        Refusal::Method => {
            fields.insert(header::ALLOW, ALLOW);
        }
        _ => {}
    }
    if asking.method != Method::HEAD {
        *response.body_mut() = text.into();
    }
    response
}

fn insert_header(fields: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        fields.insert(name, value);
    }
}

/// True if `Accept` names JSON, and not only `*/*`.
fn wants_json(headers: &HeaderMap) -> bool {
    let accepts = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    // A cheap test: `Accept` of nearly no image request has this letter.
    let accepts = accepts.filter(|accept| accept.as_bytes().contains(&b'j'));
    accepts.flat_map(|accept| accept.split(',')).any(|range| {
        let kind = range.split(';').next().unwrap_or_default().trim();
        kind == "application/json" || kind.ends_with("+json")
    })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("192.0.2.77", LogClient::Masked, Some("192.0.2.0"))]
    #[case("::ffff:192.0.2.77", LogClient::Masked, Some("192.0.2.0"))]
    #[case("2001:db8:1:2:3::4", LogClient::Masked, Some("2001:db8:1::"))]
    #[case("2001:db8:1:2:3::4", LogClient::Full, Some("2001:db8:1:2:3::4"))]
    #[case("::ffff:192.0.2.77", LogClient::Full, Some("192.0.2.77"))]
    #[case("192.0.2.77", LogClient::None, None)]
    fn as_much_of_an_address_is_told_as_may_be(
        #[case] client: &str,
        #[case] how: LogClient,
        #[case] shown: Option<&str>,
    ) {
        let client = client.parse().expect("an address");
        assert_eq!(told(client, how).map(|shown| shown.to_string()).as_deref(), shown);
    }
}
