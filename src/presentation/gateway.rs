//! Gateway for stored manifests: those that are hosted elsewhere and indexed from files are served here as well, with image
//! URLs that lead through us. So an existing collection gets healing images by changing one URL.
//!
//! SECURITY: a manifest is asked for by its id, looked up in the index. No part of the request becomes part of a path or of
//! a URL, so this is neither a file server nor an open proxy.

use std::borrow::Cow;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::UNIX_EPOCH;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use http_body::{Body as HttpBody, Frame, SizeHint};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::{Value, json};
use tokio::io::{AsyncRead as _, ReadBuf};

use super::buffer::text;
use super::buffer::{BufferResult, BufferedDocument, gather};
use super::{PresentationInner, PresentationProxy, PresentationResponse, cors, json_repair};
use crate::iiif::manifest;
use crate::index::{Index, IndexError, LocalManifest, StoredManifest};
use crate::observe::EventKind;
use crate::upstream::coding::GZIP;
use crate::upstream::{Body, BodyError, Client, MemoryBudget};

/// Path prefix of stored manifests.
const PREFIX: &str = "/manifests";

/// Manifests listed in one collection; more are listed in several, in a collection of collections.
const PAGE_SIZE: usize = 1_000;

/// Bytes read from a file at once.
const READ_SIZE: usize = 64 << 10;

/// Result of a request.
#[derive(Debug)]
pub enum GatewayResult {
    /// The request is none for the gateway.
    Elsewhere,
    /// No manifest has this name.
    Unknown,
    /// The answer.
    Answer(PresentationResponse),
}

impl PresentationProxy {
    /// Answers a request for `/manifests/…`, where that is switched on. `base`: scheme and host that the viewer knows;
    /// `client`: its address.
    pub async fn gateway(
        &self,
        asked: &Parts,
        base: impl FnOnce() -> String,
        client: impl FnOnce() -> Arc<Client>,
    ) -> GatewayResult {
        let inner = &self.inner;
        let rest = asked.uri.path().strip_prefix(PREFIX).filter(|_| inner.settings.presentation.manifests);
        let name = match rest {
            None => return GatewayResult::Elsewhere,
            Some("" | "/") => "",
            Some(rest) => match rest.strip_prefix('/') {
                Some(name) => name,
                None => return GatewayResult::Elsewhere,
            },
        };
        let response = match asked.method {
            Method::GET | Method::HEAD if name.is_empty() => {
                Box::pin(inner.collection(asked.uri.query(), &inner.base(base))).await
            }
            Method::GET | Method::HEAD => {
                Box::pin(inner.stored(name, asked, &inner.budget.of(Some(client())))).await
            }
            Method::OPTIONS => Some(cors::permission(&asked.headers)),
            _ => Some(not_allowed(&asked.headers)),
        };
        let Some(mut response) = response else { return GatewayResult::Unknown };
        cors::allow_any_origin(&asked.headers, response.headers_mut());
        if asked.method == Method::HEAD {
            *response.body_mut() = Body::Empty;
        }
        GatewayResult::Answer(response.into())
    }
}

fn not_allowed(asked: &HeaderMap) -> Response<Body> {
    let mut response = cors::permission(asked);
    *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    response
}

/// Path of the collection of stored manifests.
pub const ROOT: &str = "/manifests/";

/// Characters that a path segment may hold unencoded (RFC 3986 section 2.3).
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// The path of a manifest here: the name of its file, or where another file is found by that its id, in an alphabet that
/// needs no escapes.
pub fn path_of(manifest: &StoredManifest) -> String {
    match &manifest.name {
        Some(name) => format!("{ROOT}{}", utf8_percent_encode(name, PLAIN)),
        None => format!("{ROOT}{}", URL_SAFE_NO_PAD.encode(&manifest.uri)),
    }
}

/// Finds the id of the manifest with this name. A name leads to ids of the index alone.
fn asked_for(index: &Index, name: &str) -> Result<Option<String>, IndexError> {
    if let Ok(name) = percent_decode_str(name).decode_utf8()
        && let Some(uri) = index.stored_named(&name)?
    {
        return Ok(Some(uri));
    }
    Ok(URL_SAFE_NO_PAD.decode(name).ok().and_then(|uri| String::from_utf8(uri).ok()))
}

