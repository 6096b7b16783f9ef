//! The IR IIIF Service: routes, refusals, headers (upstream.md "Errors of the canvas service", "Headers").

use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use http::header::{HeaderName, HeaderValue};
use http::{Method, Response};
use percent_encoding::percent_decode_str;

use crate::counts::{Kind, Ledger};
use crate::flow::Flow;
use crate::generate::{Failed, Workshop};
use crate::redis::Key;
use crate::wire::{Handler, Panics, Seen, Server, reply, response};

const PREFIX: &str = "/iiif-service";

/// The fields of every answer, as recorded.
const ALWAYS: [(&str, &str); 9] = [
    ("vary", "Origin"),
    ("vary", "Access-Control-Request-Method"),
    ("vary", "Access-Control-Request-Headers"),
    ("x-content-type-options", "nosniff"),
    ("x-xss-protection", "1; mode=block"),
    ("cache-control", "no-cache, no-store, max-age=0, must-revalidate"),
    ("pragma", "no-cache"),
    ("expires", "0"),
    ("x-frame-options", "DENY"),
];

/// State of the canvas service.
#[derive(Debug)]
pub struct Routes {
    pub(crate) shop: Workshop,
}

/// The handle. What every stand-in can be switched to is at `Server`.
#[derive(Debug)]
pub struct Service {
    server: Server<Routes>,
    routes: Arc<Routes>,
}

fn typed(mut response: Response<Flow>, media_type: &'static str) -> Response<Flow> {
    response.headers_mut().insert("content-type", HeaderValue::from_static(media_type));
    response
}

fn plain(status: u16, body: String) -> Response<Flow> {
    typed(reply(status, body), "text/plain;charset=UTF-8")
}

fn error_json(status: u16, seen: &Seen) -> Response<Flow> {
    let reason = match status {
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        _ => "Internal Server Error",
    };
    let body = format!(
        r#"{{"timestamp":"2026-11-22T15:42:52.308+00:00","status":{status},"error":"{reason}","path":"{}"}}"#,
        seen.path()
    );
    typed(response(status, Flow::chunked(body)), "application/json")
}

/// Status by which the servlet container and Spring's firewall refuse a path before any controller.
fn firewall(path: &str) -> Option<u16> {
    let encoded = |at: usize| path.get(at + 1..at + 3).unwrap_or("zz");
    for (at, _) in path.match_indices('%') {
        let byte = encoded(at);
        if !byte.chars().all(|digit| digit.is_ascii_hexdigit())
            || byte == "00"
            || byte.eq_ignore_ascii_case("2f")
        {
            return Some(400);
        }
    }
    let climbs = path.split('/').any(|segment| segment == ".." || segment == ".");
    (path.contains("//") || path.contains(';') || climbs).then_some(500)
}

/// Value of a query parameter; the first counts.
fn parameter(seen: &Seen, name: &str) -> Option<String> {
    let pairs = seen.query()?.split('&');
    let mut values = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let value = values.find(|(key, _)| *key == name)?.1;
    Some(percent_decode_str(value).decode_utf8_lossy().into_owned())
}

/// `update`, `update=`, `update=true` are accepted; `TRUE`, `1`, `false` are not.
fn wants_update(seen: &Seen) -> bool {
    parameter(seen, "update").is_some_and(|value| value.is_empty() || value == "true")
}

/// True if `text/plain` may be answered; else 406.
fn takes_text(seen: &Seen) -> bool {
    let accept = seen.header("accept");
    accept.is_empty() || ["text/plain", "text/*", "*/*"].iter().any(|range| accept.contains(range))
}

