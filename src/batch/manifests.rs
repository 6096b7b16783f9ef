//! Manifests as they are served: checks that they can be fetched, are JSON, and lack no known images.
//!
//! UPSTREAM: a manifest that was built during a fault is 200 with fewer canvases, or with canvases without images, and
//! stays so: only `update=true` on its own URL cures it (upstream.md "Poison").

use std::collections::HashMap;
use std::sync::Arc;

use super::ManifestProblem;
use super::read::{ReadControl, SourceItem, SourceReader, known_canvases, named};
use crate::heal::{DocumentError, Healer};
use crate::iiif::identifier;
use crate::iiif::manifest::{Canvas, Document, DocumentKind};
use crate::observe::counted;

/// Rebuilds of one manifest at most: duplicates hide behind one another.
const REBUILDS: usize = 3;

/// Read, or the reason why not.
type FetchedManifest = Result<(Document, Vec<Canvas>), String>;

impl SourceReader {
    /// Fetches a document of IIIF's.
    pub(super) async fn get(&self, url: &str) -> FetchedManifest {
        if self.elsewhere.may_fetch(url) && !self.healer.is_allowed_canvas(url) {
            return read(&self.healer, &self.elsewhere.document(url).await?);
        }
        get(&self.healer, url, false).await
    }

    /// A document that was named by its URL.
    pub(super) async fn fetched(&self, text: &str, url: String) -> ReadControl {
        match self.get(&url).await {
            Ok((document, _)) if document.kind == DocumentKind::Collection => {
                self.members(text, document.members, 1).await
            }
            Ok((document, canvases)) => self.served(&url, &document, canvases).await,
            Err(why) => {
                let known = known_canvases(&self.index, &url);
                if known.is_empty() {
                    return self.problem(text, why, true).await;
                }
                // The manifest cannot be fetched, but the index knows its images.
                let named = self.manifest_of(&url);
                self.send(SourceItem::Trouble(
                    Arc::clone(&named),
                    ManifestProblem { text: why, poisoned: None },
                ))
                .await?;
                self.document(&named, known, |_| None).await
            }
        }
    }

    /// Compares a manifest as it is served with the index.
    pub(super) async fn served(&self, url: &str, document: &Document, canvases: Vec<Canvas>) -> ReadControl {
        let named = named(document, url);
        let known = known_canvases(&self.index, &named.uri);
        let lacking = lacking(&known, &canvases);
        if let Some(text) = poison(&lacking, &canvases) {
            let poisoned = Some(Arc::new(known.clone()));
            self.send(SourceItem::Trouble(Arc::clone(&named), ManifestProblem { text, poisoned })).await?;
        }
        // Canvases of the index and of the manifest as served, merged: each canvas once, with all its images.
        let mut all = canvases;
        for canvas in lacking {
            match all.iter_mut().find(|served| served.id == canvas.id) {
                Some(served) => served.images.clone_from(&canvas.images),
                None => all.push(canvas.clone()),
            }
        }
        self.as_read(&named, document.kind, all).await
    }

    /// Checks a manifest whose canvases are known; `None`: it is as it should be.
    pub(super) async fn trouble(&self, url: &str, known: &Arc<Vec<Canvas>>) -> Option<ManifestProblem> {
        match self.get(url).await {
            Err(text) => Some(ManifestProblem { text, poisoned: None }),
            Ok((_, served)) => {
                let text = poison(&lacking(known, &served), &served)?;
                Some(ManifestProblem { text, poisoned: Some(Arc::clone(known)) })
            }
        }
    }
}

async fn get(healer: &Healer, url: &str, anew: bool) -> FetchedManifest {
    let bytes = healer.document(url, anew).await.map_err(|error| match error {
        DocumentError::NotOurs => {
            "it belongs to no presentation route ([[routes]], [server] public_hosts): download it and name the file"
                .to_owned()
        }
        error => error.to_string(),
    })?;
    read(healer, &bytes)
}

fn read(healer: &Healer, bytes: &[u8]) -> FetchedManifest {
    let read = healer.read_document(bytes).map_err(|error| format!("not JSON: {error}"))?;
    if read.document.kind == DocumentKind::Other {
        return Err("JSON, but no manifest".to_owned());
    }
    Ok((read.document.clone(), read.canvases.clone()))
}

/// Rebuilds a poisoned manifest until it holds all known images.
pub(crate) async fn cure(healer: &Healer, url: &str, known: &[Canvas]) -> Result<(), String> {
    for _ in 0..REBUILDS {
        get(healer, url, true).await?;
        let (_, served) = get(healer, url, false).await?;
        if poison(&lacking(known, &served), &served).is_none() {
            return Ok(());
        }
    }
    Err("still poisoned after it was built anew".to_owned())
}

/// Known canvases that are served with fewer images, or not at all.
fn lacking<'a>(known: &'a [Canvas], served: &[Canvas]) -> Vec<&'a Canvas> {
    let served: HashMap<&str, &Canvas> = served.iter().map(|canvas| (canvas.id.as_str(), canvas)).collect();
    let is_whole = |canvas: &&Canvas| {
        served.get(canvas.id.as_str()).is_some_and(|served| {
            let has = |key: &String| served.images.iter().any(|own| identifier::same_image(own, key));
            canvas.images.iter().all(has) || served.images.len() >= canvas.images.len()
        })
    };
    known.iter().filter(|canvas| !canvas.images.is_empty() && !is_whole(canvas)).collect()
}

fn poison(lacking: &[&Canvas], served: &[Canvas]) -> Option<String> {
    let empty = served.iter().filter(|canvas| canvas.images.is_empty()).count();
    match (lacking.len(), empty) {
        (0, 0) => None,
        (0, empty) => Some(format!("poisoned: served without the images of {}", counted(empty, "canvas"))),
        (lacking, _) => {
            Some(format!("poisoned: served without images that are known of {}", counted(lacking, "canvas")))
        }
    }
}
