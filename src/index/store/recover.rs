//! Recovery from an unusable index: the file is put aside, an empty index is begun, and traffic goes on.
//!
//! Damage is found at the start, or by a query. The file that is put aside keeps its bytes. Rows that can still be read
//! from it and that no source contains (added sources, learned files, the history) are copied. While no new file can be
//! written, the index is an empty one in memory.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::params;
use tokio::sync::{Notify, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, sleep_until};

use crate::index::store::error::IndexError;
use crate::index::store::generation::IndexPath;
use crate::index::store::{Store, schema, writer};
use crate::index::{Index, history};
use crate::observe::{EventKind, Metrics};

/// Name of the index among degraded parts.
pub const PART: &str = "index";

/// Retry interval of an index that cannot be opened.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);

/// Minimum time between two recoveries: a failing disk must not fill itself with copies.
const MIN_RECOVERY_INTERVAL: Duration = Duration::from_mins(1);

/// Signals between modules for an index that must be begun anew.
#[derive(Debug)]
pub(crate) struct Recovery {
    wakeup: Arc<Notify>,
    /// Number of times the index was begun anew.
    begun: watch::Sender<u64>,
}

impl Default for Recovery {
    fn default() -> Self {
        Self { wakeup: Arc::default(), begun: watch::Sender::new(0) }
    }
}

impl Recovery {
    pub(crate) fn wakeup(&self) -> &Arc<Notify> {
        &self.wakeup
    }
}

/// Report about an index that could not be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnusableIndex {
    /// Fault of the file.
    pub why: String,
    /// New path of the file; `None`: it was not touched, and there is no index for the time being.
    pub aside: Option<PathBuf>,
}

impl UnusableIndex {
    /// Message for operators.
    pub fn told(&self) -> String {
        let Self { why, aside } = self;
        match aside {
            Some(aside) => format!(
                "{why}. Put aside as {}; serving goes on while a new one is built from the sources",
                aside.display()
            ),
            None => format!("{why}. Serving goes on without an index: nothing that expires is healed"),
        }
    }
}

impl Index {
    /// Opens the index; if the file cannot be used, begins an empty one. `Some`: why the file could not be used.
    pub fn open_in_any_case(path: &Path, cache: u64) -> Result<(Self, Option<UnusableIndex>), IndexError> {
        let error = match Self::open(path, cache) {
            Ok(index) => return Ok((index, None)),
            Err(error) => error,
        };
        let (path, recovery) = (IndexPath::new(path), Recovery::default());
        let store = Store::absent(&path, recovery.wakeup())?;
        let index = Self::over(path, store, cache, recovery);
        let why = error.to_string();
        let trouble = match index.begin_anew(&error) {
            Ok(aside) => UnusableIndex { why, aside },
            Err(other) if other.to_string() == why => UnusableIndex { why, aside: None },
            Err(other) => {
                UnusableIndex { why: format!("{why}; and it cannot be put aside: {other}"), aside: None }
            }
        };
        Ok((index, Some(trouble)))
    }

    /// Opens the index; a damaged file is put aside first. `Some`: path of the damaged file.
    pub fn open_for_build(path: &Path, cache: u64) -> Result<(Self, Option<PathBuf>), IndexError> {
        match Self::open(path, cache) {
            Err(IndexError::Damaged { .. }) => {
                Self::start_over(path, cache).map(|(index, aside)| (index, Some(aside)))
            }
            other => other.map(|index| (index, None)),
        }
    }

    /// Puts the damaged index aside and begins an empty one; returns the new path of the damaged file.
    pub fn start_over(path: &Path, cache: u64) -> Result<(Self, PathBuf), IndexError> {
        let index_path = IndexPath::new(path);
        let lock = index_path.lock()?;
        let aside = index_path.put_aside(&lock)?;
        drop(lock);
        Self::open(path, cache).map(|index| (index, aside))
    }

    /// True if there is no file that can be used.
    pub fn is_absent(&self) -> bool {
        self.store().is_absent()
    }

    /// Changes whenever the index was begun anew: then all sources must be read.
    pub fn begun_anew(&self) -> watch::Receiver<u64> {
        self.recovery.begun.subscribe()
    }

    /// Puts the file at the index's path aside because of `error`, and begins an empty index. `None`: another process did
    /// so before.
    fn begin_anew(&self, error: &IndexError) -> Result<Option<PathBuf>, IndexError> {
        let lock = self.path.lock()?;
        let is_ours = self.path.identity()? == Some(self.store().identity());
        if !is_ours && self.reopen().is_ok() {
            return Ok(None);
        }
        if !is_useless(error, &self.path) {
            return Err(match error {
                IndexError::Foreign { path, what } => IndexError::Foreign { path: path.clone(), what },
                other => IndexError::Refused(other.to_string()),
            });
        }
        // Under a new name: SQLite removes the logs of a file by their names when it is closed.
        let fresh = self.path.next(&lock)?;
        let aside = self.path.put_aside(&lock)?;
        self.path.publish(&fresh)?;
        self.reopen()?;
        drop(lock);
        self.salvage(&aside);
        Ok(Some(aside))
    }