impl Handler for Routes {
    async fn answer(self: Arc<Self>, mut seen: Seen) -> Response<Flow> {
        let inside = seen.headers.remove("x-testbed-inside").is_some();
        let mut answer = self.route(&seen, inside).await;
        let headers = answer.headers_mut();
        for (name, value) in ALWAYS {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        if let Some(origin) = seen.headers.get("origin") {
            headers.insert("access-control-allow-origin", origin.clone());
            headers.insert("access-control-allow-credentials", HeaderValue::from_static("true"));
        }
        answer
    }
}

impl Routes {
    async fn route(&self, seen: &Seen, inside: bool) -> Response<Flow> {
        let ledger = &self.shop.ledger;
        let path = seen.path().strip_prefix(PREFIX).unwrap_or("/-");
        // A trailing slash changes nothing.
        let path = path.strip_suffix('/').unwrap_or(path);
        let update = wants_update(seen);
        let repository = path.strip_prefix("/fedora/").and_then(|rest| rest.split_once('/'));
        let (kind, stored) = match repository {
            Some(("canvas", _)) if !parameter(seen, "disallow").unwrap_or_default().is_empty() => {
                (Kind::Variant, Some("canvas"))
            }
            Some(("presentation", _)) if !parameter(seen, "disallow").unwrap_or_default().is_empty() => {
                (Kind::BookVariant, Some("presentation"))
            }
            Some(("canvas", _)) if update => (Kind::Rebuild, Some("canvas")),
            Some(("canvas", _)) => (Kind::Visit, Some("canvas")),
            Some(("presentation", _)) => (Kind::Presentation, Some("presentation")),
            Some(("sequence", _)) => (Kind::Sequence, Some("sequence")),
            Some(("collection", _)) => (Kind::Collection, Some("collection")),
            Some(("image", _)) => (Kind::Register, Some("image")),
            _ if path == "/resources/lookup" => (Kind::Lookup, None),
            _ if path.starts_with("/resources/") && path.ends_with("/redirect") => (Kind::Redirect, None),
            _ if path.starts_with("/resources/") => (Kind::Resources, None),
            _ => (Kind::Other, None),
        };
        ledger.see(kind, seen);
        if let Some(status) = firewall(seen.path()) {
            return error_json(status, seen);
        }
        // UPSTREAM: any Basic header fails on the default password setting.
        if seen.header("authorization").to_ascii_lowercase().starts_with("basic") {
            return error_json(500, seen);
        }
        if seen.method != Method::GET && seen.method != Method::HEAD {
            return error_json(405, seen);
        }
        match (stored, repository) {
            (Some(stored), Some((_, path))) => {
                let _in_work = (stored == "canvas").then(|| ledger.canvas_in_work());
                self.document(seen, stored, path, update).await
            }
            _ if kind == Kind::Other => error_json(404, seen),
            _ => {
                if !inside {
                    self.shop.resources_gate.pass().await;
                }
                self.resources(seen, kind, path, inside)
            }
        }
    }

    async fn document(&self, seen: &Seen, kind: &'static str, path: &str, update: bool) -> Response<Flow> {
        let shop = &self.shop;
        if kind == "canvas" {
            shop.canvas_gate.pass().await;
            let (delay, fails, retry_after, hangs) = {
                let switches = shop.switches();
                let hangs = switches.hanging.contains(path);
                (switches.canvas_delay, switches.fails_canvas, switches.retry_after, hangs)
            };
            if hangs {
                shop.hang_gate.pass().await;
            }
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            if let Some(status) = fails {
                let mut answer = error_json(status, seen);
                if let Some(seconds) = retry_after {
                    answer.headers_mut().insert("retry-after", HeaderValue::from(seconds));
                }
                return answer;
            }
        }
        let allow = parameter(seen, "allow").unwrap_or_default();
        let ignored = shop.switches().ignores_disallow;
        let disallow = parameter(seen, "disallow").filter(|_| !ignored).unwrap_or_default();
        let key = Key { kind, path: path.to_owned(), allow, disallow };
        let broken = shop.switches().broken_json;
        match shop.document(key, update).await {
            // A label with a raw backslash and a tab (recorded: quoted-presentation).
            Ok(json) if broken => typed(
                reply(200, json.replacen("\"label\" : [ \"", "\"label\" : [ \"back\\slash \t", 1)),
                JSON,
            ),
            // As Tomcat does.
            Ok(json) => typed(response(200, Flow::chunked(json)), JSON),
            Err(Failed::Internal) => error_json(500, seen),
            Err(Failed::Picture) => error_json(404, seen),
            Err(Failed::Fedora) => reply(503, ""),
            Err(Failed::Redis) => plain(503, "Unable to connect to Redis".to_owned()),
        }
    }

    fn resources(&self, seen: &Seen, kind: Kind, path: &str, inside: bool) -> Response<Flow> {
        let redis = &self.shop.redis;
        let closed = self.shop.switches().closes_resources;
        if let Some(status) = closed.filter(|_| !inside) {
            // A gateway's own page, not the service's sentence.
            let page = "<html><head><title>Not here</title></head><body>nginx</body></html>";
            return typed(reply(status, page), "text/html");
        }
        if kind != Kind::Redirect && !takes_text(seen) {
            return reply(406, "");
        }
        let id = path.trim_start_matches("/resources/").trim_end_matches("/redirect");
        let uri = parameter(seen, "uri").unwrap_or_default();
        let found = if kind == Kind::Lookup { redis.lookup(&uri) } else { redis.resource(id) };
        match (found, kind) {
            (Err(_), _) => plain(503, "Unable to connect to Redis".to_owned()),
            (Ok(None), Kind::Lookup) => plain(404, format!("Resource with url {uri} not found!")),
            (Ok(None), _) => plain(404, format!("Resource with id {id} not found!")),
            (Ok(Some(url)), Kind::Redirect) => {
                let mut answer = reply(301, "");
                answer.headers_mut().insert("location", HeaderValue::from_str(&url).expect("a URL"));
                answer
            }
            (Ok(Some(text)), _) => plain(200, text),
        }
    }
}

const JSON: &str = "application/json;charset=UTF-8";

impl Deref for Service {
    type Target = Server<Routes>;

