//! History of heals: one row each, newest first, bounded by age and rows, kept over builds.

use std::time::Duration;

use rusqlite::types::{ToSql, Value};
use rusqlite::{Connection, Row, params, params_from_iter};

use crate::index::Index;
use crate::index::store::error::IndexError;
use crate::index::store::schema;
use crate::observe::now_ms;

pub mod writer;

/// Version of the schema that brought the history, and the one that brought reasons.
const SINCE: i64 = 2;
const REASONS_SINCE: i64 = 5;

/// Heals of one answer, at most.
const LONGEST_PAGE: u32 = 10_000;

/// A heal that ended.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
pub struct HealRecord {
    /// End of the heal, unix milliseconds.
    pub at: i64,
    /// Lookup key of the image.
    pub identifier: String,
    /// The first canvas that owns the image.
    pub canvas: Option<String>,
    /// The manifest of that canvas.
    pub manifest: Option<String>,
    /// The rung that helped; `None`: none did.
    pub rung: Option<String>,
    /// Verdict: `healed`, `missing`, `failed`.
    pub verdict: String,
    /// Lane: `viewer`, `ahead`, `sweep`.
    pub lane: String,
    /// Duration in milliseconds.
    pub duration_ms: u64,
    /// Viewers who waited for the heal, including those who left.
    pub waiting: u32,
    /// The id of the request that began it, where it has one.
    pub request: Option<String>,
    /// Reason why the image is not back; `None`: it is, or the heal is from before reasons were kept.
    pub reason: Option<String>,
}

/// A heal of the history.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct HistoryEntry {
    /// Row id: later heals have larger ids.
    pub id: i64,
    /// Recorded heal.
    #[serde(flatten)]
    pub heal: HealRecord,
}

/// Filter for heals; all fields that are set must match.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HistoryFilter {
    /// Earliest end of a heal, inclusive, unix milliseconds.
    pub since: Option<i64>,
    /// Latest end of a heal, exclusive, unix milliseconds.
    pub until: Option<i64>,
    /// Lookup key of the image.
    pub identifier: Option<String>,
    /// URL of the canvas.
    pub canvas: Option<String>,
    /// Verdict: `healed`, `missing`, `failed`.
    pub verdict: Option<String>,
    /// Rung that helped.
    pub rung: Option<String>,
    /// Begun by the request with this id.
    pub request: Option<String>,
}

/// A piece of the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryPage {
    /// Number below which heals are listed: that of the last entry of the page before.
    pub before: Option<i64>,
    /// Entries at most.
    pub limit: u32,
}

impl Default for HistoryPage {
    fn default() -> Self {
        Self { before: None, limit: 100 }
    }
}

/// Retention of the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Heals that ended longer ago than this are forgotten.
    pub age: Duration,
    /// Maximum number of heals; older ones are forgotten. Zero: no history.
    pub rows: u32,
}

impl Index {
    /// Returns ended heals, newest first. A heal appears within about a second of its end.
    pub fn history(
        &self,
        filter: &HistoryFilter,
        page: HistoryPage,
    ) -> Result<Vec<HistoryEntry>, IndexError> {
        self.check_for_changes();
        let conn = self.apart()?;
        read(&conn, filter, page).map_err(|error| self.store().wrap(error))
    }
}

/// Adds heals to the history in one transaction, and forgets those that are out of bounds.
pub fn record(index: &Index, heals: &[HealRecord], bounds: Retention) -> Result<(), IndexError> {
    index.write(|conn| {
        for heal in heals {
            insert(conn, None, heal)?;
        }
        Ok(prune(conn, bounds)?)
    })
}

/// Removes entries out of bounds. Writes only where there are some.
pub(in crate::index) fn prune_history(index: &Index, bounds: Retention) -> Result<(), IndexError> {
    let is_due = index.read(|conn| {
        let limits = limits(conn, bounds)?;
        conn.query_row(
            "SELECT EXISTS (SELECT 1 FROM heals WHERE at < ?1)
                 OR EXISTS (SELECT 1 FROM heals WHERE id <= ?2)",
            limits,
            |row| row.get(0),
        )
    })?;
    if is_due { record(index, &[], bounds) } else { Ok(()) }
}

/// The limits that `bounds` means now: nothing before this time, and no number up to this one.
fn limits(conn: &Connection, bounds: Retention) -> rusqlite::Result<(i64, i64)> {
    let age = i64::try_from(bounds.age.as_millis()).unwrap_or(i64::MAX);
    // Numbers have gaps where old rows went by age, so this keeps too few rather than too many.
    let last = schema::number(conn, "SELECT ifnull(max(id), 0) FROM heals")?;
    Ok((now_ms().saturating_sub(age), last - i64::from(bounds.rows)))
}

