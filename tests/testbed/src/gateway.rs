//! Gateway: one host for everything, as the library's API host is: pictures, presentations, and other paths beside them.

use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, Method, Response};

use crate::client::Client;
use crate::flow::Flow;
use crate::wire::{ANYWHERE, Handler, Panics, Seen, Server, reply, response};
use crate::world::Testbed;

/// Fields of one hop, and those that each side says itself.
const OWN: [HeaderName; 4] = [CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING];

/// State of the gateway.
#[derive(Debug)]
pub struct Desk {
    images: String,
    service: String,
    client: Client,
    errors: AtomicUsize,
    pictures: AtomicUsize,
}

/// A server that passes `/iiif/2/` and `/iiif-service/` on to the stand-ins. Answers itself: `/iiif/2`, for health checks;
/// any path with a segment `sized-{bytes}` or `sized-{bytes}-{anything}`, with so many bytes; a POST, with the count of
/// bytes that came; everything else, with `here`.
#[derive(Debug)]
pub struct Gateway {
    server: Server<Desk>,
    desk: Arc<Desk>,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.server.panics().raise();
    }
}

impl Deref for Gateway {
    type Target = Server<Desk>;

    fn deref(&self) -> &Self::Target {
        &self.server
    }
}

impl Gateway {
    /// Starts a gateway in front of this testbed, at a port of its own. Needs a tokio runtime.
    pub fn start(bed: &Testbed) -> Self {
        Self::start_at(ANYWHERE, bed)
    }

    /// Starts a gateway at this address.
    pub fn start_at(address: SocketAddr, bed: &Testbed) -> Self {
        let desk = Arc::new(Desk {
            images: bed.images.origin(),
            service: bed.service.origin(),
            client: Client::default(),
            errors: AtomicUsize::new(0),
            pictures: AtomicUsize::new(0),
        });
        Self { server: Server::start_at(address, Arc::clone(&desk), Panics::default()), desk }
    }

    /// Error pages of the image server have at least so many bytes.
    pub fn errors_of(&self, bytes: usize) {
        self.desk.errors.store(bytes, Ordering::SeqCst);
    }

    /// Sets the minimum size of pictures at full size (`/full/full/`) in bytes; bytes after the JPEG's end are no part of
    /// the picture.
    pub fn full_pictures_of(&self, bytes: usize) {
        self.desk.pictures.store(bytes, Ordering::SeqCst);
    }
}

/// Number of bytes of a path with `sized-{bytes}` or `sized-{bytes}-{anything}`.
fn sized(path: &str) -> Option<usize> {
    let wanted = path.split('/').find_map(|segment| segment.strip_prefix("sized-"))?;
    wanted.split('-').next()?.parse().ok()
}

fn large(path: &str, bytes: usize) -> Response<Flow> {
    let is_document = path.starts_with("/iiif-service/");
    let text = if is_document { format!("\"{}\"", "j".repeat(bytes.max(2) - 2)) } else { "x".repeat(bytes) };
    let mut answer = reply(200, text);
    let kind = if is_document { "application/json" } else { "image/jpeg" };
    answer.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
    answer
}

impl Desk {
    async fn pass(&self, origin: &str, seen: &Seen) -> Response<Flow> {
        let fields: Vec<_> = (seen.headers.iter())
            .filter(|(name, _)| !OWN.contains(name))
            .filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)))
            .collect();
        let url = format!("{origin}{}", seen.target);
        let sent = self.client.send_body(seen.method.clone(), &url, &fields, seen.body.clone()).await;
        let Ok(answer) = sent else { return reply(502, "nobody is there") };
        let least = match answer.status {
            400.. => &self.errors,
            200 if seen.target.contains("/full/full/") => &self.pictures,
            _ => return passed(answer.status, &answer.headers, answer.body),
        };
        let mut body = Vec::from(answer.body);
        body.resize(body.len().max(least.load(Ordering::SeqCst)), b' ');
        passed(answer.status, &answer.headers, body.into())
    }
}

fn passed(status: u16, headers: &HeaderMap, body: Bytes) -> Response<Flow> {
    let has_length = headers.contains_key(CONTENT_LENGTH);
    let mut answer = response(status, if has_length { Flow::sized(body) } else { Flow::chunked(body) });
    let kept = headers.iter().filter(|(name, _)| !OWN.contains(name));
    answer.headers_mut().extend(kept.map(|(name, value)| (name.clone(), value.clone())));
    answer
}

impl Handler for Desk {
    async fn answer(self: Arc<Self>, seen: Seen) -> Response<Flow> {
        let path = seen.path();
        if let Some(bytes) = sized(path) {
            large(path, bytes)
        } else if path.starts_with("/iiif/2/") {
            self.pass(&self.images, &seen).await
        } else if path.starts_with("/iiif-service/") {
            self.pass(&self.service, &seen).await
        } else if seen.method == Method::POST {
            reply(200, seen.body.len().to_string())
        } else {
            reply(200, "here")
        }
    }
}