    fn deref(&self) -> &Self::Target {
        &self.server
    }
}

impl Service {
    pub(crate) fn start(address: SocketAddr, shop: Workshop, panics: Panics) -> Self {
        let routes = Arc::new(Routes { shop });
        Self { server: Server::start_at(address, Arc::clone(&routes), panics), routes }
    }

    fn shop(&self) -> &Workshop {
        &self.routes.shop
    }

    /// `http://127.0.0.1:{port}/iiif-service`
    pub fn url(&self) -> String {
        format!("{}{PREFIX}", self.origin())
    }

    /// Sets the URL of nested requests (`image.server.url`), e.g. `http://127.0.0.1:{proxy}/iiif/2`.
    pub fn image_server_url(&self, url: impl Into<String>) {
        self.shop().switches().image_server_url = url.into();
    }

    /// Sets the start of canvas and image URLs in documents generated from now on.
    pub fn public_base(&self, base: impl Into<String>) {
        self.shop().switches().public_base = base.into();
    }

    /// Delays every canvas request by this time, before the look-up.
    pub fn canvas_delay(&self, delay: Duration) {
        self.shop().switches().canvas_delay = delay;
    }

    /// The key is there, the canvas goes on for this long (upstream.md "Ways back to life").
    pub fn delay_after_key(&self, delay: Duration) {
        self.shop().switches().delay_after_key = delay;
    }

    /// Canvas requests stop before they do anything, until [`Service::releases`].
    pub fn stalls_canvas(&self) {
        self.shop().canvas_gate.shut();
    }

    /// Generations stop once the key is written, until [`Service::releases`].
    pub fn stalls_after_key(&self) {
        self.shop().key_gate.shut();
    }

    /// Opens every gate and ends `hangs`.
    pub fn releases(&self) {
        self.shop().canvas_gate.open();
        self.shop().key_gate.open();
        self.shop().switches().hanging.clear();
        self.shop().hang_gate.open();
        self.shop().resources_gate.open();
        self.server.goes_on();
    }

    /// Nested requests fail as if answered with this status; nothing is sent (upstream.md "Poison").
    pub fn poisons_nested(&self, status: u16) {
        self.shop().switches().poisons_nested = Some(status);
    }

    /// Nested requests are sent again.
    pub fn nested_is_well(&self) {
        self.shop().switches().poisons_nested = None;
    }

    /// Every canvas request answers this status.
    pub fn fails_canvas(&self, status: u16) {
        self.shop().switches().fails_canvas = Some(status);
    }

    /// A gateway answers `/resources/…` with 403 to everyone but the image server.
    pub fn closes_resources(&self) {
        self.shop().switches().closes_resources = Some(403);
    }

    /// A gateway answers `/resources/…` with this status and a page of its own: its 404 does not mean that a key is gone.
    pub fn closes_resources_with(&self, status: u16) {
        self.shop().switches().closes_resources = Some(status);
    }

    /// `/resources/…` takes requests of everyone but the image server and never answers, until [`Service::releases`].
    pub fn hangs_resources(&self) {
        self.shop().resources_gate.shut();
    }

    /// The canvas of this path never answers, until [`Service::releases`].
    pub fn hangs_canvas(&self, path: &str) {
        self.shop().switches().hanging.insert(path.to_owned());
        self.shop().hang_gate.shut();
    }

    /// Every canvas request answers this status, with `Retry-After` in seconds.
    pub fn fails_canvas_until(&self, status: u16, seconds: u32) {
        let mut switches = self.shop().switches();
        switches.fails_canvas = Some(status);
        switches.retry_after = Some(seconds);
    }

    /// `disallow` is not known here: such a GET is a plain one.
    pub fn ignores_disallow(&self) {
        self.shop().switches().ignores_disallow = true;
    }

    /// `disallow` is honoured again, which is how it starts.
    pub fn honours_disallow(&self) {
        self.shop().switches().ignores_disallow = false;
    }

    /// Every canvas is answered again, after [`Service::fails_canvas`].
    pub fn canvas_is_well(&self) {
        let mut switches = self.shop().switches();
        (switches.fails_canvas, switches.retry_after) = (None, None);
    }

    /// `/resources/…` is open again.
    pub fn opens_resources(&self) {
        self.shop().switches().closes_resources = None;
    }

    /// Labels go out with a raw backslash and a tab: not JSON any more.
    pub fn broken_json(&self) {
        self.shop().switches().broken_json = true;
    }

    /// Ends all misbehaviour but `goes_down`, delays included.
    pub fn recovers(&self) {
        self.releases();
        self.server.behaves();
        let mut switches = self.shop().switches();
        *switches = crate::generate::Switches {
            image_server_url: switches.image_server_url.clone(),
            public_base: switches.public_base.clone(),
            ignores_disallow: switches.ignores_disallow,
            ..Default::default()
        };
    }

    /// Counters and log, shared by all stand-ins of the testbed.
    pub fn ledger(&self) -> &Ledger {
        &self.shop().ledger
    }

    pub(crate) fn workshop(&self) -> &Workshop {
        self.shop()
    }
}
