//! Index of which canvas owns which image. [`Index`] is the only entry; behind it are SQLite and a bounded cache.
//!
//! - `store`: the SQLite file, with schema, generations, readers and writer.
//! - `sources`: builds and refreshes from the configured files, directories and URLs.
//! - `learn`: documents that pass through the proxy. `history`: heals that ended. `shared`: exchange with other nodes.
//! - `browse`, `report`, `stored`: queries for more than owners. `command`: the command line.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::RwLock;
use rusqlite::Connection;
use tokio::runtime::Handle;
use tokio::sync::watch;
use uuid::Uuid;

use crate::config::Settings;
use crate::config::settings::SourceSettings;
use crate::iiif::identifier::uuid_of_file_url;
use crate::upstream::fetch::FetcherFactory;

pub mod browse;
mod canvas_sizes;
pub mod command;
pub mod history;
pub mod learn;
mod report;
pub mod shared;
pub mod sources;
mod store;
mod stored;

#[cfg(test)]
mod tests;

pub use crate::config::settings::CanvasRule;
pub use learn::LearnResult;
pub use report::{DocumentRow, ExportRow, IndexStats};
pub use sources::bases::DocumentContent;
pub use sources::remove::RemoveResult;
pub use store::error::IndexError;
pub use store::filling::keep_filter;
pub use store::recover;
pub use stored::{LocalManifest, StoredManifest};

use sources::bases;
use store::generation::IndexPath;
use store::keys::{self, KeyRules};
use store::recover::Recovery;
use store::{Store, WriteResult};
use store::{queries, rows};

/// Interval of checks by lookups whether another process changed the file.
const CHANGE_CHECK_INTERVAL: Duration = Duration::from_millis(200);

/// A canvas that owns an image.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Owner {
    /// Canvas URL as the manifest writes it.
    pub canvas: String,
    /// Manifest of the canvas: its id, or the source's own name where it has none.
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

/// `ImageRecord` holds the owners and the file URL of one lookup key.
#[derive(Debug, Clone)]
struct ImageRecord {
    owners: Arc<[Owner]>,
    /// The file URL behind a UUID.
    file: Option<Arc<str>>,
}

/// Index of manifests, shared in an [`Arc`]. Look-ups block for microseconds, writes for milliseconds, [`sources`] for longer.
#[derive(Debug)]
pub struct Index {
    path: IndexPath,
    /// Key rules of the configuration, see [`Index::reconfigure`].
    names: ArcSwap<KeyRules>,
    web: ArcSwapOption<(FetcherFactory, Handle)>,
    store: RwLock<Arc<Store>>,
    /// Cached answers, each with the epoch of its query; answers of earlier epochs do not count.
    memory: moka::sync::Cache<u128, (u64, ImageRecord)>,
    /// Counts the changes that were noticed.
    epoch: AtomicU64,
    sizes: canvas_sizes::CanvasSizes,
    /// See [`Index::read_document`].
    last_read: ArcSwapOption<bases::DocumentContent>,
    born: Instant,
    next_look: AtomicU64,
    nobody: Arc<[Owner]>,
    recovery: Recovery,
    /// See [`Index::all_read`].
    all_read: watch::Sender<()>,
    /// Changes whenever a document was learned.
    learned: watch::Sender<()>,
}

impl Index {
    /// Opens the index, or makes an empty one. `cache`: identifiers, known and unknown, kept in memory; one
    /// counts once for each of its canvases.
    pub fn open(path: &Path, cache: u64) -> Result<Self, IndexError> {
        let (path, recovery) = (IndexPath::new(path), Recovery::default());
        let store = Store::open(&path, recovery.wakeup())?;
        Ok(Self::over(path, store, cache, recovery))
    }

    fn over(path: IndexPath, store: Store, cache: u64, recovery: Recovery) -> Self {
        Self {
            path,
            names: ArcSwap::default(),
            web: ArcSwapOption::empty(),
            store: RwLock::new(Arc::new(store)),
            recovery,
            memory: moka::sync::Cache::builder()
                .max_capacity(cache)
                .weigher(|_, (_, record): &(u64, ImageRecord)| {
                    u32::try_from(record.owners.len()).unwrap_or(u32::MAX).max(1)
                })
                .build(),
            sizes: canvas_sizes::CanvasSizes::default(),
            epoch: AtomicU64::new(0),
            last_read: ArcSwapOption::empty(),
            born: Instant::now(),
            next_look: AtomicU64::new(0),
            nobody: Arc::new([]),
            all_read: watch::Sender::new(()),
            learned: watch::Sender::new(()),
        }
    }

