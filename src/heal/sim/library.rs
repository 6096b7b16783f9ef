//! The holdings of every simulated world: books, a PDF, a picture; and the indexes that know them.

use crate::index::sources::build::Build;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use crate::config::Settings;
use crate::config::settings::SourceSettings;
use crate::iiif::identifier::uuid_of_file_url;
use crate::index::Index;
use crate::index::sources::RefreshOptions;

/// Host of every URL in manifests.
const HOST: &str = "https://lib.example";
/// Base URL of files.
const FILES: &str = "https://lib.example/fcrepo/rest";

/// `LibraryCanvas` is one file with the canvas that shows it.
#[derive(Debug)]
pub(super) struct LibraryCanvas {
    /// Path in the repository.
    pub(super) path: String,
    /// The file's name.
    pub(super) name: String,
    /// URL of the file, of which the UUID is made.
    pub(super) file_url: String,
    /// UUID version 3 of the file's URL.
    pub(super) uuid: String,
    /// Position in [`Library::books`].
    pub(super) book: usize,
    /// Pages of a PDF; 0: a picture.
    pub(super) pages: u32,
}

/// `Image` is an image for readers: a picture, or one page of a PDF.
#[derive(Debug)]
pub(super) struct Image {
    /// Position in [`Library::leaves`].
    pub(super) leaf: usize,
    /// Identifier as in `/iiif/2/{id}/`.
    pub(super) id: String,
}

/// `SimDocument` is a document that viewers request from the canvas service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SimDocument {
    /// The canvas of a leaf.
    Canvas(usize),
    /// The manifest of a book.
    Manifest(usize),
}

/// `Library` is everything that there is.
#[derive(Debug)]
pub(super) struct Library {
    pub(super) books: Vec<String>,
    pub(super) leaves: Vec<LibraryCanvas>,
    pub(super) images: Vec<Image>,
    two_sites: bool,
}

/// Prefixes under which we serve the image server of each site.
pub(super) const IMAGES: [&str; 2] = ["/iiif/2/", "/iiif/b/"];
/// Prefixes under which we serve the canvas service of each site.
pub(super) const SERVICES: [&str; 2] = ["/iiif-service/", "/b-service/"];

/// Width of every picture; its height is the same.
pub(super) const SIDE: u32 = 1000;

fn leaf(book: usize, path: String, name: &str, pages: u32) -> LibraryCanvas {
    let file_url = format!("{FILES}/{path}/files/{name}");
    let uuid = uuid_of_file_url(&file_url).to_string();
    LibraryCanvas { path, name: name.to_owned(), file_url, uuid, book, pages }
}

impl Library {
    fn new(two_sites: bool) -> Self {
        let books = ["obj/long", "obj/short", "obj/report", "obj/single"].map(str::to_owned).to_vec();
        let page = |book: usize, number: usize| {
            let path = format!("{}/pages/page_{number}", ["obj/long", "obj/short"][book]);
            leaf(book, path, &format!("page_{number}.jpg"), 0)
        };
        let mut leaves: Vec<_> = (0..12).map(|number| page(0, number)).collect();
        leaves.extend((0..4).map(|number| page(1, number)));
        leaves.push(leaf(2, "obj/report".to_owned(), "report.pdf", 3));
        leaves.push(leaf(3, "obj/single".to_owned(), "image.jpg", 0));
        let of = |(at, leaf): (usize, &LibraryCanvas)| match leaf.pages {
            0 => vec![Image { leaf: at, id: leaf.uuid.clone() }],
            pages => {
                let page = |page: u32| Image { leaf: at, id: format!("{};{page}", leaf.uuid) };
                (1..=pages).map(page).collect()
            }
        };
        let images = leaves.iter().enumerate().flat_map(of).collect();
        Self { books, leaves, images, two_sites }
    }

