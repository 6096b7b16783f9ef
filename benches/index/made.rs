//! What is generated: manifests as the canvas service writes them, without their white space.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

/// Pages of each manifest.
pub(crate) const PAGES: u64 = 100;

/// The UUID of the nth image; the same each time.
pub(crate) fn identifier(number: u64) -> String {
    uuid::Builder::from_random_bytes(fastrand::Rng::with_seed(number).u128(..).to_ne_bytes())
        .into_uuid()
        .to_string()
}

/// Manifests in a directory.
const SHELF: u64 = 1000;

fn shelf(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:06}"))
}

/// Writes manifests for so many images; answers their size in bytes.
pub(crate) fn generate(folder: &Path, images: u64) -> u64 {
    (0..images.div_ceil(PAGES * SHELF))
        .map(|number| {
            fs::create_dir(shelf(folder, number)).unwrap();
            fill(folder, number, images)
        })
        .sum()
}

/// Writes the manifests of one directory; answers their size in bytes.
fn fill(folder: &Path, number: u64, images: u64) -> u64 {
    let (shelf, mut bytes) = (shelf(folder, number), 0);
    for book in number * SHELF..(number + 1) * SHELF {
        let first = book * PAGES;
        if first >= images {
            break;
        }
        let mut text = head(book);
        for (page, number) in (first..images.min(first + PAGES)).enumerate() {
            canvas(&mut text, book, page, number);
        }
        text.push_str("]}]}");
        bytes += text.len() as u64;
        fs::write(shelf.join(format!("{book:08}.json")), text).unwrap();
    }
    bytes
}

/// Makes manifests some directories ahead of who reads them, and deletes those behind.
#[derive(Debug)]
pub(crate) struct Maker {
    folder: PathBuf,
    images: u64,
    /// Directories that are made, and those that are deleted again.
    made: u64,
    deleted: u64,
}

/// Directories that are made at once.
const AHEAD: u64 = 20;

impl Maker {
    /// Makes all directories, and fills the first ones; answers the size in bytes that all would have, reckoned by those.
    pub(crate) fn prepare(folder: &Path, images: u64) -> u64 {
        let all = images.div_ceil(PAGES * SHELF);
        (0..all).for_each(|number| fs::create_dir(shelf(folder, number)).unwrap());
        let filled: u64 = (0..all.min(AHEAD)).map(|number| fill(folder, number, images)).sum();
        filled / all.min(AHEAD) * all
    }

    /// Goes on where [`Maker::prepare`] ended.
    pub(crate) fn begin(folder: &Path, images: u64) -> Self {
        let made = images.div_ceil(PAGES * SHELF).min(AHEAD);
        Self { folder: folder.to_path_buf(), images, made, deleted: 0 }
    }

    /// So many manifests were read: must more be made?
    pub(crate) fn is_due(&self, read: u64) -> bool {
        let left = (self.made * SHELF).saturating_sub(read);
        left < 2 * SHELF && self.made * SHELF * PAGES < self.images
    }

    pub(crate) fn go_on(&mut self) {
        let all = self.images.div_ceil(PAGES * SHELF);
        for _ in 0..AHEAD.min(all - self.made) {
            fill(&self.folder, self.made, self.images);
            self.made += 1;
        }
        while self.deleted + AHEAD + 3 < self.made {
            for file in fs::read_dir(shelf(&self.folder, self.deleted)).unwrap() {
                fs::remove_file(file.unwrap().path()).unwrap();
            }
            self.deleted += 1;
        }
    }
}

const BASE: &str = "https://api.library.tamu.edu";

fn head(book: u64) -> String {
    format!(
        r#"{{"@context":"http://iiif.io/api/presentation/2/context.json","@id":"{BASE}/iiif-service/fedora/presentation/book-{book}","@type":"sc:Manifest","label":"Book {book}","sequences":[{{"@type":"sc:Sequence","canvases":["#
    )
}

fn canvas(text: &mut String, book: u64, page: usize, number: u64) {
    let (comma, id) = (if page == 0 { "" } else { "," }, identifier(number));
    write!(
        text,
        r#"{comma}{{"@id":"{BASE}/iiif-service/fedora/canvas/book-{book}/pages/{page}","@type":"sc:Canvas","label":"Page {page}","height":4000,"width":3000,"images":[{{"@type":"oa:Annotation","motivation":"sc:painting","resource":{{"@id":"{BASE}/iiif/2/{id}/full/full/0/default.jpg","@type":"dctypes:Image","format":"image/jpeg","height":4000,"width":3000,"service":{{"@context":"http://iiif.io/api/image/2/context.json","@id":"{BASE}/iiif/2/{id}","profile":"http://iiif.io/api/image/2/level2.json"}}}},"on":"{BASE}/iiif-service/fedora/canvas/book-{book}/pages/{page}"}}]}}"#
    )
    .unwrap();
}

/// One manifest with very many canvases.
pub(crate) fn many(file: &Path, size: u64) {
    let mut out = BufWriter::new(File::create(file).unwrap());
    out.write_all(head(0).as_bytes()).unwrap();
    let (mut text, mut written, mut page) = (String::new(), 0, 0_usize);
    while written < size {
        text.clear();
        canvas(&mut text, 0, page, page as u64);
        out.write_all(text.as_bytes()).unwrap();
        (written, page) = (written + text.len() as u64, page + 1);
    }
    out.write_all(b"]}]}").unwrap();
}

/// One manifest that is nearly all one text.
pub(crate) fn long(file: &Path, size: u64) {
    let mut out = BufWriter::new(File::create(file).unwrap());
    let mut text = head(0);
    canvas(&mut text, 0, 0, 0);
    out.write_all(text.as_bytes()).unwrap();
    out.write_all(br#"]}],"attribution":""#).unwrap();
    for _ in 0..size / 1000 {
        out.write_all(&[b'x'; 1000]).unwrap();
    }
    out.write_all(br#""}"#).unwrap();
}