    /// Knows files and canvases by the names that the configuration says.
    #[must_use]
    pub fn with_names(self, settings: &Settings) -> Self {
        self.names.store(Arc::new(KeyRules::of(settings)));
        self
    }

    /// Fetches URL sources on the runtime of `handle`. Without this call URL sources cannot be read.
    #[must_use]
    pub fn with_web(self, web: FetcherFactory, handle: Handle) -> Self {
        self.web.store(Some(Arc::new((web, handle))));
        self
    }

    /// Applies the settings of `web` to names and sources. Work under way ends as before.
    pub fn reconfigure(&self, web: FetcherFactory, handle: Handle) {
        self.names.store(Arc::new(KeyRules::of(&web.settings())));
        self.web.store(Some(Arc::new((web, handle))));
        // Owners that were derived from a file's name may be others now.
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }

    /// The configured path of the index.
    pub fn path(&self) -> &Path {
        self.path.path()
    }

    /// Owners of the identifier with this lookup key, at most eight canvases; empty: none. Canvases of manifests
    /// come first, then the canvas derived from the image's file. Other processes' changes show within 200 ms.
    pub fn owners(&self, key: &str) -> Result<Arc<[Owner]>, IndexError> {
        Ok(self.image(key)?.owners)
    }

    /// The file behind a UUID, where it was learned or stands in an identifier of a manifest.
    pub fn file_url(&self, uuid: Uuid) -> Result<Option<Arc<str>>, IndexError> {
        Ok(self.image(&uuid.to_string())?.file)
    }

    fn image(&self, key: &str) -> Result<ImageRecord, IndexError> {
        self.check_for_changes();
        // Read before the query: a change during the query makes its answer one of an earlier epoch.
        let epoch = self.epoch.load(Ordering::Acquire);
        let (store, name) = (self.store(), keys::digest(key));
        if !store.may_have(key, name) {
            return Ok(ImageRecord { owners: Arc::clone(&self.nobody), file: None });
        }
        if let Some((asked, known)) = self.memory.get(&name)
            && asked == epoch
        {
            return Ok(known);
        }
        let known = self.ask(&store, key, name)?;
        self.memory.insert(name, (epoch, known.clone()));
        Ok(known)
    }

    fn ask(&self, store: &Store, key: &str, name: u128) -> Result<ImageRecord, IndexError> {
        let names = self.names.load();
        let found = store.owners(key, name, &names)?;
        let carried = found.iter().find_map(|owned| owned.carried.clone());
        let mut owners: Vec<Owner> = found.into_iter().map(|owned| owned.owner).collect();
        let (file, as_written, page) = match (carried, keys::uuid_of_key(key)) {
            (Some(carried), _) => (Some(carried.url), Some(carried.as_written), carried.page),
            (None, Some((uuid, page))) => {
                let url = store.learned_file(uuid)?;
                (url.clone(), url, page)
            }
            (None, None) => (None, None, None),
        };
        if let Some(file_url) = as_written
            && let Some(canvas) = names.derive(&file_url, page)
            && owners.iter().all(|owner| owner.canvas != canvas)
        {
            owners.truncate(usize::from(queries::MAX_ROWS) - 1);
            let (manifest, label) = match owners.first() {
                Some(first) => (first.manifest.clone(), first.label.clone()),
                None => (file_url, None),
            };
            owners.push(Owner { canvas, manifest, label });
        }
        let owners = if owners.is_empty() { Arc::clone(&self.nobody) } else { owners.into() };
        Ok(ImageRecord { owners, file: file.map(Into::into) })
    }

    /// The manifests that have this canvas, by its URL as they write it; or else as they write it by the other
    /// scheme, or by another of the hosts that mean us.
    pub fn canvas(&self, url: &str) -> Result<Vec<Owner>, IndexError> {
        self.check_for_changes();
        self.try_aliases(url, Store::canvas)
    }

    fn try_aliases<T>(
        &self,
        url: &str,
        ask: impl Fn(&Store, &str) -> Result<Vec<T>, IndexError>,
    ) -> Result<Vec<T>, IndexError> {
        let store = self.store();
        for name in self.names.load().of_canvas(url) {
            let found = ask(&store, &name)?;
            if !found.is_empty() {
                return Ok(found);
            }
        }
        Ok(Vec::new())
    }

    /// Returns the next `n` canvases after this one in its manifest, in order. An unknown canvas has none.
    pub fn neighbours(&self, canvas_url: &str, n: usize) -> Result<Vec<Neighbour>, IndexError> {
        self.check_for_changes();
        self.try_aliases(canvas_url, |store, name| store.neighbours(name, n))
    }

    /// All canvases of a manifest, in order; none: the manifest is unknown.
    pub fn manifest_canvases(&self, manifest_uri: &str) -> Result<Vec<Neighbour>, IndexError> {
        self.check_for_changes();
        self.store().manifest_canvases(manifest_uri)
    }

