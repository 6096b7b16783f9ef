//! `[[index.sources]]`: where documents for the index are.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http::HeaderMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use smart_default::SmartDefault;

use crate::config::addresses::{HostName, HttpUrl};
use crate::config::headers::Headers;
use crate::config::value::As;
use crate::config::values::WholeNumber;

/// `[[index.sources]]`: either a path or a URL.
#[derive(Debug, Clone, PartialEq, Eq, SmartDefault, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub struct SourceSettings {
    /// A directory (walked for *.json, *.jsonld, both packed by gzip or not, and files named manifest or collection) or a
    /// file.
    #[serde(with = "As::<Option<PathBuf>>")]
    pub path: Option<PathBuf>,
    /// A manifest, a collection or a stream of changes (IIIF Change Discovery) to fetch.
    #[serde(with = "As::<Option<HttpUrl>>")]
    pub url: Option<String>,
    /// True to read the source; false leaves the index's facts from it as they are.
    #[default(true)]
    pub enabled: bool,
    /// How often the source is read again while serving, in place of index.refresh; "0s": only at the start.
    #[serde(with = "As::<Option<Duration>>")]
    pub interval: Option<Duration>,
    /// How often all images of the source are probed while serving, and healed where they are gone; never, when it is not
    /// given.
    #[serde(with = "As::<Option<Duration>>")]
    pub warm: Option<Duration>,
    /// Header fields for requests to the URL's own host, such as a key; never sent to any other host.
    #[serde(with = "As::<Headers>", skip_serializing_if = "HeaderMap::is_empty")]
    pub headers: HeaderMap,
    /// Requests at once at most.
    // UPSTREAM: the service holds two connections per host, and its viewers need them as well.
    #[default(2)]
    #[serde(with = "As::<WholeNumber>")]
    #[schemars(extend("x-min" = ">0"))]
    pub concurrency: usize,
    /// Requests in a second at most; 0: as many as come.
    #[default(10)]
    #[serde(with = "As::<WholeNumber>")]
    pub rate: u32,
    /// Hosts that its links may lead to, besides its own, the public hosts and those of the routes.
    #[serde(with = "As::<Vec<HostName>>")]
    pub hosts: Vec<String>,
}

/// Location of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceKind<'a> {
    /// Directory (walked for files named as documents) or file.
    Path(&'a Path),
    /// A manifest, a collection or a stream of changes to fetch.
    Url(&'a str),
}

impl SourceSettings {
    /// Keys that only a URL takes.
    pub(in crate::config) const FOR_URLS: [&str; 4] = ["headers", "concurrency", "rate", "hosts"];

    /// A directory or a file, with defaults.
    pub fn path(path: impl Into<PathBuf>) -> Self {
        Self { path: Some(path.into()), ..Self::default() }
    }

    /// A URL, with defaults.
    pub fn url(url: impl Into<String>) -> Self {
        Self { url: Some(url.into()), ..Self::default() }
    }

    /// Location. A source with neither a path nor a URL, or with both, was refused before.
    pub fn kind(&self) -> SourceKind<'_> {
        match &self.url {
            Some(url) => SourceKind::Url(url),
            None => SourceKind::Path(self.path.as_deref().unwrap_or(Path::new(""))),
        }
    }

    pub(in crate::config) fn resolve(&mut self, folder: &Path) {
        self.path = self.path.take().map(|path| folder.join(path));
        self.warm = self.warm.filter(|warm| !warm.is_zero());
    }
}
