//! All stand-ins together.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use crate::counts::{Counts, Kind, Ledger};
use crate::fedora::{Fedora, Holding, Leaf, uuid_of};
use crate::generate::{Switches, Workshop};
use crate::image_server::ImageServer;
use crate::page::Page;
use crate::redis::{Key, Redis};
use crate::service::Service;
use crate::shapes::Shapes;
use crate::wire::{ANYWHERE, Panics};

/// Parts of a testbed to start.
#[derive(Debug, Clone)]
pub struct Builder {
    holdings: Vec<Holding>,
    page_size: (u32, u32),
    public_base: String,
    file_base: String,
    public_file_base: Option<String>,
    derivatives: bool,
    sources: bool,
    empty_redis: bool,
    images_at: SocketAddr,
    service_at: SocketAddr,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            holdings: Vec::new(),
            page_size: (1200, 1600),
            public_base: "https://api.library.tamu.edu".to_owned(),
            file_base: "https://api.library.tamu.edu/fcrepo/rest".to_owned(),
            public_file_base: None,
            derivatives: false,
            sources: false,
            empty_redis: false,
            images_at: ANYWHERE,
            service_at: ANYWHERE,
        }
    }
}

impl Builder {
    /// Adds a book of so many pages. Without any book, PDF or single: `obj/minutes` (5), `obj/report` (PDF, 3), `obj/single`.
    #[must_use]
    pub fn book(mut self, path: &str, pages: u32) -> Self {
        self.holdings.push(Holding::book(path, pages, self.page_size));
        self
    }

    /// Adds a PDF of so many pages.
    #[must_use]
    pub fn pdf(mut self, path: &str, pages: u32) -> Self {
        self.holdings.push(Holding::pdf(path, pages, self.page_size));
        self
    }

    /// Adds a single picture.
    #[must_use]
    pub fn single(mut self, path: &str) -> Self {
        self.holdings.push(Holding::single(path, self.page_size));
        self
    }

    /// Adds anything.
    #[must_use]
    pub fn holding(mut self, holding: Holding) -> Self {
        self.holdings.push(holding);
        self
    }

    /// The size of the pages added from here on (1200 × 1600).
    #[must_use]
    pub fn page_size(mut self, width: u32, height: u32) -> Self {
        self.page_size = (width, height);
        self
    }

    /// Sets the start of canvas and image URLs in manifests (`https://api.library.tamu.edu`).
    #[must_use]
    pub fn public_base(mut self, base: impl Into<String>) -> Self {
        self.public_base = base.into();
        self
    }

    /// Sets the base of files as the canvas service knows it (`https://api.library.tamu.edu/fcrepo/rest`); the UUIDs are
    /// made of it.
    #[must_use]
    pub fn file_base(mut self, base: impl Into<String>) -> Self {
        self.file_base = base.into();
        self
    }

    /// Sets the base of files in base64 identifiers (as [`Builder::file_base`]).
    #[must_use]
    pub fn public_file_base(mut self, base: impl Into<String>) -> Self {
        self.public_file_base = Some(base.into());
        self
    }

    /// Gives the image server a derivative cache: pictures once seen stay 200.
    #[must_use]
    pub fn derivative_cache(mut self) -> Self {
        self.derivatives = true;
        self
    }

    /// Gives the image server a source cache: an image that was opened once is served whether its key is there or not.
    #[must_use]
    pub fn source_cache(mut self) -> Self {
        self.sources = true;
        self
    }

    /// Starts with an empty Redis: everything is expired. Default: every key is there, no document is cached.
    #[must_use]
    pub fn empty_redis(mut self) -> Self {
        self.empty_redis = true;
        self
    }

    /// Sets the address of the image server (127.0.0.1, a port of its own).
    #[must_use]
    pub fn images_at(mut self, address: SocketAddr) -> Self {
        self.images_at = address;
        self
    }

    /// Sets the address of the canvas service (127.0.0.1, a port of its own).
    #[must_use]
    pub fn service_at(mut self, address: SocketAddr) -> Self {
        self.service_at = address;
        self
    }

