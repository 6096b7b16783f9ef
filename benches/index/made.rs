//! What is generated: manifests as the canvas service writes them, without their white space.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::Path;

/// Pages of each manifest.
pub(crate) const PAGES: u64 = 100;

/// The UUID of the nth image; the same each time.
pub(crate) fn identifier(number: u64) -> String {
    uuid::Builder::from_random_bytes(fastrand::Rng::with_seed(number).u128(..).to_ne_bytes())
        .into_uuid()
        .to_string()
}

/// Writes manifests for so many images; answers their size in bytes.
pub(crate) fn generate(folder: &Path, images: u64) -> u64 {
    let mut bytes = 0;
    for first in (0..images).step_by(usize::try_from(PAGES).unwrap()) {
        let book = first / PAGES;
        // A thousand files in a directory.
        let shelf = folder.join(format!("{:05}", book / 1000));
        if book.is_multiple_of(1000) {
            fs::create_dir(&shelf).unwrap();
        }
        let mut text = head(book);
        for (page, number) in (first..images.min(first + PAGES)).enumerate() {
            canvas(&mut text, book, page, number);
        }
        text.push_str("]}]}");
        bytes += text.len() as u64;
        fs::write(shelf.join(format!("{book}.json")), text).unwrap();
    }
    bytes
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
