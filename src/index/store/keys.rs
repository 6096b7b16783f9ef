//! Names of images and canvases: the form of a lookup key, its hash, its other spellings, its file, and the canvas derived
//! from that file.

use std::borrow::Cow;

use uuid::Uuid;

use crate::config::Settings;
use crate::config::settings::CanvasRule;
use crate::iiif::canvas::uri;
use crate::iiif::identifier::uuid_of_file_url;
use crate::iiif::image_url::ImageBases;
use crate::iiif::{CanvasUrl, Identifier, IdentifierKind};

/// Rules of the configuration for names.
#[derive(Debug, Clone, Default)]
pub(crate) struct KeyRules {
    pub(crate) rule: CanvasRule,
    /// Base URLs of files, as the canvas service may know them; each ends in `/`.
    pub(crate) bases: Vec<String>,
    /// Hosts that mean us.
    pub(crate) hosts: Vec<String>,
    /// Bases of image URLs.
    pub(crate) images: ImageBases,
}

impl KeyRules {
    pub(crate) fn of(settings: &Settings) -> Self {
        Self {
            rule: settings.index.canvas_rule.clone(),
            bases: settings.index.file_url_bases.clone(),
            hosts: settings.server.public_hosts.clone(),
            images: settings.image_bases(),
        }
    }

    /// Other names of a base64 key: by its file as it stands, then under each base.
    pub(crate) fn carried(&self, key: &str) -> Vec<EmbeddedFile> {
        let IdentifierKind::FileUrl { url, page } = Identifier::new(key).kind() else { return Vec::new() };
        let rest = CanvasUrl::parse(&url)
            .and_then(|parsed| parsed.path.strip_prefix(&self.rule.rest))
            .and_then(|rest| url.rfind(rest).map(|at| &url[at..]));
        let others = self.bases.iter().filter_map(|base| Some(format!("{base}{}", rest?)));
        let mut all: Vec<EmbeddedFile> = Vec::with_capacity(1 + self.bases.len());
        for file in std::iter::once(url.clone()).chain(others) {
            let uuid = uuid_of_file_url(&file);
            if all.iter().all(|known| known.uuid != uuid) {
                all.push(EmbeddedFile {
                    uuid,
                    key: uuid_key(uuid, page),
                    url: file,
                    as_written: url.clone(),
                    page,
                });
            }
        }
        all
    }

    /// Derives the canvas of a file. Where the canvas service knows the file by a base of its own, the canvas still has our
    /// name.
    pub(crate) fn derive(&self, file_url: &str, page: Option<u32>) -> Option<String> {
        let rest = self.bases.iter().find_map(|base| file_url.strip_prefix(base));
        if let (Some(rest), Some(host)) = (rest, self.hosts.first()) {
            let path = self.rule.path(rest)?;
            return Some(self.rule.canvas_at(&format!("https://{host}"), path, page));
        }
        self.rule.derive(file_url, page)
    }

    /// Names under which a canvas may stand, each once: as given, with the other scheme, with each of our hosts. Each costs a query.
    pub(crate) fn of_canvas(&self, url: &str) -> Vec<String> {
        let bare = canvas_name(url.split('#').next().unwrap_or(url));
        let mut names = vec![bare.clone().into_owned()];
        let Some(parsed) = CanvasUrl::parse(&bare) else { return names };
        let rest = &bare[parsed.scheme.len() + "://".len() + parsed.authority.len()..];
        let is_ours = self.hosts.iter().any(|host| parsed.authority_is(host));
        let hosts = self.hosts.iter().filter(|_| is_ours).map(String::as_str);
        for host in std::iter::once(parsed.authority).chain(hosts) {
            for name in ["https", "http"].map(|scheme| format!("{scheme}://{host}{rest}")) {
                if !names.contains(&name) {
                    names.push(name);
                }
            }
        }
        names
    }
}

/// Other name of a key that carries a file URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EmbeddedFile {
    /// The UUID that the canvas service gives to the file.
    pub(crate) uuid: Uuid,
    /// The lookup key made of it: `{uuid}` or `{uuid};{page}`.
    pub(crate) key: String,
    /// The file, by the URL of which the UUID is made.
    pub(crate) url: String,
    /// URL of the file as the key writes it.
    pub(crate) as_written: String,
    /// Page of a PDF.
    pub(crate) page: Option<u32>,
}

/// The UUID that a key is, and its page.
pub(crate) fn uuid_of_key(key: &str) -> Option<(Uuid, Option<u32>)> {
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

/// Name for the look-up of a canvas: manifests write letters and spaces as they are, clients request them encoded.
pub(crate) fn canvas_name(url: &str) -> Cow<'_, str> {
    uri(url).unwrap_or(Cow::Borrowed(url))
}

/// Hash under which the store keeps a key or the [name](canvas_name) of a canvas.
pub(crate) fn hash(text: &str) -> i64 {
    hash_of(digest(text))
}

/// Hash of a digest: its upper 64 bits.
pub(crate) fn hash_of(name: u128) -> i64 {
    ((name >> 64) as u64).cast_signed()
}

/// Name under which memory keeps a key: of a fixed size, and without known collisions.
pub(crate) fn digest(text: &str) -> u128 {
    let mut first = [0; 16];
    first.copy_from_slice(&blake3::hash(text.as_bytes()).as_bytes()[..16]);
    u128::from_be_bytes(first)
}