    /// Starts all stand-ins. Needs a tokio runtime.
    #[expect(clippy::unused_async, reason = "starting needs a runtime, and may come to wait")]
    pub async fn start(mut self) -> Testbed {
        if self.holdings.is_empty() {
            self = self.book("obj/minutes", 5).pdf("obj/report", 3).single("obj/single");
        }
        let (panics, ledger, redis) = (Panics::default(), Ledger::default(), Redis::default());
        let public_files = self.public_file_base.unwrap_or_else(|| self.file_base.clone());
        let fedora = Fedora::new(self.holdings, self.file_base, public_files);
        let images = ImageServer::start(
            self.images_at,
            fedora.clone(),
            ledger.clone(),
            self.derivatives,
            panics.clone(),
        );
        let switches =
            Switches { image_server_url: images.url(), public_base: self.public_base, ..Switches::default() };
        let shop = Workshop::new(redis.clone(), fedora.clone(), ledger.clone(), switches);
        let service = Service::start(self.service_at, shop, panics.clone());
        images.service_url(service.url());
        images.keeps_sources(self.sources);
        let testbed = Testbed { service, images, redis, fedora, ledger, panics };
        if !self.empty_redis {
            testbed.registers_everything();
        }
        testbed
    }
}

/// The stand-ins, running until dropped. A panic inside one of them panics in the test when this is dropped.
#[derive(Debug)]
pub struct Testbed {
    /// The IR IIIF Service.
    pub service: Service,
    /// Cantaloupe.
    pub images: ImageServer,
    /// The service's Redis.
    pub redis: Redis,
    /// The repository.
    pub fedora: Fedora,
    /// Counters and log.
    pub ledger: Ledger,
    panics: Panics,
}

impl Drop for Testbed {
    fn drop(&mut self) {
        self.panics.raise();
    }
}

impl Testbed {
    /// Starts everything with defaults.
    pub async fn start() -> Self {
        Self::builder().start().await
    }

    /// Builder of a testbed.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Ends everything now; panics if a stand-in did.
    pub fn finish(self) {
        drop(self);
    }

    /// Current counters.
    pub fn counts(&self) -> Counts {
        self.ledger.counts()
    }

    /// The raw targets of one kind, in order.
    pub fn targets(&self, kind: Kind) -> Vec<String> {
        self.ledger.targets(kind)
    }

    fn leaf_pages(&self, holding: &Holding, leaf: &Leaf) -> Vec<Page> {
        let base = self.service.workshop().switches().public_base.clone();
        let file_url = self.fedora.file_url(leaf);
        let public_file_url = self.fedora.public_file_url(leaf);
        let uuid = uuid_of(&file_url);
        let of = |page: u32| {
            let (suffix, query) = if page == 0 {
                (String::new(), String::new())
            } else {
                (format!(";{page}"), format!("?page={page}"))
            };
            let canvas_path = format!("/iiif-service/fedora/canvas/{}{query}", leaf.path);
            Page {
                identifier: format!("{uuid}{suffix}"),
                uuid: uuid.clone(),
                base64_id: format!("{}{suffix}", URL_SAFE_NO_PAD.encode(&public_file_url)),
                file_url: file_url.clone(),
                public_file_url: public_file_url.clone(),
                canvas_url: format!("{base}{canvas_path}"),
                canvas_path,
                register_path: format!("/iiif-service/fedora/image/{}/files/{}", leaf.path, leaf.file),
                presentation_path: format!("/iiif-service/fedora/presentation/{}", holding.path),
                path: leaf.path.clone(),
                number: leaf.number + page.saturating_sub(1),
                size: (leaf.width, leaf.height),
            }
        };
        if leaf.pdf_pages == 0 { vec![of(0)] } else { (1..=leaf.pdf_pages).map(of).collect() }
    }

    /// Every page, in the order of books and pages.
    pub fn pages(&self) -> Vec<Page> {
        let holdings = self.fedora.holdings().iter();
        holdings.flat_map(|holding| self.pages_of(&holding.path)).collect()
    }

    /// The pages of one book, PDF or single.
    ///
    /// # Panics
    /// Where there is none.
    pub fn pages_of(&self, path: &str) -> Vec<Page> {
        let holding = self.fedora.holding(path).expect("a holding of the testbed");
        holding.leaves.iter().flat_map(|leaf| self.leaf_pages(holding, leaf)).collect()
    }

    /// The first page of all.
    pub fn page(&self) -> Page {
        self.pages().swap_remove(0)
    }

    fn shapes(&self) -> Shapes {
        self.service.workshop().shapes()
    }

    /// Manifest of one holding as the service generates it (Presentation 2, UUID identifiers), without a request.
    ///
    /// # Panics
    /// Where there is no such holding.
    pub fn manifest_json(&self, path: &str) -> String {
        let holding = self.fedora.holding(path).expect("a holding of the testbed");
        let sized: Vec<_> = holding.leaves.iter().map(|leaf| (leaf, (leaf.width, leaf.height))).collect();
        self.shapes().presentation(holding, &sized, "").written()
    }

