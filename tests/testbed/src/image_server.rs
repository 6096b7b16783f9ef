//! Cantaloupe: routes, how it finds a file, its caches (upstream.md "The parts", "An expired image").

use std::collections::HashMap;
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use http::{Method, Response};
use percent_encoding::percent_decode_str;

use crate::cantaloupe::{
    LAST_MODIFIED, always, asks_for_truth, base, error, info_json, is_uuid, lasting, page_of, set,
};
use crate::client::Client;
use crate::counts::{Kind, Ledger};
use crate::fedora::{Fedora, Refused};
use crate::flow::Flow;
use crate::gate::Gate;
use crate::geometry::Parameters;
use crate::habits::Habits;
use crate::picture;
use crate::wire::{Handler, Panics, Seen, Server, reply, response};

const PREFIX: &str = "/iiif/2/";
const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// A picture that was found.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found {
    number: u32,
    size: (u32, u32),
}

/// State of the image server.
#[derive(Debug)]
pub struct Images {
    fedora: Fedora,
    ledger: Ledger,
    service_url: Mutex<String>,
    client: Client,
    own_port: AtomicU16,
    /// UPSTREAM: info.json is answered from the heap until the server restarts, whatever the state of the key.
    heap: Mutex<HashMap<String, (u32, u32)>>,
    /// The derivative cache, where there is one.
    derivatives: Mutex<Option<HashMap<String, (Bytes, String)>>>,
    refuses_encoded: AtomicU16,
    info_fault: AtomicU16,
    image_fault: AtomicU16,
    broken_info: AtomicBool,
    habits: Habits,
    gate: Gate,
    info_gate: Gate,
    delay: Mutex<Duration>,
    delays: Mutex<HashMap<String, Duration>>,
}

/// The handle. What every stand-in can be switched to is at `Server`.
#[derive(Debug)]
pub struct ImageServer {
    server: Server<Images>,
    images: Arc<Images>,
}

impl Images {
    async fn file_url(&self, id: &str) -> Result<String, u16> {
        if is_uuid(id) {
            if id.bytes().any(|byte| byte.is_ascii_uppercase()) {
                return Err(500);
            }
            let url = format!("{}/resources/{id}/redirect", self.service_url.lock().unwrap());
            let answer = self.client.get(&url, &[]).await.map_err(|_| 500_u16)?;
            return match answer.status {
                301 => Ok(answer.header("location").to_owned()),
                404 => Err(404),
                _ => Err(500),
            };
        }
        if self.habits.ignores_base64() {
            return Err(404);
        }
        let decoded = STANDARD.decode(id).or_else(|_| URL_SAFE.decode(id)).ok();
        let url = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
        url.filter(|url| url.starts_with("http://") || url.starts_with("https://")).ok_or(404)
    }

    async fn find(&self, id: &str) -> Result<Found, u16> {
        if let Some(opened) = self.habits.opened(id) {
            return Ok(opened);
        }
        let found = self.open(id).await?;
        self.habits.keep(id, found);
        Ok(found)
    }

    async fn open(&self, id: &str) -> Result<Found, u16> {
        let (id, page) = page_of(id);
        let url = self.file_url(id).await?;
        let leaf = self.fedora.by_file_url(&url).map_err(|refused| match refused {
            Refused::Unreachable | Refused::Faulty => 500_u16,
            Refused::Missing => 404,
            Refused::Unauthorized => 403,
        })?;
        if page == 0 || page > leaf.pdf_pages.max(1) {
            return Err(400);
        }
        Ok(Found { number: leaf.number + page - 1, size: (leaf.width, leaf.height) })
    }

    /// Identifier as the viewer is to see it.
    fn shown(seen: &Seen, raw_id: &str) -> String {
        let told = seen.header("x-forwarded-id");
        if told.is_empty() { raw_id.to_owned() } else { told.to_owned() }
    }

    fn uri(&self, seen: &Seen, raw_id: &str) -> String {
        let base = base(seen, self.own_port.load(Ordering::SeqCst));
        format!("{base}{PREFIX}{}", Self::shown(seen, raw_id))
    }

    fn redirect(&self, seen: &Seen, raw_id: &str) -> Response<Flow> {
        let mut answer = reply(303, "");
        always(answer.headers_mut());
        lasting(answer.headers_mut());
        set(answer.headers_mut(), "location", &format!("{}/info.json", self.uri(seen, raw_id)));
        answer
    }