    /// Library of a single site.
    pub(super) fn get() -> &'static Self {
        Self::at(false)
    }

    /// Library with some of its books at a second site, if `two_sites`.
    pub(super) fn at(two_sites: bool) -> &'static Self {
        static LIBRARIES: [OnceLock<Library>; 2] = [OnceLock::new(), OnceLock::new()];
        LIBRARIES[usize::from(two_sites)].get_or_init(|| Self::new(two_sites))
    }

    /// Site of this book.
    pub(super) fn site(&self, book: usize) -> usize {
        usize::from(self.two_sites && book % 2 == 1)
    }

    pub(super) fn site_of(&self, leaf: usize) -> usize {
        self.site(self.leaves[leaf].book)
    }

    pub(super) fn leaves_of(&self, book: usize) -> impl Iterator<Item = usize> + '_ {
        self.leaves.iter().enumerate().filter(move |(_, leaf)| leaf.book == book).map(|(at, _)| at)
    }

    /// The leaf with this path.
    pub(super) fn leaf_at(&self, path: &str) -> Option<usize> {
        self.leaves.iter().position(|leaf| leaf.path == path)
    }

    /// The leaf with this UUID.
    pub(super) fn leaf_with(&self, uuid: &str) -> Option<usize> {
        self.leaves.iter().position(|leaf| leaf.uuid == uuid)
    }

    /// The leaf whose file has this URL.
    pub(super) fn leaf_of_file(&self, url: &str) -> Option<usize> {
        self.leaves.iter().position(|leaf| leaf.file_url == url)
    }

    fn annotation(&self, leaf: usize, id: &str, on: &str) -> String {
        let images = IMAGES[self.site_of(leaf)];
        format!(
            r#"{{"@type":"oa:Annotation","motivation":"sc:painting","on":"{on}","resource":{{"@id":"{HOST}{images}{id}/full/full/0/default.jpg","@type":"dctypes:Image","service":{{"@id":"{HOST}{images}{id}","profile":"http://iiif.io/api/image/2/level0.json"}},"height":{SIDE},"width":{SIDE}}}}}"#
        )
    }

    /// Canvas of a leaf as the service answers it; `query` is the part of the query that it keeps.
    pub(super) fn canvas(&self, at: usize, with_picture: bool, query: &str) -> String {
        let leaf = &self.leaves[at];
        let id = format!("{HOST}{}fedora/canvas/{}{query}", SERVICES[self.site(leaf.book)], leaf.path);
        let side = if with_picture { SIDE } else { 0 };
        let image = if with_picture { self.annotation(at, &leaf.uuid, &id) } else { String::new() };
        format!(
            r#"{{"@id":"{id}","@type":"sc:Canvas","height":{side},"images":[{image}],"label":["x"],"width":{side}}}"#
        )
    }

    /// The canvases of a leaf as they stand in a manifest.
    fn canvases(&self, at: usize, query: &str) -> Vec<String> {
        let leaf = &self.leaves[at];
        let url = format!("{HOST}{}fedora/canvas/{}", SERVICES[self.site(leaf.book)], leaf.path);
        let of_page = |page: u32| {
            let image = self.annotation(at, &format!("{};{page}", leaf.uuid), &url);
            format!(
                r#"{{"@id":"{url}?page={page}","@type":"sc:Canvas","height":{SIDE},"images":[{image}],"label":"x","width":{SIDE}}}"#
            )
        };
        if leaf.pages == 0 {
            vec![self.canvas(at, true, query)]
        } else {
            (1..=leaf.pages).map(of_page).collect()
        }
    }

    /// The manifest of a book with these leaves of it.
    pub(super) fn manifest(&self, book: usize, leaves: &[usize], query: &str) -> String {
        let url = format!("{HOST}{}{query}", self.book_path(book));
        let mut canvases = String::new();
        for canvas in leaves.iter().flat_map(|leaf| self.canvases(*leaf, query)) {
            let comma = if canvases.is_empty() { "" } else { "," };
            let _infallible = write!(canvases, "{comma}{canvas}");
        }
        format!(
            r#"{{"@context":"http://iiif.io/api/presentation/2/context.json","@id":"{url}","@type":"sc:Manifest","label":["x"],"sequences":[{{"@type":"sc:Sequence","canvases":[{canvases}]}}]}}"#
        )
    }

    /// Lookup keys of the images of a document.
    pub(super) fn keys_of(&self, document: SimDocument) -> Vec<String> {
        let is_in = |image: &&Image| match document {
            SimDocument::Canvas(leaf) => image.leaf == leaf,
            SimDocument::Manifest(book) => self.leaves[image.leaf].book == book,
        };
        let key = |image: &Image| match document {
            // UPSTREAM: all pages of a PDF share one canvas, which names the whole file.
            SimDocument::Canvas(leaf) => self.leaves[leaf].uuid.clone(),
            SimDocument::Manifest(_) => image.id.clone(),
        };
        let mut keys: Vec<_> = self.images.iter().filter(is_in).map(key).collect();
        keys.dedup();
        keys
    }

    /// The leaf of the image with this lookup key.
    pub(super) fn leaf_of_key(&self, key: &str) -> usize {
        self.leaf_with(key.split(';').next().unwrap_or_default()).expect("one of ours")
    }

    /// Number of pictures of a document.
    pub(super) fn pictures_of(&self, document: SimDocument) -> usize {
        self.keys_of(document).len()
    }

    /// Path of this manifest for viewers.
    pub(super) fn book_path(&self, book: usize) -> String {
        format!("{}fedora/presentation/{}", SERVICES[self.site(book)], self.books[book])
    }

    /// Path of the canvas of this leaf.
    pub(super) fn canvas_path(&self, leaf: usize) -> String {
        format!("{}fedora/canvas/{}", SERVICES[self.site_of(leaf)], self.leaves[leaf].path)
    }

    /// Writes all manifests into a folder, and before them `stale` older ones that name dead canvases for the same images.
    fn write(&self, folder: &Path, stale: usize) {
        for book in 0..self.books.len() {
            let leaves: Vec<_> = self.leaves_of(book).collect();
            let right = self.manifest(book, &leaves, "");
            for old in 1..=stale {
                let dead = right.replace("/obj/", &format!("/dead{old}/"));
                let file = folder.join(format!("a{old}-{book}.json"));
                std::fs::write(&file, dead).expect("a file");
                let age = Duration::from_hours(24 * (1 + stale - old) as u64);
                let opened = std::fs::File::options().write(true).open(&file).expect("a file");
                opened.set_modified(SystemTime::now() - age).expect("a date");
            }
            std::fs::write(folder.join(format!("z-{book}.json")), right).expect("a file");
        }
    }

    /// The index with so many stale owners of each image, and with the files' URLs known or not; and the folder with the
    /// manifests that it was made from. Built once.
    pub(super) fn index(&self, stale: usize, known: bool, settings: &Settings) -> (PathBuf, Arc<Index>) {
        type Indexes = Vec<(tempfile::TempDir, Arc<Index>)>;
        static BUILT: [OnceLock<Indexes>; 2] = [OnceLock::new(), OnceLock::new()];
        let build = |stale: usize, known: bool| {
            let folder = tempfile::tempdir().expect("a folder");
            let manifests = folder.path().join("manifests");
            std::fs::create_dir(&manifests).expect("a folder");
            self.write(&manifests, stale);
            let mut settings = settings.clone();
            settings.index.sources[0] = SourceSettings::path(manifests);
            let index = Index::open(&folder.path().join("index.sqlite3"), 10_000).expect("an index");
            let index = index.with_names(&settings);
            Build::new(&index, &RefreshOptions::default())
                .run(&settings.index.sources, &mut |_, _| {})
                .expect("indexed");
            for leaf in self.leaves.iter().filter(|_| known) {
                index.learn_file_url(leaf.uuid.parse().expect("a UUID"), &leaf.file_url).expect("it is true");
            }
            (folder, Arc::new(index))
        };
        let indexes = BUILT[usize::from(self.two_sites)].get_or_init(|| {
            STALE.iter().flat_map(|stale| [false, true].map(|known| build(*stale, known))).collect()
        });
        let at = STALE.iter().position(|count| *count == stale).expect("one that is built") * 2;
        let (folder, index) = &indexes[at + usize::from(known)];
        (folder.path().join("manifests"), Arc::clone(index))
    }
}

/// Number of stale owners that an image may have.
pub(super) const STALE: [usize; 3] = [0, 1, 3];