    /// Canvas of one page as the service generates it, without a request.
    ///
    /// # Panics
    /// Where there is no such canvas path.
    pub fn canvas_json(&self, path: &str) -> String {
        let leaf = self.fedora.leaf(path).expect("a canvas of the testbed");
        self.shapes().canvas(path, leaf, Some((leaf.width, leaf.height)), "").written()
    }

    /// A manifest of Presentation 3 as TAMU publishes them: base64 identifiers, canvas ids on a foreign host.
    pub fn manifest_json_p3(&self, path: &str) -> String {
        let base = self.service.workshop().switches().public_base.clone();
        let home = format!("https://tamulib-dc-labs.github.io/manifests/{path}");
        let canvases = self.pages_of(path).into_iter().enumerate().map(|(at, page)| {
            let (canvas, image) =
                (format!("{home}/canvas/{}", at + 1), format!("{base}/iiif/2/{}", page.base64_id));
            let (width, height) = page.size;
            let service = json!([{"@id": image, "@type": "ImageService2",
                "profile": "http://iiif.io/api/image/2/level2.json"}]);
            let body = json!({"id": format!("{image}/full/full/0/default.jpg"), "type": "Image",
                "height": height, "width": width, "service": service, "format": "image/jpeg"});
            let annotation = json!({"id": format!("{home}/annotation/{}", at + 1), "type": "Annotation",
                "motivation": "painting", "body": body, "target": canvas});
            json!({"id": canvas, "type": "Canvas", "label": {"en": [format!("Page {}", at + 1)]},
                "height": height, "width": width, "items": [{"id": format!("{home}/page/{}", at + 1),
                "type": "AnnotationPage", "items": [annotation]}]})
        });
        let manifest = json!({"@context": "http://iiif.io/api/presentation/3/context.json",
            "id": format!("{home}.json"), "type": "Manifest", "label": {"en": [path]},
            "items": canvases.collect::<Vec<_>>()});
        serde_json::to_string_pretty(&manifest).expect("plain JSON")
    }

    /// Writes the manifest of every holding into a directory: `obj_minutes.json` and so on.
    pub fn write_manifests(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        let write = |holding: &Holding| {
            let file = directory.join(format!("{}.json", holding.path.replace('/', "_")));
            std::fs::write(&file, self.manifest_json(&holding.path)).map(|()| file)
        };
        self.fedora.holdings().iter().map(write).collect()
    }

    fn leaves(&self) -> impl Iterator<Item = &Leaf> {
        self.fedora.holdings().iter().flat_map(|holding| &holding.leaves)
    }

    /// Every resource key is there.
    ///
    /// # Panics
    /// While Redis is down or full.
    pub fn registers_everything(&self) {
        for leaf in self.leaves() {
            let url = self.fedora.file_url(leaf);
            self.redis.register(&uuid_of(&url), &url).expect("a writable Redis");
        }
    }

    /// Every key is there, and every canvas JSON is cached: after [`Redis::evict_keys`] a plain visit heals nothing.
    ///
    /// # Panics
    /// While Redis is down or full.
    pub fn caches_everything(&self) {
        self.registers_everything();
        for leaf in self.leaves() {
            let (allow, disallow) = (String::new(), String::new());
            let key = Key { kind: "canvas", path: leaf.path.clone(), allow, disallow };
            if self.redis.manifest(&key).is_ok_and(|known| known.is_none()) {
                self.redis.add(key, self.canvas_json(&leaf.path)).expect("a writable Redis");
            }
        }
    }

    /// The image server has every info.json in its heap: each stays 200 after expiry, until it restarts.
    pub fn heats_info(&self) {
        for page in self.pages() {
            self.images.remembers_info(&page.identifier, page.size);
        }
    }

    /// Evicts one identifier's key: its pictures are 404 at once.
    pub fn expires(&self, identifier: &str) {
        self.redis.expires(identifier);
    }

    /// Redis lost everything: the usual expiry, which a plain visit heals.
    pub fn expires_everything(&self) {
        self.redis.flush();
    }

    /// Redis lost every key. `keeps_json`: it has the JSON of every canvas, so that a plain visit heals nothing.
    ///
    /// # Panics
    /// While Redis is down or full.
    pub fn expires_all(&self, keeps_json: bool) {
        if keeps_json {
            self.caches_everything();
            self.redis.evict_keys();
        } else {
            self.expires_everything();
        }
    }

    /// The image server's heap is gone: info.json 404s too.
    pub fn restart_image_server(&self) {
        self.images.restarts();
    }
}
