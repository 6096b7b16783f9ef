//! Fills the filter of an open generation, so that a look-up of an unknown identifier ends in memory.
//!
//! The filter lets 1 unknown key in 100 pass to SQLite. It never lacks a key that the file has:
//!
//! - Rows are read in steps. Rows that our writer inserts meanwhile and later enter the filter by a trigger, before the commit.
//! - Commits of other processes change `data_version` of our writer, whose own commits do not. As soon as such a commit is
//!   noticed, look-ups bypass the filter, until a new one is filled.
//! - Another file is another [`Store`], with a filter of its own. No filter is written to disk.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::functions::FunctionFlags;
use rusqlite::types::Value;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use crate::index::Index;
use crate::index::store::error::IndexError;
use crate::index::store::filter::{KeyFilter, file_hash};
use crate::index::store::{Store, keys, schema};

/// Largest file that gets a filter: about 23 million images, whose filter takes 28 MiB. The memory of a process stays below 64 MiB.
pub(crate) const LARGEST_FILE: i64 = 4 << 30;

/// Rows of a step: some milliseconds.
const STEP: i64 = 1 << 16;

/// Least interval of checks for a missing filter.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The pause after a fill is this many times its duration.
const PAUSE_FACTOR: u32 = 50;

/// Queries for hashes of image keys, then for learned files; each continues behind a row.
const ROWS: [&str; 2] = [
    "SELECT hash FROM images WHERE hash > ?1 ORDER BY hash LIMIT ?2",
    "SELECT uuid FROM files WHERE uuid > ?1 ORDER BY uuid LIMIT ?2",
];

/// Temporary triggers of the writer's connection; in the file they would fail in other programs, which lack the function.
const TRIGGERS: &str = "PRAGMA temp_store = MEMORY;
   CREATE TEMP TRIGGER IF NOT EXISTS filter_image AFTER INSERT ON main.images BEGIN SELECT filter_key(new.hash); END;
   CREATE TEMP TRIGGER IF NOT EXISTS filter_file AFTER INSERT ON main.files BEGIN SELECT filter_key(new.uuid); END;";

impl Store {
    /// False only if [`Store::owners`] of this key is empty and no file was learned for it.
    pub(crate) fn may_have(&self, key: &str, name: u128) -> bool {
        let filter = self.filter.load();
        let Some(filter) = filter.as_ref().filter(|filter| self.is_settled(filter)) else { return true };
        filter.may_have(keys::hash_of(name))
            || keys::uuid_of_key(key).is_some_and(|(uuid, _)| filter.may_have(file_hash(uuid)))
    }

    fn is_settled(&self, filter: &KeyFilter) -> bool {
        filter.settled.load(Ordering::Acquire) == self.noticed.load(Ordering::Acquire)
    }

    /// Enables the filter again after a change, if our writer made that change.
    pub(crate) fn settle_filter(&self) {
        // Read before the comparison: a change noticed during it stays unsettled.
        let noticed = self.noticed.load(Ordering::Acquire);
        let Some(filter) = self.filter.load_full().filter(|filter| !self.is_settled(filter)) else { return };
        // A look-up does not wait for a write; it asks SQLite meanwhile.
        if let Some(writer) = self.writer.try_lock().filter(|_| filter.is_filled()) {
            self.settle(&filter, writer.as_ref(), noticed);
        }
    }

    /// Enables the filter, unless another connection has committed since the fill began. The caller holds the writer's lock and read
    /// `noticed` before.
    fn settle(&self, filter: &KeyFilter, writer: Option<&Connection>, noticed: u64) -> bool {
        let is_ours = self.check().is_ok()
            && writer.is_some_and(|conn| version(conn).is_ok_and(|now| now == filter.version));
        if is_ours {
            filter.settled.store(noticed, Ordering::Release);
        }
        is_ours
    }

    /// True if the filter is enabled and has room; waits for a write in progress.
    fn has_filter(&self) -> bool {
        let noticed = self.noticed.load(Ordering::Acquire);
        let Some(filter) = self.filter.load_full() else { return false };
        filter.is_filled()
            && !filter.is_full()
            && (self.is_settled(&filter) || self.settle(&filter, self.writer.lock().as_ref(), noticed))
    }
}

/// Bytes of the open snapshot.
fn bytes(conn: &Connection) -> rusqlite::Result<i64> {
    Ok(schema::number(conn, "PRAGMA page_count")? * schema::number(conn, "PRAGMA page_size")?)
}

fn version(conn: &Connection) -> rusqlite::Result<i64> {
    schema::number(conn, "PRAGMA data_version")
}

