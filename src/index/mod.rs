//! Which canvas owns which image. One door: [`Index`]; behind it SQLite and a bounded memory.
//!
//! `store` reads one generation of the file, `write` writes documents into it, `generation` swaps in a new
//! one, `sources` finds the documents, `command` is the command line.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rusqlite::Connection;
use uuid::Uuid;

use crate::iiif::identifier::uuid_of_file_url;
use crate::iiif::manifest::{Canvas, Document};

mod build;
pub mod command;
mod documents;
mod error;
mod generation;
mod keys;
pub mod learn;
mod report;
mod schema;
mod sort;
pub mod sources;
mod store;
mod write;

#[cfg(test)]
mod tests;

pub use error::IndexError;
pub use keys::CanvasRule;
pub use report::{Exported, Listed, Stats};

use generation::Place;
use store::{Store, Written};
use write::{Facts, Writer};

/// How often lookups look whether another process changed the file.
const LOOK: Duration = Duration::from_millis(200);

/// One canvas that owns an image.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Owner {
    /// Canvas URL as the manifest writes it.
    pub canvas: String,
    /// Manifest it stands in: its id, or the source's own name where it has none.
    pub manifest: String,
    /// Label of the canvas.
    pub label: Option<String>,
}

/// A canvas among the others of its manifest.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Neighbour {
    /// Canvas URL as the manifest writes it.
    pub canvas: String,
    /// Lookup keys of its images, in the order found.
    pub keys: Vec<String>,
}

/// What became of a document that passed through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Learned {
    /// It is in the index now.
    New,
    /// It was there already, word for word.
    Known,
    /// It tells of fewer images than the index knows from there, as poisoned JSON does: it was not believed.
    Poorer,
    /// It names no images.
    Nothing,
}

/// The index. Share it in an [`Arc`]; its calls block for some microseconds, those that write for
/// milliseconds, and those of [`sources`] for as long as they take.
#[derive(Debug)]
pub struct Index {
    place: Place,
    rule: CanvasRule,
    store: RwLock<Arc<Store>>,
    /// Answers, each with the epoch in which it was asked for; answers of earlier epochs do not count.
    memory: moka::sync::Cache<u128, (u64, Arc<[Owner]>)>,
    /// Counts the changes that were noticed.
    epoch: AtomicU64,
    born: Instant,
    next_look: AtomicU64,
    nobody: Arc<[Owner]>,
}

impl Index {
    /// Opens the index, or makes an empty one. `cache`: identifiers, known and unknown, kept in memory.
    pub fn open(path: &Path, cache: u64) -> Result<Self, IndexError> {
        let place = Place::new(path);
        let store = Arc::new(Store::open(&place)?);
        Ok(Self {
            place,
            rule: CanvasRule::default(),
            store: RwLock::new(store),
            memory: moka::sync::Cache::new(cache),
            epoch: AtomicU64::new(0),
            born: Instant::now(),
            next_look: AtomicU64::new(0),
            nobody: Arc::new([]),
        })
    }

    /// Derives canvases from file URLs by this rule.
    #[must_use]
    pub fn with_rule(mut self, rule: CanvasRule) -> Self {
        self.rule = rule;
        self
    }

    /// The configured path of the index.
    pub fn path(&self) -> &Path {
        self.place.path()
    }

    /// Who owns the identifier with this lookup key, at most eight canvases; empty: nobody. Those of manifests
    /// come first, then the canvas derived from the image's file. Changes made by other processes are seen
    /// within 200 ms.
    pub fn owners(&self, key: &str) -> Result<Arc<[Owner]>, IndexError> {
        self.look();
        // Read before asking: what changes while we ask makes our answer one of an earlier epoch.
        let epoch = self.epoch.load(Ordering::Acquire);
        let name = keys::digest(key);
        if let Some((asked, owners)) = self.memory.get(&name)
            && asked == epoch
        {
            return Ok(owners);
        }
        let owners = self.ask(key)?;
        self.memory.insert(name, (epoch, Arc::clone(&owners)));
        Ok(owners)
    }

