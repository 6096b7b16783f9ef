//! Generation of documents by the canvas service: Fedora reads, the key, the nested request, the cache (upstream.md "Ways
//! back to life", "Poison", "Load").

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Semaphore;

use crate::client::{Client, Fetched};
use crate::counts::Ledger;
use crate::fedora::{Fedora, Holding, Leaf, Refused, uuid_of};
use crate::gate::Gate;
use crate::redis::{Key, Redis, Trouble};
use crate::shapes::Shapes;

/// Error in place of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failed {
    /// Unknown object, Fedora's 4xx and 5xx, a full Redis: 500 JSON.
    Internal,
    /// Fedora unreachable: 503 with an empty body.
    Fedora,
    /// Redis down: 503 text.
    Redis,
    /// A picture that does not answer while it is registered: 404.
    Picture,
}

impl From<Refused> for Failed {
    fn from(refused: Refused) -> Self {
        if refused == Refused::Unreachable { Self::Fedora } else { Self::Internal }
    }
}

impl From<Trouble> for Failed {
    fn from(trouble: Trouble) -> Self {
        if trouble == Trouble::Down { Self::Redis } else { Self::Internal }
    }
}

/// The switches of the canvas service.
#[derive(Debug, Clone, Default)]
pub(crate) struct Switches {
    pub(crate) image_server_url: String,
    pub(crate) public_base: String,
    pub(crate) canvas_delay: Duration,
    pub(crate) delay_after_key: Duration,
    pub(crate) poisons_nested: Option<u16>,
    pub(crate) fails_canvas: Option<u16>,
    pub(crate) retry_after: Option<u32>,
    pub(crate) ignores_disallow: bool,
    pub(crate) hanging: HashSet<String>,
    pub(crate) closes_resources: Option<u16>,
    pub(crate) broken_json: bool,
}

/// The part of the service that makes documents.
#[derive(Debug)]
pub(crate) struct Workshop {
    pub(crate) redis: Redis,
    pub(crate) fedora: Fedora,
    pub(crate) ledger: Ledger,
    /// Canvas requests stop here before they look anything up.
    pub(crate) canvas_gate: Gate,
    /// Generations stop here, the key written, before the nested request.
    pub(crate) key_gate: Gate,
    /// The canvases of [`Switches::hanging`] stop here.
    pub(crate) hang_gate: Gate,
    /// `/resources/{uuid}` stops here.
    pub(crate) resources_gate: Gate,
    switches: Mutex<Switches>,
    client: Client,
    /// UPSTREAM: two outbound connections per host, in all.
    connections: Semaphore,
}

impl Workshop {
    pub(crate) fn new(redis: Redis, fedora: Fedora, ledger: Ledger, switches: Switches) -> Self {
        Self {
            redis,
            fedora,
            ledger,
            canvas_gate: Gate::default(),
            key_gate: Gate::default(),
            hang_gate: Gate::default(),
            resources_gate: Gate::default(),
            switches: Mutex::new(switches),
            client: Client::java(),
            connections: Semaphore::new(2),
        }
    }

