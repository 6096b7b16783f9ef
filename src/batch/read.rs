//! Reader of the named sources: hands out one [`CanvasTask`] for each canvas, a little ahead of the work.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::StreamExt as _;
use tokio::sync::mpsc;

use super::foreign::ForeignFetcher;
use super::parse_source::{BatchSource, parse};
use super::summary::UnreadSource;
use super::{CanvasTask, ManifestProblem, ManifestRef};
use crate::config::Settings;
use crate::heal::Healer;
use crate::iiif::manifest::{Canvas, Document, DocumentKind};
use crate::index::sources::directory::{self, CrawlEvent};
use crate::index::sources::problem::DOCUMENT_NAMES;
use crate::index::{Index, IndexError};

/// Item read from a source.
#[derive(Debug)]
pub(crate) enum SourceItem {
    /// A canvas to probe.
    Unit(CanvasTask),
    /// Problem of a manifest itself.
    Trouble(Arc<ManifestRef>, ManifestProblem),
    /// Source or document that could not be read.
    Problem(UnreadSource),
}

/// Expected counts, as far as they are known: for the time left.
#[derive(Debug, Default)]
pub(crate) struct ExpectedCounts {
    images: AtomicU64,
    documents: AtomicU64,
    read: AtomicU64,
}

impl ExpectedCounts {
    fn more(&self, images: usize) {
        self.images.fetch_add(u64::try_from(images).unwrap_or(0), Ordering::Relaxed);
    }

    /// Images in all: an estimate from the documents read so far, until all are read.
    pub(crate) fn images(&self) -> u64 {
        let load = |number: &AtomicU64| number.load(Ordering::Relaxed);
        let (images, documents, read) = (load(&self.images), load(&self.documents), load(&self.read));
        if read == 0 || read >= documents { images } else { images.saturating_mul(documents) / read }
    }
}

/// Reads sources. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct SourceReader {
    pub(crate) index: Arc<Index>,
    pub(crate) healer: Healer,
    pub(crate) settings: Arc<Settings>,
    /// Fetcher of documents that belong to no route of ours, from the named hosts.
    pub(crate) elsewhere: Arc<ForeignFetcher>,
    pub(crate) expected: Arc<ExpectedCounts>,
    /// True to fetch the manifests that files and the index name, too.
    pub(crate) fetch_all: bool,
    /// Manifests fetched at once.
    pub(crate) parallelism: usize,
    pub(crate) out: mpsc::Sender<SourceItem>,
}

/// Error: the receiver of tasks is gone.
#[derive(Debug)]
pub(crate) struct ReadStopped;

pub(super) type ReadControl = Result<(), ReadStopped>;

/// Collections within collections that are followed.
const DEPTH: usize = 8;

impl SourceReader {
    /// Reads all sources, one after another.
    pub(crate) async fn read(self, sources: Vec<String>) -> ReadControl {
        if sources.is_empty() {
            return self.source("", BatchSource::Index).await;
        }
        for text in &sources {
            let (index, settings, named) =
                (Arc::clone(&self.index), Arc::clone(&self.settings), text.clone());
            let parsed = tokio::task::spawn_blocking(move || parse(&named, &settings, &index)).await;
            self.source(text, parsed.map_err(|_| ReadStopped)?).await?;
        }
        Ok(())
    }

    async fn source(&self, text: &str, source: BatchSource) -> ReadControl {
        match source {
            BatchSource::Index => self.whole_index().await,
            BatchSource::Path(path) => self.path(text, path).await,
            BatchSource::Document(url) => self.fetched(text, url).await,
            BatchSource::Canvas { url, manifest } => self.canvas(text, url, manifest).await,
            BatchSource::Image(key) => self.image(key).await,
            BatchSource::Unreadable(why) => self.problem(text, why, true).await,
        }
    }

    pub(super) async fn send(&self, item: SourceItem) -> ReadControl {
        self.out.send(item).await.map_err(|_| ReadStopped)
    }