    async fn info(&self, seen: &Seen, raw_id: &str, id: &str) -> Response<Flow> {
        self.info_gate.pass().await;
        let fault = self.info_fault.load(Ordering::SeqCst);
        if fault != 0 {
            return error(fault, seen, "resource.InformationRequestHandler.handle");
        }
        let truth = asks_for_truth(seen);
        let cached = self.heap.lock().unwrap().get(id).copied().filter(|_| !truth);
        let size = match cached {
            Some(size) => size,
            None => match self.find(id).await {
                Ok(found) => found.size,
                Err(status) => return error(status, seen, "resource.InformationRequestHandler.handle"),
            },
        };
        self.heap.lock().unwrap().insert(id.to_owned(), size);
        let uri = self.uri(seen, raw_id);
        let mut json = info_json(&uri, size);
        if self.broken_info.load(Ordering::SeqCst) {
            json.truncate(json.len() / 2);
        }
        let mut answer = response(200, Flow::chunked(json));
        let headers = answer.headers_mut();
        always(headers);
        lasting(headers);
        set(headers, "last-modified", LAST_MODIFIED);
        let linked = seen.header("accept").contains("application/ld+json");
        let media_type = if linked { "application/ld+json" } else { "application/json" };
        set(headers, "content-type", &format!("{media_type};charset=UTF-8"));
        answer
    }

    async fn image(&self, seen: &Seen, raw_id: &str, id: &str, rest: &str) -> Response<Flow> {
        let room = "resource.ImageRequestHandler.handle";
        self.gate.pass().await;
        let named = self.delays.lock().unwrap().get(page_of(id).0).copied();
        let delay = named.unwrap_or(*self.delay.lock().unwrap());
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let fault = self.image_fault.load(Ordering::SeqCst);
        let params = match Parameters::parse(rest) {
            _ if fault != 0 => return error(fault, seen, room),
            Err(status) => return error(status, seen, room),
            Ok(params) => params,
        };
        let slot = format!("{id}/{rest}");
        let truth = asks_for_truth(seen);
        let kept = self.derivatives.lock().unwrap().as_ref().and_then(|cache| cache.get(&slot).cloned());
        let kept = kept.filter(|_| !truth);
        let (bytes, canonical) = match kept {
            Some(kept) => kept,
            None => match self.painted(id, params).await {
                Ok(painted) => painted,
                Err(404) if self.habits.loses_key_while_opening() => return error(501, seen, room),
                Err(status) => return error(status, seen, room),
            },
        };
        if let Some(cache) = self.derivatives.lock().unwrap().as_mut() {
            cache.insert(slot, (bytes.clone(), canonical.clone()));
        }
        // The date is the file's: a conditional request is compared with it alone (no ETag).
        let unchanged = seen.header("if-modified-since") == LAST_MODIFIED;
        // Range is not offered: the whole picture comes as 200.
        let mut answer = if unchanged { reply(304, "") } else { response(200, Flow::chunked(bytes)) };
        let headers = answer.headers_mut();
        always(headers);
        lasting(headers);
        set(headers, "last-modified", LAST_MODIFIED);
        set(headers, "content-type", "image/jpeg");
        set(headers, "link", &format!("<{}/{canonical}>;rel=\"canonical\"", self.uri(seen, raw_id)));
        answer
    }

    async fn painted(&self, id: &str, params: Parameters<'_>) -> Result<(Bytes, String), u16> {
        let found = self.find(id).await?;
        let plan = params.plan(found.size)?;
        let canonical = params.canonical(&plan, found.size);
        self.heap.lock().unwrap().insert(id.to_owned(), found.size);
        if let Some(known) = picture::known(found.number, found.size, plan) {
            return Ok((known, canonical));
        }
        // Painting is work: it must not hold up the other tasks of a current-thread runtime's io.
        let paint = tokio::task::spawn_blocking(move || picture::jpeg(found.number, found.size, plan));
        Ok((paint.await.expect("a painted page"), canonical))
    }
}

impl Handler for Images {
    async fn answer(self: Arc<Self>, seen: Seen) -> Response<Flow> {
        let path = seen.path().to_owned();
        let rest = path.strip_prefix(PREFIX).unwrap_or_default();
        let (raw_id, what) = rest.split_once('/').unwrap_or((rest, ""));
        let kind = match what {
            _ if raw_id.is_empty() => Kind::Other,
            "" => Kind::Base,
            "info.json" => Kind::Info,
            _ => Kind::Image,
        };
        self.ledger.see(kind, &seen);
        let refuses = self.refuses_encoded.load(Ordering::SeqCst);
        if refuses != 0 && path.to_ascii_lowercase().contains("%2f") {
            return reply(refuses, "refused by the gateway");
        }
        if seen.method != Method::GET && seen.method != Method::HEAD {
            return reply(405, "");
        }
        if kind != Kind::Base && self.habits.refuses_stranger(&seen) {
            return error(401, &seen, "resource.RequestHandler.authorize");
        }
        let id = percent_decode_str(raw_id).decode_utf8_lossy().into_owned();
        let answer = match kind {
            Kind::Base => self.redirect(&seen, raw_id),
            Kind::Info => self.info(&seen, raw_id, &id).await,
            Kind::Image => self.image(&seen, raw_id, &id, what).await,
            _ => error(404, &seen, "resource.HandlerServlet.handle"),
        };
        self.habits.delivers(&seen.target).await;
        answer
    }
}