impl PresentationInner {
    fn base(&self, told: impl FnOnce() -> String) -> String {
        match &self.settings.rewrite.public_url {
            Some(url) => format!("{}://{}", url.scheme, url.authority),
            None => told(),
        }
    }

    /// Returns the manifests as a collection (Presentation 3.0 section 5.1). Its pages are collections, too.
    async fn collection(self: &Arc<Self>, query: Option<&str>, base: &str) -> Option<Response<Body>> {
        let page: Option<usize> = match query {
            None | Some("") => None,
            Some(query) => Some(query.strip_prefix("page=")?.parse().ok().filter(|page| *page > 0)?),
        };
        let (inner, base) = (Arc::clone(self), base.to_owned());
        let listed = tokio::task::spawn_blocking(move || inner.list(page, &base)).await.ok()?;
        let json =
            listed.inspect_err(|error| tracing::error!(%error, "the manifests cannot be listed")).ok()??;
        let body = serde_json::to_vec(&json).ok()?;
        let mut response = Response::new(Bytes::from(body).into());
        typed(response.headers_mut());
        Some(response)
    }

    fn list(&self, page: Option<usize>, base: &str) -> Result<Option<Value>, IndexError> {
        let root = format!("{base}{ROOT}");
        let count = self.index.stored_count()?;
        let pages = count.div_ceil(PAGE_SIZE);
        let labelled = |label: &str| json!({ "none": [label] });
        let part =
            |page: usize| (format!("{root}?page={page}"), format!("Manifests, part {page} of {pages}"));
        let items: Vec<Value> = match page {
            None if pages > 1 => {
                let one = |page| {
                    let (id, label) = part(page);
                    json!({ "id": id, "type": "Collection", "label": labelled(&label) })
                };
                (1..=pages).map(one).collect()
            }
            Some(page) if page > pages => return Ok(None),
            page => {
                let listed =
                    self.index.stored_list((page.unwrap_or(1) - 1).saturating_mul(PAGE_SIZE), PAGE_SIZE)?;
                let one = |manifest: StoredManifest| {
                    let id = format!("{base}{}", path_of(&manifest));
                    let label = manifest.label.as_deref().unwrap_or(&manifest.uri);
                    json!({ "id": id, "type": "Manifest", "label": labelled(label) })
                };
                listed.into_iter().map(one).collect()
            }
        };
        let mut json = json!({
            "@context": "http://iiif.io/api/presentation/3/context.json",
            "id": root,
            "type": "Collection",
            "label": labelled("Manifests"),
            "items": items,
        });
        if let Some(page) = page {
            let (id, label) = part(page);
            json["id"] = id.into();
            json["label"] = labelled(&label);
            json["partOf"] = json!([{ "id": root, "type": "Collection" }]);
        }
        Ok(Some(json))
    }

