//! The page's own small server: the page, what it shows, and what its buttons do.
//!
//! iiif-mender's route `/` leads here, so that page and images have one origin and the page may read `Heal-Status`.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use testbed::{Client, Page, Testbed};
use tokio::net::TcpListener;

/// Where the two iiif-menders listen; known only after this server.
pub(crate) type Ports = Arc<OnceLock<[u16; 2]>>;

const PAGE: &str = include_str!("page.html");

/// Serves the page on a free port until the process ends.
pub(crate) async fn serve(bed: Arc<Testbed>, ports: Ports) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (bed, ports) = (Arc::clone(&bed), Arc::clone(&ports));
            tokio::spawn(async move {
                let service = service_fn(move |request| {
                    let (bed, ports) = (Arc::clone(&bed), Arc::clone(&ports));
                    async move { Ok::<_, Infallible>(answer(&bed, &ports, &request).await) }
                });
                // A reader who leaves is no news.
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    Ok(address)
}

async fn answer(
    bed: &Testbed,
    ports: &OnceLock<[u16; 2]>,
    request: &Request<Incoming>,
) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    let number = request.uri().query().and_then(|query| query.strip_prefix("page=")?.parse::<usize>().ok());
    let page = number.and_then(|number| bed.pages().into_iter().nth(number));
    match (request.method(), path) {
        (&Method::GET, "/") => page_of("text/html; charset=utf-8", PAGE.into()),
        (&Method::GET, "/demo/state") => show(&state(bed, ports)),
        (&Method::GET, "/demo/bare") => match page {
            Some(page) => show(&bare(bed, &page).await),
            None => nothing(),
        },
        (&Method::POST, action) => match act(bed, action, page).await {
            Some(()) => show(&state(bed, ports)),
            None => nothing(),
        },
        _ => nothing(),
    }
}

/// What a button does.
async fn act(bed: &Testbed, action: &str, page: Option<Page>) -> Option<()> {
    match action {
        "/demo/expire" => bed.expires_everything(),
        "/demo/forget-keys" => {
            bed.caches_everything();
            bed.redis.evict_keys();
        }
        "/demo/remove-file" => bed.fedora.removes_file(&page?.path),
        "/demo/restore-files" => bed.pages().iter().for_each(|page| bed.fedora.restores_file(&page.path)),
        "/demo/service-down" => bed.service.goes_down().await,
        "/demo/service-up" => bed.service.comes_up(),
        _ => return None,
    }
    Some(())
}

fn state(bed: &Testbed, ports: &OnceLock<[u16; 2]>) -> Value {
    let page = |page: &Page| {
        json!({"identifier": page.identifier, "number": page.number, "canvas": page.canvas_path,
            "book": page.presentation_path.rsplit('/').next()})
    };
    let counts = bed.counts();
    json!({
        "ports": ports.get(),
        "pages": bed.pages().iter().map(page).collect::<Vec<_>>(),
        "counts": {"visits": counts.visits, "rebuilds": counts.rebuilds, "register": counts.register,
            "direct": counts.direct, "images": counts.image},
    })
}

/// What the image server itself says of a page.
async fn bare(bed: &Testbed, page: &Page) -> Value {
    let url = format!("{}{}", bed.images.origin(), page.thumbnail_path());
    match Client::default().get(&url, &[]).await {
        Ok(fetched) => json!({"status": fetched.status}),
        Err(error) => json!({"status": 0, "error": error.to_string()}),
    }
}

fn show(value: &Value) -> Response<Full<Bytes>> {
    page_of("application/json", value.to_string())
}

fn page_of(kind: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn nothing() -> Response<Full<Bytes>> {
    let mut response = page_of("text/plain; charset=utf-8", "nothing here\n".to_owned());
    *response.status_mut() = StatusCode::NOT_FOUND;
    response
}
