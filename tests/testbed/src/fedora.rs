//! The repository: which objects and files there are, and how it fails.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use md5::{Digest as _, Md5};
use tokio::sync::Semaphore;

/// Picture file (or PDF) with the repository path of the canvas that shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// `obj/minutes/pages/page_0`
    pub path: String,
    /// `Page 1`
    pub label: String,
    /// `page_0.jpg`
    pub file: String,
    /// Media type.
    pub format: &'static str,
    /// The number painted on it (a PDF's first page has this one, its second the next).
    pub number: u32,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// 0 for a picture; else how many pages the PDF has.
    pub pdf_pages: u32,
}

/// Holding: a repository object with a manifest, that is a book, a PDF or a single picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    /// `obj/minutes`
    pub path: String,
    /// `Minutes of the Houston Oil Company`
    pub label: String,
    /// Pages in order.
    pub leaves: Vec<Leaf>,
}

impl Holding {
    /// True if the object holds its picture or PDF itself.
    pub(crate) fn is_its_own_page(&self) -> bool {
        self.leaves.iter().all(|leaf| leaf.path == self.path)
    }

    /// A book: its pages are objects of their own under `{path}/pages/`.
    pub fn book(path: &str, pages: u32, (width, height): (u32, u32)) -> Self {
        let leaf = |page: u32| Leaf {
            path: format!("{path}/pages/page_{page}"),
            label: format!("Page {}", page + 1),
            file: format!("page_{page}.jpg"),
            format: "image/jpeg",
            number: page + 1,
            width,
            height,
            pdf_pages: 0,
        };
        let label = format!("Book {path}");
        Self { path: path.to_owned(), label, leaves: (0..pages).map(leaf).collect() }
    }

    /// A PDF: one file, one canvas path, many pages.
    pub fn pdf(path: &str, pages: u32, size: (u32, u32)) -> Self {
        let mut holding = Self::single(path, size);
        let leaf = &mut holding.leaves[0];
        leaf.file = String::from("report.pdf");
        leaf.format = "application/pdf";
        leaf.pdf_pages = pages;
        holding
    }

    /// Makes a holding of one picture.
    pub fn single(path: &str, (width, height): (u32, u32)) -> Self {
        let label = format!("Single {path}");
        let leaf = Leaf {
            path: path.to_owned(),
            label: label.clone(),
            file: "image.jpg".to_owned(),
            format: "image/jpeg",
            number: 1,
            width,
            height,
            pdf_pages: 0,
        };
        Self { path: path.to_owned(), label, leaves: vec![leaf] }
    }
}

/// Error of Fedora for a file or an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// No connection.
    Unreachable,
    /// 404 or 410.
    Missing,
    /// 401.
    Unauthorized,
    /// 5xx for the file, while the objects are answered.
    Faulty,
}

/// The handle; clones share the repository.
#[derive(Debug, Clone)]
pub struct Fedora(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    holdings: Vec<Holding>,
    /// Holding and leaf by path; a testbed may have thousands.
    by_path: HashMap<String, (usize, usize)>,
    base: String,
    public_base: String,
    /// UPSTREAM: the service's client holds two connections per host, Fedora's included.
    connections: Semaphore,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    missing: HashSet<String>,
    guarded: HashSet<String>,
    faulty: bool,
    labels: HashMap<String, String>,
    down: bool,
    delay: Duration,
}

/// Java's `nameUUIDFromBytes`: MD5 without a namespace (upstream.md "Identifiers").
pub fn uuid_of(file_url: &str) -> String {
    let digest: [u8; 16] = Md5::digest(file_url.as_bytes()).into();
    uuid::Builder::from_md5_bytes(digest).into_uuid().to_string()
}