    /// Answers with a manifest out of its file.
    async fn stored(
        self: &Arc<Self>,
        name: &str,
        asked: &Parts,
        budget: &MemoryBudget,
    ) -> Option<Response<Body>> {
        let (inner, name) = (Arc::clone(self), name.to_owned());
        let opened = tokio::task::spawn_blocking(move || {
            let stored = asked_for(&inner.index, &name)
                .and_then(|uri| uri.map_or(Ok(None), |uri| inner.index.stored(&uri)))
                .inspect_err(|error| tracing::error!(%error, "lookup failed"));
            let stored = stored.ok().flatten()?;
            let opened = open(&stored);
            opened.inspect_err(|error| tracing::warn!(file = %stored.file.display(), %error, "a manifest cannot be read")).ok()
        });
        let OpenedFile { file, size, tag, is_packed } = opened.await.ok()??;
        let mut head = Response::new(()).into_parts().0;
        typed(&mut head.headers);
        head.headers.insert(header::ETAG, HeaderValue::from_str(&tag).ok()?);
        if text(&asked.headers, header::IF_NONE_MATCH).split(',').any(|known| known.trim() == tag) {
            head.status = StatusCode::NOT_MODIFIED;
            return Some(Response::from_parts(head, Body::Empty));
        }
        let most = self.settings.presentation.max_body;
        let file = tokio::fs::File::from_std(file);
        let body = Body::shaped(FileBody { file, left: size, buffer: Vec::new() });
        if asked.method == Method::HEAD {
            return Some(Response::from_parts(head, Body::Empty));
        }
        if is_packed {
            head.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        if usize::try_from(size).is_ok_and(|size| size <= most) {
            let bytes = match gather(body, most, budget).await {
                BufferResult::Whole(bytes) => bytes,
                BufferResult::Cut(body) => return Some(Response::from_parts(head, body)),
                BufferResult::Longer(body) | BufferResult::Refused(body) => {
                    self.metrics.event(EventKind::HeldRefused);
                    return Some(Response::from_parts(head, body));
                }
            };
            let mut whole = BufferedDocument::new(head, bytes);
            whole = self.parse_permits.parse(whole.body.len(), move || as_text(whole, most)).await?;
            if self.settings.presentation.repair {
                json_repair::repair(&mut whole, most, &self.parse_permits, budget, &self.metrics).await;
            }
            return Some(whole.answer().response);
        }
        Some(Response::from_parts(head, body))
    }
}

/// Unpacks and decodes a file: it may be packed, or UTF-16, which viewers cannot read without a field, or at all (RFC 8259
/// section 8.1).
fn as_text(mut whole: BufferedDocument, most: usize) -> BufferedDocument {
    let Some(plain) = whole.plain(most) else { return whole };
    match manifest::utf8(&plain) {
        Cow::Owned(text) => whole.replace(text.into()),
        Cow::Borrowed(_) if whole.head.headers.contains_key(header::CONTENT_ENCODING) => whole.replace(plain),
        Cow::Borrowed(_) => {}
    }
    whole
}

fn typed(fields: &mut HeaderMap) {
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    // Caches may store the file but must revalidate: its owner can change it at any time.
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
}

/// An open file.
struct OpenedFile {
    file: std::fs::File,
    size: u64,
    /// Validator of the file (`ETag`).
    tag: String,
    /// True if the file is compressed with gzip.
    is_packed: bool,
}

/// Opens the file.
///
/// SECURITY: the path from the index is resolved again: a link that was put there since must not lead out of the source.
fn open(stored: &LocalManifest) -> io::Result<OpenedFile> {
    let (file, source) = (stored.file.canonicalize()?, stored.source.canonicalize()?);
    if !is_below(&file, &source) {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it lies outside its source"));
    }
    let file = std::fs::File::open(file)?;
    let looks = file.metadata()?;
    if !looks.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file"));
    }
    let changed = looks.modified()?.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    let (size, mut head) = (looks.len(), [0; GZIP.len()]);
    let is_packed = file.read_at(&mut head, 0)? == head.len() && head == *GZIP;
    Ok(OpenedFile { file, size, tag: format!("W/\"{size:x}-{changed:x}\""), is_packed })
}

fn is_below(file: &Path, source: &Path) -> bool {
    file.starts_with(source)
}

/// A file as it is read.
#[derive(Debug)]
struct FileBody {
    file: tokio::fs::File,
    left: u64,
    buffer: Vec<u8>,
}

impl HttpBody for FileBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let own = &mut *self;
        own.buffer.resize(usize::try_from(own.left).unwrap_or(READ_SIZE).min(READ_SIZE), 0);
        let mut buffer = ReadBuf::new(&mut own.buffer);
        let read = ready!(Pin::new(&mut own.file).poll_read(cx, &mut buffer));
        let size = buffer.filled().len();
        if let Err(error) = read {
            own.left = 0;
            return Poll::Ready(Some(Err(BodyError::Unreadable(error))));
        }
        if size == 0 {
            // The file is shorter than its length said: the viewer must not take it for whole.
            own.left = 0;
            return Poll::Ready(Some(Err(BodyError::Unreadable(io::ErrorKind::UnexpectedEof.into()))));
        }
        own.left -= u64::try_from(size).unwrap_or(own.left).min(own.left);
        own.buffer.truncate(size);
        Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut own.buffer).into()))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