    pub(crate) fn switches(&self) -> MutexGuard<'_, Switches> {
        self.switches.lock().unwrap()
    }

    pub(crate) fn shapes(&self) -> Shapes {
        Shapes { public_base: self.switches().public_base.clone(), fedora: self.fedora.clone() }
    }

    /// The cached document, or a generated one; `update` always generates, and replaces one duplicate.
    pub(crate) async fn document(&self, key: Key, update: bool) -> Result<String, Failed> {
        let cached = self.redis.manifest(&key)?;
        match cached {
            Some(entry) if !update => Ok(entry.json),
            Some(entry) => {
                let json = self.generate(&key).await?;
                self.redis.save(&key, entry.id, json.clone())?;
                Ok(json)
            }
            None => {
                let json = self.generate(&key).await?;
                self.redis.add(key, json.clone())?;
                Ok(json)
            }
        }
    }

    async fn generate(&self, key: &Key) -> Result<String, Failed> {
        let shapes = self.shapes();
        match key.kind {
            "canvas" => self.canvas(key, &shapes).await,
            "image" => self.image(&key.path).await,
            "collection" => {
                self.fedora.read().await?;
                Ok(shapes.collection(&self.holding(&key.path)?).written())
            }
            kind => {
                self.fedora.read().await?;
                let holding = self.holding(&key.path)?;
                let mut sized = Vec::new();
                for leaf in &holding.leaves {
                    if let Some(size) = self.leaf(leaf, key).await? {
                        sized.push((leaf, size));
                    }
                }
                // UPSTREAM: an object without `ldp:contains` has no empty manifest.
                if sized.is_empty() && kind == "presentation" && holding.is_its_own_page() {
                    return Err(Failed::Internal);
                }
                Ok(match kind {
                    "sequence" => shapes.sequence(&holding, &sized, &kept_query(key)),
                    _ => shapes.presentation(&holding, &sized, &kept_query(key)),
                }
                .written())
            }
        }
    }

    async fn canvas(&self, key: &Key, shapes: &Shapes) -> Result<String, Failed> {
        let _in_work = self.ledger.generation_in_work();
        // UPSTREAM: a `%20` is encoded once more on the way to the file: such a canvas is empty from birth.
        let path = key.path.replace("%20", " ");
        let leaf = self.fedora.leaf(&path).ok_or(Failed::Internal);
        let size = match leaf {
            Ok(leaf) => self.leaf(leaf, key).await?,
            Err(unknown) => {
                self.fedora.read().await?;
                return Err(unknown);
            }
        };
        Ok(shapes.canvas(&key.path, leaf?, size, &kept_query(key)).written())
    }

    /// A book, or one of its pages as a manifest of its own.
    fn holding(&self, path: &str) -> Result<Holding, Failed> {
        let alone = |leaf: &Leaf| Holding {
            path: leaf.path.clone(),
            label: leaf.label.clone(),
            leaves: vec![leaf.clone()],
        };
        let found = self.fedora.holding(path).cloned();
        found.or_else(|| self.fedora.leaf(path).map(alone)).ok_or(Failed::Internal)
    }

    /// Three reads, a HEAD of the file, the key, the nested info.json. `None`: the picture is left out.
    async fn leaf(&self, leaf: &Leaf, key: &Key) -> Result<Option<(u32, u32)>, Failed> {
        for _ in 0..3 {
            self.fedora.read().await?;
        }
        if key.path.contains("%20") || self.fedora.file(leaf).is_err() || !allowed(key, leaf.format) {
            // The HEAD tells no media type: the service leaves the picture out, and writes no key.
            return Ok(None);
        }
        let url = self.fedora.file_url(leaf);
        let id = uuid_of(&url);
        self.redis.register(&id, &url)?;
        self.key_gate.pass().await;
        let delay = self.switches().delay_after_key;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let info = self.nested(&format!("{id}/info.json")).await;
        Ok(info.and_then(|body| size_of(&body)))
    }

    /// `/fedora/image/…`: no RDF walk. The key is written for any path, then the base URI is requested and its redirect to
    /// info.json followed; info.json is the answer.
    async fn image(&self, path: &str) -> Result<String, Failed> {
        let url = format!("{}/{path}", self.fedora.file_base());
        let id = uuid_of(&url);
        self.redis.register(&id, &url)?;
        let info = self.nested(&id).await.ok_or(Failed::Picture)?;
        String::from_utf8(info.to_vec()).map_err(|_| Failed::Internal)
    }

    /// Sends one request to `image.server.url`. The request may come back through the proxy: that is the echo.
    async fn nested(&self, rest: &str) -> Option<Bytes> {
        let _connection = self.connections.acquire().await;
        let _in_work = self.ledger.nested_in_work();
        let (base, poisoned) = {
            let switches = self.switches();
            (switches.image_server_url.clone(), switches.poisons_nested)
        };
        if poisoned.is_some() {
            return None;
        }
        let mut url = format!("{}/{rest}", base.trim_end_matches('/'));
        for _ in 0..3 {
            let Fetched { status, headers, body } = self.client.get(&url, &[]).await.ok()?;
            match (status, headers.get("location").and_then(|to| to.to_str().ok())) {
                (200, _) => return Some(body),
                (301..=308, Some(to)) => to.clone_into(&mut url),
                _ => return None,
            }
        }
        None
    }
}

/// The part of the query that `@id` and `on` keep.
fn kept_query(key: &Key) -> String {
    match (&*key.allow, &*key.disallow) {
        ("", "") => String::new(),
        ("", disallow) => format!("?disallow={disallow}"),
        (allow, _) => format!("?allow={allow}"),
    }
}

fn allowed(key: &Key, format: &str) -> bool {
    (key.allow.is_empty() || key.allow.contains(format)) && !key.disallow.contains(format)
}

fn size_of(info: &[u8]) -> Option<(u32, u32)> {
    let info: serde_json::Value = serde_json::from_slice(info).ok()?;
    let side = |name: &str| info[name].as_u64().and_then(|side| u32::try_from(side).ok());
    Some((side("width")?, side("height")?))
}
