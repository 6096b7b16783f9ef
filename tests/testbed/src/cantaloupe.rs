//! Wording of Cantaloupe's answers: headers, error pages, info.json, absolute URLs (upstream.md "An expired image",
//! "Headers").

use std::fmt::Write as _;

use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, Response};

use crate::flow::Flow;
use crate::wire::{Seen, response};

/// The date of every file.
pub(crate) const LAST_MODIFIED: &str = "Sun, 22 Nov 2026 12:00:00 GMT";

pub(crate) fn set(headers: &mut HeaderMap, name: &'static str, value: &str) {
    headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).expect("a field value"));
}

/// The fields of every answer.
pub(crate) fn always(headers: &mut HeaderMap) {
    set(headers, "x-powered-by", "Cantaloupe/Unknown");
    set(headers, "access-control-allow-origin", "*");
    set(headers, "vary", "Accept, Accept-Charset, Accept-Encoding, Accept-Language, Origin");
    set(headers, "server", "Jetty(11.0.17)");
}

/// The fields of a live 200, a 303 and a 304.
pub(crate) fn lasting(headers: &mut HeaderMap) {
    set(headers, "cache-control", "max-age=2592000, public, no-transform");
}

fn reason(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        401 => "Unauthorized",
        415 => "Unsupported Media Type",
        501 => "Not Implemented",
        _ => "Internal Server Error",
    }
}

/// An error page: about 3 KB, chunked, text or HTML by Accept.
pub(crate) fn error(status: u16, seen: &Seen, room: &str) -> Response<Flow> {
    let title = format!("{status} {}", reason(status));
    let cause = match status {
        404 => "java.nio.file.NoSuchFileException: HTTP 404",
        501 => {
            "edu.illinois.library.cantaloupe.source.UnsupportedSourceFormatException: Unsupported source format"
        }
        _ => "java.io.IOException",
    };
    let mut trace = cause.to_owned();
    let rooms = [room, "resource.HandlerServlet.handle", "resource.HandlerServlet.doGet"];
    for line in 0..28 {
        let place = rooms.get(line).copied().unwrap_or("application.servlet.ScopedHandler.nextHandle");
        let number = 100 + line;
        let _infallible =
            write!(trace, "\n\tat edu.illinois.library.cantaloupe.{place}(Standin.java:{number})");
    }
    let html = seen.header("accept").contains("text/html");
    let body = if html {
        format!(
            "<!DOCTYPE html>\n<html>\n    <head>\n        <title>{title}</title>\n    </head>\n\n    <body \
             id=\"cl-error\">\n        <div class=\"container-fluid\">\n            <h1>{title}</h1>\n\n                \
             <p>HTTP {status}</p>\n\n                <pre>{trace}\n</pre>\n        </div>\n    </body>\n</html>\n"
        )
    } else {
        format!("{title}\n\nHTTP {status}\n\n\n{trace}\n\n")
    };
    let mut answer = response(status, Flow::chunked(body));
    let headers = answer.headers_mut();
    always(headers);
    set(headers, "cache-control", "no-cache, must-revalidate");
    set(headers, "content-type", if html { "text/html;charset=utf-8" } else { "text/plain;charset=utf-8" });
    answer
}

/// `scheme://host[:port]{path}` as Cantaloupe believes to be called: Host, or `X-Forwarded-Host` with `-Port`, else
/// its **own** port; `-Proto` and `-Path` count, `Forwarded` does not.
pub(crate) fn base(seen: &Seen, own_port: u16) -> String {
    let first = |name: &str| seen.header(name).split(',').next().unwrap_or_default().trim().to_owned();
    let (proto, forwarded) = (first("x-forwarded-proto"), first("x-forwarded-host"));
    let scheme = if proto.is_empty() { "http".to_owned() } else { proto };
    let named = if forwarded.is_empty() { seen.header("host").to_owned() } else { forwarded.clone() };
    let (host, port) = match named.rsplit_once(':') {
        Some((host, port)) => (host.to_owned(), port.parse::<u16>().ok()),
        None => (named, None),
    };
    let default = if scheme == "https" { 443 } else { 80 };
    let told = first("x-forwarded-port").parse().ok().or(port);
    let port = told.unwrap_or(if forwarded.is_empty() { default } else { own_port });
    let port = if port == default { String::new() } else { format!(":{port}") };
    let path = first("x-forwarded-path");
    format!("{scheme}://{host}{port}{}", path.trim_end_matches('/'))
}

/// info.json, in the recorded layout.
pub(crate) fn info_json(id: &str, (width, height): (u32, u32)) -> String {
    let halvings = (0..16).filter(|halving| (width >> halving) >= 64 && (height >> halving) >= 64);
    let factors: Vec<u32> = halvings.map(|halving| 1 << halving).collect();
    let sizes: Vec<_> = factors
        .iter()
        .rev()
        .map(|factor| format!(r#"{{"width":{},"height":{}}}"#, width / factor, height / factor))
        .collect();
    let factors: Vec<_> = factors.iter().map(ToString::to_string).collect();
    format!(
        concat!(
            r#"{{"@context":"http://iiif.io/api/image/2/context.json","@id":"{id}","protocol":"http://iiif.io/api/image","#,
            r#""width":{w},"height":{h},"sizes":[{sizes}],"tiles":[{{"width":512,"height":512,"scaleFactors":[{factors}]}}],"#,
            r#""profile":["http://iiif.io/api/image/2/level2.json",{{"formats":["tif","jpg","gif","png"],"maxArea":{area},"#,
            r#""qualities":["bitonal","default","gray","color"],"supports":["regionByPx","sizeByW","sizeByWhListed","cors","#,
            r#""regionSquare","sizeByDistortedWh","canonicalLinkHeader","sizeByConfinedWh","sizeByPct","jsonldMediaType","#,
            r#""regionByPct","rotationArbitrary","sizeByH","baseUriRedirect","rotationBy90s","profileLinkHeader","#,
            r#""sizeByForcedWh","sizeByWh","mirroring"]}}]}}"#
        ),
        id = id,
        w = width,
        h = height,
        sizes = sizes.join(","),
        factors = factors.join(","),
        area = width * height,
    )
}

/// `?cache=nocache`: no cache of derivatives or info.json is read.
pub(crate) fn asks_for_truth(seen: &Seen) -> bool {
    seen.query().is_some_and(|query| query.split('&').any(|pair| pair == "cache=nocache"))
}

pub(crate) fn is_uuid(id: &str) -> bool {
    id.len() == 36
        && id.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

/// `{id}` and `;page`.
pub(crate) fn page_of(id: &str) -> (&str, u32) {
    let paged = id.rsplit_once(';').and_then(|(id, page)| Some((id, page.parse().ok()?)));
    paged.unwrap_or((id, 1))
}