    fn ask(&self, key: &str) -> Result<Arc<[Owner]>, IndexError> {
        let store = self.store();
        let found = store.owners(key)?;
        let mut file = found.iter().find_map(|owned| owned.carried.as_ref()).map(|c| (c.url.clone(), c.page));
        let mut owners: Vec<Owner> = found.into_iter().map(|owned| owned.owner).collect();
        if let (None, Some((uuid, page))) = (&file, keys::uuid_of_key(key)) {
            file = store.learned_file(uuid)?.map(|url| (url, page));
        }
        if let Some((url, page)) = file
            && let Some(canvas) = self.rule.derive(&url, page)
            && owners.iter().all(|owner| owner.canvas != canvas)
        {
            owners.truncate(store::MAX_OWNERS - 1);
            let (manifest, label) = match owners.first() {
                Some(first) => (first.manifest.clone(), first.label.clone()),
                None => (url, None),
            };
            owners.push(Owner { canvas, manifest, label });
        }
        Ok(if owners.is_empty() { Arc::clone(&self.nobody) } else { owners.into() })
    }

    /// The manifests that have this canvas, by its URL as they write it.
    pub fn canvas(&self, url: &str) -> Result<Vec<Owner>, IndexError> {
        self.look();
        self.store().canvas(url)
    }

    /// The next `n` canvases after this one in its manifest, in order. Nobody is a neighbour of an unknown one.
    pub fn neighbours(&self, canvas_url: &str, n: usize) -> Result<Vec<Neighbour>, IndexError> {
        self.look();
        self.store().neighbours(canvas_url, n)
    }

    /// All canvases of a manifest, in order; none: the manifest is unknown.
    pub fn manifest_canvases(&self, manifest_uri: &str) -> Result<Vec<Neighbour>, IndexError> {
        self.look();
        self.store().manifest_canvases(manifest_uri)
    }

    /// The file behind a UUID, where it was learned or stands in an identifier of a manifest.
    pub fn file_url(&self, uuid: Uuid) -> Result<Option<String>, IndexError> {
        self.look();
        let store = self.store();
        if let Some(url) = store.learned_file(uuid)? {
            return Ok(Some(url));
        }
        let found = store.owners(&uuid.to_string())?;
        Ok(found.into_iter().find_map(|owned| owned.carried).map(|carried| carried.url))
    }

    /// Remembers the file behind a UUID; refused unless the URL's own UUID is this one.
    pub fn learn_file_url(&self, uuid: Uuid, url: &str) -> Result<(), IndexError> {
        let actual = uuid_of_file_url(url);
        if actual != uuid {
            return Err(IndexError::WrongFile { uuid, url: url.to_owned(), actual });
        }
        if self.store().learned_file(uuid)?.as_deref() == Some(url) {
            return Ok(());
        }
        self.write(|conn| {
            let mut insert =
                conn.prepare_cached("INSERT OR REPLACE INTO files (uuid, url) VALUES (?1, ?2)")?;
            insert.execute(rusqlite::params![uuid.as_bytes(), url])?;
            Ok(())
        })
    }

    /// Learns a document that passed through, replacing in one transaction what was learned from that URL
    /// before. A document that lost images is not believed: see [`Learned::Poorer`].
    pub fn learn(&self, document: &Document, canvases: &[Canvas], url: &str) -> Result<Learned, IndexError> {
        self.learn_from(document, canvases, url, false)
    }

    /// Learns a document that is known to be all there is, although it lost images.
    pub fn believe(
        &self,
        document: &Document,
        canvases: &[Canvas],
        url: &str,
    ) -> Result<Learned, IndexError> {
        self.learn_from(document, canvases, url, true)
    }