impl Fedora {
    pub(crate) fn new(holdings: Vec<Holding>, base: String, public_base: String) -> Self {
        let (connections, state) = (Semaphore::new(2), Mutex::default());
        let mut by_path = HashMap::new();
        for (at, holding) in holdings.iter().enumerate() {
            for (number, leaf) in holding.leaves.iter().enumerate() {
                by_path.entry(leaf.path.clone()).or_insert((at, number));
            }
        }
        Self(Arc::new(Inner { holdings, by_path, base, public_base, connections, state }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap()
    }

    /// Holdings of the repository.
    pub fn holdings(&self) -> &[Holding] {
        &self.0.holdings
    }

    /// Base of file URLs, as the canvas service writes them: `{base}/{path}/files/{name}`.
    pub fn file_base(&self) -> &str {
        &self.0.base
    }

    /// A leaf's file, as the canvas service knows it: this URL makes the UUID.
    pub fn file_url(&self, leaf: &Leaf) -> String {
        format!("{}/{}/files/{}", self.0.base, leaf.path, leaf.file)
    }

    /// URL of the file under the public base, as base64 identifiers in manifests name it.
    pub fn public_file_url(&self, leaf: &Leaf) -> String {
        format!("{}/{}/files/{}", self.0.public_base, leaf.path, leaf.file)
    }

    /// The file of this canvas path is gone for good (404, as 410 would be).
    pub fn removes_file(&self, path: &str) {
        self.state().missing.insert(path.to_owned());
    }

    /// Restores the file.
    pub fn restores_file(&self, path: &str) {
        self.state().missing.remove(path);
    }

    /// The file of this canvas path answers 401 (the image server makes 403 of it).
    pub fn guards_file(&self, path: &str) {
        self.state().guarded.insert(path.to_owned());
    }

    /// Every file answers 5xx while objects are readable: to the canvas service each file looks missing (upstream.md "Poison").
    pub fn files_fail(&self) {
        self.state().faulty = true;
    }

    /// Files are answered again.
    pub fn files_are_well(&self) {
        self.state().faulty = false;
    }

    /// Fedora refuses connections.
    pub fn goes_down(&self) {
        self.state().down = true;
    }

    /// Fedora answers again.
    pub fn comes_up(&self) {
        self.state().down = false;
    }

    /// Delays each read by this time.
    pub fn delay(&self, delay: Duration) {
        self.state().delay = delay;
    }

    /// Gives an object (a holding's or a leaf's path) another label: `Back\slash`, a tab, a newline.
    pub fn labels(&self, path: &str, label: &str) {
        self.state().labels.insert(path.to_owned(), label.to_owned());
    }

    pub(crate) fn label(&self, path: &str, default: &str) -> String {
        self.state().labels.get(path).cloned().unwrap_or_else(|| default.to_owned())
    }

    pub(crate) fn holding(&self, path: &str) -> Option<&Holding> {
        self.0.holdings.iter().find(|holding| holding.path == path)
    }

    pub(crate) fn leaf(&self, path: &str) -> Option<&Leaf> {
        let (holding, leaf) = self.0.by_path.get(path)?;
        self.0.holdings.get(*holding)?.leaves.get(*leaf)
    }

    /// Reads an object's RDF.
    pub(crate) async fn read(&self) -> Result<(), Refused> {
        let _connection = self.0.connections.acquire().await;
        let delay = self.state().delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        if self.state().down { Err(Refused::Unreachable) } else { Ok(()) }
    }

    /// Checks that the file of this leaf can be read.
    pub(crate) fn file(&self, leaf: &Leaf) -> Result<(), Refused> {
        let state = self.state();
        if state.down {
            Err(Refused::Unreachable)
        } else if state.faulty {
            Err(Refused::Faulty)
        } else if state.missing.contains(&leaf.path) {
            Err(Refused::Missing)
        } else if state.guarded.contains(&leaf.path) {
            Err(Refused::Unauthorized)
        } else {
            Ok(())
        }
    }

    /// The leaf behind a file URL, under either base.
    pub(crate) fn by_file_url(&self, url: &str) -> Result<&Leaf, Refused> {
        if self.state().down {
            return Err(Refused::Unreachable);
        }
        let bases = [&self.0.base, &self.0.public_base];
        let below = bases.into_iter().find_map(|base| url.strip_prefix(base.as_str())?.strip_prefix('/'));
        let named = below.and_then(|below| below.rsplit_once("/files/"));
        let leaf = named.and_then(|(path, file)| self.leaf(path).filter(|leaf| leaf.file == file));
        let leaf = leaf.ok_or(Refused::Missing)?;
        self.file(leaf).map(|()| leaf)
    }
}
