//! Switches of a testbed over HTTP, for clients that are not Rust: browser tests, the tutorial, a compose file.
//!
//! `GET /` returns the state and the counts; `POST /{switch}` or `POST /{switch}?{value}` sets a switch.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Method, Response};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use crate::flow::Flow;
use crate::page::Page;
use crate::wire::{Handler, Panics, Seen, Server, reply};
use crate::world::Testbed;

/// A listener for the switches of a testbed; it ends when dropped.
#[derive(Debug)]
pub struct Control {
    server: Server<Desk>,
}

#[derive(Debug)]
struct Desk {
    bed: Arc<Testbed>,
}

impl Control {
    /// Listens at `address`; port 0 is any free one. Needs a tokio runtime.
    pub fn start(bed: Arc<Testbed>, address: SocketAddr) -> Self {
        Self { server: Server::start_at(address, Arc::new(Desk { bed }), Panics::default()) }
    }

    /// `http://127.0.0.1:{port}`
    pub fn url(&self) -> String {
        format!("http://{}", self.server.address())
    }
}

impl Handler for Desk {
    async fn answer(self: Arc<Self>, seen: Seen) -> Response<Flow> {
        let value = percent_decode_str(seen.query().unwrap_or_default()).decode_utf8_lossy().into_owned();
        let switch = seen.path().trim_start_matches('/');
        let known = match seen.method {
            Method::GET => switch.is_empty(),
            Method::POST => self.act(switch, &value) || self.upset(switch, &value).await,
            _ => false,
        };
        let text = if known { self.state().to_string() } else { json!({"unknown": switch}).to_string() };
        let mut answer = reply(if known { 200 } else { 404 }, text + "\n");
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        answer
    }
}

impl Desk {
    /// Switches of the data: stored, expired, evicted.
    fn act(&self, switch: &str, value: &str) -> bool {
        let bed = &self.bed;
        match switch {
            "expire" if value.is_empty() => bed.expires_everything(),
            "expire" => bed.expires(value),
            "evict-keys" => {
                bed.caches_everything();
                bed.redis.evict_keys();
            }
            "register" => bed.registers_everything(),
            "heat-info" => bed.heats_info(),
            "restart-images" => bed.restart_image_server(),
            "remove-file" => bed.fedora.removes_file(value),
            "restore-file" => bed.fedora.restores_file(value),
            "public-base" => bed.service.public_base(value),
            "image-server-url" => bed.service.image_server_url(value),
            "clear-counts" => bed.ledger.clear(),
            "recover" => {
                bed.service.recovers();
                bed.images.recovers();
                bed.fedora.files_are_well();
                bed.service.comes_up();
                bed.images.comes_up();
                bed.fedora.holdings().iter().flat_map(|book| &book.leaves).for_each(|leaf| {
                    bed.fedora.restores_file(&leaf.path);
                });
            }
            _ => return false,
        }
        true
    }

    /// Switches of faults: delays, outages, errors.
    async fn upset(&self, switch: &str, value: &str) -> bool {
        let bed = &self.bed;
        let time = || Duration::from_millis(value.parse().unwrap_or(0));
        match switch {
            "canvas-delay" => bed.service.canvas_delay(time()),
            "canvas-fails" => bed.service.fails_canvas(value.parse().unwrap_or(503)),
            "canvas-is-well" => bed.service.canvas_is_well(),
            "delay-after-key" => bed.service.delay_after_key(time()),
            "service-down" => bed.service.goes_down().await,
            "service-up" => bed.service.comes_up(),
            "poison-nested" => bed.service.poisons_nested(value.parse().unwrap_or(404)),
            "nested-is-well" => bed.service.nested_is_well(),
            "close-resources" => bed.service.closes_resources(),
            "open-resources" => bed.service.opens_resources(),
            "close-resources-with" => bed.service.closes_resources_with(value.parse().unwrap_or(404)),
            "ignore-disallow" => bed.service.ignores_disallow(),
            "honour-disallow" => bed.service.honours_disallow(),
            "files-fail" => bed.fedora.files_fail(),
            "files-are-well" => bed.fedora.files_are_well(),
            "login" => bed.images.asks_for_login(value != "off"),
            "image-delay" => bed.images.image_delay(time()),
            "images-down" => bed.images.goes_down().await,
            "images-up" => bed.images.comes_up(),
            _ => return false,
        }
        true
    }

    fn state(&self) -> Value {
        let counts = self.bed.counts();
        let page = |page: Page| {
            json!({"identifier": page.identifier, "base64": page.base64_id, "number": page.number,
                "size": [page.size.0, page.size.1], "file": page.file_url, "path": page.path,
                "canvas": page.canvas_path, "manifest": page.presentation_path})
        };
        json!({
            "images": self.bed.images.origin(),
            "service": self.bed.service.origin(),
            "pages": self.bed.pages().into_iter().map(page).collect::<Vec<_>>(),
            "counts": {"visits": counts.visits, "rebuilds": counts.rebuilds,
                "variants": counts.variants, "register": counts.register,
                "generations": counts.generations, "direct": counts.direct, "images": counts.image,
                "info": counts.info, "most_canvases_at_once": counts.canvas_most},
        })
    }
}