    fn learn_from(
        &self,
        document: &Document,
        canvases: &[Canvas],
        url: &str,
        though_poorer: bool,
    ) -> Result<Learned, IndexError> {
        let images: usize = canvases.iter().map(|canvas| canvas.images.len()).sum();
        if images == 0 {
            return Ok(Learned::Nothing);
        }
        let hash = content_hash(canvases);
        let known = self.read(|conn| learned_from(conn, url))?;
        match known {
            Some((_, known)) if known == Some(hash) => return Ok(Learned::Known),
            Some((count, _)) if !though_poorer && i64::try_from(images).unwrap_or(i64::MAX) < count => {
                return Ok(Learned::Poorer);
            }
            _ => {}
        }
        self.write(|conn| {
            let source = write::source_row(conn, "traffic", "traffic", false)?;
            let mut writer = Writer::direct(conn)?;
            for canvas in canvases {
                writer.canvas(canvas)?;
            }
            let origin = url.to_owned();
            writer.finish(
                document,
                &Facts { source, origin, hash: Some(hash), seen: now(), ..Facts::default() },
            )
        })?;
        Ok(Learned::New)
    }

    /// Writes in one transaction to whatever file is the index then, and forgets the answers in memory.
    fn write<T>(
        &self,
        mut change: impl FnMut(&Connection) -> Result<T, IndexError>,
    ) -> Result<T, IndexError> {
        loop {
            match self.store().write(&self.place, &mut change)? {
                Written::Done(done) => {
                    self.epoch.fetch_add(1, Ordering::AcqRel);
                    return Ok(done);
                }
                Written::Replaced => self.reopen()?,
            }
        }
    }

    /// Reads with one of the connections; for queries of some milliseconds at most.
    fn read<T>(&self, query: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, IndexError> {
        self.store().read(query)
    }

    fn store(&self) -> Arc<Store> {
        Arc::clone(&self.store.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Looks, now and then, whether another process changed the file or put a new one in its place.
    fn look(&self) {
        let now = u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX);
        let due = self.next_look.load(Ordering::Relaxed);
        let next = now.saturating_add(u64::try_from(LOOK.as_millis()).unwrap_or(200));
        // One caller looks; the others go on with what is known.
        if now < due
            || self.next_look.compare_exchange(due, next, Ordering::AcqRel, Ordering::Relaxed).is_err()
        {
            return;
        }
        let store = self.store();
        match self.place.identity() {
            Ok(Some(identity)) if identity != store.identity() => {
                // The old file is whole; when the new one is not (yet), the old answers are better than none.
                if let Err(error) = self.reopen() {
                    tracing::warn!(%error, "the index was replaced, but the new one cannot be opened");
                }
            }
            Ok(_) => match store.changed() {
                Ok(true) => {
                    self.epoch.fetch_add(1, Ordering::AcqRel);
                }
                Ok(false) => {}
                // The lookup itself, or what is in memory, may still answer.
                Err(error) => tracing::warn!(%error, "cannot see whether the index changed"),
            },
            Err(error) => tracing::warn!(%error, "cannot see whether the index changed"),
        }
    }

    /// Opens whatever the path leads to now, and forgets the answers in memory.
    fn reopen(&self) -> Result<(), IndexError> {
        let fresh = Arc::new(Store::open(&self.place)?);
        *self.store.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        self.epoch.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    /// The file that is read now: the path, or the generation it leads to.
    fn file(&self) -> PathBuf {
        self.store().file().to_path_buf()
    }
}

type KnownContent = (i64, Option<[u8; 32]>);

fn learned_from(conn: &Connection, url: &str) -> rusqlite::Result<Option<KnownContent>> {
    let mut select = conn.prepare_cached(
        "SELECT m.images, m.hash FROM sources s JOIN manifests m ON m.source = s.id
         WHERE s.location = 'traffic' AND m.origin = ?1",
    )?;
    let mut rows = select.query([url])?;
    rows.next()?.map(|row| Ok((row.get(0)?, row.get(1)?))).transpose()
}

/// BLAKE3 of what the index keeps of some canvases; the JSON around them does not matter.
fn content_hash(canvases: &[Canvas]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for canvas in canvases {
        // A length before each text: no two lists of canvases read the same.
        for text in std::iter::once(&canvas.id).chain(&canvas.label).chain(&canvas.images) {
            hasher.update(&text.len().to_be_bytes()).update(text.as_bytes());
        }
        hasher.update(&[u8::from(canvas.label.is_some())]).update(&canvas.images.len().to_be_bytes());
    }
    hasher.finalize().into()
}

/// Unix seconds.
fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(i64::MAX))
}
