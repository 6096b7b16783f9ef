//! What a lookup key stands for: its hash, its other name, its file, and the canvas derived from that.

use uuid::Uuid;

use crate::iiif::identifier::uuid_of_file_url;
use crate::iiif::{CanvasUrl, Identifier, IdentifierKind};

/// How the canvas of a file is derived from the file's URL:
/// `https://host{rest}{path}{files}{name}` → `https://host{canvas}{path}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CanvasRule {
    /// Stands before the path of the canvas, with both slashes.
    pub rest: String,
    /// Stands after it.
    pub files: String,
    /// Stands before it in the canvas URL.
    pub canvas: String,
}

impl Default for CanvasRule {
    fn default() -> Self {
        Self {
            rest: "/fcrepo/rest/".to_owned(),
            files: "/files/".to_owned(),
            canvas: "/iiif-service/fedora/canvas/".to_owned(),
        }
    }
}

impl CanvasRule {
    /// The canvas of a file URL, and of one page of it where the file is a PDF.
    pub fn derive(&self, file_url: &str, page: Option<u32>) -> Option<String> {
        let url = CanvasUrl::parse(file_url)?;
        let (before, rest) = url.path.split_once(&self.rest)?;
        let (path, name) = rest.rsplit_once(&self.files)?;
        if !before.is_empty() || path.is_empty() || name.is_empty() {
            return None;
        }
        let page = page.map_or_else(String::new, |page| format!("?page={page}"));
        Some(format!("{}://{}{}{path}{page}", url.scheme, url.authority, self.canvas))
    }
}

/// What a key that carries a file URL is called otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Carried {
    /// The UUID that the canvas service gives to the file.
    pub(super) uuid: Uuid,
    /// The lookup key made of it: `{uuid}` or `{uuid};{page}`.
    pub(super) key: String,
    /// The file.
    pub(super) url: String,
    /// Page of a PDF.
    pub(super) page: Option<u32>,
}

/// Reads the file URL out of a base64 key.
pub(super) fn carried(key: &str) -> Option<Carried> {
    let IdentifierKind::FileUrl { url, page } = Identifier::new(key).kind() else { return None };
    let uuid = uuid_of_file_url(&url);
    let key = uuid_key(uuid, page);
    Some(Carried { uuid, key, url, page })
}

/// The UUID that a key is, and its page.
pub(super) fn uuid_of_key(key: &str) -> Option<(Uuid, Option<u32>)> {
    match Identifier::new(key).kind() {
        IdentifierKind::Uuid { uuid, page } => Some((uuid, page)),
        _ => None,
    }
}

fn uuid_key(uuid: Uuid, page: Option<u32>) -> String {
    match page {
        Some(page) => format!("{uuid};{page}"),
        None => uuid.to_string(),
    }
}

/// The hash under which the store keeps a key or a canvas URL.
pub(super) fn hash(text: &str) -> i64 {
    let mut first = [0; 8];
    first.copy_from_slice(&blake3::hash(text.as_bytes()).as_bytes()[..8]);
    i64::from_be_bytes(first)
}

/// The name under which memory keeps a key: of one size whatever the key's, and nobody finds two keys with
/// the same.
pub(super) fn digest(text: &str) -> u128 {
    let mut first = [0; 16];
    first.copy_from_slice(&blake3::hash(text.as_bytes()).as_bytes()[..16]);
    u128::from_be_bytes(first)
}
