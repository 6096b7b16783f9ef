//! `[index]`: which canvas owns which image.

use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use smart_default::SmartDefault;

use super::source::SourceSettings;
use crate::config::addresses::BaseUrl;
use crate::config::value::{As, ValueError, WordList};
use crate::config::values::{PathPiece, WholeNumber, secs};
use crate::iiif::CanvasUrl;

/// `[index]`
#[derive(Debug, Clone, PartialEq, SmartDefault, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub struct IndexSettings {
    /// SQLite file; created when it is missing.
    #[default(PathBuf::from("iiif-mender.sqlite3"))]
    #[serde(with = "As::<PathBuf>")]
    #[schemars(extend("x-reload" = "restart"))]
    pub path: PathBuf,
    /// sqlite, or redis: the file is a copy of the index of all nodes of `[cluster]`.
    #[serde(with = "As::<IndexStore>")]
    pub store: IndexStore,
    /// Learn from manifests and canvases that pass through.
    #[default(true)]
    pub learn: bool,
    /// How many identifiers (known and unknown) are remembered in memory; one on several canvases counts once for each.
    #[default(100_000)]
    #[serde(with = "As::<WholeNumber>")]
    #[schemars(extend("x-reload" = "restart"))]
    pub cache: u64,
    /// How often the sources are read again while serving; "0s": only at the start.
    #[default(secs(60 * 60))]
    #[serde(with = "As::<Duration>")]
    pub refresh: Duration,
    /// How long in all a URL source may make one document wait by Retry-After; "0s": the document waits for the next
    /// refresh.
    #[default(secs(60))]
    #[serde(with = "As::<Duration>")]
    pub max_pause: Duration,
    /// How long the history of heals is kept.
    #[default(secs(30 * 24 * 60 * 60))]
    #[serde(with = "As::<Duration>")]
    pub history_age: Duration,
    /// How many heals the history holds at most; 0: none is kept.
    #[default(100_000)]
    #[serde(with = "As::<WholeNumber>")]
    pub history_rows: u32,
    /// Bases under which a file URL is tried when an identifier is checked against it; empty: the URL as it stands.
    #[serde(with = "As::<Vec<BaseUrl>>")]
    pub file_url_bases: Vec<String>,
    /// How long a document that vanished from its source is kept.
    #[default(secs(24 * 60 * 60))]
    #[serde(with = "As::<Duration>")]
    pub grace: Duration,
    /// How the canvas of a file is derived: `https://host{rest}{path}{files}{name}` → `https://host{canvas}{path}`.
    pub canvas_rule: CanvasRule,
    /// Sources to index.
    pub sources: Vec<SourceSettings>,
}

impl IndexSettings {
    pub(in crate::config) fn resolve(&mut self, folder: &Path) {
        self.path = folder.join(&self.path);
        self.sources.iter_mut().for_each(|source| source.resolve(folder));
    }

    /// Keeps the old values of keys that hold only after a restart.
    pub(in crate::config) fn keep_until_restart(&mut self, old: &Self) {
        self.cache = old.cache;
        self.path.clone_from(&old.path);
    }
}

/// `index.store`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IndexStore {
    /// The SQLite file is the index of this node.
    #[default]
    Sqlite,
    /// Copy of the index that all nodes share in Redis.
    Redis,
}

impl WordList for IndexStore {
    const WHAT: &'static str = "";
    const EXPECTED: &'static str = "sqlite or redis";
    const WORDS: &'static [(&'static str, Self)] = &[("sqlite", Self::Sqlite), ("redis", Self::Redis)];

    fn mistake(text: &str) -> ValueError {
        ValueError::new(format!("an index is not kept in `{text}`"), "write sqlite or redis")
    }
}

/// `index.canvas_rule`
#[derive(Debug, Clone, PartialEq, Eq, SmartDefault, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub struct CanvasRule {
    /// Path before that of the canvas in the URL of a file.
    #[default("/fcrepo/rest/".to_owned())]
    #[serde(with = "As::<PathPiece>")]
    pub rest: String,
    /// Path between that of the canvas and the name of the file.
    #[default("/files/".to_owned())]
    #[serde(with = "As::<PathPiece>")]
    pub files: String,
    /// Path before that of the canvas in the URL of the canvas.
    #[default("/iiif-service/fedora/canvas/".to_owned())]
    #[serde(with = "As::<PathPiece>")]
    pub canvas: String,
}

impl CanvasRule {
    /// The canvas of a file URL, and of one page of it where the file is a PDF.
    pub fn derive(&self, file_url: &str, page: Option<u32>) -> Option<String> {
        let url = CanvasUrl::parse(file_url)?;
        let path = self.path(url.path.strip_prefix(&self.rest)?)?;
        Some(self.canvas_at(&format!("{}://{}", url.scheme, url.authority), path, page))
    }

    /// Path of the canvas in the text that follows [`CanvasRule::rest`].
    pub(crate) fn path<'u>(&self, rest: &'u str) -> Option<&'u str> {
        let (path, name) = rest.rsplit_once(&self.files)?;
        (!path.is_empty() && !name.is_empty()).then_some(path)
    }

    /// URL of the canvas of this path, and of one page of a PDF, at `root`: scheme and authority.
    pub(crate) fn canvas_at(&self, root: &str, path: &str, page: Option<u32>) -> String {
        let page = page.map_or_else(String::new, |page| format!("?page={page}"));
        format!("{root}{}{path}{page}", self.canvas)
    }
}