    pub(super) async fn problem(&self, source: &str, message: String, is_all_of_it: bool) -> ReadControl {
        let source = source.to_owned();
        self.send(SourceItem::Problem(UnreadSource { source, message, is_all_of_it })).await
    }

    /// The units of a document as it was read.
    pub(super) async fn as_read(
        &self,
        named: &Arc<ManifestRef>,
        kind: DocumentKind,
        canvases: Vec<Canvas>,
    ) -> ReadControl {
        if canvases.is_empty() && kind == DocumentKind::Manifest {
            return self.problem(&named.uri, NO_CANVAS.to_owned(), false).await;
        }
        self.document(named, canvases, |_| None).await
    }

    /// Tasks of one document. `lacks` is the reason why a canvas of it is poisoned.
    pub(super) async fn document(
        &self,
        named: &Arc<ManifestRef>,
        canvases: Vec<Canvas>,
        lacks: impl Fn(&Canvas) -> Option<&'static str>,
    ) -> ReadControl {
        self.expected.more(canvases.iter().map(|canvas| canvas.images.len().max(1)).sum());
        for canvas in canvases {
            let mut lacks = lacks(&canvas);
            let mut images = canvas.images;
            if images.is_empty() {
                lacks = lacks.or(Some("its manifest names no image for it"));
                images = known_images(&self.index, &canvas.id, None);
            }
            let (manifest, label) = (Arc::clone(named), canvas.label);
            self.send(SourceItem::Unit(CanvasTask {
                manifest,
                canvas: Some(canvas.id),
                label,
                images,
                lacks,
                place: 0,
            }))
            .await?;
        }
        Ok(())
    }

    async fn path(&self, text: &str, path: PathBuf) -> ReadControl {
        let is_file = path.is_file();
        let find = move || directory::find(&path).collect::<Vec<_>>();
        let mut found = tokio::task::spawn_blocking(find).await.map_err(|_| ReadStopped)?;
        let all = found.len();
        found.retain(|found| !matches!(found, CrawlEvent::PassedOver));
        self.expected.documents.fetch_add(u64::try_from(found.len()).unwrap_or(0), Ordering::Relaxed);
        if found.is_empty() {
            let why = format!("none of its {all} files is a document by its name: {DOCUMENT_NAMES}");
            return self.problem(text, why, true).await;
        }
        let mut manifests = Vec::new();
        for found in found {
            let (origin, read) = match found {
                CrawlEvent::Document(path) => {
                    let (origin, index) = (path.display().to_string(), Arc::clone(&self.index));
                    let read = tokio::task::spawn_blocking(move || read_file(&path, &index));
                    (origin, read.await.map_err(|_| ReadStopped)?)
                }
                CrawlEvent::Problem(problem) => (problem.path, Err(problem.message)),
                CrawlEvent::PassedOver => continue,
            };
            match read {
                Ok((document, canvases)) => {
                    let named = named(&document, &origin);
                    match document.kind {
                        DocumentKind::Collection if is_file => {
                            self.members(text, document.members, 1).await?;
                        }
                        DocumentKind::Other if is_file => {
                            self.problem(text, "JSON, but no manifest".to_owned(), true).await?;
                        }
                        DocumentKind::Collection | DocumentKind::Other => {}
                        _ => {
                            if self.fetch_all && self.healer.is_allowed_canvas(&named.uri) {
                                manifests.push((Arc::clone(&named), Arc::new(canvases.clone())));
                            }
                            self.as_read(&named, document.kind, canvases).await?;
                        }
                    }
                }
                Err(why) => self.problem(&origin, why, is_file).await?,
            }
            self.expected.read.fetch_add(1, Ordering::Relaxed);
        }
        self.served_as_known(manifests).await
    }

    /// Checks that manifests which were read elsewhere are served as they were read.
    async fn served_as_known(&self, manifests: Vec<(Arc<ManifestRef>, Arc<Vec<Canvas>>)>) -> ReadControl {
        let mut looks = futures_util::stream::iter(manifests)
            .map(|(named, known)| async move {
                let trouble = self.trouble(&named.uri, &known).await;
                (named, trouble)
            })
            .buffer_unordered(self.parallelism.max(1));
        while let Some((named, trouble)) = looks.next().await {
            if let Some(trouble) = trouble {
                self.send(SourceItem::Trouble(named, trouble)).await?;
            }
        }
        Ok(())
    }