fn prune(conn: &Connection, bounds: Retention) -> rusqlite::Result<()> {
    let (oldest, last) = limits(conn, bounds)?;
    conn.prepare_cached("DELETE FROM heals WHERE id <= ?1")?.execute([last])?;
    conn.prepare_cached("DELETE FROM heals WHERE at < ?1")?.execute([oldest])?;
    Ok(())
}

fn insert(conn: &Connection, id: Option<i64>, heal: &HealRecord) -> rusqlite::Result<()> {
    conn.prepare_cached(
        "INSERT INTO heals
           (id, at, identifier, canvas, manifest, rung, verdict, lane, duration_ms, waiting, request, reason)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
    )?
    .execute(params![
        id,
        heal.at,
        heal.identifier,
        heal.canvas,
        heal.manifest,
        heal.rung,
        heal.verdict,
        heal.lane,
        i64::try_from(heal.duration_ms).unwrap_or(i64::MAX),
        heal.waiting,
        heal.request,
        heal.reason,
    ])?;
    Ok(())
}

/// Columns for [`entry`]. An old file that is read-only has no reasons.
fn columns(conn: &Connection) -> rusqlite::Result<String> {
    let has_reasons = schema::number(conn, "PRAGMA user_version")? >= REASONS_SINCE;
    let reason = if has_reasons { "reason" } else { "NULL" };
    let all = "id, at, identifier, canvas, manifest, rung, verdict, lane, duration_ms, waiting, request";
    Ok(format!("{all}, {reason}"))
}

fn entry(row: &Row<'_>) -> rusqlite::Result<HistoryEntry> {
    let heal = HealRecord {
        at: row.get(1)?,
        identifier: row.get(2)?,
        canvas: row.get(3)?,
        manifest: row.get(4)?,
        rung: row.get(5)?,
        verdict: row.get(6)?,
        lane: row.get(7)?,
        duration_ms: u64::try_from(row.get::<_, i64>(8)?).unwrap_or(0),
        waiting: row.get(9)?,
        request: row.get(10)?,
        reason: row.get(11)?,
    };
    Ok(HistoryEntry { id: row.get(0)?, heal })
}

fn read(conn: &Connection, filter: &HistoryFilter, page: HistoryPage) -> rusqlite::Result<Vec<HistoryEntry>> {
    if !has_history(conn)? {
        return Ok(Vec::new());
    }
    let mut sql = format!("SELECT {} FROM heals WHERE 1", columns(conn)?);
    let mut values: Vec<Value> = Vec::new();
    let text = |text: &String| Value::Text(text.clone());
    let wanted = [
        ("id < ?", page.before.map(Value::Integer)),
        ("at >= ?", filter.since.map(Value::Integer)),
        ("at < ?", filter.until.map(Value::Integer)),
        ("identifier = ?", filter.identifier.as_ref().map(text)),
        ("canvas = ?", filter.canvas.as_ref().map(text)),
        ("verdict = ?", filter.verdict.as_ref().map(text)),
        ("rung = ?", filter.rung.as_ref().map(text)),
        ("request = ?", filter.request.as_ref().map(text)),
    ];
    for (condition, value) in wanted {
        if let Some(value) = value {
            sql.push_str(" AND ");
            sql.push_str(condition);
            values.push(value);
        }
    }
    sql.push_str(" ORDER BY id DESC LIMIT ?");
    values.push(Value::Integer(i64::from(page.limit.min(LONGEST_PAGE))));
    let mut select = conn.prepare(&sql)?;
    select.query_map(params_from_iter(values.iter().map(|value| value as &dyn ToSql)), entry)?.collect()
}

/// True if the file has a history table. An old file that is read-only stays without one.
pub(in crate::index) fn has_history(conn: &Connection) -> rusqlite::Result<bool> {
    Ok(schema::number(conn, "PRAGMA user_version")? >= SINCE)
}

/// Copies to a new generation what it does not have yet, under the same numbers.
pub(in crate::index) fn carry_over(old: &Connection, new: &Connection) -> rusqlite::Result<()> {
    if !has_history(old)? {
        return Ok(());
    }
    let have = schema::number(new, "SELECT ifnull(max(id), 0) FROM heals")?;
    let mut select =
        old.prepare(&format!("SELECT {} FROM heals WHERE id > ?1 ORDER BY id", columns(old)?))?;
    let mut rows = select.query([have])?;
    while let Some(row) = rows.next()? {
        let HistoryEntry { id, heal } = entry(row)?;
        insert(new, Some(id), &heal)?;
    }
    Ok(())
}