impl Deref for ImageServer {
    type Target = Server<Images>;

    fn deref(&self) -> &Self::Target {
        &self.server
    }
}

impl ImageServer {
    pub(crate) fn start(
        address: SocketAddr,
        fedora: Fedora,
        ledger: Ledger,
        derivatives: bool,
        panics: Panics,
    ) -> Self {
        let images = Arc::new(Images {
            fedora,
            ledger,
            service_url: Mutex::default(),
            client: Client::ruby(),
            own_port: AtomicU16::new(0),
            heap: Mutex::default(),
            derivatives: Mutex::new(derivatives.then(HashMap::new)),
            refuses_encoded: AtomicU16::new(0),
            info_fault: AtomicU16::new(0),
            image_fault: AtomicU16::new(0),
            broken_info: AtomicBool::new(false),
            habits: Habits::default(),
            gate: Gate::default(),
            info_gate: Gate::default(),
            delay: Mutex::default(),
            delays: Mutex::default(),
        });
        let server = Server::start_at(address, Arc::clone(&images), panics);
        images.own_port.store(server.address().port(), Ordering::SeqCst);
        Self { server, images }
    }

    /// `http://127.0.0.1:{port}/iiif/2`
    pub fn url(&self) -> String {
        format!("{}/iiif/2", self.origin())
    }

    /// Sets the URL at which the file of a UUID is looked up: the canvas service (`…/iiif-service`).
    pub fn service_url(&self, url: impl Into<String>) {
        *self.images.service_url.lock().unwrap() = url.into();
    }

    /// Empties the heap: info.json tells the truth again. A derivative cache, being on disk, stays, info.json with it.
    pub fn restarts(&self) {
        // UPSTREAM: info.json is kept in the derivative cache as well.
        if self.images.derivatives.lock().unwrap().is_none() {
            self.images.heap.lock().unwrap().clear();
        }
    }

    /// Empties the derivative cache.
    pub fn purges_derivatives(&self) {
        if let Some(cache) = self.images.derivatives.lock().unwrap().as_mut() {
            cache.clear();
        }
    }

    /// Habits of this image server that a test switches on.
    pub(crate) fn habits(&self) -> &Habits {
        &self.images.habits
    }

    /// Puts an identifier's info.json into the heap, as a request would.
    pub fn remembers_info(&self, id: &str, size: (u32, u32)) {
        self.images.heap.lock().unwrap().insert(id.to_owned(), size);
    }

    /// Every info.json answers this status: the nested one too, which poisons (upstream.md "Poison").
    pub fn info_faults(&self, status: u16) {
        self.images.info_fault.store(status, Ordering::SeqCst);
    }

    /// info.json is answered again.
    pub fn info_is_well(&self) {
        self.images.info_fault.store(0, Ordering::SeqCst);
    }

    /// Every picture answers this status.
    pub fn image_faults(&self, status: u16) {
        self.images.image_fault.store(status, Ordering::SeqCst);
    }

    /// info.json is cut in half, and ends cleanly.
    pub fn broken_json(&self) {
        self.images.broken_info.store(true, Ordering::SeqCst);
    }

    /// A gateway in front refuses `%2F` with this status (400 or 404). By default encoded slashes work.
    pub fn refuses_encoded_slashes(&self, status: u16) {
        self.images.refuses_encoded.store(status, Ordering::SeqCst);
    }

    /// Every picture takes this long.
    pub fn image_delay(&self, delay: Duration) {
        *self.images.delay.lock().unwrap() = delay;
    }

    /// The pictures of one identifier (without `;page`) take this long.
    pub fn image_delay_of(&self, id: &str, delay: Duration) {
        self.images.delays.lock().unwrap().insert(id.to_owned(), delay);
    }

    /// Pictures stop until [`ImageServer::releases`].
    pub fn stalls_images(&self) {
        self.images.gate.shut();
    }

    /// Every info.json stops until [`ImageServer::releases`]: two stuck nested ones block the whole service.
    pub fn stalls_info(&self) {
        self.images.info_gate.shut();
    }

    /// Opens every gate and ends `hangs`.
    pub fn releases(&self) {
        self.images.gate.open();
        self.images.info_gate.open();
        self.server.goes_on();
    }

    /// Ends all misbehaviour but `goes_down`, delays included.
    pub fn recovers(&self) {
        self.releases();
        self.server.behaves();
        for fault in [&self.images.info_fault, &self.images.image_fault, &self.images.refuses_encoded] {
            fault.store(0, Ordering::SeqCst);
        }
        self.images.broken_info.store(false, Ordering::SeqCst);
        self.images.habits.is_well();
        self.image_delay(Duration::ZERO);
        self.images.delays.lock().unwrap().clear();
    }
}