    async fn whole_index(&self) -> ReadControl {
        let stats = self.index.stats();
        if let Ok(stats) = &stats {
            self.expected.more(usize::try_from(stats.images).unwrap_or(0));
            if stats.images == 0 {
                let why = "it is empty: `iiif-mender index build` fills it, or name a source";
                return self.problem("the index", why.to_owned(), true).await;
            }
        }
        let (index, out) = (Arc::clone(&self.index), self.out.clone());
        let read =
            tokio::task::spawn_blocking(move || export(&index, &out)).await.map_err(|_| ReadStopped)?;
        if let Err(error) = read {
            self.problem("the index", error.to_string(), true).await?;
        }
        if !self.fetch_all {
            return Ok(());
        }
        let listed = self.index.list().unwrap_or_default();
        let ours = listed.into_iter().filter(|listed| self.healer.is_allowed_canvas(&listed.uri));
        let manifests = ours.map(|listed| {
            let known = known_canvases(&self.index, &listed.uri);
            (Arc::new(ManifestRef { uri: listed.uri, label: listed.label }), Arc::new(known))
        });
        self.served_as_known(manifests.collect()).await
    }

    async fn canvas(&self, text: &str, url: String, manifest: Option<String>) -> ReadControl {
        let owners = self.index.canvas(&url).unwrap_or_default();
        let owner = owners.iter().find(|owner| Some(&owner.manifest) == manifest.as_ref()).or(owners.first());
        if let Some(owner) = owner {
            let images = known_images(&self.index, &url, Some(&owner.manifest));
            let named = self.manifest_of(&owner.manifest);
            let canvas = Canvas { id: url, label: owner.label.clone(), images };
            return self.document(&named, vec![canvas], |_| None).await;
        }
        // Unknown here: its manifest lists its images without the canvas being built.
        let from = manifest.unwrap_or_else(|| url.clone());
        match self.get(&from).await {
            Ok((document, canvases)) => {
                let named = named(&document, &from);
                let own: Vec<Canvas> = canvases.into_iter().filter(|canvas| canvas.id == url).collect();
                if own.is_empty() {
                    let why = format!("the canvas {url} does not stand in {from}");
                    return self.problem(text, why, true).await;
                }
                self.document(&named, own, |_| None).await
            }
            Err(why) => self.problem(text, why, true).await,
        }
    }

    async fn image(&self, key: String) -> ReadControl {
        let owners = self.index.owners(&key).unwrap_or_else(|_| Arc::new([]));
        self.expected.more(1);
        let (canvas, label, manifest) = match owners.first() {
            Some(owner) => (Some(owner.canvas.clone()), owner.label.clone(), owner.manifest.as_str()),
            None => (None, None, "named by itself"),
        };
        let manifest = self.manifest_of(manifest);
        self.send(SourceItem::Unit(CanvasTask {
            manifest,
            canvas,
            label,
            images: vec![key],
            lacks: None,
            place: 0,
        }))
        .await
    }

    /// A manifest with the label that the index knows.
    pub(super) fn manifest_of(&self, uri: &str) -> Arc<ManifestRef> {
        Arc::new(ManifestRef { uri: uri.to_owned(), label: self.index.manifest_label(uri) })
    }

