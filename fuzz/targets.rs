//! What every fuzz target does with its bytes. Used by `fuzz/fuzz_targets/` and by `tests/it/fuzz_smoke.rs`.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use http::{HeaderName, HeaderValue, Method, Request};
use iiif_mender::config::Settings;
use iiif_mender::iiif::{Identifier, ImageRequest, json_repair, manifest};
use iiif_mender::listen;
use iiif_mender::observe::line_of;
use iiif_mender::proxy::{self, ClientInfo, forwarded};
use iiif_mender::upstream::guard::CanvasGuard;
use iiif_mender::upstream::{Clients, read_answer};

/// A target: takes any bytes; a broken promise panics.
pub(crate) type Target = fn(&[u8]);

/// All of them, by name.
pub(crate) const ALL: [(&str, Target); 11] = [
    ("identifier", identifier),
    ("image_request", image_request),
    ("manifest", walk),
    ("salvage", repair),
    ("canvas_guard", canvas_guard),
    ("header_rules", header_rules),
    ("forwarded", parse_forwarded),
    ("config", config),
    ("proxy_protocol", proxy_protocol),
    ("log_line", log_line),
    ("http1_answer", http1_answer),
];

static SETTINGS: LazyLock<Arc<Settings>> = LazyLock::new(|| {
    let text = r#"
        [server]
        public_hosts = ["us.example"]
        trusted_proxies = ["10.0.0.0/8"]
        [[routes]]
        prefix = "/iiif/2/"
        upstream = "http://127.0.0.1:8182/iiif/2/"
        kind = "image"
        [[routes]]
        prefix = "/iiif-service/"
        upstream = "http://127.0.0.1:9000/base/"
        kind = "presentation"
        [[routes]]
        prefix = "/"
        upstream = "http://127.0.0.1:8182/"
    "#;
    Arc::new(settings(text).expect("a configuration"))
});

fn settings(text: &str) -> Option<Settings> {
    Settings::from_text(Path::new("/nowhere/config.toml"), text, Vec::<(String, String)>::new()).ok()
}

/// An identifier is kept as it came, and its key is stable.
pub(crate) fn identifier(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let identifier = Identifier::new(text);
    assert_eq!(identifier.as_sent(), text);
    let _kind = identifier.kind();
    assert_eq!(identifier.key(), Identifier::new(text).key());
}

/// The identifier of an image request is the beginning of its path.
pub(crate) fn image_request(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Some(request) = ImageRequest::parse(text) {
        assert!(text.starts_with(request.identifier.as_sent()));
        let _may = request.is_healable();
    }
}

/// Any bytes end the walk through a manifest, and give no more canvases than bytes.
pub(crate) fn walk(data: &[u8]) {
    let mut canvases = 0;
    let _document = manifest::walk_slice(data, &mut |_| canvases += 1);
    assert!(canvases <= data.len());
}

/// What is mended parses, and mending it again changes nothing.
pub(crate) fn repair(data: &[u8]) {
    if let Some(mended) = json_repair::repair_json(data) {
        assert!(serde_json::from_slice::<serde::de::IgnoredAny>(&mended).is_ok());
        assert_eq!(json_repair::repair_json(&mended).as_deref(), Some(&*mended));
    }
}

/// A canvas URL leads to the presentation route's own path, without dots, or nowhere.
pub(crate) fn canvas_guard(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Some(allowed) = CanvasGuard::new(Arc::clone(&SETTINGS)).allow(text) {
        for target in [&allowed.visit, &allowed.rebuild] {
            let path = target.split('?').next().expect("a path");
            assert!(path.starts_with("/base/"), "{target}");
            assert!(!path.split('/').any(|segment| matches!(segment, "." | "..")), "{target}");
            assert!(!target.contains(['\r', '\n', ' ', '#']), "{target}");
        }
        // The service takes any of these for yes (docs/upstream.md "Ways back to life").
        let mut pairs = allowed.rebuild.split_once('?').expect("a query").1.split('&');
        assert!(
            pairs.any(|pair| matches!(pair, "update" | "update=" | "update=true")),
            "{}",
            allowed.rebuild
        );
    }
}