    /// True if the index knows no document yet.
    pub fn is_empty(&self) -> Result<bool, IndexError> {
        Ok(self.read(|conn| rows::number_of_documents(conn, 1))? == 0)
    }

    /// Changes each time when all sources were read that were due.
    pub fn all_read(&self) -> watch::Receiver<()> {
        self.all_read.subscribe()
    }

    /// The configured sources and the added ones, but for those that are switched off.
    pub fn sources(&self, configured: &[SourceSettings]) -> Result<Vec<SourceSettings>, IndexError> {
        let all = self.read(|conn| sources::with_added(conn, configured))?;
        Ok(all.into_iter().map(|(source, _)| source).filter(|source| source.enabled).collect())
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
        self.learn_file_urls(&[(uuid, url.to_owned())])
    }

    /// Writes file URLs that are verified already, in one transaction.
    fn learn_file_urls(&self, files: &[(Uuid, String)]) -> Result<(), IndexError> {
        self.write(|conn| {
            let mut insert =
                conn.prepare_cached("INSERT OR REPLACE INTO files (uuid, url) VALUES (?1, ?2)")?;
            for (uuid, url) in files {
                insert.execute(rusqlite::params![uuid.as_bytes(), url])?;
            }
            Ok(())
        })
    }

    /// Writes in one transaction to the current file of the index, and forgets the answers in memory.
    fn write<T>(&self, change: impl FnMut(&Connection) -> Result<T, IndexError>) -> Result<T, IndexError> {
        self.store().has_room()?;
        self.alone(change)
    }

    /// Writes like [`Self::write`], but also when the log is full: for callers that only hold the write lock.
    fn alone<T>(
        &self,
        mut change: impl FnMut(&Connection) -> Result<T, IndexError>,
    ) -> Result<T, IndexError> {
        loop {
            match self.store().write(&self.path, &mut change)? {
                WriteResult::Done(done) => {
                    // Our own writes must be visible at once, also where only the disk was full till now.
                    if !self.store().is_outdated() || self.reopen().is_err() {
                        self.epoch.fetch_add(1, Ordering::AcqRel);
                    }
                    return Ok(done);
                }
                WriteResult::Replaced => self.reopen()?,
            }
        }
    }

    /// Reads with one of the connections; for queries of some milliseconds at most.
    fn read<T>(&self, query: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, IndexError> {
        self.store().read(query)
    }

    fn store(&self) -> Arc<Store> {
        Arc::clone(&self.store.read())
    }

    /// Checks at an interval whether another process changed the file or replaced it.
    fn check_for_changes(&self) {
        let now = u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX);
        let due = self.next_look.load(Ordering::Relaxed);
        let next = now.saturating_add(u64::try_from(CHANGE_CHECK_INTERVAL.as_millis()).unwrap_or(200));
        // A single caller checks; the others use the last state.
        if now < due
            || self.next_look.compare_exchange(due, next, Ordering::AcqRel, Ordering::Relaxed).is_err()
        {
            return;
        }
        let store = self.store();
        if store.is_absent() {
            return;
        }
        match self.path.identity() {
            Ok(Some(identity)) if identity != store.identity() || store.is_outdated() => {
                // The old file is whole; while the new one cannot be opened, old answers are better than none.
                if let Err(error) = self.reopen() {
                    tracing::warn!(%error, "the index was replaced, but what is there now cannot be opened");
                }
            }
            Ok(_) => match store.changed() {
                Ok(true) => {
                    self.epoch.fetch_add(1, Ordering::AcqRel);
                }
                Ok(false) => {}
                // The query itself, or the memory, may still answer.
                Err(error) => tracing::warn!(%error, "cannot see whether the index changed"),
            },
            Err(error) => tracing::warn!(%error, "cannot see whether the index changed"),
        }
    }

    /// Opens the generation that is there now, unless it is open already.
    fn reopen_if_replaced(&self) -> Result<(), IndexError> {
        if self.store().is_absent() {
            return Ok(());
        }
        match self.path.identity()? {
            Some(now) if now != self.store().identity() => self.reopen(),
            _ => Ok(()),
        }
    }

    /// Opens the current file behind the path, and forgets the answers in memory.
    fn reopen(&self) -> Result<(), IndexError> {
        let fresh = Arc::new(Store::open(&self.path, self.recovery.wakeup())?);
        *self.store.write() = fresh;
        self.epoch.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    /// The file that is read now: the path, or the generation it leads to.
    fn file(&self) -> PathBuf {
        self.store().file().to_path_buf()
    }
}

/// Unix seconds.
fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(i64::MAX))
}