    /// The members of a collection, each as if it had been named.
    pub(super) async fn members(&self, text: &str, members: Vec<String>, depth: usize) -> ReadControl {
        if depth > DEPTH {
            return self.problem(text, "collections nested too deeply".to_owned(), false).await;
        }
        self.expected.documents.fetch_add(u64::try_from(members.len()).unwrap_or(0), Ordering::Relaxed);
        let mut seen = HashSet::new();
        let fresh = members.into_iter().filter(|member| seen.insert(member.clone()));
        let mut gets = futures_util::stream::iter(fresh)
            .map(|member| async move { (self.get(&member).await, member) })
            .buffered(self.parallelism.max(1));
        while let Some((got, member)) = gets.next().await {
            match got {
                Ok((document, _)) if document.kind == DocumentKind::Collection => {
                    Box::pin(self.members(&member, document.members, depth + 1)).await?;
                }
                Ok((document, canvases)) => self.served(&member, &document, canvases).await?,
                // The index may know the manifest nevertheless.
                Err(why) => {
                    self.problem(&member, why, false).await?;
                    let known = known_canvases(&self.index, &member);
                    if !known.is_empty() {
                        self.document(&self.manifest_of(&member), known, |_| None).await?;
                    }
                }
            }
            self.expected.read.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// UPSTREAM: built while all its images failed, a manifest is 200 without a canvas (upstream.md "Poison").
const NO_CANVAS: &str = "it names no canvas: it was built while its images could not be read, or it is empty";

/// Names a document by its own id, or by the URL or path where it was read.
pub(super) fn named(document: &Document, origin: &str) -> Arc<ManifestRef> {
    let uri = document.id.clone().unwrap_or_else(|| origin.to_owned());
    Arc::new(ManifestRef { uri, label: document.label.clone() })
}

/// The images of a canvas as the index knows them.
fn known_images(index: &Index, canvas: &str, manifest: Option<&str>) -> Vec<String> {
    let manifests = match manifest {
        Some(manifest) => vec![manifest.to_owned()],
        None => index.canvas(canvas).unwrap_or_default().into_iter().map(|owner| owner.manifest).collect(),
    };
    let of = |manifest: &String| {
        let canvases = index.manifest_canvases(manifest).unwrap_or_default();
        canvases.into_iter().find(|known| known.canvas == canvas && !known.keys.is_empty())
    };
    manifests.iter().find_map(of).map(|known| known.keys).unwrap_or_default()
}

/// The canvases of a manifest as the index knows them.
pub(super) fn known_canvases(index: &Index, manifest: &str) -> Vec<Canvas> {
    let known = index.manifest_canvases(manifest).unwrap_or_default();
    known.into_iter().map(|one| Canvas { id: one.canvas, label: None, images: one.keys }).collect()
}

fn export(index: &Index, out: &mpsc::Sender<SourceItem>) -> Result<(), IndexError> {
    let mut last: Option<CanvasTask> = None;
    let mut named = Arc::new(ManifestRef { uri: String::new(), label: None });
    let send = |unit: Option<CanvasTask>| match unit.map(|unit| out.blocking_send(SourceItem::Unit(unit))) {
        Some(Err(_)) => ControlFlow::Break(()),
        Some(Ok(())) | None => ControlFlow::Continue(()),
    };
    index.export(&mut |image| {
        // Images of one canvas come one after another.
        if let Some(unit) = last.as_mut()
            && unit.manifest.uri == image.manifest
            && unit.canvas.as_deref() == Some(&*image.canvas)
        {
            unit.images.push(image.image);
            return ControlFlow::Continue(());
        }
        if named.uri != image.manifest {
            named = Arc::new(ManifestRef { uri: image.manifest, label: image.manifest_label });
        }
        let (manifest, canvas) = (Arc::clone(&named), Some(image.canvas));
        send(last.replace(CanvasTask {
            manifest,
            canvas,
            label: image.label,
            images: vec![image.image],
            lacks: None,
            place: 0,
        }))
    })?;
    let _ = send(last);
    Ok(())
}

fn read_file(path: &Path, index: &Index) -> Result<(Document, Vec<Canvas>), String> {
    let mut canvases = Vec::new();
    let read = directory::read(path, &index.image_bases(), &mut |canvas| canvases.push(canvas));
    read.map(|(document, _)| (document, canvases)).map_err(|problem| match (problem.line, problem.column) {
        (Some(line), Some(column)) => {
            format!("not JSON: {} at line {line} column {column}", problem.message)
        }
        _ => problem.message,
    })
}
