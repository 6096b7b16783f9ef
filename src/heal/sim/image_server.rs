//! The image server of a simulated world.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::request::Parts;
use hyper::Response;
use percent_encoding::percent_decode_str;
use tokio::time::sleep;

use super::case::SimFault;
use super::library::SIDE;
use super::model::Model;
use super::world::Cache;
use crate::config::settings::Timeouts;
use crate::heal::{ResponseFuture, SendRequest};
use crate::upstream::{Body, Caller, UpstreamError};

/// `SimImageServer` is the image server of a site; its paths are below `/iiif/2/`.
#[derive(Debug)]
pub(super) struct SimImageServer(pub(super) Arc<Model>, pub(super) usize);

/// `StrayServer` knows none of our images.
#[derive(Debug)]
pub(super) struct StrayServer(pub(super) Arc<Model>);

/// An answer with this body.
pub(super) fn answer(status: u16, media_type: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::Full(body.into()));
    *response.status_mut() = http::StatusCode::from_u16(status).expect("a status");
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

pub(super) fn refused() -> UpstreamError {
    UpstreamError::Connect(Box::new(std::io::Error::from(std::io::ErrorKind::ConnectionRefused)))
}

impl SendRequest for SimImageServer {
    fn send<'a>(&'a self, _caller: &'a Caller, head: &'a Parts, _times: Timeouts) -> ResponseFuture<'a> {
        Box::pin(async move {
            let target = head.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
            let answered = self.0.image(self.1, &target, head.headers.contains_key("cookie")).await;
            self.0.log(|| match &answered {
                Ok((status, _)) => format!("image  {status} {target}"),
                Err(error) => format!("image  {error} {target}"),
            });
            answered.map(|(status, body)| {
                answer(status, if status == 200 { "image/jpeg" } else { "text/plain" }, body)
            })
        })
    }
}

impl SendRequest for StrayServer {
    fn send<'a>(&'a self, _caller: &'a Caller, head: &'a Parts, _times: Timeouts) -> ResponseFuture<'a> {
        Box::pin(async move {
            self.0.log(|| format!("stray  404 {}", head.uri));
            self.0.state().stray += 1;
            Ok(answer(404, "text/plain", "no such image"))
        })
    }
}

/// Status by the size and region of a picture of [`SIDE`] pixels.
fn judged(tail: &str) -> u16 {
    let mut parts = tail.split('/');
    let (region, size) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let left = region.split(',').next().and_then(|left| left.parse::<u32>().ok()).unwrap_or(0);
    let width = size.split(',').next().and_then(|width| width.trim_start_matches('!').parse::<u32>().ok());
    match width {
        _ if left >= SIDE => 400,
        Some(width) if width > SIDE => 403,
        _ => 200,
    }
}

impl Model {
    /// Answers a request to the image server of this site: status and body.
    pub(super) async fn image(
        &self,
        site: usize,
        target: &str,
        cookie: bool,
    ) -> Result<(u16, String), UpstreamError> {
        sleep(Duration::from_millis(self.world().image_ms)).await;
        if self.has_at(site, SimFault::ImagesDown) {
            return Err(refused());
        }
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let rest = path.strip_prefix("/iiif/2/").unwrap_or_default();
        let (id, tail) = rest.split_once('/').unwrap_or((rest, ""));
        let id = percent_decode_str(id).decode_utf8_lossy().into_owned();
        if self
            .library
            .leaf_with(id.split(';').next().unwrap_or_default())
            .is_some_and(|leaf| self.library.site_of(leaf) != site)
        {
            self.log(|| format!("stray  {target} at site {site}"));
            self.state().stray += 1;
        }
        let truth = query.split('&').any(|pair| pair == "cache=nocache");
        let status = if tail.is_empty() { 303 } else { self.image_status(site, &id, tail, truth, cookie) };
        let body = match status {
            200 if tail == "info.json" => format!(
                r#"{{"@id":"https://lib.example/iiif/2/{id}","protocol":"http://iiif.io/api/image","width":{SIDE},"height":{SIDE}}}"#
            ),
            200 => format!("picture {id} {tail}"),
            404 => "404 Not Found\n\njava.nio.file.NoSuchFileException: HTTP 404".to_owned(),
            501 => "501 Not Implemented\n\nUnsupported source format".to_owned(),
            _ => format!("{status}"),
        };
        Ok((status, body))
    }

    fn image_status(&self, site: usize, id: &str, tail: &str, truth: bool, cookie: bool) -> u16 {
        if self.world().login && !cookie {
            return 401;
        }
        let is_info = tail == "info.json";
        let fault = self.fault(|fault| match fault {
            SimFault::Info(status) if is_info && site == 0 => Some(status),
            SimFault::Images(status) if !is_info && site == 0 => Some(status),
            _ => None,
        });
        if let Some(status) = fault {
            return status;
        }
        let slot = format!("{id}/{tail}");
        let derivatives = self.world().cache == Cache::Derivative;
        let kept = if is_info {
            self.state().infos.contains(id)
        } else {
            derivatives && self.state().tiles.contains(&slot)
        };
        if kept && !truth {
            return 200;
        }
        match self.open(site, id) {
            Err(status) => return status,
            Ok(leaf) => self.state().opened.insert(leaf),
        };
        let status = if is_info { 200 } else { judged(tail) };
        if status == 200 {
            self.state().infos.insert(id.to_owned());
            if !is_info && derivatives {
                self.state().tiles.insert(slot);
            }
        }
        status
    }

    /// The image server starts anew. A derivative cache is on disk, info.json with it.
    pub(super) fn images_restart(&self) {
        if self.world().cache != Cache::Derivative {
            self.state().infos.clear();
        }
    }
}
