//! Rows of documents, by source.

use std::collections::BTreeSet;

use rusqlite::{Connection, params};

/// Document ids of one source, for finding vanished ones.
pub(crate) fn ids_of_source(conn: &Connection, source: i64) -> rusqlite::Result<BTreeSet<i64>> {
    let mut select = conn.prepare_cached("SELECT id FROM manifests WHERE source = ?1")?;
    select.query_map([source], |row| row.get(0))?.collect()
}

/// True if an image is known from a source.
pub(crate) fn has_images(conn: &Connection, source: i64) -> rusqlite::Result<bool> {
    conn.prepare_cached("SELECT EXISTS (SELECT 1 FROM manifests WHERE source = ?1 AND images > 0)")?
        .query_row([source], |row| row.get(0))
}

/// The row of the source at this location.
pub(crate) fn source_at(conn: &Connection, location: &str) -> rusqlite::Result<Option<i64>> {
    let mut select = conn.prepare_cached("SELECT id FROM sources WHERE location = ?1")?;
    let mut rows = select.query([location])?;
    rows.next()?.map(|row| row.get(0)).transpose()
}

/// True if a document of this source was read there.
pub(crate) fn is_document_at(conn: &Connection, source: i64, origin: &str) -> rusqlite::Result<bool> {
    conn.prepare_cached("SELECT EXISTS (SELECT 1 FROM manifests WHERE source = ?1 AND origin = ?2)")?
        .query_row(params![source, origin], |row| row.get(0))
}

/// Documents of one source that were read from this path, or below it.
pub(crate) fn ids_below(conn: &Connection, source: i64, path: &str) -> rusqlite::Result<BTreeSet<i64>> {
    // `0` is the character after `/`.
    let mut select = conn.prepare_cached(
        "SELECT id FROM manifests WHERE source = ?1 AND (origin = ?2 OR (origin > ?2 || '/' AND origin < ?2 || '0'))",
    )?;
    select.query_map(params![source, path], |row| row.get(0))?.collect()
}

/// Documents of one source that vanished and are kept for the grace.
pub(crate) fn vanished_of_source(conn: &Connection, source: i64) -> rusqlite::Result<BTreeSet<i64>> {
    let mut select =
        conn.prepare_cached("SELECT id FROM manifests WHERE source = ?1 AND vanished IS NOT NULL")?;
    select.query_map([source], |row| row.get(0))?.collect()
}

/// Documents in the index, counted up to a limit.
pub(crate) fn number_of_documents(conn: &Connection, limit: u32) -> rusqlite::Result<u32> {
    conn.query_row("SELECT count(*) FROM (SELECT 1 FROM manifests LIMIT ?1)", [limit], |row| row.get(0))
}