/// What goes upstream has one Host, nothing of the hop, and no dots; and a stranger is not believed.
pub(crate) fn header_rules(data: &[u8]) {
    let Some(head) = head(data) else { return };
    let peer = SocketAddr::from(([192, 0, 2, 7], 4711));
    let viewer = ClientInfo::new(peer, Clients::default().get(peer.ip()));
    let Some(onward) = proxy::rules(&SETTINGS, &viewer, head) else { return };
    let count = |name: &str| onward.headers.get_all(name).iter().count();
    for gone in [
        "connection",
        "keep-alive",
        "proxy-connection",
        "te",
        "upgrade",
        "http2-settings",
        "transfer-encoding",
        "expect",
    ] {
        assert_eq!(count(gone), 0, "{gone}");
    }
    for hearsay in ["x-iiif-id", "x-original-url", "x-rewrite-url", "x-forwarded-prefix", "x_forwarded_host"]
    {
        assert_eq!(count(hearsay), 0, "{hearsay}");
    }
    for once in ["host", "via", "x-forwarded-for", "x-forwarded-host"] {
        assert_eq!(count(once), 1, "{once}");
    }
    assert_eq!(onward.headers["x-forwarded-for"], "192.0.2.7");
    assert!(onward.uri.path().starts_with('/') || onward.uri.path() == "*");
    assert!(!onward.uri.path().split('/').any(|segment| matches!(segment, "." | "..")), "{}", onward.uri);
}

/// The first line is `METHOD target`, each other `name: value`.
fn head(data: &[u8]) -> Option<http::request::Parts> {
    let mut lines = data.split(|byte| *byte == b'\n');
    let (method, target) = std::str::from_utf8(lines.next()?).ok()?.split_once(' ')?;
    let mut request = Request::builder().method(Method::from_bytes(method.as_bytes()).ok()?).uri(target);
    for line in lines {
        let at = line.iter().position(|byte| *byte == b':')?;
        let name = HeaderName::from_bytes(&line[..at]).ok()?;
        request = request.header(name, HeaderValue::from_bytes(line[at + 1..].trim_ascii()).ok()?);
    }
    Some(request.body(()).ok()?.into_parts().0)
}

/// What is read of `Forwarded` can be written and read again.
pub(crate) fn parse_forwarded(data: &[u8]) {
    for element in forwarded::parse(data).unwrap_or_default() {
        if let Some(client) = element.client {
            let text = forwarded::element(client, "", element.proto.unwrap_or("http"));
            let again = forwarded::parse(text.as_bytes()).expect("what we wrote");
            assert_eq!(again[0].client, Some(client));
        }
    }
}

/// Any text is a configuration or a list of mistakes.
pub(crate) fn config(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        let _read = settings(text);
    }
}

/// A header of the PROXY protocol names an address or none. Of version 1 it ends with its line, as the reader takes it:
/// what stands behind that changes nothing.
pub(crate) fn proxy_protocol(data: &[u8]) {
    let said = listen::behind(data);
    let line = data.iter().position(|byte| *byte == b'\n').map_or(data.len(), |end| end + 1);
    if said.is_some() && data.starts_with(b"PROXY ") && data[..line].ends_with(b"\r\n") {
        assert_eq!(listen::behind(&data[..line]), said);
    }
}

/// Whatever a request says is one line of the log: of JSON, or of text that ends as it does for any other request.
pub(crate) fn log_line(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for name in ["path", "query", "message"] {
        let line = line_of(name, &text, true);
        let read: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(read["zlast"], "end", "{line}");
        assert!(!line.contains(is_break), "{line:?}");
        let line = line_of(name, &text, false);
        assert!(line.ends_with("\" zlast=\"end\"") && !line.contains(is_break), "{line:?}");
    }
}

/// What begins another line for somebody, or turns one round.
fn is_break(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// An answer of an upstream is read alike, whole and byte by byte.
pub(crate) fn http1_answer(data: &[u8]) {
    for is_head in [false, true] {
        let whole = read_answer([data], is_head);
        let bytes = read_answer(data.chunks(1), is_head);
        assert_eq!(whole, bytes, "{}", String::from_utf8_lossy(data));
    }
}