    /// Copies rows that no source contains, as far as they can be read.
    fn salvage(&self, aside: &Path) {
        let Ok(old) = schema::open_as_it_lies(aside) else { return };
        let kept = self.write(|conn| {
            // Rows that cannot be read are lost; those before them are not.
            let _ = history::carry_over(&old, conn);
            let _ = each_pair(&old, "SELECT uuid, url FROM files", |uuid: Vec<u8>, url: String| {
                conn.execute("INSERT OR REPLACE INTO files (uuid, url) VALUES (?1, ?2)", params![uuid, url])
            });
            let added = "SELECT kind, location FROM sources WHERE added = 1";
            let mut sources: Vec<(String, String)> = Vec::new();
            let _ = each_pair(&old, added, |kind, location| {
                sources.push((kind, location));
                Ok(1)
            });
            for (kind, location) in &sources {
                writer::source_row(conn, kind, location, true)?;
            }
            Ok(())
        });
        if let Err(error) = kept {
            tracing::warn!(%error, "nothing of the old index could be taken over");
        }
    }

    /// Recovers from the damage; `None`: there is nothing to do any more.
    fn recover(&self) -> Option<Result<UnusableIndex, IndexError>> {
        let store = self.store();
        let (error, why) = match (store.damage(), store.is_absent()) {
            (Some(why), _) => (IndexError::Cut { path: store.file().to_path_buf() }, why.to_owned()),
            (None, true) => match self.reopen() {
                Ok(()) => {
                    return Some(Ok(UnusableIndex { why: "it can be used again".to_owned(), aside: None }));
                }
                Err(error) => {
                    let why = error.to_string();
                    (error, why)
                }
            },
            (None, false) => return None,
        };
        drop(store);
        Some(self.begin_anew(&error).map(|aside| UnusableIndex { why, aside }))
    }
}

/// Watches over the index until it is dropped.
pub async fn watch_over(index: Arc<Index>, metrics: Arc<Metrics>) {
    let mut calm = Instant::now();
    loop {
        if index.is_absent() {
            sleep(RETRY_INTERVAL).await;
        } else {
            index.recovery.wakeup.notified().await;
            sleep_until(calm).await;
        }
        let own = Arc::clone(&index);
        match spawn_blocking(move || own.recover()).await {
            Ok(Some(Ok(trouble))) => {
                calm = Instant::now() + MIN_RECOVERY_INTERVAL;
                metrics.event(EventKind::IndexBegunAnew);
                metrics.edge.degraded.begins(PART, &trouble.told_anew());
                index.recovery.begun.send_modify(|times| *times += 1);
            }
            Ok(Some(Err(error))) => {
                metrics
                    .edge
                    .degraded
                    .begins(PART, &UnusableIndex { why: error.to_string(), aside: None }.told());
                if !index.is_absent() {
                    sleep(RETRY_INTERVAL).await;
                    index.recovery.wakeup.notify_one();
                }
            }
            Ok(None) | Err(_) => {}
        }
    }
}

impl UnusableIndex {
    /// Message for an index that is usable again.
    fn told_anew(&self) -> String {
        match &self.aside {
            Some(_) => self.told(),
            None => format!("{}. Another file is there; its sources are read", self.why),
        }
    }
}

/// True if the file is neither a usable index nor the file of another program.
fn is_useless(error: &IndexError, path: &IndexPath) -> bool {
    match error {
        IndexError::Damaged { .. } | IndexError::Cut { .. } | IndexError::Newer { .. } => true,
        IndexError::Foreign { what, .. } => {
            path.is_ours() || (*what == schema::NOT_SQLITE && path.is_for_databases())
        }
        // A directory, or a file that we may not read.
        IndexError::ReadOnly { .. } | IndexError::Io { .. } | IndexError::Failing { .. } => {
            match fs::metadata(path.path()) {
                Ok(found) if found.is_dir() => true,
                Ok(_) => {
                    File::open(path.path()).is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
                }
                Err(_) => false,
            }
        }
        _ => false,
    }
}

fn each_pair<A: rusqlite::types::FromSql, B: rusqlite::types::FromSql>(
    conn: &rusqlite::Connection,
    sql: &str,
    mut each: impl FnMut(A, B) -> rusqlite::Result<usize>,
) -> rusqlite::Result<()> {
    let mut select = conn.prepare(sql)?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        each(row.get(0)?, row.get(1)?)?;
    }
    Ok(())
}