/// A filter while it is being filled; reads and writes go on.
#[derive(Debug)]
pub(crate) struct FilterFill {
    store: Arc<Store>,
    filter: Arc<KeyFilter>,
    /// Position in [`ROWS`], and the last row read there.
    rows: usize,
    last: Value,
    /// Rows of a step.
    pub(crate) step: i64,
}

impl FilterFill {
    /// Begins a filter. `None`: the store has a good one, more than `largest` bytes, or no writer to detect commits of others.
    pub(crate) fn begin(store: Arc<Store>, largest: i64) -> Result<Option<Self>, IndexError> {
        if store.has_filter() || store.read(bytes)? > largest {
            return Ok(None);
        }
        let count = "SELECT coalesce(sum(images + files), 0) + (SELECT count(*) FROM files) FROM manifests";
        let keys = store.read(|conn| schema::number(conn, count))?;
        // Under this lock no transaction of ours is in progress.
        let writer = store.writer.lock();
        store.check()?;
        let (Some(conn), None) = (writer.as_ref(), store.frozen) else { return Ok(None) };
        let begin = || {
            let filter = Arc::new(KeyFilter::new(usize::try_from(keys).unwrap_or(0), version(conn)?));
            let filled = Arc::downgrade(&filter);
            conn.create_scalar_function("filter_key", 1, FunctionFlags::SQLITE_UTF8, move |call| {
                if let Some(filter) = filled.upgrade() {
                    filter.insert_value(call.get_raw(0));
                }
                Ok(0)
            })?;
            conn.execute_batch(TRIGGERS)?;
            Ok(filter)
        };
        let filter = begin().map_err(|error| store.wrap(error))?;
        // Older snapshots may lack commits of others.
        store.readers.let_go();
        store.filter.store(Some(Arc::clone(&filter)));
        drop(writer);
        Ok(Some(Self { store, filter, rows: 0, last: Value::Real(f64::NEG_INFINITY), step: STEP }))
    }

    /// Reads some rows; after the last ones enables the filter. `None`: the end.
    pub(crate) fn step(mut self) -> Result<Option<Self>, IndexError> {
        let Some(sql) = ROWS.get(self.rows) else {
            let noticed = self.store.noticed.load(Ordering::Acquire);
            self.store.settle(&self.filter, self.store.writer.lock().as_ref(), noticed);
            return Ok(None);
        };
        let read = self.store.read(|conn| {
            let mut select = conn.prepare_cached(sql)?;
            let mut rows = select.query((&self.last, self.step))?;
            let (mut read, mut last) = (0, Value::Null);
            while let Some(row) = rows.next()? {
                self.filter.insert_value(row.get_ref(0)?);
                read += 1;
                if read == self.step {
                    last = row.get(0)?;
                }
            }
            Ok(last)
        })?;
        (self.rows, self.last) = match read {
            Value::Null => (self.rows + 1, Value::Real(f64::NEG_INFINITY)),
            last => (self.rows, last),
        };
        Ok(Some(self))
    }
}

/// Keeps a filter for the open generation; runs until it is dropped. The first requests after a start do without one, and do not
/// share the processor with it.
pub async fn keep_filter(index: Arc<Index>) {
    let mut pause = CHECK_INTERVAL;
    loop {
        sleep(pause).await;
        let begun = Instant::now();
        if let Err(error) = make_filter(&index).await {
            tracing::debug!(%error, "look-ups go on without a filter");
        }
        pause = (begun.elapsed() * PAUSE_FACTOR).max(CHECK_INTERVAL);
    }
}

async fn make_filter(index: &Index) -> Result<(), IndexError> {
    let store = index.store();
    let begun = Instant::now();
    let mut fill = blocking(|| FilterFill::begin(store, LARGEST_FILE)).await?;
    // A fill must not keep a replaced generation open.
    while let Some(next) = fill.take_if(|fill| Arc::ptr_eq(&fill.store, &index.store())) {
        let filter = Arc::clone(&next.filter);
        fill = blocking(|| next.step()).await?;
        if fill.is_none() && filter.is_filled() {
            let (keys, took) = (filter.count.load(Ordering::Relaxed), begun.elapsed());
            tracing::debug!(keys, bytes = filter.bytes(), ?took, "filter of the index made");
        }
    }
    Ok(())
}

async fn blocking(
    work: impl FnOnce() -> Result<Option<FilterFill>, IndexError> + Send + 'static,
) -> Result<Option<FilterFill>, IndexError> {
    spawn_blocking(work).await.unwrap_or(Ok(None))
}
